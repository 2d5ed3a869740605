"""A stage of attentive modes as GPU kernels, written for the Hopper generation alone.

What `networks/fused_stage.py` does in Triton for more sizes, in less than half the time: as Pallas'
Mosaic kernels, in which matrix products run on while other work is done. They are persistent. A
block keeps all matrices in shared memory; each of its warpgroups, which wait for no other, goes
through tiles of its own. Cells of 64 features take one kernel, those of 128 two, as then either
the matrices of the attention fit or those of the MLP.
"""

import functools
import importlib.util
import math
import os
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, BFloat16, Float, Float32, Int32

from networks.attention import BlockConfig
from networks.fused_attention import Lines
from networks.hopper_tiles import (
    LAYOUT,
    ROWS,
    LineTiles,
    copy_in,
    copy_out,
    line_bits,
    line_marks,
    mask,
    opaque_zero,
    wait_in,
)


class _Sizes(NamedTuple):
    """Sizes for which there are kernels, and how.

    Attributes:
        width: C, features of a cell, and of all heads together.
        head: d, features of a head.
        hidden: units of the MLP.
        groups: warpgroups of a block: while one waits others compute. The more, the fewer registers
            each has.
        whole: whether one kernel does all.
    """

    width: int
    head: int
    hidden: int
    groups: int
    whole: bool


# All matrices fit into the shared memory of a multiprocessor and all sums into its registers.
_SIZES = {
    64: _Sizes(width=64, head=16, hidden=128, groups=4, whole=True),
    128: _Sizes(width=128, head=32, hidden=256, groups=2, whole=False),
}
# Tiles of a warpgroup in shared memory: the next one arrives during a step.
_SLOTS = 2
# Multiprocessors of an H100 or H200, for where there is none to be asked.
_BLOCKS = 132

_WGMMA = plgpu.Layout.WGMMA
_BY_COLUMN = _WGMMA.reduce(0)

_Grids = tuple[Float[Array, "B L m C"], Float[Array, "B n L C"]]
_Cells = tuple[BFloat16[Array, "N C"], BFloat16[Array, "M C"]]
_Weights = tuple[BFloat16[Array, "_ _"], BFloat16[Array, "_ _"], Float32[Array, "_"]]


def applies(block: BlockConfig, grids: _Grids) -> bool:
    """Whether `hopper_stage` can run, for bfloat16 grids on such a GPU, and is the faster one."""
    width = grids[0].shape[-1]
    cells = [x.size // width for x in grids]
    sizes = _SIZES.get(width)
    return (
        sizes is not None
        and sizes[:3] == (block.heads * block.head_dim, block.head_dim, block.mlp_factor * width)
        # The copy engine, of which the second of two kernels makes use, moves 8 cells at a time and
        # leaves out those past the end; but an array has to hold a tile.
        and (sizes.whole or all(x % 8 == 0 and x >= ROWS for x in cells))
        and Lines.of(grids).tokens <= ROWS
        and finds_libdevice()
    )


@functools.cache
def finds_libdevice() -> bool:
    """Whether Mosaic finds ``libdevice.10.bc``, without which it aborts the process.

    It looks where XLA does by default (``cuda_root_path.cc`` there), whatever XLA's flags say.
    """
    places = ["cuda_sdk_lib", "/usr/local/cuda", "/opt/cuda"]
    plugins = importlib.util.find_spec("jax_plugins")
    for folder in (plugins and plugins.submodule_search_locations) or ():
        for plugin, toolkit in (("xla_cuda13", "cu13"), ("xla_cuda12", "cuda_nvcc")):
            wheels = f"../nvidia/{toolkit}", f"../../nvidia/{toolkit}", "cuda"
            conda = "../../../..", "../../../../.."
            places += [os.path.join(folder, plugin, x) for x in (*wheels, *conda)]
    folders = (os.path.join(x, "nvvm", "libdevice") for x in (*places, "."))
    # The first folder counts, also if the file is not there.
    found = next((x for x in folders if os.path.isdir(x)), ".")
    return os.path.isfile(os.path.join(found, "libdevice.10.bc"))


@jax.jit
def hopper_stage(params: tuple[dict, dict], grids: _Grids) -> _Grids:
    """`attend_in_pairs` of games, for what `applies` to.

    Jitted, so that a program that calls it often has it once: its translation takes a second.

    Args:
        params: float32 parameters of a `ToHeads` and of a `FromHeads`.
        grids: two grids of bfloat16, (B, L, m, C) and (B, n, L, C).

    Returns:
        Two such grids.
    """
    games, *_, width = grids[0].shape
    sizes, tiles = _SIZES[width], LineTiles(Lines.of(grids), games, width)
    cells = tuple(x.reshape(-1, width) for x in grids)
    attention, mlp = attention_weights(*params), mlp_weights(params[1])
    if sizes.whole:
        marks = tuple(jnp.asarray(x, jnp.bfloat16) for x in line_marks(tiles))
        cells = _attend(sizes, tiles, cells, (*attention, *marks, *mlp))
    else:
        cells = _transform(sizes, _attend(sizes, tiles, cells, attention), mlp)
    first, second = (x.reshape(grid.shape) for x, grid in zip(cells, grids, strict=True))
    return first, second


def attention_weights(to_heads: dict, from_heads: dict) -> _Weights:
    """Matrices and biases of the attention, from parameters of `ToHeads` and of `FromHeads`.

    The norm's scale and bias go into the maps, and so does the factor of the scores, to whose power
    two is raised. What the norm's bias adds to keys changes all scores of a query alike, and so
    nothing; what it adds to values adds to what is seen, as weights sum to one, and goes into the
    projection's bias.

    Returns:
        The maps (heads 3 d, C) to each head's queries, keys and values; the projection
        (heads d, C); the biases of queries and projection, (heads d + C,).
    """
    norm, kernel = to_heads["LayerNorm_0"], to_heads["DenseGeneral_0"]["kernel"]
    projection = from_heads["DenseGeneral_0"]
    width, _, _, size = kernel.shape
    factors = jnp.array([size**-0.5 * math.log2(math.e), 1.0, 1.0])
    kernel = kernel * factors[:, None, None]
    of_queries, _, of_values = jnp.einsum("c,cihd->ihd", norm["bias"], kernel, precision="highest")
    seen = jnp.einsum("hd,hdc->c", of_values, projection["kernel"], precision="highest")
    maps = (norm["scale"][:, None, None, None] * kernel).transpose(2, 1, 3, 0)
    return (
        maps.reshape(-1, width).astype(jnp.bfloat16),
        projection["kernel"].reshape(-1, width).astype(jnp.bfloat16),
        jnp.concatenate([of_queries.reshape(-1), projection["bias"] + seen]),
    )


def mlp_weights(from_heads: dict) -> _Weights:
    """Matrices and biases of the MLP, into which its norm's scale and bias go, and half of `gelu`.

    Returns:
        To the hidden units (C, H) and back (H, C); the biases of both, (H + C,).
    """
    norm, up, down = (from_heads[x] for x in ("LayerNorm_0", "Dense_0", "Dense_1"))
    of_units = up["bias"] + jnp.dot(norm["bias"], up["kernel"], precision="highest")
    return (
        (norm["scale"][:, None] * up["kernel"]).astype(jnp.bfloat16),
        (0.5 * down["kernel"]).astype(jnp.bfloat16),
        jnp.concatenate([of_units, down["bias"]]),
    )


def _attend(sizes: _Sizes, tiles: LineTiles, cells: _Cells, weights: tuple) -> _Cells:
    """The attention and its skip connection; of the `line_marks` and the MLP this, too."""
    maps, projection, biases, *others = weights
    by_head = _by_head(sizes.head)
    scratch = [
        plgpu.SMEM((sizes.groups, _SLOTS, ROWS, sizes.width), jnp.bfloat16, transforms=LAYOUT),
        # Keys and values of two heads.
        plgpu.SMEM((sizes.groups, 2, ROWS, 2 * sizes.head), jnp.bfloat16, transforms=by_head),
        plgpu.Barrier(num_arrivals=len(weights)),
        # With an axis of one, for an index that the compiler does not know.
        plgpu.SMEM((1, *maps.shape), jnp.bfloat16, transforms=LAYOUT),
        plgpu.SMEM((1, *projection.shape), jnp.bfloat16, transforms=by_head),
        plgpu.SMEM((1, *biases.shape), jnp.float32),
    ]
    for x, layout in zip(others, (by_head, by_head, LAYOUT, LAYOUT, ()), strict=False):
        scratch.append(plgpu.SMEM((1, *x.shape), x.dtype, transforms=layout))
    kernel = functools.partial(_attention_kernel, sizes=sizes, tiles=tiles)
    return _launch("whole" if others else "attention", kernel, sizes, cells, weights, scratch)


def _transform(sizes: _Sizes, cells: _Cells, weights: _Weights) -> _Cells:
    """The MLP and its skip connection."""
    up, down, biases = weights
    scratch = [
        plgpu.SMEM((sizes.groups, _SLOTS, ROWS, sizes.width), jnp.bfloat16, transforms=LAYOUT),
        plgpu.SMEM(up.shape, jnp.bfloat16, transforms=LAYOUT),
        plgpu.SMEM(down.shape, jnp.bfloat16, transforms=LAYOUT),
        plgpu.SMEM(biases.shape, jnp.float32),
        plgpu.Barrier(num_arrivals=4),
        plgpu.Barrier(num_barriers=sizes.groups * _SLOTS),
    ]
    kernel = functools.partial(_mlp_kernel, sizes=sizes)
    return _launch("mlp", kernel, sizes, cells, weights, scratch)


def _launch(
    name: str, kernel: Callable, sizes: _Sizes, cells: _Cells, weights: tuple, scratch: list
) -> _Cells:
    """The cells after a kernel with a block on each multiprocessor.

    Where it is mapped over agents, so many blocks of each agent run, one agent after the other.
    """
    blocks = getattr(jax.local_devices()[0], "core_count", None) or _BLOCKS
    run = plgpu.kernel(
        functools.partial(kernel, blocks=blocks),
        out_type=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in cells],
        scratch_types=scratch,
        grid=(blocks,),
        grid_names=("block",),
        num_threads=sizes.groups,
        thread_name="group",
        kernel_name=f"hopper_stage_{name}",
        compiler_params=plgpu.CompilerParams(
            approx_math=True,
            # No sum crosses warps.
            reduction_scratch_bytes=0,
            lowering_semantics=plgpu.LoweringSemantics.Warpgroup,
        ),
    )
    first, second = run(*cells, *weights)
    return first, second


def _attention_kernel(first, second, *rest, sizes: _Sizes, tiles: LineTiles, blocks: int):
    """The attention of all lines, and the MLP of their cells if it has its weights.

    The product that makes queries, keys and values of a head runs during the softmax of the head
    before; that which adds what a head saw is waited for during the next head.

    Args:
        first: reference to the cells of the first grid of all games, (B L m, C).
        second: to those of the second grid, (B n L, C).
        rest: to the `attention_weights` and, maybe, the `line_marks` and `mlp_weights`; to the
            cells of both grids afterwards; and to the shared memory of `_attend`, the last for the
            weights.
        sizes: of the stage.
        tiles: of all games.
        blocks: of the kernel.
    """
    # Two grids, three scratches and each of the weights twice.
    count = (len(rest) - 5) // 2
    weights, outputs, rest = rest[:count], rest[count : count + 2], rest[count + 2 :]
    held_cells, held_pairs, loaded, *held_weights = rest
    held_maps, held_projection, held_biases, *held_others = held_weights
    held_marks, held_mlp = held_others[:2], held_others[2:]
    width, size = sizes.width, sizes.head
    turns = _Turns.of(tiles.count, sizes.groups, blocks)

    def slot(step):
        return held_cells.at[turns.group + opaque_zero(), lax.rem(step, _SLOTS)]

    def load(step):
        copy_in(tiles, (first, second), turns.tile(step), slot(step))

    # Rows without a cell see each other alone, and hold from step to step what comes of it. They
    # start as zeros, as others see them with a weight of zero, and zero times NaN is NaN.
    for index in range(_SLOTS):
        held_cells[turns.group, index] = _zeros((ROWS, width), jnp.bfloat16)
    plgpu.commit_smem()

    @pl.when(turns.steps > 0)
    def _():
        load(jnp.int32(0))

    pairs = zip(weights, held_weights, strict=True)
    turns.load_weights([(source, target.at[0]) for source, target in pairs], loaded)
    # One word is what there is space for beside the larger matrices.
    bits = None if held_marks else line_bits(tiles)

    def bias(start, size):
        return _rows(held_biases.at[opaque_zero(), pl.ds(start, size)])

    def add_heads(cells, step, total, scores, seen, *units):
        heads = width // size

        def begin(head):
            own = held_maps.at[opaque_zero(), pl.ds(head * 3 * size, 3 * size)]
            _multiply(units[head % 2], slot(step), _transposed(own))

        total[...] = cells.astype(jnp.float32) + bias(width, width)
        begin(0)
        for head in range(heads):
            # After the product of this head came the one to the sum from the head before.
            found = plgpu.wgmma_accumulator_load(units[head % 2], wait_n=min(head, 1))
            query = (found[:, :size] + bias(head * size, size)).astype(jnp.bfloat16)
            # Other warps may still read those of the head before.
            pair = held_pairs.at[turns.group + opaque_zero(), head % 2]
            pair[...] = found[:, size:].astype(jnp.bfloat16)
            plgpu.commit_smem()
            keys, values = (pair.at[:, pl.ds(start, size)] for start in (0, size))
            scores[...] = _zeros(scores.shape, jnp.float32)
            if held_marks:
                of_queries, of_keys = (x.at[opaque_zero()] for x in held_marks)
                plgpu.wgmma(scores, of_queries, _transposed(of_keys))
            plgpu.wgmma(scores, query, _transposed(keys))
            more = head + 1 < heads
            if more:
                begin(head + 1)
            found = plgpu.wgmma_accumulator_load(scores, wait_n=int(more))
            weights, factor = _softmax(found if held_marks else mask(found, bits))
            _multiply(seen, weights, values)
            mixed = plgpu.wgmma_accumulator_load(seen, wait_n=0) * _columns(factor, seen)
            own = held_projection.at[opaque_zero(), pl.ds(head * size, size)]
            plgpu.wgmma(total, mixed.astype(jnp.bfloat16), own)
        return plgpu.wgmma_accumulator_load(total, wait_n=0)

    def attend(step, _):
        own = slot(step)
        wait_in(own)
        cells = plgpu.load(own, layout=_WGMMA)

        @pl.when(step + 1 < turns.steps)
        def _():
            # A thread overwrites what it has itself read for a copy, a step ago.
            load(step + 1)

        cells = _put_normed(cells, own)
        sums = [_sum(x) for x in (width, ROWS, size, 3 * size, 3 * size)]
        cells = pl.run_scoped(functools.partial(add_heads, cells, step), *sums)
        if held_mlp:
            mlp = [x.at[opaque_zero()] for x in held_mlp]
            cells = _add_units(_put_normed(cells, own), own, *mlp)
        own[...] = cells.astype(jnp.bfloat16)
        plgpu.commit_smem()
        copy_out(tiles, own, outputs, turns.tile(step))

    lax.fori_loop(0, turns.steps, attend, None)


def _mlp_kernel(first, second, up, down, biases, *rest, sizes: _Sizes, blocks: int):
    """The MLP of all cells, 64 of a grid at a time.

    Args:
        first: reference to the cells of the first grid of all games, (B L m, C).
        second: to those of the second grid, (B n L, C).
        up: to the first of the `mlp_weights`.
        down: to the second.
        biases: to the third.
        rest: to the cells of both grids after it, and to the shared memory of `_transform`.
        sizes: of the stage.
        blocks: of the kernel.
    """
    *outputs, held_cells, held_up, held_down, held_biases, loaded, arrived = rest
    counts = [pl.cdiv(x.shape[0], ROWS) for x in (first, second)]
    turns = _Turns.of(sum(counts), sizes.groups, blocks)

    def at_cells(step, grids, copy):
        """Copies the rows of a step's tile in that grid which has them."""
        tile = turns.tile(step)

        @pl.when(tile < counts[0])
        def _():
            copy(grids[0].at[pl.ds(tile * ROWS, ROWS)])

        @pl.when(tile >= counts[0])
        def _():
            copy(grids[1].at[pl.ds((tile - counts[0]) * ROWS, ROWS)])

    def slot(step):
        """A step's tile in shared memory, and what tells that it has arrived."""
        index = lax.rem(step, _SLOTS)
        return held_cells.at[turns.group, index], arrived.at[turns.group * _SLOTS + index]

    def load(step):
        own, barrier = slot(step)
        at_cells(step, (first, second), lambda x: plgpu.copy_gmem_to_smem(x, own, barrier))

    @pl.when(turns.steps > 0)
    def _():
        load(jnp.int32(0))

    # The copy engine takes up to 256 numbers of a vector.
    parts = [pl.ds(0, sizes.hidden), pl.ds(sizes.hidden, sizes.width)]
    weights = (up, held_up), (down, held_down), *((biases.at[x], held_biases.at[x]) for x in parts)
    turns.load_weights(weights, loaded)

    def transform(step, _):
        own, barrier = slot(step)
        plgpu.barrier_wait(barrier)
        cells = _put_normed(plgpu.load(own, layout=_WGMMA), own)

        @pl.when(step + 1 < turns.steps)
        def _():
            # What was stored from there, a step ago, has been read.
            plgpu.wait_smem_to_gmem(0, wait_read_only=True)
            load(step + 1)

        cells = _add_units(cells, own, held_up, held_down, held_biases)
        own[...] = cells.astype(jnp.bfloat16)
        plgpu.commit_smem()
        at_cells(step, outputs, lambda x: plgpu.copy_smem_to_gmem(own, x))

    lax.fori_loop(0, turns.steps, transform, None)
    plgpu.wait_smem_to_gmem(0)


def _add_units(cells, own, up, down, biases) -> Float32[Array, "64 C"]:
    """Cells and what the MLP makes of their layer norm; references as of `mlp_weights`."""
    width, hidden = down.shape[1], down.shape[0]

    def add(total, units):
        total[...] = cells.astype(jnp.float32) + _rows(biases.at[pl.ds(hidden, width)])
        units[...] = _rows(biases.at[pl.ds(0, hidden)])
        plgpu.wgmma(units, own, up)
        found = _twice_gelu(plgpu.wgmma_accumulator_load(units, wait_n=0))
        plgpu.wgmma(total, found.astype(jnp.bfloat16), down)
        return plgpu.wgmma_accumulator_load(total, wait_n=0)

    return pl.run_scoped(add, _sum(width), _sum(hidden))


class _Turns(NamedTuple):
    """The tiles that the calling warpgroup goes through.

    Attributes:
        group: its number in the block.
        start: the first tile.
        stride: from a tile to the next.
        steps: how many there are for it.
    """

    group: Int32[Array, ""]
    start: Int32[Array, ""]
    stride: int
    steps: Int32[Array, ""]

    @classmethod
    def of(cls, tiles: int, groups: int, blocks: int) -> "_Turns":
        """Of so many tiles in all, for so many groups of each block."""
        group, stride = lax.axis_index("group"), blocks * groups
        start = lax.axis_index("block") * groups + group
        return cls(group, start, stride, lax.div(tiles - start + stride - 1, jnp.int32(stride)))

    def tile(self, step: Int32[Array, ""]) -> Int32[Array, ""]:
        return self.start + step * self.stride

    def load_weights(self, pairs, loaded) -> None:
        """Makes the block's copies, from and to references, and waits for so many."""

        @pl.when(self.group == 0)
        def _():
            for source, target in pairs:
                plgpu.copy_gmem_to_smem(source, target, loaded)

        plgpu.barrier_wait(loaded)


def _put_normed(cells: Float[Array, "64 C"], own) -> Float[Array, "64 C"]:
    """Writes the layer norm of cells without scale and bias, as flax computes it."""
    x = cells.astype(jnp.float32)
    share = 1 / x.shape[1]
    mean = x.sum(axis=1) * share
    variance = jnp.maximum((x * x).sum(axis=1) * share - mean * mean, 0.0)
    scale = lax.rsqrt(variance + 1e-6)
    own[...] = (x * _columns(scale, x) - _columns(mean * scale, x)).astype(jnp.bfloat16)
    plgpu.commit_smem()
    # Or they would be kept as float32 until they are added.
    return lax.optimization_barrier(cells)


def _softmax(
    scores: Float32[Array, "64 64"],
) -> tuple[BFloat16[Array, "64 64"], Float32[Array, "64"]]:
    """Powers of two in proportion to the weights, and by what to multiply what they sum up."""
    weights = jnp.exp2(scores - _columns(scores.max(axis=1), scores))
    return weights.astype(jnp.bfloat16), 1 / weights.sum(axis=1)


def _twice_gelu(x: Float32[Array, "64 H"]) -> Float32[Array, "64 H"]:
    """As that of flax, x (1 + tanh u) / 2, but for the half; the hardware has a tanh."""
    factor = math.sqrt(2 / math.pi)
    return x + x * jnp.tanh(x * (factor + (factor * 0.044715) * (x * x)))


def _by_head(size: int) -> tuple:
    """As `LAYOUT`, of matrices that are read a head of so many features at a time."""
    return plgpu.TilingTransform((8, size)), plgpu.SwizzleTransform(2 * size)


def _sum(columns: int):
    """What products with a tile of rows are added to."""
    return plgpu.ACC((ROWS, columns), jnp.float32)


def _multiply(target, left, right) -> None:
    """Begins to set a sum to a product."""
    target[...] = _zeros(target.shape, jnp.float32)
    plgpu.wgmma(target, left, right)


def _transposed(matrix):
    return matrix.transpose((1, 0))


def _zeros(shape: tuple[int, int], dtype) -> Float[Array, "_ _"]:
    return plgpu.layout_cast(jnp.zeros(shape, dtype), _WGMMA)


def _rows(vector) -> Float32[Array, "64 _"]:
    """What a reference to a vector holds, as each row of a tile."""
    held = plgpu.load(vector, layout=_BY_COLUMN)
    return lax.broadcast_in_dim(held, (ROWS, held.shape[0]), [1])


def _columns(vector: Float32[Array, "64"], like: Float32[Array, "64 _"]) -> jax.Array:
    """A number of each row in all columns."""
    return lax.broadcast_in_dim(vector, like.shape, [0])
