"""Attention of one query: beside keys and values that are made, and as a kernel."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from networks.absorbed_attention import Unmapped, attend_once, fits
from networks.attention import BlockConfig, ToHeads, attend
from training.flops import count_flops

INTERPRET = jax.default_backend() != "gpu"
# Cells, features of one, heads, features of a head: of S = 4, of 9 with tiles of which the last is
# not full, and of rectangular targets.
SHAPES = [(48, 32, 4, 16), (243, 128, 4, 32), (252, 64, 2, 64), (5, 16, 16, 8)]
TOLERANCE = {"float32": 2e-5 if INTERPRET else 0.02, "bfloat16": 0.1}


def random_inputs(shape, dtype, games=3):
    """Queries and cells of some games, and parameters of no special value."""
    count, width, heads, size = shape
    rng = np.random.default_rng(0)
    norm = {name: rng.normal(1.0, 0.3, width) for name in ("scale", "bias")}
    maps = {"kernel": rng.normal(0.0, width**-0.5, (width, 2, heads, size))}
    params = {"LayerNorm_0": norm, "DenseGeneral_0": maps}
    queries, cells = (
        rng.normal(size=(games, heads, size)),
        rng.normal(0.3, 1.5, (games, count, width)),
    )
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    return jnp.asarray(queries, dtype), jnp.asarray(cells, dtype), params


def maps_of(shape, dtype):
    _, _, heads, size = shape
    return ToHeads(BlockConfig(heads=heads, head_dim=size, mlp_factor=2, dtype=jnp.dtype(dtype)), 2)


@functools.partial(jax.jit, static_argnums=0)
def by_keys_and_values(shape, queries, cells, params):
    def of_game(query, cells):
        memory = maps_of(shape, "float32").apply({"params": params}, cells.astype(jnp.float32))
        return attend(query.astype(jnp.float32)[None, None], memory)[0]

    with jax.default_matmul_precision("highest"):
        return jax.vmap(of_game)(queries, cells)


@functools.partial(jax.jit, static_argnames="fused")
def of_games(queries, cells, params, fused):
    def of_game(query, cells):
        return attend_once(query, Unmapped(cells, params), fused, INTERPRET)

    return jax.vmap(of_game)(queries, cells)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_attention_to_keys_and_values(shape, dtype, fused):
    inputs = random_inputs(shape, dtype)
    found = of_games(*inputs, fused=fused)
    assert found.dtype == dtype
    expected = by_keys_and_values(shape, *inputs)
    np.testing.assert_allclose(
        found.astype(jnp.float32), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype]
    )


def test_the_same_query_of_all_games_and_agents_with_their_own():
    queries, cells, params = random_inputs(SHAPES[1], "bfloat16")
    same = jax.vmap(lambda x: attend_once(queries[0], Unmapped(x, params), True, INTERPRET))(cells)
    repeated = jnp.broadcast_to(queries[0], queries.shape)
    own = of_games(repeated, cells, params, fused=True)
    np.testing.assert_allclose(same.astype(jnp.float32), own.astype(jnp.float32), atol=0.02)
    both = params, jax.tree.map(lambda x: 2 * x, params)
    agents = jax.tree.map(lambda *x: jnp.stack(x), *both)
    found = jax.vmap(functools.partial(of_games, queries, cells, fused=True))(agents)
    for own, params in zip(found, both, strict=True):
        alone = of_games(queries, cells, params, fused=True).astype(jnp.float32)
        np.testing.assert_allclose(own.astype(jnp.float32), alone, atol=0.02, rtol=0.02)


def test_widths_that_are_no_whole_tiles_are_left_to_xla():
    assert all(fits(width, heads) for _, width, heads, _ in SHAPES)
    assert not fits(96, 4)
    assert not fits(512, 4)
    assert not fits(128, 32)


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_it_translates_for_a_gpu(shape, translate):
    queries, cells, params = random_inputs(shape, "bfloat16")

    def run(queries, cells):
        ask = functools.partial(attend_once, fused=True)
        return jax.vmap(lambda query, x: ask(query, Unmapped(x, params)))(queries, cells)

    assert translate(jax.jit(run).trace(queries, cells)).count("triton") >= 1


def test_its_model_flops_are_those_without_a_kernel():
    def flops(fused):
        inputs = random_inputs(SHAPES[1], "bfloat16")
        return count_flops(functools.partial(of_games, fused=fused), *inputs)

    assert flops(fused=True) == flops(fused=False)
