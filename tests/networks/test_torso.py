"""The torso keeps the three modes apart and aligned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from networks.attention import BlockConfig
from networks.torso import AttentiveModes, Torso

SIDES, WIDTH, PLANES = (4, 3, 5), 8, 2
# Axes of the grids.
GRIDS = ((0, 1), (2, 0), (1, 2))
# Another order of each mode.
ORDERS = np.array([2, 0, 3, 1]), np.array([1, 2, 0]), np.array([3, 2, 0, 4, 1])
BLOCK = BlockConfig(heads=2, head_dim=4, mlp_factor=2, dtype=jnp.dtype(jnp.float32))


@pytest.fixture(scope="module", params=[False, True], ids=["shared", "separate"])
def torso(request):
    """Params, planes, scalars, and the compiled torso: grids of (U,V), (W,U), (V,W).

    The parameters treat all coordinates alike: no plane of scalars, and one set of weights for all
    entries of a cell.
    """
    network = Torso(WIDTH, layers=2, block=BLOCK, separate_stages=request.param)
    planes = jax.random.normal(jax.random.key(0), (PLANES, *SIDES))
    scalars = jnp.ones(1)
    params = jax.jit(network.init)(jax.random.key(1), planes, scalars)
    inner = dict(params["params"])
    for name in (f"Dense_{i}" for i in range(6)):
        kernel = inner[name]["kernel"]
        if len(kernel) == 1:
            kernel = jnp.zeros_like(kernel)
        else:
            entries = kernel[:-1].reshape(-1, PLANES, WIDTH)
            entries = jnp.broadcast_to(entries.mean(axis=0), entries.shape).reshape(-1, WIDTH)
            kernel = kernel.at[:-1].set(entries)
        inner[name] = {**inner[name], "kernel": kernel}

    @jax.jit
    def apply(params, planes, scalars):
        cells = network.apply(params, planes, scalars)
        sizes = [(SIDES[rows], SIDES[columns]) for rows, columns in GRIDS]
        ends = np.cumsum([rows * columns for rows, columns in sizes])
        grids = jnp.split(cells, ends[:-1])
        return [grid.reshape(*size, WIDTH) for grid, size in zip(grids, sizes, strict=True)]

    return {"plain": params, "alike": {"params": inner}}, planes, scalars, apply


@pytest.mark.parametrize(
    ("mode", "grid_axes"),
    # The places of U, V and W in the grids (U,V), (W,U), (V,W); None where a grid lacks the mode.
    [(0, (0, 1, None)), (1, (1, None, 0)), (2, (None, 0, 1))],
    ids=["u", "v", "w"],
)
def test_permuting_a_mode_permutes_the_grids_along_it(torso, mode, grid_axes):
    params, planes, scalars, apply = torso
    before = apply(params["alike"], planes, scalars)
    order = ORDERS[mode]
    after = apply(params["alike"], jnp.take(planes, order, axis=mode + 1), scalars)
    for grid, axis in enumerate(grid_axes):
        expected = before[grid] if axis is None else jnp.take(before[grid], order, axis=axis)
        np.testing.assert_allclose(after[grid], expected, atol=1e-4)
        if axis is not None:
            assert jnp.abs(after[grid] - before[grid]).max() > 0.1


def test_one_entry_reaches_every_cell(torso):
    params, planes, scalars, apply = torso
    after = apply(params["plain"], planes.at[0, 1, 2, 4].add(1.0), scalars)
    before = apply(params["plain"], planes, scalars)
    for own, other in zip(after, before, strict=True):
        assert (jnp.abs(own - other).max(axis=-1) > 0).all()


def test_scalars_and_all_planes_are_seen(torso):
    params, planes, scalars, apply = torso
    before = apply(params["plain"], planes, scalars)
    others = [(planes, scalars + 1)]
    others += [(planes.at[plane].set(0.0), scalars) for plane in range(PLANES)]
    for other in others:
        after = apply(params["plain"], *other)
        for own, grid in zip(after, before, strict=True):
            assert jnp.abs(own - grid).max() > 0.01


def attentive_modes(separate_stages: bool):
    """Its parameters, and the compiled layer."""
    layer = AttentiveModes(BLOCK, separate_stages)
    params = jax.jit(layer.init)(jax.random.key(0), random_grids())
    return params, jax.jit(layer.apply)


def random_grids() -> list[jax.Array]:
    sizes = [(SIDES[rows], SIDES[columns], WIDTH) for rows, columns in GRIDS]
    keys = jax.random.split(jax.random.key(1), len(sizes))
    return [jax.random.normal(key, size) for key, size in zip(keys, sizes, strict=True)]


def assert_close(found: list[jax.Array], expected: list[jax.Array]) -> None:
    for own, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, other, atol=1e-5)


def differ(found: list[jax.Array], others: list[jax.Array]) -> bool:
    return all(jnp.abs(own - x).max() > 0.1 for own, x in zip(found, others, strict=True))


def test_separate_stages_have_three_times_the_weights():
    (shared, _), (separate, _) = attentive_modes(False), attentive_modes(True)
    count = 3 * sum(x.size for x in jax.tree.leaves(shared))
    assert sum(x.size for x in jax.tree.leaves(separate)) == count


def test_separate_stages_with_the_same_weights_are_shared_ones():
    (shared, run_shared), (separate, run_separate) = attentive_modes(False), attentive_modes(True)
    same = {name: shared["params"][f"{name.partition('_')[0]}_0"] for name in separate["params"]}
    grids = random_grids()
    expected = run_shared(shared, grids)
    assert_close(run_separate({"params": same}, grids), expected)
    assert differ(run_separate(separate, grids), expected)


def test_a_layer_sees_neither_the_order_of_rows_nor_that_of_columns():
    """Permuting all three modes of the cells permutes the result."""
    params, run = attentive_modes(True)
    grids = random_grids()

    def permuted(grids):
        places = [np.ix_(ORDERS[rows], ORDERS[columns]) for rows, columns in GRIDS]
        return [grid[place] for grid, place in zip(grids, places, strict=True)]

    result = run(params, grids)
    assert_close(run(params, permuted(grids)), permuted(result))
    assert differ(permuted(result), result)
