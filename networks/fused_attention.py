"""Attention between short sequences as one GPU kernel.

XLA makes several kernels of it and moves queries, keys and values into other layouts for them. At
the sizes of this network that takes several times as long as reading the inputs once, which is all
that this kernel does: a program of it holds the scores of one head of one pair of sequences.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

# Tensor cores multiply tiles of at least this side.
_SMALLEST_TILE = 16
# Scores of a program: as float32 they take a quarter of a multiprocessor's registers.
_LARGEST_SCORES = 128 * 128
_KEYS_AT_ONCE = 128


def fits(query: jax.Array, key: jax.Array) -> bool:
    """Whether `fused_attention` takes these shapes: few queries, and a head that fills tiles."""
    *_, count, _, size = query.shape
    rows, columns = _tiles(count, key.shape[-3])
    return rows * columns <= _LARGEST_SCORES and size >= _SMALLEST_TILE and size == _power(size)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def fused_attention(
    query: Float[Array, "G N heads d"],
    key: Float[Array, "G M heads d"],
    value: Float[Array, "G M heads d"],
    interpret: bool = False,
) -> Float[Array, "G N heads d"]:
    """Scaled dot-product attention within each of G pairs of sequences.

    The softmax is float32, the gradient that of `attention`.

    Args:
        query: (G, N, heads, d).
        key: (G, M, heads, d).
        value: (G, M, heads, d).
        interpret: run the kernel's definition by XLA, on any device.
    """
    groups, count, heads, size = query.shape
    length = key.shape[1]

    def sequence(tokens: int) -> pl.BlockSpec:
        return pl.BlockSpec((None, tokens, None, size), lambda group, head: (group, 0, head, 0))

    rows, columns = _tiles(count, length)
    return pl.pallas_call(
        functools.partial(_kernel, rows=rows, columns=columns),
        out_shape=jax.ShapeDtypeStruct(query.shape, value.dtype),
        grid=(groups, heads),
        in_specs=[sequence(count), sequence(length), sequence(length)],
        out_specs=sequence(count),
        compiler_params=triton.CompilerParams(num_warps=max(1, rows * columns // 2048)),
        interpret=interpret,
    )(query, key, value)


def attention(
    query: Float[Array, "*batch N heads d"],
    key: Float[Array, "*batch M heads d"],
    value: Float[Array, "*batch M heads d"],
    bias: Float[Array, "N M"] | float = 0.0,
) -> Float[Array, "*batch N heads d"]:
    """The same by XLA, with a ``bias`` that is added to the scores."""
    query = query * query.shape[-1] ** -0.5
    scores = jnp.einsum("...nhd,...mhd->...hnm", query, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores + bias, axis=-1).astype(value.dtype)
    return jnp.einsum("...hnm,...mhd->...nhd", weights, value)


def _forward(query, key, value, interpret):
    return fused_attention(query, key, value, interpret), (query, key, value)


def _backward(_interpret, inputs, gradient):
    return jax.vjp(attention, *inputs)[1](gradient)


fused_attention.defvjp(_forward, _backward)


def _kernel(query, key, value, out, *, rows: int, columns: int) -> None:
    """One head of one pair: references to (N, d), (M, d), (M, d) and (N, d).

    Keys come ``columns`` at a time; the sums of the softmax are kept relative to the largest score
    so far.
    """
    count, size = query.shape
    length = key.shape[0]

    def load(reference, start, tile: int, end: int) -> jax.Array:
        place = start + jax.lax.broadcasted_iota(jnp.int32, (tile, size), 0)
        return triton.load(reference.at[pl.ds(start, tile), :], mask=place < end, other=0.0)

    questions = load(query, 0, rows, count)

    def add(step, carry):
        largest, total, mixed = carry
        start = step * columns
        keys, values = (load(x, start, columns, length) for x in (key, value))
        scores = triton.dot(questions, keys, trans_b=True) * size**-0.5
        place = start + jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1)
        scores = jnp.where(place < length, scores, -jnp.inf)
        above = jnp.maximum(largest, scores.max(axis=1))
        weights = jnp.exp(scores - above[:, None])
        shrink = jnp.exp(largest - above)
        mixed = mixed * shrink[:, None] + triton.dot(weights.astype(values.dtype), values)
        return above, total * shrink + weights.sum(axis=1), mixed

    # A finite number, as the difference of two infinite ones is none.
    carry = jnp.full(rows, -1e30), jnp.zeros(rows), jnp.zeros((rows, size))
    _, total, mixed = jax.lax.fori_loop(0, pl.cdiv(length, columns), add, carry)
    place = jax.lax.broadcasted_iota(jnp.int32, mixed.shape, 0)
    result = (mixed / total[:, None]).astype(out.dtype)
    triton.store(out.at[pl.ds(0, rows), :], result, mask=place < count)


def _tiles(count: int, length: int) -> tuple[int, int]:
    """Rows and columns of the scores that a program holds."""
    rows, columns = (max(_SMALLEST_TILE, _power(x)) for x in (count, length))
    return rows, min(columns, _KEYS_AT_ONCE)


def _power(number: int) -> int:
    """The next power of two."""
    return 1 << (number - 1).bit_length()
