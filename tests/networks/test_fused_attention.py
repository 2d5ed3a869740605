"""The kernels, on a GPU or as XLA interprets their definition, and their translation for a GPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from networks.fused_attention import Lines, fits, fused_attention
from training.flops import count_flops

INTERPRET = jax.default_backend() != "gpu"
# A GPU multiplies float32 rounded to 10 bits.
TOLERANCE = {"float32": 1e-5 if INTERPRET else 0.01, "bfloat16": 0.02}

# Groups, queries, keys (0: the sequence attends to itself), heads, features of a head: torsos of
# S = 4, 9 and 25, and beams asking 243 and 300 cells, which come in several parts.
SHAPES = [(2, 8, 0, 4, 16), (3, 18, 0, 2, 32), (1, 50, 0, 2, 32), (2, 16, 243, 1, 32)]
SHAPES += [(1, 128, 300, 2, 64)]


def random_sources(groups, queries, keys, heads, size, dtype):
    shapes = [(queries, 3)] if keys == 0 else [(queries, 1), (keys, 2)]
    rng = np.random.default_rng(keys)
    return tuple(
        jnp.asarray(rng.normal(size=(groups, *shape, heads, size)), dtype) for shape in shapes
    )


def by_definition(sources):
    sources = [x.astype(jnp.float32) for x in sources]
    query, key, value = sources[0][:, :, 0], sources[-1][:, :, -2], sources[-1][:, :, -1]
    with jax.default_matmul_precision("highest"):
        scores = jnp.einsum("gnhd,gmhd->ghnm", query, key) / np.sqrt(query.shape[-1])
        return jnp.einsum("ghnm,gmhd->gnhd", jax.nn.softmax(scores), value)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_kernel_is_attention(shape, dtype):
    sources = random_sources(*shape, dtype)
    assert fits(sources[0].shape[1], sources[0].shape[-1])
    found = fused_attention(sources, interpret=INTERPRET)
    assert found.dtype == dtype
    expected = by_definition(sources)
    np.testing.assert_allclose(found.astype(jnp.float32), expected, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_its_gradient_is_that_of_attention(shape, dtype):
    sources = random_sources(*shape, dtype)
    received = jax.random.normal(jax.random.key(1), by_definition(sources).shape)

    def gradient(function):
        return jax.grad(lambda x: (function(x) * received).sum())(sources)

    found = gradient(lambda x: fused_attention(x, interpret=INTERPRET))
    for own, expected in zip(found, gradient(by_definition), strict=True):
        assert own.dtype == expected.dtype == dtype
        own, expected = own.astype(jnp.float32), expected.astype(jnp.float32)
        np.testing.assert_allclose(own, expected, atol=3 * TOLERANCE[dtype], rtol=0.02)


def test_many_positions_at_once_are_each_on_its_own():
    (source,) = random_sources(*SHAPES[1], "bfloat16")
    source = jnp.stack([source, 2 * source])
    found = jax.vmap(lambda x: fused_attention((x,), interpret=INTERPRET))(source)
    for own, alone in zip(found, source, strict=True):
        np.testing.assert_array_equal(own, fused_attention((alone,), interpret=INTERPRET))


@pytest.mark.parametrize("lines", [Lines(4, 4, 4), Lines(9, 9, 9), Lines(5, 12, 3)])
def test_rows_of_a_grid_attend_to_the_columns_of_another(lines):
    (cells,) = random_sources(2, lines.count * lines.tokens, 0, 2, 32, "bfloat16")
    received = jax.random.normal(jax.random.key(1), by_definition((cells,)).shape)

    def value_and_gradient(function):
        return jax.value_and_grad(lambda x: (function(x) * received).sum())(cells)

    def line_by_line(cells):
        count, row, column = lines
        first, second = jnp.split(cells, [count * row], axis=1)
        first = first.reshape(2, count, row, *cells.shape[2:])
        second = second.reshape(2, column, count, *cells.shape[2:]).swapaxes(1, 2)
        seen = jax.vmap(lambda x: by_definition((x,)))(jnp.concatenate([first, second], axis=2))
        first, second = jnp.split(seen, [row], axis=2)
        found = first, second.swapaxes(1, 2)
        return jnp.concatenate([x.reshape(2, -1, *x.shape[3:]) for x in found], axis=1)

    found, own = value_and_gradient(lambda x: fused_attention((x,), lines, INTERPRET))
    value, expected = value_and_gradient(line_by_line)
    np.testing.assert_allclose(found, value, rtol=0.02)
    own, expected = own.astype(jnp.float32), expected.astype(jnp.float32)
    np.testing.assert_allclose(own, expected, atol=3 * TOLERANCE["bfloat16"], rtol=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_they_translate_for_a_gpu(shape, translate):
    batch = tuple(x[None] for x in random_sources(*shape, "bfloat16"))

    def loss_and_gradient(*sources):
        return jax.value_and_grad(lambda x: fused_attention(x).astype(jnp.float32).sum())(sources)

    traced = jax.jit(jax.vmap(loss_and_gradient)).trace(*batch)
    assert translate(traced).count("triton") >= 2, "one forward and one backward"


def test_heads_that_fill_no_tile_and_many_queries_are_left_to_xla():
    assert not fits(4, 8)
    assert not fits(129, 32)


def test_its_model_flops_are_those_of_attention():
    sources = random_sources(*SHAPES[3], "bfloat16")
    batch = tuple(jnp.stack([x, x]) for x in sources)
    found = count_flops(jax.vmap(lambda *x: fused_attention(x)), *batch)
    assert found == count_flops(jax.vmap(lambda *x: by_definition(x)), *batch)
    lines = Lines(5, 12, 3)
    (cells,) = random_sources(2, lines.count * lines.tokens, 0, 2, 32, "bfloat16")
    each = random_sources(2 * lines.count, lines.tokens, 0, 2, 32, "bfloat16")
    found = count_flops(lambda x: fused_attention((x,), lines), cells)
    assert found == count_flops(by_definition, each)
