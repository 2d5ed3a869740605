"""Attention of one query to a sequence whose keys and values are never made.

A score is the product of a query with W_k x, which is that of W_k^T query with x; and the mixture
of W_v x is W_v applied to the mixture of x. So for a single query both maps are of two vectors a
head, where keys and values would be two for each of the sequence's tokens, written and read again.
A leaf of the search only needs its value, which START alone asks for.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float, Float32

from networks.fused_attention import SMALLEST_TILE, Tile, mixture, power, scores_of

# Cells that a program holds at a time, and features of a cell with which they fit its registers.
_CELLS = 64
_MOST_FEATURES = 256
_WARPS = 4
# As in `flax.linen.LayerNorm`.
_EPSILON = 1e-6


class Unmapped(NamedTuple):
    """A sequence, and the `ToHeads` that would map it to keys and values.

    Attributes:
        cells: (M, C).
        params: of the `ToHeads`.
    """

    cells: Float[Array, "M C"]
    params: dict


def attend_once(
    query: Float[Array, "heads d"], memory: Unmapped, fused: bool, interpret: bool = False
) -> Float[Array, "heads d"]:
    """Scaled dot-product attention of one query.

    Args:
        query: (heads, d).
        memory: what it attends to.
        fused: whether to use the GPU kernel, which has no gradient; see `fits`.
        interpret: run the kernel's definition by XLA, on any device.

    Returns:
        (heads, d), of the dtype of ``query``.
    """
    dtype, heads = query.dtype, len(query)
    norm, maps = memory.params["LayerNorm_0"], memory.params["DenseGeneral_0"]["kernel"]
    maps = jnp.moveaxis(maps.astype(dtype), 0, -1)
    of_keys, of_values = maps[0], maps[1]
    # The norm's bias adds the same to all scores of a head, and so nothing.
    asked = jnp.einsum("hd,hdc->hc", query, of_keys, preferred_element_type=jnp.float32)
    asked = (asked * norm["scale"] * query.shape[-1] ** -0.5).astype(dtype)
    if fused:
        seen = _fused(asked, memory.cells, interpret)[:heads]
    else:
        seen = _mixtures(asked, _normalised(memory.cells).astype(dtype))
    seen = (seen * norm["scale"] + norm["bias"]).astype(dtype)
    return jnp.einsum("hc,hdc->hd", seen, of_values)


def fits(width: int, heads: int) -> bool:
    """Whether the kernel can ask for so many features of a cell by so many heads."""
    return (
        SMALLEST_TILE <= width <= _MOST_FEATURES
        and width == power(width)
        and heads <= SMALLEST_TILE
    )


def _normalised(cells: Float[Array, "*M C"]) -> Float32[Array, "*M C"]:
    """A layer norm without scale and bias."""
    cells = cells.astype(jnp.float32)
    mean = cells.mean(axis=-1, keepdims=True)
    variance = jnp.square(cells).mean(axis=-1, keepdims=True) - jnp.square(mean)
    return (cells - mean) * jax.lax.rsqrt(jnp.maximum(variance, 0.0) + _EPSILON)


def _mixtures(asked: Float[Array, "heads C"], cells: Float[Array, "M C"]) -> Float[Array, "h C"]:
    scores = jnp.einsum("hc,mc->hm", asked, cells, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores, axis=-1).astype(cells.dtype)
    return jnp.einsum("hm,mc->hc", weights, cells, preferred_element_type=jnp.float32)


def _fused(
    asked: Float[Array, "heads C"], cells: Float[Array, "M C"], interpret: bool
) -> Float32[Array, "rows C"]:
    """`_mixtures` of the normalised cells as one kernel, with rows for heads that do not exist."""
    (count, width), heads = cells.shape, len(asked)
    asked = jnp.pad(asked, ((0, SMALLEST_TILE - heads), (0, 0)))
    return pl.pallas_call(
        functools.partial(_kernel, columns=min(_CELLS, power(count))),
        out_shape=jax.ShapeDtypeStruct(asked.shape, jnp.float32),
        compiler_params=triton.CompilerParams(num_warps=_WARPS),
        cost_estimate=pl.CostEstimate(
            flops=4 * heads * count * width,
            transcendentals=heads * count,
            bytes_accessed=cells.size * cells.dtype.itemsize,
        ),
        interpret=interpret,
    )(asked, cells)


def _kernel(asked, cells, out, *, columns: int) -> None:
    """All heads of one query.

    Args:
        asked: reference to (rows, C).
        cells: to (M, C).
        out: to (rows, C), float32.
        columns: tile of the cells.
    """
    heads = Tile.at(0, out.shape[0], out, None, 0)
    questions = heads.load(asked)

    def load(step):
        tile = Tile.at(step * columns, columns, cells, None, 0)
        loaded = _normalised(tile.load(cells)).astype(questions.dtype)
        return scores_of(questions, loaded, tile), loaded

    heads.store(out, mixture(load, pl.cdiv(cells.shape[0], columns), questions.shape))
