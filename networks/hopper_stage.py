"""A stage of attentive modes as two GPU kernels, written for the Hopper generation alone.

What `networks/fused_stage.py` does in Triton for more sizes, in less than half the time: as Pallas'
Mosaic kernels, in which matrix products run on while other work is done. Both kernels are
persistent. A block keeps all matrices in shared memory; each of its two warpgroups, which wait for
no other, goes through tiles of its own.
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
    WIDTH,
    LineTiles,
    copy_in,
    copy_out,
    line_bits,
    mask,
    opaque_zero,
    wait_in,
)

# Features of a head and units of the MLP, for which all matrices fit into the shared memory of a
# multiprocessor and all sums into its registers.
_HEAD = 32
_HIDDEN = 256
# Warpgroups of a block: while one waits the other computes. Of three, each had too few registers.
_GROUPS = 2
# Tiles of a warpgroup in shared memory: the next one arrives during a step.
_SLOTS = 2
# Multiprocessors of an H100 or H200, for where there is none to be asked.
_BLOCKS = 132

_WGMMA = plgpu.Layout.WGMMA
_BY_COLUMN = _WGMMA.reduce(0)
# As `LAYOUT`, of matrices that are read a head, 64 bytes, at a time.
_BY_HEAD = plgpu.TilingTransform((8, _HEAD)), plgpu.SwizzleTransform(2 * _HEAD)

_Grids = tuple[Float[Array, "B L m C"], Float[Array, "B n L C"]]
_Cells = tuple[BFloat16[Array, "N C"], BFloat16[Array, "M C"]]
_Weights = tuple[BFloat16[Array, "_ _"], BFloat16[Array, "_ _"], Float32[Array, "_"]]


def applies(block: BlockConfig, grids: _Grids) -> bool:
    """Whether `hopper_stage` can run, for bfloat16 grids on such a GPU, and is the faster one."""
    lines, width = Lines.of(grids), grids[0].shape[-1]
    cells = [x.size // width for x in grids]
    sizes = width, block.heads * block.head_dim, block.head_dim, block.mlp_factor * width
    return (
        sizes == (WIDTH, WIDTH, _HEAD, _HIDDEN)
        # The copy engine moves 8 cells at a time and leaves out those past the end; but an array
        # has to hold a tile.
        and all(x % 8 == 0 and x >= ROWS for x in cells)
        # With fewer lines a tile there would be more than twice as many tiles as in Triton.
        and 2 * LineTiles.of(lines).held >= max(1, ROWS // lines.tokens)
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
    cells = tuple(x.reshape(-1, x.shape[-1]) for x in grids)
    cells = _attend(LineTiles.of(Lines.of(grids)), cells, attention_weights(*params))
    cells = _transform(cells, mlp_weights(params[1]))
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
    """Matrices and biases of the MLP, into which its norm's scale and bias go.

    Returns:
        To the hidden units (C, H) and back (H, C); the biases of both, (H + C,).
    """
    norm, up, down = (from_heads[x] for x in ("LayerNorm_0", "Dense_0", "Dense_1"))
    of_units = up["bias"] + jnp.dot(norm["bias"], up["kernel"], precision="highest")
    return (
        (norm["scale"][:, None] * up["kernel"]).astype(jnp.bfloat16),
        down["kernel"].astype(jnp.bfloat16),
        jnp.concatenate([of_units, down["bias"]]),
    )


def _attend(tiles: LineTiles, cells: _Cells, weights: _Weights) -> _Cells:
    """The attention and its skip connection."""
    maps, projection, biases = weights
    scratch = [
        plgpu.SMEM((_GROUPS, _SLOTS, ROWS, WIDTH), jnp.bfloat16, transforms=LAYOUT),
        # Keys and values of two heads.
        plgpu.SMEM((_GROUPS, 4, ROWS, _HEAD), jnp.bfloat16, transforms=_BY_HEAD),
        # With an axis of one, for an index that the compiler does not know.
        plgpu.SMEM((1, *maps.shape), jnp.bfloat16, transforms=LAYOUT),
        plgpu.SMEM((1, *projection.shape), jnp.bfloat16, transforms=_BY_HEAD),
        plgpu.SMEM((1, *biases.shape), jnp.float32),
        plgpu.Barrier(num_arrivals=3),
    ]
    kernel = functools.partial(_attention_kernel, tiles=tiles)
    return _launch("attention", kernel, cells, weights, scratch)


def _transform(cells: _Cells, weights: _Weights) -> _Cells:
    """The MLP and its skip connection."""
    up, down, biases = weights
    scratch = [
        plgpu.SMEM((_GROUPS, _SLOTS, ROWS, WIDTH), jnp.bfloat16, transforms=LAYOUT),
        plgpu.SMEM(up.shape, jnp.bfloat16, transforms=LAYOUT),
        plgpu.SMEM(down.shape, jnp.bfloat16, transforms=LAYOUT),
        plgpu.SMEM(biases.shape, jnp.float32),
        plgpu.Barrier(num_arrivals=4),
        plgpu.Barrier(num_barriers=_GROUPS * _SLOTS),
    ]
    return _launch("mlp", _mlp_kernel, cells, weights, scratch)


def _launch(name: str, kernel: Callable, cells: _Cells, weights: _Weights, scratch: list) -> _Cells:
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
        num_threads=_GROUPS,
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


def _attention_kernel(
    first, second, maps, projection, biases, *rest, tiles: LineTiles, blocks: int
):
    """The attention of all lines.

    The product that makes queries, keys and values of a head runs during the softmax of the head
    before; that which adds what a head saw is waited for during the next head.

    Args:
        first: reference to the cells of the first grid of all games, (B L m, C).
        second: to those of the second grid, (B n L, C).
        maps: to the first of the `attention_weights`.
        projection: to the second.
        biases: to the third.
        rest: to the cells of both grids after it, and to the shared memory of `_attend`.
        tiles: of a game.
        blocks: of the kernel.
    """
    *outputs, held_cells, held_pairs, held_maps, held_projection, held_biases, loaded = rest
    turns = _Turns.of(first.shape[0] // tiles.sizes[0], blocks)

    def slot(step):
        return held_cells.at[turns.group + opaque_zero(), lax.rem(step, _SLOTS)]

    def load(step):
        copy_in(tiles, (first, second), tiles.first_cells(turns.tile(step)), slot(step))

    # Rows without a cell see each other alone, and hold from step to step what comes of it. They
    # start as zeros, as others see them with a weight of zero, and zero times NaN is NaN.
    for index in range(_SLOTS):
        held_cells[turns.group, index] = _zeros((ROWS, WIDTH), jnp.bfloat16)
    plgpu.commit_smem()

    @pl.when(turns.steps > 0)
    def _():
        load(jnp.int32(0))

    weights = (maps, held_maps), (projection, held_projection), (biases, held_biases)
    turns.load_weights([(source, target.at[0]) for source, target in weights], loaded)
    bits = line_bits(tiles)

    def bias(start, size):
        return _rows(held_biases.at[opaque_zero(), pl.ds(start, size)])

    def add_heads(cells, step, total, scores, seen, *units):
        heads = projection.shape[0] // _HEAD

        def begin(head):
            own = held_maps.at[opaque_zero(), pl.ds(head * 3 * _HEAD, 3 * _HEAD)]
            _multiply(units[head % 2], slot(step), _transposed(own))

        total[...] = cells.astype(jnp.float32) + bias(heads * _HEAD, WIDTH)
        begin(0)
        for head in range(heads):
            # After the product of this head came the one to the sum from the head before.
            found = plgpu.wgmma_accumulator_load(units[head % 2], wait_n=min(head, 1))
            query, key, value = (found[:, i * _HEAD : (i + 1) * _HEAD] for i in range(3))
            query = (query + bias(head * _HEAD, _HEAD)).astype(jnp.bfloat16)
            # Other warps may still read those of the head before.
            pair, place = turns.group + opaque_zero(), head % 2 * 2
            keys, values = held_pairs.at[pair, place], held_pairs.at[pair, place + 1]
            keys[...] = key.astype(jnp.bfloat16)
            values[...] = value.astype(jnp.bfloat16)
            plgpu.commit_smem()
            _multiply(scores, query, _transposed(keys))
            more = head + 1 < heads
            if more:
                begin(head + 1)
            found = plgpu.wgmma_accumulator_load(scores, wait_n=int(more))
            weights, factor = _softmax(mask(found, bits))
            _multiply(seen, weights, values)
            mixed = plgpu.wgmma_accumulator_load(seen, wait_n=0) * factor
            own = held_projection.at[opaque_zero(), pl.ds(head * _HEAD, _HEAD)]
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
        sums = [_sum(x) for x in (WIDTH, ROWS, _HEAD, 3 * _HEAD, 3 * _HEAD)]
        cells = pl.run_scoped(functools.partial(add_heads, cells, step), *sums)
        own[...] = cells.astype(jnp.bfloat16)
        plgpu.commit_smem()
        copy_out(tiles, own, outputs, tiles.first_cells(turns.tile(step)))

    lax.fori_loop(0, turns.steps, attend, None)


def _mlp_kernel(first, second, up, down, biases, *rest, blocks: int):
    """The MLP of all cells, 64 of a grid at a time.

    Args:
        first: reference to the cells of the first grid of all games, (B L m, C).
        second: to those of the second grid, (B n L, C).
        up: to the first of the `mlp_weights`.
        down: to the second.
        biases: to the third.
        rest: to the cells of both grids after it, and to the shared memory of `_transform`.
        blocks: of the kernel.
    """
    *outputs, held_cells, held_up, held_down, held_biases, loaded, arrived = rest
    counts = [pl.cdiv(x.shape[0], ROWS) for x in (first, second)]
    turns = _Turns.of(sum(counts), blocks)

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
    parts = [pl.ds(0, up.shape[1]), pl.ds(up.shape[1], WIDTH)]
    weights = (up, held_up), (down, held_down), *((biases.at[x], held_biases.at[x]) for x in parts)
    turns.load_weights(weights, loaded)

    def add_units(cells, own, total, units):
        of_units, of_cells = (_rows(held_biases.at[x]) for x in parts)
        total[...] = cells.astype(jnp.float32) + of_cells
        units[...] = of_units
        plgpu.wgmma(units, own, held_up)
        found = _gelu(plgpu.wgmma_accumulator_load(units, wait_n=0))
        plgpu.wgmma(total, found.astype(jnp.bfloat16), held_down)
        return plgpu.wgmma_accumulator_load(total, wait_n=0)

    def transform(step, _):
        own, barrier = slot(step)
        plgpu.barrier_wait(barrier)
        cells = _put_normed(plgpu.load(own, layout=_WGMMA), own)

        @pl.when(step + 1 < turns.steps)
        def _():
            # What was stored from there, a step ago, has been read.
            plgpu.wait_smem_to_gmem(0, wait_read_only=True)
            load(step + 1)

        sums = _sum(WIDTH), _sum(up.shape[1])
        cells = pl.run_scoped(functools.partial(add_units, cells, own), *sums)
        own[...] = cells.astype(jnp.bfloat16)
        plgpu.commit_smem()
        at_cells(step, outputs, lambda x: plgpu.copy_smem_to_gmem(own, x))

    lax.fori_loop(0, turns.steps, transform, None)
    plgpu.wait_smem_to_gmem(0)


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
    def of(cls, tiles: int, blocks: int) -> "_Turns":
        """Of so many tiles in all."""
        group, stride = lax.axis_index("group"), blocks * _GROUPS
        start = lax.axis_index("block") * _GROUPS + group
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


def _put_normed(cells: BFloat16[Array, "64 C"], own) -> BFloat16[Array, "64 C"]:
    """Overwrites cells by their layer norm without scale and bias, as flax computes it."""
    x = cells.astype(jnp.float32)
    mean = x.sum(axis=1) * (1 / WIDTH)
    variance = jnp.maximum((x * x).sum(axis=1) * (1 / WIDTH) - mean * mean, 0.0)
    scale = lax.rsqrt(variance + 1e-6)
    own[...] = (x * _columns(scale, x) - _columns(mean * scale, x)).astype(jnp.bfloat16)
    plgpu.commit_smem()
    # Or they would be kept as float32 until they are added.
    return lax.optimization_barrier(cells)


def _softmax(
    scores: Float32[Array, "64 64"],
) -> tuple[BFloat16[Array, "64 64"], Float32[Array, "64 d"]]:
    """Powers of two in proportion to the weights, and by what to multiply what they sum up."""
    weights = jnp.exp2(scores - _columns(scores.max(axis=1), scores))
    factor = 1 / weights.sum(axis=1)
    return weights.astype(jnp.bfloat16), lax.broadcast_in_dim(factor, (ROWS, _HEAD), [0])


def _gelu(x: Float32[Array, "64 H"]) -> Float32[Array, "64 H"]:
    """As that of flax, x (1 + tanh u) / 2; the hardware has a tanh."""
    factor = math.sqrt(2 / math.pi)
    half = 0.5 * x
    return half + half * jnp.tanh(x * (factor + (factor * 0.044715) * (x * x)))


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
