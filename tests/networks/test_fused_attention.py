"""The kernel, as XLA interprets its definition, and its translation for a GPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from networks.fused_attention import attention, fits, fused_attention

# Groups, queries, keys, heads, features of a head: torsos of S = 4, 9 and 25, and beams asking 243
# and 300 cells, the latter in several parts.
SHAPES = [(2, 8, 8, 4, 16), (3, 18, 18, 2, 32), (1, 50, 50, 2, 32), (2, 16, 243, 1, 32)]
SHAPES += [(1, 32, 300, 2, 64)]


def random_inputs(groups, queries, keys, heads, size, dtype=jnp.float32):
    sources = jax.random.split(jax.random.key(keys), 3)
    shapes = [(groups, count, heads, size) for count in (queries, keys, keys)]
    return [jax.random.normal(*pair, dtype) for pair in zip(sources, shapes, strict=True)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.02)])
def test_the_kernel_is_attention(shape, dtype, tolerance):
    inputs = random_inputs(*shape, jnp.dtype(dtype))
    assert fits(*inputs[:2])
    exact = attention(*(x.astype(jnp.float32) for x in inputs))
    found = fused_attention(*inputs, True)
    assert found.dtype == dtype
    np.testing.assert_allclose(found.astype(jnp.float32), exact, atol=tolerance)


def test_its_gradient_is_that_of_attention():
    inputs = random_inputs(*SHAPES[0])

    def gradient(function):
        return jax.grad(lambda *x: (function(*x) ** 2).sum(), argnums=(0, 1, 2))(*inputs)

    found = gradient(lambda *x: fused_attention(*x, True))
    for own, expected in zip(found, gradient(attention), strict=True):
        np.testing.assert_allclose(own, expected, rtol=1e-4, atol=1e-5)


def test_many_positions_at_once_are_each_on_its_own():
    inputs = [jnp.stack([x, 2 * x]) for x in random_inputs(*SHAPES[1])]
    found = jax.vmap(lambda *x: fused_attention(*x, True))(*inputs)
    for index in range(2):
        alone = fused_attention(*(x[index] for x in inputs), True)
        np.testing.assert_allclose(found[index], alone, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_translates_for_a_gpu(shape):
    inputs = random_inputs(*shape, jnp.bfloat16)
    batch = [x[None] for x in inputs]
    traced = jax.jit(jax.vmap(lambda *x: fused_attention(*x))).trace(*batch)
    assert "triton" in traced.lower(lowering_platforms=("cuda",)).as_text()


def test_heads_that_fill_no_tile_and_many_queries_are_left_to_xla():
    narrow = jnp.zeros((1, 4, 2, 8))
    long = jnp.zeros((1, 300, 2, 32))
    assert not fits(narrow, narrow)
    assert not fits(long, long)
