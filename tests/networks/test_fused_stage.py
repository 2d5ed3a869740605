"""The kernel of a stage, on a GPU or as XLA interprets its definition, against the layers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from networks import fused_stage as module
from networks import torso
from networks.attention import BlockConfig
from networks.fused_attention import Lines
from networks.fused_stage import fused_stage, is_fused, layers
from networks.torso import AttentiveModes, Torso
from training.flops import count_flops

INTERPRET = jax.default_backend() != "gpu"
# Games, lines, C, heads, d, hidden units over C: lines that end within a game and within a tile,
# long rows and long columns, one line a tile, tiles without any, a hidden layer that is no power
# of two.
SHAPES = [
    (3, Lines(4, 4, 4), 64, 4, 16, 2),
    (2, Lines(9, 12, 6), 128, 1, 32, 1),
    (1, Lines(25, 25, 25), 16, 2, 16, 2),
    (5, Lines(3, 2, 4), 16, 2, 32, 3),
]
SMALL = SHAPES[-1]


def block_of(shape, dtype="bfloat16"):
    _, _, _, heads, size, factor = shape
    return BlockConfig(heads=heads, head_dim=size, mlp_factor=factor, dtype=jnp.dtype(dtype))


def random_inputs(shape, agents=()):
    """Parameters of no special value, of so many agents, and the grids of some games."""
    games, lines, width, *_ = shape
    grids = [jax.ShapeDtypeStruct((2, 2, width), jnp.bfloat16)] * 3
    init = AttentiveModes(block_of(shape), separate_stages=False).init
    params = jax.eval_shape(init, jax.random.key(0), grids)["params"]
    rng = np.random.default_rng(0)

    def draw(shape, dtype, scale=1.0):
        return jnp.asarray(scale * rng.normal(size=(*agents, *shape)), dtype)

    params = jax.tree.map(lambda x: draw(x.shape, x.dtype, 2 / np.sqrt(width)), params)
    first, second = (draw((games, *size, width), jnp.bfloat16) for size in lines.grids)
    grids = first, second
    return (params["ToHeads_0"], params["FromHeads_0"]), grids


def of_games(function, shape, dtype="bfloat16"):
    return jax.vmap(functools.partial(function, block_of(shape, dtype)), (None, 0))


fused = functools.partial(fused_stage, interpret=INTERPRET)


def assert_close(found, expected, atol=0.1):
    """To a few roundings of bfloat16."""
    for own, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert own.dtype == other.dtype
        own, other = own.astype(jnp.float32), other.astype(jnp.float32)
        np.testing.assert_allclose(own, other, atol=atol, rtol=0.05)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_kernel_is_a_stage(shape):
    params, grids = random_inputs(shape)
    found = jax.jit(of_games(fused, shape))(params, grids)
    exact = tuple(x.astype(jnp.float32) for x in grids)
    expected = jax.jit(of_games(layers, shape, "float32"))(params, exact)
    assert_close(found, tuple(x.astype(jnp.bfloat16) for x in expected))
    change = (found[0] - grids[0]).astype(jnp.float32)
    assert jnp.abs(change).mean() > 0.2, "not for want of anything done"


def stages_in(function, *args):
    """The equations that a function's program has for a fused stage."""
    equations = jax.make_jaxpr(function)(*args).jaxpr.eqns
    return [x for x in equations if x.primitive.name == "fused_stage"]


def test_games_share_tiles_and_are_alone_in_them():
    params, grids = random_inputs(SMALL)
    (stage,) = stages_in(of_games(fused, SMALL), params, grids)
    assert stage.outvars[0].aval.shape == grids[0].shape, "games are one more axis of the cells"
    found = of_games(fused, SMALL)(params, grids)
    for index in (1, 4):
        alone = fused(block_of(SMALL), params, tuple(x[index] for x in grids))
        np.testing.assert_array_equal(found[0][index], alone[0])
        np.testing.assert_array_equal(found[1][index], alone[1])


@pytest.mark.parametrize("outside", ["agents", "games"])
def test_agents_have_parameters_of_their_own(outside):
    params, grids = random_inputs(SMALL, agents=(2,))
    stage = functools.partial(fused, block_of(SMALL))
    if outside == "agents":
        mapped = jax.vmap(jax.vmap(stage, (None, 0)))
    else:
        mapped = jax.vmap(jax.vmap(stage), (None, 1), 1)
    (equation,) = stages_in(mapped, params, grids)
    assert equation.outvars[0].aval.shape == grids[0].shape
    found = jax.jit(mapped)(params, grids)
    for index in range(2):
        one = functools.partial(jax.tree.map, lambda x, index=index: x[index])
        assert_close(one(found), of_games(fused, SMALL)(one(params), one(grids)), atol=0.02)


def test_one_grid_may_be_that_of_all_games():
    params, (first, second) = random_inputs(SMALL)
    stage = functools.partial(fused, block_of(SMALL), params)
    found = jax.vmap(lambda x: stage((x, second[0])))(first)
    repeated = jnp.broadcast_to(second[0], second.shape)
    assert_close(found, of_games(fused, SMALL)(params, (first, repeated)), atol=0.02)


def loss_of(function, shape, wrap=lambda x: x):
    stage = wrap(functools.partial(function, block_of(shape)))

    def loss(params, grids):
        first, second = jax.vmap(stage, (None, 0))(params, grids)
        first, second = (x.astype(jnp.float32) for x in (first, second))
        return (first.mean(axis=(1, 2)) * jnp.sin(second).mean(axis=(1, 2))).mean()

    return loss


@pytest.mark.parametrize("wrap", [lambda x: x, jax.checkpoint], ids=["stored", "recomputed"])
def test_gradients_are_those_of_the_layers_to_the_bit(wrap):
    params, grids = random_inputs(SMALL)
    found, expected = (
        jax.jit(jax.grad(loss_of(function, SMALL, wrap), argnums=(0, 1)))(params, grids)
        for function in (fused, layers)
    )
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_where_there_is_a_gradient_there_is_no_kernel():
    params, grids = random_inputs(SMALL)
    assert stages_in(loss_of(fused, SMALL), params, grids)
    gradient = jax.value_and_grad(loss_of(fused, SMALL))
    assert "fused_stage[" not in str(jax.make_jaxpr(gradient)(params, grids))


def test_a_gradient_costs_what_that_of_the_layers_costs():
    """The parameters' is a product over all games, not a sum of those of each."""
    params, grids = random_inputs(SHAPES[0])
    costs = []
    for function in (fused, layers):
        gradient = jax.jit(jax.grad(loss_of(function, SHAPES[0])))
        compiled = gradient.lower(params, grids).compile()
        costs.append((compiled.cost_analysis(), compiled.memory_analysis().temp_size_in_bytes))
    assert costs[0] == costs[1]


def test_it_runs_inside_of_loops_branches_and_shards():
    """As the search calls it: agents and games mapped over, in all of these."""
    params, grids = random_inputs(SMALL, agents=(2,))

    def repeated(params, grids):
        stage = functools.partial(fused, block_of(SMALL), params)

        def step(grids, index):
            return jax.lax.cond(index != 1, stage, lambda x: x, grids), None

        return jax.lax.scan(step, grids, jnp.arange(3))[0]

    mapped = jax.vmap(jax.vmap(repeated, (None, 0)))
    mesh = jax.make_mesh((1,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
    split = PartitionSpec(None, "devices")
    found = jax.jit(
        jax.shard_map(
            mapped,
            mesh=mesh,
            in_specs=(PartitionSpec(), split),
            out_specs=split,
            check_vma=False,
        )
    )(params, grids)
    twice = jax.vmap(of_games(fused, SMALL))
    assert_close(found, twice(params, twice(params, grids)), atol=0.05)


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[1]])
def test_it_translates_for_a_gpu(shape, translate):
    params, grids = random_inputs(shape, agents=(2,))
    traced = jax.jit(jax.vmap(of_games(fused_stage, shape))).trace(params, grids)
    assert translate(traced).count("xla.gpu.triton") == 1


@pytest.mark.parametrize("shape", [SHAPES[1], (2, Lines(25, 25, 25), 64, 1, 32, 4)])
def test_its_model_flops_are_those_of_the_layers(shape):
    inputs = random_inputs(shape)
    expected = count_flops(of_games(layers, shape), *inputs)
    assert count_flops(of_games(fused_stage, shape), *inputs) == expected


@pytest.mark.parametrize("remat", [False, True])
def test_a_torso_has_the_same_parameters_and_values_with_it(monkeypatch, remat):
    block = BlockConfig(heads=2, head_dim=16, mlp_factor=2, dtype=jnp.dtype(jnp.bfloat16))
    network = Torso(16, layers=1, block=block, separate_stages=True, remat=remat)
    inputs = jax.random.normal(jax.random.key(0), (2, 1, 3, 4, 2)), jnp.ones((2, 1))

    def run():
        params = jax.jit(network.init)(jax.random.key(1), *(x[0] for x in inputs))
        apply = jax.vmap(network.apply, (None, 0, 0))
        gradient = jax.grad(lambda x: apply(x, *inputs).astype(jnp.float32).mean())
        stages = str(jax.make_jaxpr(apply)(params, *inputs)).count("fused_stage[")
        return params, jax.jit(apply)(params, *inputs), jax.jit(gradient)(params), stages

    params, values, gradient, stages = run()
    assert stages == 0
    monkeypatch.setattr(torso, "is_fused", lambda *_: True)
    monkeypatch.setattr(torso, "fused_stage", fused)
    own_params, own_values, own_gradient, stages = run()
    assert stages == 3
    jax.tree.map(np.testing.assert_array_equal, own_params, params)
    assert_close(own_values, values)
    jax.tree.map(np.testing.assert_array_equal, own_gradient, gradient)


def test_it_is_for_hopper_bfloat16_and_whole_tiles(monkeypatch):
    def fits(shape, dtype="bfloat16"):
        _, lines, width, *_ = shape
        grids = tuple(jnp.zeros((*size, width), dtype) for size in lines.grids)
        return is_fused(block_of(shape, dtype), grids)

    assert fits(SMALL) == (not INTERPRET)
    monkeypatch.setattr(module, "generation", lambda: 9)
    assert all(fits(shape) for shape in [*SHAPES, (1, Lines(9, 32, 32), 128, 2, 64, 4)])
    assert not fits(SMALL, "float32")
    four = Lines(4, 4, 4)
    for shape in [(1, four, 48, 2, 16, 2), (1, four, 64, 2, 8, 2)]:
        assert not fits(shape), "tiles that are not whole"
    assert not fits((1, Lines(4, 33, 32), 64, 2, 16, 2)), "a line that exceeds a tile"
    for shape in [(1, four, 256, 8, 32, 4), (1, four, 128, 2, 128, 2)]:
        assert not fits(shape), "too large"
    monkeypatch.setattr(module, "generation", lambda: 8)
    assert not fits(SMALL)
