"""The attention block that the whole network is made of (paper, Supplementary A.1).

    x = x + Linear(attention of LN(x) to LN(y));  x = x + MLP(LN(x))

`ToHeads` and `FromHeads` are what comes before and after the attention itself, `attend`. The policy
head keeps keys and values between them, so the block is not one module.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from networks.fused_attention import attention, fits, fused_attention

# Up to this many scores a head, attention on a CPU is written as broadcast products and sums: XLA
# fuses them, where a batched matrix product of this size is all overhead.
_FUSED_SCORES = 128


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
    query: Float[Array, "*batch N heads d"],
    key: Float[Array, "*batch M heads d"],
    value: Float[Array, "*batch M heads d"],
    mask: Bool[Array, "N M"] | None = None,
) -> Float[Array, "*batch N heads d"]:
    """Scaled dot-product attention with a float32 softmax over M.

    Args:
        query: (..., N, heads, d).
        key: (..., M, heads, d).
        value: (..., M, heads, d).
        mask: which keys a query sees, bool (N, M); all of them by default.

    Returns:
        (..., N, heads, d), of the dtype of ``value``.
    """
    if mask is None and jax.default_backend() == "gpu" and fits(query, key):
        flat = (x.reshape(-1, *x.shape[-3:]) for x in (query, key, value))
        return fused_attention(*flat).reshape(query.shape)
    hidden = 0.0 if mask is None else jnp.where(mask, 0.0, -1e9)
    few_scores = query.shape[-3] * key.shape[-3] <= _FUSED_SCORES
    if not (few_scores and jax.default_backend() == "cpu"):
        return attention(query, key, value, hidden)
    query = query * query.shape[-1] ** -0.5
    scores = (query[..., :, None, :, :] * key[..., None, :, :, :]).sum(-1, dtype=jnp.float32)
    scores += hidden if mask is None else hidden[:, :, None]
    weights = jax.nn.softmax(scores, axis=-2).astype(value.dtype)
    return (weights[..., None] * value[..., None, :, :, :]).sum(-3)


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
    def __call__(self, x: Float[Array, "*batch C"]) -> tuple[Float[Array, "*batch heads d"], ...]:
        """Maps (..., C) to ``count`` arrays (..., heads, d)."""
        c = self.config
        shape = (self.count, c.heads, c.head_dim)
        normed = nn.LayerNorm(dtype=c.dtype)(x)
        projected = nn.DenseGeneral(shape, use_bias=False, dtype=c.dtype)(normed)
        return tuple(jnp.unstack(projected, axis=-3))


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
