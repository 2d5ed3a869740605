"""The value head: quantiles of the return (paper, Supplementary A.1.3)."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32


class ValueHead(nn.Module):
    """A four-layer MLP from the features at START to quantiles, in float32.

    Attributes:
        width: hidden width.
        quantiles: q.
        scale: return of a long game, which the outputs are multiplied by, so that the untrained
            head and the largest return are of one order.
    """

    width: int
    quantiles: int
    scale: float

    @nn.compact
    def __call__(self, features: Float[Array, "P"]) -> Float32[Array, "q"]:
        """Quantiles 1/2q, 3/2q, ... of the return-to-go, in moves: (q,), from features (P,)."""
        features = features.astype(jnp.float32)
        for _ in range(3):
            features = nn.relu(nn.Dense(self.width)(features))
        return self.scale * nn.Dense(self.quantiles)(features)


def risk_seeking_mean(quantiles: Float[Array, "*batch q"]) -> Float[Array, "*batch"]:
    """The mean of the quantiles above 75 %, at least one (paper, Methods): (...,) from (..., q)."""
    levels = (np.arange(quantiles.shape[-1]) + 0.5) / quantiles.shape[-1]
    above = jnp.asarray(np.append(levels[:-1] > 0.75, True), quantiles.dtype)
    return quantiles @ above / above.sum()
