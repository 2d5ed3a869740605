"""The torso: attentive modes over three grids (paper, Supplementary A.1.1, Extended Data Fig. 3).

The U x V x W input, a cube in the paper, is read as three grids whose cells hold the entries along
the missing mode. Each layer attends three times, once for each pair of grids, along the mode that
the two share.
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
    """Three stages of parallel self-attentions over rows of one grid with columns of another.

    Attributes:
        block: sizes of the attention block.
        separate_stages: whether each stage has weights of its own, or all three the same.
    """

    block: BlockConfig
    separate_stages: bool

    @nn.compact
    def __call__(self, grids: list[Float[Array, "_ _ C"]]) -> list[Float[Array, "_ _ C"]]:
        """Maps the grids (U, V, C), (W, U, C) and (V, W, C) to as many."""
        count = len(_PAIRS) if self.separate_stages else 1
        blocks = [(ToHeads(self.block, 3), FromHeads(self.block)) for _ in range(count)]
        grids = list(grids)
        for stage, (first, second) in enumerate(_PAIRS):
            to_heads, from_heads = blocks[stage % count]
            pair = grids[first], grids[second]
            # Parameters come into being where modules are called.
            if is_fused(self.block, pair) and not self.is_initializing():
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
        self, planes: Float[Array, "T U V W"], scalars: Float[Array, "N"]
    ) -> Float[Array, "M C"]:
        """Embeds planes (T, U, V, W) and scalars (N,), both float32, as (U V + W U + V W, C)."""
        dtype = self.block.dtype
        grids = []
        for axes in _GRIDS:
            entries = planes.transpose(axes)
            rows, columns = entries.shape[:2]
            cells = entries.reshape(rows, columns, -1)
            plane = nn.Dense(rows * columns, dtype=dtype)(scalars).reshape(rows, columns, 1)
            cells = jnp.concatenate([cells, plane], axis=-1)
            # A random bias keeps empty cells off zero, where a layer norm's gradient explodes.
            embed = nn.Dense(self.width, bias_init=nn.initializers.normal(1.0), dtype=dtype)
            grids.append(embed(cells))
        layer = nn.remat(AttentiveModes) if self.remat else AttentiveModes
        # Not a scan, whose stacked parameters and carry are copied at every layer.
        for index in range(self.layers):
            grids = layer(self.block, self.separate_stages, name=f"layer_{index}")(grids)
        return jnp.concatenate([grid.reshape(-1, self.width) for grid in grids])
