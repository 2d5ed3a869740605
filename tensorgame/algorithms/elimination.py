"""Exact Gauss-Jordan elimination modulo a prime, for systems with many right-hand sides.

`eliminate` returns a `BinaryElimination` modulo 2, with 64 entries a word, and a
`PrimeElimination` modulo other primes, on floats that hold every intermediate value exactly.
Both go through the columns in blocks of 64: the row operations of a block are found on its columns
alone, and then applied to all columns to the right at once (modulo 2 by tables of all sums of eight
rows, the method of the four Russians, otherwise by a matrix product). The operations are kept, so
that further right-hand sides cost no elimination.
"""

from __future__ import annotations

import abc
import dataclasses
import functools

import numpy as np

from tensorgame.algorithms.arithmetic import residues

LARGEST_PRIME = 2**20
_BLOCK = 64
# rint(x / p) is right for integers up to this in float32, with a bit to spare. In float64 it is up
# to 2^51, which no sum of 65 products of residues modulo LARGEST_PRIME reaches.
_FLOAT32_SAFE = 2**22


def eliminate(matrix: np.ndarray, order: np.ndarray, prime: int) -> Elimination:
    """Gauss-Jordan elimination of a matrix modulo ``prime``.

    Args:
      matrix: (rows, columns), any integer dtype, entries from 0 to prime - 1.
      order: a permutation of the columns; earlier ones are preferred as pivots.
      prime: at most ``LARGEST_PRIME``.

    Raises:
      ValueError: the prime is larger.
    """
    if prime > LARGEST_PRIME:
        raise ValueError(f"modulus is {prime}; it has to be at most {LARGEST_PRIME}")
    if prime == 2:
        return BinaryElimination(matrix, order)
    return PrimeElimination(matrix, order, prime)


@dataclasses.dataclass(frozen=True)
class _Block:
    """Row operations: every row gets multiples of the pivot rows, as these were before.

    Attributes:
      pivots: (n,) the rows that became pivots, n <= 64.
      columns: (n,) their columns, counted from the start of the block.
      multiples: (rows,) uint64 with bit b for pivot b, or (rows, n) floats.
    """

    pivots: np.ndarray
    columns: np.ndarray
    multiples: np.ndarray


class Elimination(abc.ABC):
    """The reduced row echelon form of a matrix, and the row operations that lead to it.

    Attributes:
      unused: (rows,) bool, the rows without pivot, where a reduced right-hand side has to vanish.
    """

    _columns_per_item: int

    def __init__(self, matrix: np.ndarray, order: np.ndarray, prime: int) -> None:
        rows, columns = matrix.shape
        self._prime = prime
        self._columns = columns
        self._order = order
        self._blocks: list[_Block] = []
        self.unused = np.ones(rows, dtype=bool)
        stored = self._store(matrix[:, order])
        positions = []
        for start in range(0, columns, _BLOCK):
            # Columns to the left are finished: rows that can still be pivots are zero there.
            rest = stored[:, start // self._columns_per_item :]
            block = self._find_operations(rest, min(_BLOCK, columns - start))
            if len(block.pivots):
                self._apply(block, rest)
                self._blocks.append(block)
                positions.append(start + block.columns)
        pivots = [block.pivots for block in self._blocks]
        self._pivot_rows = np.concatenate([np.zeros(0, np.int64), *pivots])
        self._pivot_positions = np.concatenate([np.zeros(0, np.int64), *positions])
        self._echelon = stored[self._pivot_rows]

    @functools.cached_property
    def kernel(self) -> np.ndarray:
        """A basis of the kernel: (nullity, columns) int64, residues in (-p/2, p/2].

        It is in the given order of the free columns; each vector uses its free column and pivots
        that come before it only.
        """
        free = np.delete(np.arange(self._columns), self._pivot_positions)
        kernel = np.zeros((len(free), self._columns), dtype=np.int64)
        kernel[np.arange(len(free)), self._order[free]] = 1
        entries = self._load(self._echelon, self._columns)[:, free].T.astype(np.int64)
        kernel[:, self._order[self._pivot_positions]] = residues(-entries, self._prime)
        return kernel

    def reduce(self, sides: np.ndarray) -> np.ndarray:
        """Applies the row operations to right-hand sides.

        Args:
          sides: (rows, n), an integer dtype, entries from 0 to prime - 1.

        Returns:
          (rows, n) int64, entries from 0 to prime - 1.
        """
        stored = self._store(sides)
        for block in self._blocks:
            self._apply(block, stored)
        return self._load(stored, sides.shape[1]).astype(np.int64)

    def solve(self, side: np.ndarray) -> np.ndarray | None:
        """The solution with all free entries 0.

        Args:
          side: (rows,), an integer dtype, entries from 0 to prime - 1.

        Returns:
          (columns,) int64 residues in (-p/2, p/2]; None if there is no solution.
        """
        reduced = self.reduce(side[:, None])[:, 0]
        if reduced[self.unused].any():
            return None
        solution = np.zeros(self._columns, dtype=np.int64)
        values = residues(reduced[self._pivot_rows], self._prime)
        solution[self._order[self._pivot_positions]] = values
        return solution

    @abc.abstractmethod
    def _store(self, matrix: np.ndarray) -> np.ndarray:
        """The matrix as it is computed with: a copy (rows, items)."""

    @abc.abstractmethod
    def _load(self, stored: np.ndarray, columns: int) -> np.ndarray:
        """The inverse of ``_store``: (rows, columns), from 0 to prime - 1, in a small dtype."""

    @abc.abstractmethod
    def _find_operations(self, stored: np.ndarray, width: int) -> _Block:
        """Operations that reduce the first ``width`` columns; marks the pivots as used."""

    @abc.abstractmethod
    def _apply(self, block: _Block, stored: np.ndarray) -> None:
        """Applies row operations in place."""


class BinaryElimination(Elimination):
    """Elimination modulo 2, with 64 columns a word."""

    _columns_per_item = 64

    def __init__(self, matrix: np.ndarray, order: np.ndarray) -> None:
        super().__init__(matrix, order, 2)

    def _store(self, matrix: np.ndarray) -> np.ndarray:
        rows, columns = matrix.shape
        packed = np.packbits(matrix.astype(np.uint8, copy=False), axis=1, bitorder="little")
        padded = np.zeros((rows, -(-columns // 64) * 8), dtype=np.uint8)
        padded[:, : packed.shape[1]] = packed
        return padded.view("<u8")

    def _load(self, stored: np.ndarray, columns: int) -> np.ndarray:
        octets = np.ascontiguousarray(stored).view(np.uint8)
        return np.unpackbits(octets, axis=1, count=columns, bitorder="little")

    def _find_operations(self, stored: np.ndarray, width: int) -> _Block:
        panel = stored[:, 0].astype(np.uint64)
        multiples = np.zeros_like(panel)
        pivots, columns = [], []
        one = np.uint64(1)
        for column in range(width):
            entries = (panel >> np.uint64(column) & one).astype(bool)
            candidates = entries & self.unused
            pivot = int(candidates.argmax())
            if not candidates[pivot]:
                continue
            entries[pivot] = False
            # What the pivot row is by now, in terms of the rows before this block.
            combination = multiples[pivot] ^ (one << np.uint64(len(pivots)))
            panel[entries] ^= panel[pivot]
            multiples[entries] ^= combination
            self.unused[pivot] = False
            pivots.append(pivot)
            columns.append(column)
        return _Block(np.array(pivots, np.int64), np.array(columns, np.int64), multiples)

    def _apply(self, block: _Block, stored: np.ndarray) -> None:
        before = stored[block.pivots]
        octets = block.multiples.astype("<u8").view(np.uint8).reshape(-1, 8)
        for start in range(0, len(before), 8):
            sums = np.zeros((1, stored.shape[1]), dtype=stored.dtype)
            for row in before[start : start + 8]:
                sums = np.concatenate([sums, sums ^ row])
            stored ^= sums[octets[:, start // 8]]


class PrimeElimination(Elimination):
    """Elimination modulo an odd prime.

    Entries are residues in (-p/2, p/2) as floats, and reduced before they leave the range where
    floats are exact.
    """

    _columns_per_item = 1

    def __init__(self, matrix: np.ndarray, order: np.ndarray, prime: int) -> None:
        largest = (_BLOCK + 1) * (prime // 2) ** 2 + prime
        self._dtype = np.float32 if largest <= _FLOAT32_SAFE else np.float64
        super().__init__(matrix, order, prime)

    def _store(self, matrix: np.ndarray) -> np.ndarray:
        stored = matrix.astype(self._dtype, order="C")
        self._reduce(stored)
        return stored

    def _load(self, stored: np.ndarray, columns: int) -> np.ndarray:
        entries = stored[:, :columns]
        entries = np.where(entries < 0, entries + self._prime, entries)
        return entries.astype(np.min_scalar_type(self._prime - 1))

    def _reduce(self, x: np.ndarray) -> None:
        """Brings integers to residues in (-p/2, p/2) in place; ties cannot be, as p is odd."""
        quotient = x / x.dtype.type(self._prime)
        np.rint(quotient, out=quotient)
        quotient *= self._prime
        x -= quotient

    def _find_operations(self, stored: np.ndarray, width: int) -> _Block:
        # The columns of the block, and beside them the multiples of each pivot row.
        panel = np.zeros((len(stored), width + _BLOCK), dtype=self._dtype)
        panel[:, :width] = stored[:, :width]
        pivots, columns = [], []
        for column in range(width):
            candidates = (panel[:, column] != 0) & self.unused
            pivot = int(candidates.argmax())
            if not candidates[pivot]:
                continue
            slot = width + len(pivots)
            row = panel[pivot].copy()
            row[slot] += 1
            row *= int(residues(pow(int(row[column]), -1, self._prime), self._prime))
            self._reduce(row)
            panel[pivot] = row
            panel[pivot, slot] -= 1
            others = np.flatnonzero(panel[:, column])
            others = others[others != pivot]
            changed = panel[others] - panel[others, column, None] * row
            self._reduce(changed)
            panel[others] = changed
            self.unused[pivot] = False
            pivots.append(pivot)
            columns.append(column)
        multiples = panel[:, width : width + len(pivots)].copy()
        return _Block(np.array(pivots, np.int64), np.array(columns, np.int64), multiples)

    def _apply(self, block: _Block, stored: np.ndarray) -> None:
        stored += block.multiples @ stored[block.pivots]
        self._reduce(stored)
