"""Exact linear algebra over Q and Z_p on small matrices.

Matrices are NumPy arrays of integers, or of ``fractions.Fraction`` over Q. The modulus is 0 for Q
or a prime. Gaussian matrices take part as real ones of twice the size, see `embed`.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

# Sums of 64 products of entries below this fit into int64.
_INT64_MODULUS = 2**28
_INT64_LIMIT = 2**62


def integers(array: np.ndarray, modulus: int) -> np.ndarray:
    """Integers in the dtype that is safe for matrix products: int64 modulo a small prime only."""
    if not modulus:
        return array.astype(object)
    return (array % modulus).astype(np.int64 if modulus <= _INT64_MODULUS else object)


def reduced(array: np.ndarray, modulus: int) -> np.ndarray:
    """The array modulo the modulus, if there is one."""
    return array % modulus if modulus else array


def reciprocal(number: int | Fraction, modulus: int) -> int | Fraction:
    """1 / number in the field."""
    return pow(int(number), -1, modulus) if modulus else 1 / Fraction(number)


def embed(real: np.ndarray, imaginary: np.ndarray) -> np.ndarray:
    """A complex matrix (..., n, m) as a real one (..., 2n, 2m), with blocks [[re, -im], [im, re]].

    Sums, products and inverses correspond, and ranks double.
    """
    *batch, n, m = real.shape
    blocks = np.stack([real, -imaginary, imaginary, real], -1).reshape(*batch, n, m, 2, 2)
    return blocks.swapaxes(-3, -2).reshape(*batch, 2 * n, 2 * m)


def row_reduce(matrix: np.ndarray, modulus: int) -> tuple[np.ndarray, list[int]]:
    """The reduced row echelon form without rows of zeros, and the pivot columns."""
    if modulus:
        rows = integers(matrix, modulus)
    else:
        rows = np.vectorize(Fraction, otypes=[object])(matrix) if matrix.size else matrix
    pivots: list[int] = []
    for column in range(matrix.shape[1]):
        rank = len(pivots)
        candidates = np.flatnonzero(rows[rank:, column])
        if not len(candidates):
            continue
        rows[[rank, rank + candidates[0]]] = rows[[rank + candidates[0], rank]]
        rows[rank] = reduced(rows[rank] * reciprocal(rows[rank, column], modulus), modulus)
        others = np.flatnonzero(rows[:, column])
        others = others[others != rank]
        change = rows[others, column][:, None] * rows[rank]
        rows[others] = reduced(rows[others] - change, modulus)
        pivots.append(column)
    return rows[: len(pivots)], pivots


def null_space(matrix: np.ndarray, modulus: int) -> np.ndarray:
    """A basis of {x: matrix x = 0} as rows; over Q primitive vectors of integers."""
    rows, pivots = row_reduce(matrix, modulus)
    columns = matrix.shape[1]
    free = [column for column in range(columns) if column not in set(pivots)]
    basis = np.zeros((len(free), columns), rows.dtype if modulus else object)
    for vector, column in zip(basis, free, strict=True):
        vector[column] = 1
        if pivots:
            vector[pivots] = reduced(-rows[:, column], modulus)
        if not modulus:
            vector *= math.lcm(*(Fraction(x).denominator for x in vector))
            vector[:] = [int(x) for x in vector]
            vector //= math.gcd(*vector)
    return basis


def inverse(matrix: np.ndarray, modulus: int) -> np.ndarray | None:
    """The inverse of a square matrix, or None if it is singular."""
    n = len(matrix)
    rows, pivots = row_reduce(np.hstack([matrix, np.eye(n, dtype=int)]), modulus)
    return rows[:, n:] if pivots == list(range(n)) else None


def ranks(matrices: np.ndarray, modulus: int) -> np.ndarray:
    """The ranks of integer matrices (..., n, m): an int64 array (...).

    Eliminates in all matrices at once, over Q without fractions (Bareiss 1968): all numbers that
    occur are minors, so Hadamard's bound says whether int64 holds them.
    """
    *batch, n, m = matrices.shape
    flat = matrices.reshape(math.prod(batch), n, m)
    if modulus:
        work = integers(flat, modulus)
    else:
        largest = max(int(flat.max(initial=0)), -int(flat.min(initial=0)))
        minor = math.isqrt((largest * largest * max(n, m)) ** min(n, m)) + 1
        fits = 2 * minor * minor < _INT64_LIMIT
        work = flat.astype(np.int64 if fits else object)
    found = np.zeros(len(work), np.int64)
    active = np.arange(len(work))
    previous = np.ones(len(work), work.dtype)
    for step in range(min(n, m)):
        nonzero = (work[active, step:, step:] != 0).reshape(len(active), -1)
        active = active[nonzero.any(1)]
        if not len(active):
            break
        found[active] += 1
        row, column = np.divmod(nonzero[nonzero.any(1)].argmax(1), m - step)
        current = _pivot(work[active], row + step, column + step, step)
        pivot = current[:, step, step, None, None]
        rest = pivot * current[:, step + 1 :] - (
            current[:, step + 1 :, step, None] * current[:, step, None]
        )
        if modulus:
            rest = rest % modulus
        else:
            rest = rest // previous[active][:, None, None]
            previous[active] = pivot[:, 0, 0]
        current[:, step + 1 :] = rest
        work[active] = current
    return found.reshape(batch)


def _pivot(work: np.ndarray, row: np.ndarray, column: np.ndarray, step: int) -> np.ndarray:
    """Brings the entry (row, column) of each matrix of (B, n, m) to (step, step)."""
    each = np.arange(len(work))
    other = work[each, row]
    work[each, row] = work[:, step]
    work[:, step] = other
    other = work[each, :, column]
    work[each, :, column] = work[:, :, step]
    work[:, :, step] = other
    return work
