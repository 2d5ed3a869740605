"""The torso keeps the three modes apart and aligned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from networks.attention import BlockConfig
from networks.torso import AttentiveModes, Torso

SIDE, WIDTH, PLANES = 4, 8, 2
BLOCK = BlockConfig(heads=2, head_dim=4, mlp_factor=2, dtype=jnp.dtype(jnp.float32))


@pytest.fixture(scope="module", params=[False, True], ids=["shared", "separate"])
def torso(request):
    """Params, planes, scalars, and the compiled torso: grids (3, S, S, C) of (U,V), (W,U), (V,W).

    The parameters treat all coordinates alike: no plane of scalars, and one set of weights for all
    entries of a cell.
    """
    network = Torso(WIDTH, layers=2, block=BLOCK, separate_stages=request.param)
    planes = jax.random.normal(jax.random.key(0), (PLANES, SIDE, SIDE, SIDE))
    scalars = jnp.ones(1)
    params = jax.jit(network.init)(jax.random.key(1), planes, scalars)
    inner = dict(params["params"])
    for name in (f"Dense_{i}" for i in range(6)):
        kernel = inner[name]["kernel"]
        if kernel.shape == (1, SIDE * SIDE):
            kernel = jnp.zeros_like(kernel)
        else:
            entries = kernel[:-1].reshape(SIDE, PLANES, WIDTH)
            entries = jnp.broadcast_to(entries.mean(axis=0), entries.shape).reshape(-1, WIDTH)
            kernel = kernel.at[:-1].set(entries)
        inner[name] = {**inner[name], "kernel": kernel}

    @jax.jit
    def apply(params, planes, scalars):
        return network.apply(params, planes, scalars).reshape(3, SIDE, SIDE, WIDTH)

    return {"plain": params, "alike": {"params": inner}}, planes, scalars, apply


PERMUTATION = np.array([2, 0, 3, 1])


@pytest.mark.parametrize(
    ("mode", "grid_axes"),
    # The places of U, V and W in the grids (U,V), (W,U), (V,W); None where a grid lacks the mode.
    [(0, (0, 1, None)), (1, (1, None, 0)), (2, (None, 0, 1))],
    ids=["u", "v", "w"],
)
def test_permuting_a_mode_permutes_the_grids_along_it(torso, mode, grid_axes):
    params, planes, scalars, apply = torso
    before = apply(params["alike"], planes, scalars)
    after = apply(params["alike"], jnp.take(planes, PERMUTATION, axis=mode + 1), scalars)
    for grid, axis in enumerate(grid_axes):
        expected = before[grid] if axis is None else jnp.take(before[grid], PERMUTATION, axis=axis)
        np.testing.assert_allclose(after[grid], expected, atol=1e-4)
        if axis is not None:
            assert jnp.abs(after[grid] - before[grid]).max() > 0.1


def test_one_entry_reaches_every_cell(torso):
    params, planes, scalars, apply = torso
    change = apply(params["plain"], planes.at[0, 1, 2, 3].add(1.0), scalars)
    change -= apply(params["plain"], planes, scalars)
    assert (jnp.abs(change).max(axis=-1) > 0).all()


def test_scalars_and_all_planes_are_seen(torso):
    params, planes, scalars, apply = torso
    before = apply(params["plain"], planes, scalars)
    assert jnp.abs(apply(params["plain"], planes, scalars + 1) - before).max() > 0.01
    for plane in range(PLANES):
        changed = planes.at[plane].set(0.0)
        assert jnp.abs(apply(params["plain"], changed, scalars) - before).max() > 0.01


def attentive_modes(separate_stages: bool):
    """Its parameters, and the compiled layer."""
    layer = AttentiveModes(BLOCK, separate_stages)
    params = layer.init(jax.random.key(0), [jnp.zeros((SIDE, SIDE, WIDTH))] * 3)
    return params, jax.jit(lambda params, grids: jnp.stack(layer.apply(params, list(grids))))


def test_separate_stages_have_three_times_the_weights():
    (shared, _), (separate, _) = attentive_modes(False), attentive_modes(True)
    count = 3 * sum(x.size for x in jax.tree.leaves(shared))
    assert sum(x.size for x in jax.tree.leaves(separate)) == count


def test_separate_stages_with_the_same_weights_are_shared_ones():
    (shared, run_shared), (separate, run_separate) = attentive_modes(False), attentive_modes(True)
    same = {name: shared["params"][f"{name.partition('_')[0]}_0"] for name in separate["params"]}
    grids = jax.random.normal(jax.random.key(1), (3, SIDE, SIDE, WIDTH))
    expected = run_shared(shared, grids)
    np.testing.assert_allclose(run_separate({"params": same}, grids), expected, atol=1e-5)
    assert jnp.abs(run_separate(separate, grids) - expected).max() > 0.1


def test_a_layer_sees_neither_the_order_of_rows_nor_that_of_columns():
    """Permuting all three modes of the cells permutes the result."""
    params, run = attentive_modes(True)
    grids = jax.random.normal(jax.random.key(1), (3, SIDE, SIDE, WIDTH))
    orders = dict(zip("uvw", np.array([[2, 0, 3, 1], [1, 0, 2, 3], [3, 2, 0, 1]]), strict=True))

    def permuted(grids):
        places = [(orders[rows], orders[columns]) for rows, columns in ("uv", "wu", "vw")]
        return jnp.stack([grid[np.ix_(*at)] for grid, at in zip(grids, places, strict=True)])

    result = run(params, grids)
    np.testing.assert_allclose(run(params, permuted(grids)), permuted(result), atol=1e-5)
    assert jnp.abs(permuted(result) - result).max() > 0.1
