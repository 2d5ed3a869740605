"""The attention block that the whole network is made of (paper, Supplementary A.1).

    x = x + Linear(attention of LN(x) to LN(y));  x = x + MLP(LN(x))

`ToHeads` and `FromHeads` are what comes before and after the attention itself, `attend`. The policy
head keeps keys and values between them, so the block is not one module.
"""

import dataclasses
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from networks import absorbed_attention
from networks.absorbed_attention import Unmapped
from networks.fused_attention import MOST_QUERIES, Lines, fits, fused_attention
from tensorgame.devices import runs_triton

# Up to this many scores a head, attention is written as broadcast products and sums: XLA fuses
# them, where a batched matrix product of this size is all overhead.
_FEW_SCORES = {"cpu": 128, "gpu": 16}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """Sizes and precision of an attention block.

    Attributes:
        heads: attention heads.
        head_dim: d, features of a head.
        mlp_factor: hidden width of the MLP over that of its input.
        dtype: what it computes in. Parameters, the softmax and the inside of layer norms are
            float32 whatever it is.
    """

    heads: int
    head_dim: int
    mlp_factor: int
    dtype: jnp.dtype


def attend(
    queries: Float[Array, "*batch N q heads d"],
    memory: Float[Array, "*batch M m heads d"] | None = None,
    mask: Bool[Array, "N M"] | None = None,
) -> Float[Array, "*batch N heads d"]:
    """Scaled dot-product attention with a float32 softmax over M.

    Args:
        queries: what `ToHeads` made of the sequence that attends: the queries, (..., N, 1, heads,
            d), or if it attends to itself also its keys and values, (..., N, 3, heads, d).
        memory: keys and values (..., M, 2, heads, d) of the sequence that it attends to, by default
            itself.
        mask: which keys a query sees, bool (N, M); all of them by default.

    Returns:
        (..., N, heads, d), of the dtype of ``queries``.
    """
    sources = (queries,) if memory is None else (queries, memory)
    memory = sources[-1]
    count = queries.shape[-4]
    few_scores = _are_few(count, memory.shape[-4])
    # A sequence that attends to another can do so a part at a time.
    parts = math.ceil(count / MOST_QUERIES) if len(sources) > 1 else 1
    if mask is None and not few_scores and _is_fused(math.ceil(count / parts), queries):
        return _attend_in_parts(sources, parts)
    query = queries[..., 0, :, :] * queries.shape[-1] ** -0.5
    key, value = memory[..., -2, :, :], memory[..., -1, :, :]
    hidden = 0.0 if mask is None else jnp.where(mask, 0.0, -1e9)
    if few_scores:
        scores = (query[..., :, None, :, :] * key[..., None, :, :, :]).sum(-1, dtype=jnp.float32)
        scores += hidden if mask is None else hidden[:, :, None]
        weights = jax.nn.softmax(scores, axis=-2).astype(value.dtype)
        return (weights[..., None] * value[..., None, :, :, :]).sum(-3)
    scores = jnp.einsum("...nhd,...mhd->...hnm", query, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores + hidden, axis=-1).astype(value.dtype)
    return jnp.einsum("...hnm,...mhd->...nhd", weights, value)


def _attend_in_parts(
    sources: tuple[Float[Array, "*batch _ _ heads d"], ...], parts: int
) -> Float[Array, "*batch N heads d"]:
    """`fused_attention` of queries that come in so many parts, as its programs hold few."""
    *batch, count, held, heads, size = sources[0].shape
    asking, *asked = (x.reshape(-1, *x.shape[-4:]) for x in sources)
    asking = jnp.pad(asking, ((0, 0), (0, -count % parts), *[(0, 0)] * 3))
    asking = asking.reshape(len(asking), parts, -1, held, heads, size)
    seen = jax.vmap(lambda part: fused_attention((part, *asked)), 1, 1)(asking)
    return seen.reshape(len(asking), -1, heads, size)[:, :count].reshape(*batch, count, heads, size)


def attend_once(
    queries: Float[Array, "1 1 heads d"], memory: Unmapped
) -> Float[Array, "1 heads d"]:
    """`attend` of a single query, (1, 1, heads, d), to a sequence that need not be mapped."""
    heads = queries.shape[-2]
    fused = absorbed_attention.fits(memory.cells.shape[-1], heads) and runs_triton()
    return absorbed_attention.attend_once(queries[0, 0], memory, fused)[None]


def attend_across(cells: Float[Array, "N 3 heads d"], lines: Lines) -> Float[Array, "N heads d"]:
    """`attend` within each of L sequences: a row of one grid and the same column of another.

    Args:
        cells: what `ToHeads` made of the cells of both grids, (N, 3, heads, d).
        lines: L, and the sizes of the grids.

    Returns:
        (N, heads, d).
    """
    if _is_fused(lines.tokens, cells):
        return fused_attention((cells[None],), lines)[0]
    # The second grid is transposed so that both have the shared mode in their rows, and transposed
    # back: otherwise unrelated rows would attend to each other.
    first, second = _apart(cells, lines)
    seen = attend(jnp.concatenate([first, second.swapaxes(0, 1)], axis=1))
    first, second = jnp.split(seen, [lines.row], axis=1)
    return _together((first, second.swapaxes(0, 1)))


def attend_in_pairs(
    to_heads: Callable[[jax.Array], jax.Array],
    from_heads: Callable[[jax.Array, jax.Array], jax.Array],
    grids: tuple[Float[Array, "L m C"], Float[Array, "n L C"]],
) -> tuple[Float[Array, "L m C"], Float[Array, "n L C"]]:
    """A stage of attentive modes: a block over each row of one grid and that column of the other.

    Args:
        to_heads: a `ToHeads` of queries, keys and values, or what applies its parameters.
        from_heads: likewise a `FromHeads`.
        grids: the two, (L, m, C) and (n, L, C).
    """
    lines = Lines.of(grids)
    cells = _together(grids)
    return _apart(from_heads(cells, attend_across(to_heads(cells), lines)), lines)


def _together(grids: tuple[jax.Array, jax.Array]) -> jax.Array:
    """The cells of two grids, (N, ...)."""
    return jnp.concatenate([x.reshape(-1, *x.shape[2:]) for x in grids])


def _apart(cells: jax.Array, lines: Lines) -> tuple[jax.Array, jax.Array]:
    """The grids (L, m, ...) and (n, L, ...) of cells (N, ...)."""
    first, second = jnp.split(cells, [lines.count * lines.row])
    of_first, of_second = lines.grids
    return (
        first.reshape(*of_first, *cells.shape[1:]),
        second.reshape(*of_second, *cells.shape[1:]),
    )


def _are_few(count: int, length: int) -> bool:
    return count * length <= _FEW_SCORES.get(jax.default_backend(), 0)


def _is_fused(count: int, queries: jax.Array) -> bool:
    return fits(count, queries.shape[-1]) and runs_triton()


class ToHeads(nn.Module):
    """A layer norm, then linear maps without bias to the heads.

    Attributes:
        config: sizes.
        count: how many maps: 3 for query, key and value of a self-attention; where x and y differ,
            1 for the query from x, and 2 for key and value from y.
    """

    config: BlockConfig
    count: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch C"]) -> Float[Array, "*batch count heads d"]:
        """Maps (..., C) to (..., count, heads, d)."""
        c = self.config
        shape = (self.count, c.heads, c.head_dim)
        normed = nn.LayerNorm(dtype=c.dtype)(x)
        return nn.DenseGeneral(shape, use_bias=False, dtype=c.dtype)(normed)


class FromHeads(nn.Module):
    """The linear map from the heads and the MLP, each with its skip connection.

    Attributes:
        config: sizes.
    """

    config: BlockConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "*batch C"], attended: Float[Array, "*batch heads d"]
    ) -> Float[Array, "*batch C"]:
        """The block's output (..., C) from its input x (..., C) and what its heads saw."""
        width, dtype = x.shape[-1], self.config.dtype
        x = x + nn.DenseGeneral(width, axis=(-2, -1), dtype=dtype)(attended)
        hidden = nn.LayerNorm(dtype=dtype)(x)
        hidden = nn.gelu(nn.Dense(self.config.mlp_factor * width, dtype=dtype)(hidden))
        return x + nn.Dense(width, dtype=dtype)(hidden)
