"""The torso: attentive modes over three grids (paper, Supplementary A.1.1, Extended Data Fig. 3).

The S x S x S input is read as three S x S grids whose cells hold the entries along the missing
mode. Each layer attends three times, once for each pair of grids, along the mode the two share.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from networks.attention import BlockConfig, FromHeads, ToHeads, attend_in_pairs
from networks.fused_stage import fused_stage, is_fused

# Axes of the input (T, U, V, W) brought to (rows, columns, missing mode, T) for each grid:
# (U, V), (W, U) and (V, W).
_GRIDS = ((1, 2, 3, 0), (3, 1, 2, 0), (2, 3, 1, 0))
# Pairs (a, b) of grids such that the rows of a are the columns of b: U, V and W.
_PAIRS = ((0, 1), (2, 0), (1, 2))


class AttentiveModes(nn.Module):
    """Three stages of S parallel self-attentions over 2S cells.

    Attributes:
        block: sizes of the attention block.
        separate_stages: whether each stage has weights of its own, or all three the same.
    """

    block: BlockConfig
    separate_stages: bool

    @nn.compact
    def __call__(self, grids: list[Float[Array, "S S C"]]) -> list[Float[Array, "S S C"]]:
        """Maps three grids (S, S, C) to as many."""
        count = len(_PAIRS) if self.separate_stages else 1
        blocks = [(ToHeads(self.block, 3), FromHeads(self.block)) for _ in range(count)]
        grids = list(grids)
        for stage, (first, second) in enumerate(_PAIRS):
            to_heads, from_heads = blocks[stage % count]
            pair = grids[first], grids[second]
            # Parameters come into being where modules are called.
            if is_fused(self.block, *pair) and not self.is_initializing():
                params = to_heads.variables["params"], from_heads.variables["params"]
                pair = fused_stage(self.block, params, pair)
            else:
                pair = attend_in_pairs(to_heads, from_heads, pair)
            grids[first], grids[second] = pair
        return grids


class Torso(nn.Module):
    """Embeds one observation.

    Attributes:
        width: C, features of a cell.
        layers: number of `AttentiveModes`.
        block: sizes of the attention blocks.
        separate_stages: whether the three stages of a layer have weights of their own.
        remat: whether gradients recompute the inside of each layer instead of storing it.
    """

    width: int
    layers: int
    block: BlockConfig
    separate_stages: bool = False
    remat: bool = False

    @nn.compact
    def __call__(
        self, planes: Float[Array, "T S S S"], scalars: Float[Array, "N"]
    ) -> Float[Array, "3*S*S C"]:
        """Embeds planes (T, S, S, S) and scalars (N,), both float32, as (3 S^2, C)."""
        side, dtype = planes.shape[-1], self.block.dtype
        grids = []
        for axes in _GRIDS:
            cells = planes.transpose(axes).reshape(side, side, -1)
            plane = nn.Dense(side * side)(scalars).reshape(side, side, 1)
            cells = jnp.concatenate([cells, plane], axis=-1)
            # A random bias keeps empty cells off zero, where a layer norm's gradient explodes.
            embed = nn.Dense(self.width, bias_init=nn.initializers.normal(1.0), dtype=dtype)
            grids.append(embed(cells))
        layer = nn.remat(AttentiveModes) if self.remat else AttentiveModes
        # Not a scan, whose stacked parameters and carry are copied at every layer.
        for index in range(self.layers):
            grids = layer(self.block, self.separate_stages, name=f"layer_{index}")(grids)
        return jnp.concatenate(grids).reshape(-1, self.width)
