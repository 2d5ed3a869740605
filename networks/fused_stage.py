"""A stage of attentive modes as one GPU kernel.

As layers it is about eight kernels, most of which read all cells from memory and write as many.
Here a program keeps the cells of some lines in registers through the whole attention block. A line
is a row of the first grid and the same column of the second: tokens that only see each other. For
some sizes `networks/hopper_stage.py` has faster kernels.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.extend import core
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float, Int32

from networks.attention import BlockConfig, FromHeads, ToHeads, attend_in_pairs
from networks.fused_attention import SMALLEST_TILE, Lines, Tile, power
from tensorgame.devices import generation

# A tile holds the tokens of as many whole lines as fit into so many rows. Each row gets a score for
# each, and those of other lines are made for nothing. A program has one tile and four warps, which
# multiply its rows; with more of either fewer programs fit into a multiprocessor to wait together,
# and it was slower.
_ROWS = 64
_WARPS = 4
# Loads of weights that are under way or in use.
_STAGES = 2
# Of twice as many, the cells alone take half of a program's registers.
_MOST_FEATURES = 128
# Entries of a matrix to a head. A program holds eight of them at a time in its shared memory.
_LARGEST_MATRIX = 128 * 64
# Units of the MLP that are computed at a time.
_HIDDEN = 64

# Of `ToHeads` and of `FromHeads`.
_Params = tuple[dict, dict]
_Grids = tuple[Float[Array, "*B L m C"], Float[Array, "*B n L C"]]


def is_fused(block: BlockConfig, grids: _Grids) -> bool:
    """Whether `fused_stage` can and should run: in bfloat16, with whole tiles.

    Its tiles are for the shared memory and the registers of Hopper.
    """
    width = grids[0].shape[-1]
    sizes = width, block.head_dim
    return (
        all(x.dtype == jnp.bfloat16 for x in (block, *grids))
        and all(size >= SMALLEST_TILE and size == power(size) for size in sizes)
        and width <= _MOST_FEATURES
        and width * block.head_dim <= _LARGEST_MATRIX
        and Lines.of(grids).tokens <= _ROWS
        and generation() == 9
    )


def is_for_hopper(block: BlockConfig, grids: _Grids) -> bool:
    """Whether the kernels that are written for Hopper alone can run a stage, and faster.

    They use the inside of Mosaic, which is experimental. So they are only imported where the
    version of JAX is one that they were compiled with; 0.10 cannot set what a product is added to.
    """
    if generation() != 9 or not (0, 11, 2) <= jax.__version_info__ < (0, 12):
        return False
    from networks.hopper_stage import applies

    return applies(block, grids)


def fused_stage(
    block: BlockConfig, params: _Params, grids: _Grids, interpret: bool = False
) -> _Grids:
    """`attend_in_pairs`, by kernels where nothing is differentiated.

    A gradient needs what the layers inside compute, so with one the layers are what runs.

    Args:
        block: sizes of the attention block.
        params: float32 parameters of a `ToHeads` and of a `FromHeads`.
        grids: two grids, (L, m, C) and (n, L, C).
        interpret: run the kernel's definition by XLA, on any device.

    Returns:
        Two such grids of their dtype.
    """
    leaves, tree = jax.tree.flatten(params)
    static = {"block": block, "tree": tree, "interpret": interpret}
    first, second = _bind([*leaves, *(x[None] for x in grids)], agents=0, **static)
    return first[0], second[0]


def layers(block: BlockConfig, params: _Params, grids: _Grids) -> _Grids:
    """The stage as layers: `fused_stage` for any device."""
    # Without a parent, or the module that is being applied would adopt them.
    modules = ToHeads(block, 3, parent=None), FromHeads(block, parent=None)
    to_heads, from_heads = (
        functools.partial(module.apply, {"params": own})
        for module, own in zip(modules, params, strict=True)
    )
    return attend_in_pairs(to_heads, from_heads, grids)


# The stage of B games, two grids (B, L, m, C) and (B, n, L, C); or of agents, if all arrays begin
# with so many axes of them. What `jax.vmap` maps over becomes more games or more agents: a kernel
# that is mapped runs programs for each game alone, which fill few tiles.
#
# It is no `jax.custom_vjp`, for which `jax.vmap` makes the gradient of parameters game by game; and
# no `jax.custom_jvp`, inside of which it cannot map the `jax.custom_vjp` of attention.
_stage = core.Primitive("fused_stage")
_stage.multiple_results = True


def _bind(operands: list[jax.Array], *, block: BlockConfig, **static) -> list[jax.Array]:
    costs = _costs(block, operands)
    return _stage.bind(*operands, block=block, cost_estimate=costs, **static)


@_stage.def_abstract_eval
def _(*operands, **_static):
    return operands[-2:]


@_stage.def_impl
def _run(*operands, block, tree, agents, interpret, cost_estimate):
    del cost_estimate
    return _mapped(functools.partial(_call, block, interpret), tree, agents)(*operands)


def _differentiate(primals, tangents, *, block, tree, agents, interpret, cost_estimate):
    del interpret, cost_estimate
    of_games = jax.vmap(functools.partial(layers, block), (None, 0))
    tangents = tuple(ad.instantiate_zeros(x) for x in tangents)
    return jax.jvp(_mapped(of_games, tree, agents), primals, tangents)


def _batch(operands, axes, *, agents, cost_estimate, **static):
    del cost_estimate
    size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)

    def move(x, axis, place):
        return jnp.moveaxis(batching.bdim_at_front(x, axis, size), 0, place)

    if any(axis is not None for axis in axes[:-2]):
        moved = [move(x, axis, 0) for x, axis in zip(operands, axes, strict=True)]
        return _bind(moved, agents=agents + 1, **static), [0, 0]
    grids = (move(x, axis, agents) for x, axis in zip(operands[-2:], axes[-2:], strict=True))
    grids = [x.reshape(*x.shape[:agents], -1, *x.shape[-3:]) for x in grids]
    found = _bind([*operands[:-2], *grids], agents=agents, **static)
    found = [x.reshape(*x.shape[:agents], size, -1, *x.shape[-3:]) for x in found]
    return found, [agents, agents]


def _mapped(function: Callable, tree: jax.tree_util.PyTreeDef, agents: int) -> Callable:
    """A function of parameters and grids as one of the operands, mapped over so many axes."""

    def of_operands(*operands):
        return list(function(jax.tree.unflatten(tree, operands[:-2]), operands[-2:]))

    for _ in range(agents):
        of_operands = jax.vmap(of_operands)
    return of_operands


ad.primitive_jvps[_stage] = _differentiate
batching.primitive_batchers[_stage] = _batch
mlir.register_lowering(_stage, mlir.lower_fun(_run))


def _call(block: BlockConfig, interpret: bool, params: _Params, grids: _Grids) -> _Grids:
    if not interpret and is_for_hopper(block, grids):
        from networks.hopper_stage import hopper_stage

        return hopper_stage(params, grids)
    games, *_, width = grids[0].shape
    lines = Lines.of(grids)
    to_heads, from_heads = jax.tree.map(
        lambda x: x.astype(block.dtype) if x.ndim > 1 else x, params
    )
    # A query, key or value of a head is one contiguous matrix.
    kernel = to_heads["DenseGeneral_0"]["kernel"].transpose(1, 2, 0, 3)
    cells = tuple(x.reshape(-1, width) for x in grids)
    found = pl.pallas_call(
        functools.partial(_kernel, lines=lines),
        out_shape=tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in cells),
        grid=(pl.cdiv(games * lines.count, _ROWS // lines.tokens),),
        compiler_params=triton.CompilerParams(num_warps=_WARPS, num_stages=_STAGES),
        cost_estimate=_costs(block, [*jax.tree.leaves(params), *grids]),
        interpret=interpret,
    )(*cells, to_heads["LayerNorm_0"], kernel, from_heads)
    first, second = (x.reshape(grid.shape) for x, grid in zip(found, grids, strict=True))
    return first, second


def _costs(block: BlockConfig, operands: list[jax.Array]) -> pl.CostEstimate:
    """Of the products of the layers, padding and scores of other lines left out."""
    *params, first, second = operands
    width, size = first.shape[-1], first.size + second.size
    tokens, heads, hidden = size // width, block.heads, block.mlp_factor * width
    scores = heads * Lines.of((first, second)).tokens
    products = 4 * width * heads * block.head_dim + 2 * scores * block.head_dim + 2 * width * hidden
    return pl.CostEstimate(
        flops=2 * tokens * products,
        transcendentals=tokens * (scores + hidden),
        bytes_accessed=(2 * size + sum(x.size for x in params)) * first.dtype.itemsize,
    )


def _kernel(first, second, norm: dict, kernel, from_heads: dict, *outputs, lines: Lines) -> None:
    """A stage of the lines of one tile.

    Matrices are bfloat16 and read a head or `_HIDDEN` units at a time. Vectors, sums and the cells
    between the products are float32.

    Args:
        first: reference to the first grid of all games, (B L m, C).
        second: to the second grid, (B n L, C).
        norm: to scale and bias (C,) of the first layer norm.
        kernel: to the maps to the heads, (3, heads, C, d).
        from_heads: to the parameters of `FromHeads`.
        outputs: to both grids after the stage.
        lines: of a game.
    """
    tokens = _Tokens.at(pl.program_id(0), lines, first.shape[0])
    cells = tokens.load(first, second)
    dtype, size = first.dtype, kernel.shape[-1]
    projection, up, down = (from_heads[x] for x in ("DenseGeneral_0", "Dense_0", "Dense_1"))

    def attend(normed, head):
        query, key, value = (triton.dot(normed, kernel[i, head]).astype(dtype) for i in range(3))
        scores = triton.dot(query, key, trans_b=True)
        # Rows without a token make a line of their own: with no score at all they would get NaNs.
        scores = jnp.where(tokens.line[:, None] == tokens.line[None], scores, -jnp.inf)
        scores -= scores.max(axis=1)[:, None]
        weights = jnp.exp2(scores * (size**-0.5 * math.log2(math.e)))
        mixed = triton.dot(weights.astype(dtype), value) / weights.sum(axis=1)[:, None]
        return mixed.astype(dtype)

    def add_head(head, cells):
        return cells + triton.dot(attend(normed, head), projection["kernel"][head])

    normed = _layer_norm(cells, norm).astype(dtype)
    cells += projection["bias"][:]
    cells = jax.lax.fori_loop(0, kernel.shape[1], add_head, cells)

    units = up["bias"].shape[0]
    # The tile of a matrix is a power of two, and C is one of at least 16.
    tile = math.gcd(units, _HIDDEN)

    def add_units(step, cells):
        part = pl.ds(step * tile, tile)
        hidden = triton.dot(normed, up["kernel"][:, part]) + up["bias"][part]
        return cells + triton.dot(_gelu(hidden).astype(dtype), down["kernel"][part, :])

    normed = _layer_norm(cells, from_heads["LayerNorm_0"]).astype(dtype)
    cells += down["bias"][:]
    tokens.store(jax.lax.fori_loop(0, units // tile, add_units, cells), *outputs)


class _Tokens(NamedTuple):
    """The tokens of the lines of a tile, one line after the other.

    Attributes:
        line: which line of the tile a row belongs to, (rows,).
        tiles: where the tokens lie in each of the two grids. A row exists in one of them, or, past
            the last whole line or the last game, in none.
    """

    line: Int32[Array, "rows"]
    tiles: tuple[Tile, Tile]

    @classmethod
    def at(cls, number: jax.Array, lines: Lines, cells: int) -> "_Tokens":
        """The tile of a number; the games have so many ``cells`` in their first grid."""
        row, count = jax.lax.iota(jnp.int32, _ROWS), _ROWS // lines.tokens
        line, token = _divide(row, lines.tokens)
        game, of_game = _divide(number * count + line, lines.count)
        games = cells // (lines.count * lines.row)
        exists = (line < count) & (game < games)
        places = (
            (game * lines.count + of_game) * lines.row + token,
            (game * lines.column + token - lines.row) * lines.count + of_game,
        )
        masks = exists & (token < lines.row), exists & (token >= lines.row)
        first, second = (
            # Where nothing exists the place lies outside, too.
            Tile(jnp.where(mask, place, games * lines.count * size), mask)
            for place, mask, size in zip(places, masks, lines[1:], strict=True)
        )
        return cls(line, (first, second))

    def load(self, *grids) -> Float[Array, "rows C"]:
        """The cells as float32, zeros where there are none."""
        first, second = (tile.load(x) for tile, x in zip(self.tiles, grids, strict=True))
        return (first + second).astype(jnp.float32)

    def store(self, cells: Float[Array, "rows C"], *grids) -> None:
        for tile, x in zip(self.tiles, grids, strict=True):
            tile.store(x, cells)


def _divide(numbers: Int32[Array, "rows"], divisor: int) -> tuple[jax.Array, jax.Array]:
    """Quotients and remainders of numbers that are not negative."""
    return jax.lax.div(numbers, divisor), jax.lax.rem(numbers, divisor)


def _layer_norm(x: Float[Array, "rows C"], params: dict) -> Float[Array, "rows C"]:
    """As that of flax, whose epsilon is 1e-6."""
    x -= x.sum(axis=1)[:, None] / x.shape[1]
    variance = (x * x).sum(axis=1)[:, None] / x.shape[1]
    return x * (jax.lax.rsqrt(variance + 1e-6) * params["scale"][:]) + params["bias"][:]


def _gelu(x: Float[Array, "rows hidden"]) -> Float[Array, "rows hidden"]:
    """As that of flax: x (1 + tanh u) / 2 is x / (1 + exp(-2u)), and an exponential is cheaper."""
    double = 2 * math.sqrt(2 / math.pi) * x * (1 + 0.044715 * x * x)
    return x / (1 + jnp.exp2(-math.log2(math.e) * double))
