"""Tiles of lines, as the threads of a warpgroup copy and mask them, for GPUs like the H100.

A tile is the tokens of some lines in 64 rows: line after line those of the first grid, then those
of the second. Its threads copy the cells themselves, 16 bytes at a time, as no box of the copy
engine makes such a tile. That, and a mask of one bit a score, is written in MLIR, as Pallas has
neither.
"""

import functools
import math
import operator
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.experimental.mosaic import gpu as mosaic
from jax.experimental.mosaic.gpu import utils
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import arith, llvm, vector
from jaxtyping import Array, Float, Int32

from networks.fused_attention import Lines

# Rows of a tile, as many as a warpgroup multiplies at a time.
ROWS = 64
# How a matrix lies in shared memory for the tensor cores: as tiles of 8 rows of so many features,
# 128 bytes, in each of which the number of 16 bytes is combined (xor) with that of the row.
FEATURES = 64
LAYOUT = plgpu.TilingTransform((8, FEATURES)), plgpu.SwizzleTransform(2 * FEATURES)

_THREADS = 128
# Columns of `line_marks`, as many as the tensor cores multiply at a time.
_MARKS = 16
_NUMBER = plgpu.Layout.WG_SPLAT(())
# One number a thread.
_NUMBERS = plgpu.Layout.WG_STRIDED((_THREADS,), 1)


class LineTiles(NamedTuple):
    """The tiles of all games.

    Attributes:
        lines: of a game.
        games: how many there are.
        width: features of a cell, 64 or 128 of bfloat16.
    """

    lines: Lines
    games: int
    width: int

    @property
    def held(self) -> int:
        """Lines of a tile, which may be of two games; of lines that are too long, none."""
        return min(_MARKS, ROWS // self.lines.tokens)

    @property
    def total(self) -> int:
        """Lines of all games."""
        return self.games * self.lines.count

    @property
    def count(self) -> int:
        """Tiles of all games. The last may have fewer lines."""
        return -(-self.total // self.held)

    @property
    def sizes(self) -> tuple[int, int]:
        """Cells of a tile in each grid."""
        return self.held * self.lines.row, self.held * self.lines.column


class Piece(NamedTuple):
    """16 bytes that a thread copies.

    Attributes:
        part: which grid they are of.
        cell: in this grid, (B L m, C) or (B n L, C).
        feature: the first of 8.
        place: where they lie in the tile in shared memory, in bytes.
        exists: whether there is such a cell; None if there is for all threads.
    """

    part: int
    cell: Any
    feature: Any
    place: Any
    exists: Any


def pieces(tiles: LineTiles, thread: Any, first: Any) -> Iterator[Piece]:
    """All pieces of a thread of a warpgroup, of which as many as fit copy a whole cell.

    The thread's number, 0 to 127, and that of the tile's first line may be anything with Python's
    operators.
    """
    of_cell = tiles.width // 8
    together = _THREADS // of_cell
    row, chunk = thread // of_cell, thread % of_cell
    within = row & 7
    place = (row >> 3) * (16 * tiles.width) + (chunk >> 3) * 1024
    place = place + within * 128 + ((chunk & 7) ^ within) * 16
    lines = tiles.lines
    # The rows of both grids; where they meet some threads copy of one and some of the other.
    ends = tiles.sizes[0], sum(tiles.sizes)
    for part, (begin, end) in enumerate(zip((0, ends[0]), ends, strict=True)):
        for start in range(begin // together * together, end, together):
            token = row + (start - begin)
            if part == 0:
                # Cells of lines side by side lie one after the other.
                line, cell = first + token // lines.row, first * lines.row + token
            else:
                line = first + token // lines.column
                game, of_game = line // lines.count, line % lines.count
                cell = (game * lines.column + token % lines.column) * lines.count + of_game
            conditions = []
            if start < begin:
                conditions.append(row >= begin - start)
            if start + together > end:
                conditions.append(row < end - start)
            if tiles.total % tiles.held:
                conditions.append(line < tiles.total)
            exists = functools.reduce(operator.and_, conditions) if conditions else None
            yield Piece(part, cell, chunk * 8, place + start * (2 * tiles.width), exists)


def line_of_row(tiles: LineTiles, row: Any) -> Any:
    """Which line of the tile a row belongs to; one without a cell to none that has a cell."""
    size = tiles.sizes[0]
    second = (row + (ROWS - size)) >> 6
    of_first, of_second = row // tiles.lines.row, (row + -size) // tiles.lines.column
    return of_first * (second ^ 1) + of_second * second


def line_marks(tiles: LineTiles) -> tuple[Float[np.ndarray, "64 16"], Float[np.ndarray, "64 16"]]:
    """Of queries and of keys: their products are 0 within lines and otherwise too low to count.

    Exactly so, in bfloat16. A query without a cell sees all keys with one, and so has a score.
    """
    own = line_of_row(tiles, np.arange(ROWS))[:, None] == np.arange(_MARKS)
    own &= np.arange(_MARKS) < tiles.held
    return own.astype(float), np.where(own, 0.0, -(2.0**100))


class _Number:
    """A 32-bit number of MLIR that is not negative, with Python's operators."""

    def __init__(self, value: ir.Value):
        self.value = value

    @classmethod
    def of(cls, number: "_Number | int") -> "_Number":
        if isinstance(number, cls):
            return number
        return cls(arith.constant(_i32(), ir.IntegerAttr.get(_i32(), number)))

    def __add__(self, other):
        return _Number(arith.addi(self.value, self.of(other).value))

    def __mul__(self, other):
        return _Number(arith.muli(self.value, self.of(other).value))

    def __floordiv__(self, other):
        return _Number(arith.divui(self.value, self.of(other).value))

    def __mod__(self, other):
        return _Number(arith.remui(self.value, self.of(other).value))

    def __and__(self, other):
        return _Number(arith.andi(self.value, self.of(other).value))

    def __or__(self, other):
        return _Number(arith.ori(self.value, self.of(other).value))

    def __xor__(self, other):
        return _Number(arith.xori(self.value, self.of(other).value))

    def __lshift__(self, other):
        return _Number(arith.shli(self.value, self.of(other).value))

    def __rshift__(self, other):
        return _Number(arith.shrui(self.value, self.of(other).value))

    def __lt__(self, other):
        return _Number(self.compare(arith.CmpIPredicate.ult, other))

    def __ge__(self, other):
        return _Number(self.compare(arith.CmpIPredicate.uge, other))

    def compare(self, how: arith.CmpIPredicate, other: "_Number | int") -> ir.Value:
        """A number of one bit."""
        return arith.cmpi(how, self.value, self.of(other).value)


def _i32() -> ir.Type:
    return ir.IntegerType.get_signless(32)


def _opaque(value: ir.Value) -> ir.Value:
    """The same 32 bits, of which the compiler knows nothing.

    It would compute what follows from them before the loop over the tiles and keep it in registers:
    addresses alone take more than a hundred.
    """
    return utils.inline_ptx("mov.b32 $0, $1;", value, result_types=_i32(), has_side_effects=True)


def opaque_zero() -> Int32[Array, ""]:
    """A zero of which the compiler does not know."""

    @plgpu.inline_mgpu(return_type=plgpu.ShapeDtypeStruct((), jnp.int32, layout=_NUMBER))
    def make(context):
        zero = _opaque(_Number.of(0).value)
        return mosaic.FragmentedArray.splat(zero, (), is_signed=True)

    return make()


def copy_in(tiles: LineTiles, grids: tuple, number: Int32[Array, ""], tile) -> None:
    """Begins to copy a tile's cells; rows without any are left as they are.

    Args:
        tiles: of all games.
        grids: references to the cells (N, C) of both grids.
        number: the tile's.
        tile: reference to shared memory, (64, C).
    """

    @plgpu.inline_mgpu(arg_types=(*[plgpu.RefType()] * 2, _NUMBER, plgpu.RefType(LAYOUT)))
    def copy(context, first, second, number, tile):
        for cell, place, exists in _addresses(tiles, (first, second), number, tile):
            utils.inline_ptx(
                "cp.async.cg.shared.global [$0], [$1], 16;",
                place,
                cell,
                predicate=exists,
                has_side_effects=True,
            )
        utils.inline_ptx("cp.async.commit_group;", has_side_effects=True)

    copy(*grids, number, tile)


def wait_in(tile) -> None:
    """Waits until the cells that all threads of the warpgroup copy have arrived in the tile."""

    # The tile is an argument so that this counts as writing to it.
    @plgpu.inline_mgpu(arg_types=(plgpu.RefType(LAYOUT),))
    def wait(context, tile):
        utils.inline_ptx("cp.async.wait_group 0;", has_side_effects=True)
        utils.warpgroup_barrier()

    wait(tile)


def copy_out(tiles: LineTiles, tile, grids: tuple, number: Int32[Array, ""]) -> None:
    """Copies a tile's cells to both grids, after a barrier; arguments as of `copy_in`."""

    @plgpu.inline_mgpu(arg_types=(plgpu.RefType(LAYOUT), *[plgpu.RefType()] * 2, _NUMBER))
    def copy(context, tile, first, second, number):
        # All are read before any is written, so that they are under way together.
        held = []
        for cell, place, exists in _addresses(tiles, (first, second), number, tile):
            words = utils.inline_ptx(
                "ld.shared.v4.b32 {$0, $1, $2, $3}, [$4];",
                place,
                result_types=[_i32()] * 4,
                has_side_effects=True,
            )
            held.append((cell, words, exists))
        for cell, words, exists in held:
            utils.inline_ptx(
                "st.global.v4.b32 [$0], {$1, $2, $3, $4};",
                cell,
                *words,
                predicate=exists,
                has_side_effects=True,
            )

    copy(tile, *grids, number)


def _addresses(
    tiles: LineTiles, grids: tuple, number: mosaic.FragmentedArray, tile: ir.Value
) -> Iterator[tuple[ir.Value, ir.Value, ir.Value | None]]:
    """Of the calling thread's pieces: addresses in global and shared memory, whether they exist."""
    i64 = ir.IntegerType.get_signless(64)
    thread = _Number(_opaque(utils.thread_idx())) & (_THREADS - 1)
    shared = _Number(_opaque(llvm.ptrtoint(_i32(), utils.memref_ptr(tile))))
    size = arith.constant(i64, ir.IntegerAttr.get(i64, 2 * tiles.width))
    starts = []
    for grid in grids:
        pointer = llvm.addrspacecast(llvm.PointerType.get(address_space=1), utils.memref_ptr(grid))
        starts.append(llvm.ptrtoint(i64, pointer))
    for piece in pieces(tiles, thread, _Number(number.registers.item()) * tiles.held):
        cell = arith.muli(arith.extui(i64, piece.cell.value), size)
        feature = arith.extui(i64, (piece.feature * 2).value)
        address = arith.addi(arith.addi(starts[piece.part], feature), cell)
        exists = None if piece.exists is None else piece.exists.value
        yield address, (shared + piece.place).value, exists


def line_bits(tiles: LineTiles) -> Int32[Array, "128"]:
    """For each thread's 32 scores of a tile a bit each: whether both tokens are of one line."""

    @plgpu.inline_mgpu(return_type=plgpu.ShapeDtypeStruct((_THREADS,), jnp.int32, layout=_NUMBERS))
    def make(context):
        query, key = (
            mosaic.FragmentedArray.broadcasted_iota(
                _i32(), (ROWS, ROWS), axis, plgpu.Layout.WGMMA.to_mgpu(), is_signed=True
            ).registers.flat
            for axis in range(2)
        )
        word, bit = _Number.of(0), 0
        for pair in zip(query, key, strict=True):
            for index in range(_size(pair[0])):
                one, other = (
                    line_of_row(tiles, _Number(vector.extract(x, [], [index]))) for x in pair
                )
                same = one.compare(arith.CmpIPredicate.eq, other)
                word |= _Number(arith.extui(_i32(), same)) << bit
                bit += 1
        registers = np.empty(_NUMBERS.to_mgpu().registers_shape((_THREADS,)), dtype=object)
        registers.flat[0] = vector.broadcast(ir.VectorType.get((1,), _i32()), _opaque(word.value))
        return mosaic.FragmentedArray(
            _registers=registers, _layout=_NUMBERS.to_mgpu(), _is_signed=True
        )

    return make()


def mask(scores: Float[Array, "64 64"], bits: Int32[Array, "128"]) -> Float[Array, "64 64"]:
    """The scores within lines, -inf for others; the bits are those of `line_bits`."""
    layout = plgpu.Layout.WGMMA
    kind = plgpu.ShapeDtypeStruct(scores.shape, scores.dtype, layout=layout)

    @plgpu.inline_mgpu(arg_types=(layout, _NUMBERS), return_type=kind)
    def select(context, scores, bits):
        # Or 32 comparisons would be kept in registers instead of one word.
        word = _Number(_opaque(vector.extract(bits.registers.flat[0], [], [0])))
        f32 = ir.F32Type.get()
        never = arith.constant(f32, ir.FloatAttr.get(f32, -math.inf))
        registers, bit = np.empty_like(scores.registers), 0
        for where, some in np.ndenumerate(scores.registers):
            for index in range(_size(some)):
                # As a signed number, which the last bit is the sign of.
                only = word & int(np.uint32(1 << bit).astype(np.int32))
                counts = only.compare(arith.CmpIPredicate.ne, 0)
                score = arith.select(counts, vector.extract(some, [], [index]), never)
                some = vector.insert(score, some, [], [index])
                bit += 1
            registers[where] = some
        return mosaic.FragmentedArray(_registers=registers, _layout=scores.layout, _is_signed=None)

    return select(scores, bits)


def _size(value: ir.Value) -> int:
    return ir.VectorType(value.type).shape[0]
