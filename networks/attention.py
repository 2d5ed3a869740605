"""Attention and the feed-forward block, shared by the torso and the policy head."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Up to this many scores a head, attention is written as broadcast products and sums: XLA fuses
# them, where a batched matrix product of this size is all overhead.
_FUSED_SCORES = 128


def attend(
    query: Float[Array, "*batch N heads d"],
    key: Float[Array, "*batch M heads d"],
    value: Float[Array, "*batch M heads d"],
    mask: Bool[Array, "N M"] | None = None,
) -> Float[Array, "*batch N heads d"]:
    """Scaled dot-product attention with the softmax over M.

    Args:
        query: (..., N, heads, d).
        key: (..., M, heads, d).
        value: (..., M, heads, d).
        mask: which keys a query sees, bool (N, M); all of them by default.

    Returns:
        (..., N, heads, d).
    """
    query = query * query.shape[-1] ** -0.5
    hidden = 0.0 if mask is None else jnp.where(mask, 0.0, -1e9)[:, :, None]
    if query.shape[-3] * key.shape[-3] <= _FUSED_SCORES:
        scores = (query[..., :, None, :, :] * key[..., None, :, :, :]).sum(-1) + hidden
        weights = jax.nn.softmax(scores, axis=-2)
        return (weights[..., None] * value[..., None, :, :, :]).sum(-3)
    scores = jnp.einsum("...nhd,...mhd->...nmh", query, key) + hidden
    return jnp.einsum("...nmh,...mhd->...nhd", jax.nn.softmax(scores, axis=-2), value)


class FeedForward(nn.Module):
    """A pre-norm two-layer MLP with its skip connection.

    Attributes:
        factor: hidden width over the width of the input.
    """

    factor: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch C"]) -> Float[Array, "*batch C"]:
        """Maps (..., C) to (..., C)."""
        hidden = nn.Dense(self.factor * x.shape[-1])(nn.LayerNorm()(x))
        return x + nn.Dense(x.shape[-1])(nn.gelu(hidden))
