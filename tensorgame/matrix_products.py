"""Products of matrices as bilinear maps, general and structured.

A matrix as a or b is listed row by row, or by its free entries if it is symmetric or
skew-symmetric. A matrix as c is listed column by column: the third mode of the tensor is the
transpose of C, the convention of the factorizations that were released with the AlphaTensor paper
(Fawzi et al., Nature 610, 47-53, 2022).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from tensorgame import known_ranks
from tensorgame.bilinear import Target, check_shape, known_from, numbered
from tensorgame.known_ranks import Record


def matmul(n: int, m: int, p: int) -> Target:
    """Product A B of an n x m and an m x p matrix.

    The third mode is the transpose of C: ``T[i*m + j, j*p + k, k*n + i] = 1``. Rank does not depend
    on the order of the sizes. Schoolbook: n m p products. Best known: `known_ranks.matmul`, from
    Strassen 1969 (2,2,2: 7) to the collections of 2026; 4,4,4 takes 47 products modulo 2, 48 with
    1/2 and 49 over Z.
    """
    name = f"matmul:{n},{m},{p}"
    check_shape(name, n * m, m * p, p * n)
    return _matrix_product(
        name,
        _general("a", n, m),
        _general("b", m, p),
        trivial_rank=n * m * p,
        lower_bound=_matmul_bound(n, m, p),
        known=functools.partial(known_ranks.matmul, n, m, p),
    )


# Lower bounds proved over every field, beyond the flattening rank, for sorted sizes: Winograd 1971
# (2,2,2); Alekseyev 1985 (2,2,3); Alekseev and Smirnov 2013 (2,2,4); Blaeser 2003 (2,3,3).
_MATMUL_BOUNDS = {(2, 2, 2): 7, (2, 2, 3): 11, (2, 2, 4): 14, (2, 3, 3): 14}


def _matmul_bound(*sizes: int) -> int:
    """The best bound for the product itself or a part of it."""
    n, m, p = sorted(sizes)
    bounds = [m * p]
    # Blaeser, "On the complexity of the multiplication of matrices of small formats", J. Complexity
    # 2003, for n x p by p x n matrices with 3 <= n <= p.
    if n >= 3:
        bounds.append(2 * n * p + 2 * n - p - 2)
    for part, bound in _MATMUL_BOUNDS.items():
        if all(inner <= outer for inner, outer in zip(part, (n, m, p), strict=True)):
            bounds.append(bound)
    return max(bounds)


def skew_matvec(n: int) -> Target:
    """Skew-symmetric n x n matrix A times a vector.

    a holds a_ij for i < j, row by row; a_ji = -a_ij. Schoolbook: n (n - 1) products. Best known,
    over every ring: (n - 1)(n + 2) / 2 (AlphaTensor paper, Fig. 4).
    """
    name, rank = f"skew-matvec:{n}", (n - 1) * (n + 2) // 2
    check_shape(name, n * (n - 1) // 2, n, n)
    return _matrix_product(
        name,
        _triangular("a", n, -1),
        _vector("b", n),
        c_labels=numbered("c", n, start=1),
        trivial_rank=n * (n - 1),
        known=known_from({"Z": Record(rank, "AlphaTensor 2022" if n > 2 else "schoolbook")}),
    )


def symmetric_matvec(n: int) -> Target:
    """Symmetric n x n matrix A times a vector.

    a holds a_ij for i <= j, row by row. Schoolbook: n^2 products. Over every ring n (n + 1) / 2
    products suffice, a_ij (b_i + b_j) for i < j and (a_ii - sum of the others in row i) b_i, and as
    many are needed, one for each free entry.
    """
    name, rank = f"symmetric-matvec:{n}", n * (n + 1) // 2
    check_shape(name, rank, n, n)
    return _matrix_product(
        name,
        _triangular("a", n, 1),
        _vector("b", n),
        c_labels=numbered("c", n, start=1),
        trivial_rank=n * n,
        known=known_from({"Z": Record(rank, "one product for each free entry")}),
    )


def skew_matmul(n: int) -> Target:
    """Skew-symmetric n x n matrix A times a general n x n matrix B.

    a holds a_ij for i < j; the third mode is the transpose of C. Schoolbook: n^2 (n - 1) products.
    Best known: n times that of skew-matvec; 14 for n = 3 with 1/2 (arXiv 2511.10786).
    """
    name = f"skew-matmul:{n}"
    check_shape(name, n * (n - 1) // 2, n * n, n * n)
    return _matrix_product(
        name,
        _triangular("a", n, -1),
        _general("b", n, n),
        trivial_rank=n * n * (n - 1),
        known=functools.partial(known_ranks.skew_matmul, n),
    )


def symmetric_matmul(n: int) -> Target:
    """Symmetric n x n matrix A times a general n x n matrix B.

    a holds a_ij for i <= j; the third mode is the transpose of C. Schoolbook: n^3 products. Best
    known for small n: n times that of symmetric-matvec, n^2 (n + 1) / 2.
    """
    name = f"symmetric-matmul:{n}"
    check_shape(name, n * (n + 1) // 2, n * n, n * n)
    return _matrix_product(
        name,
        _triangular("a", n, 1),
        _general("b", n, n),
        trivial_rank=n**3,
        known=functools.partial(known_ranks.symmetric_matmul, n),
    )


def symmetric_symmetric(n: int) -> Target:
    """Product A B of two symmetric n x n matrices.

    a and b hold the entries with i <= j; the third mode is the transpose of C, which need not be
    symmetric. Schoolbook: n^3 - n (n - 1) / 2 products, since a_ij b_ij serves two entries of C.
    Best known: 6, 15, 32 and 59 over Z for n = 2 to 5, and 5, 14 and 30 with 1/2 for n = 2 to 4
    (arXiv 2511.10786).
    """
    name = f"symmetric-symmetric:{n}"
    check_shape(name, n * (n + 1) // 2, n * (n + 1) // 2, n * n)
    return _matrix_product(
        name,
        _triangular("a", n, 1),
        _triangular("b", n, 1),
        trivial_rank=n**3 - n * (n - 1) // 2,
        known=functools.partial(known_ranks.symmetric_symmetric, n),
    )


def gram(n: int, m: int) -> Target:
    """Upper triangle of X Y^T for X and Y of n x m; with Y = X, of X X^T.

    An algorithm for it serves X X^T over blocks too, as it transposes no product. c holds c_ij for
    i <= j, row by row. Schoolbook: m n (n + 1) / 2 products. Best known: 34 for 4,4 (RXTX, arXiv
    2505.09814: its 26 general products and 8 of a block with itself stay right when Y differs from
    X), and 17 for 3,3 and 63 for 5,5 (arXiv 2511.10786).
    """
    name = f"gram:{n},{m}"
    check_shape(name, n * m, n * m, n * (n + 1) // 2)
    x, y = _general("x", n, m), _general("y", n, m)
    rows, columns = np.triu_indices(n)

    def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (x.fill(a) @ y.fill(b).swapaxes(-1, -2))[..., rows, columns]

    return Target(
        name=name,
        labels=(x.labels, y.labels, _entry_names("c", rows, columns)),
        multiply=multiply,
        trivial_rank=m * n * (n + 1) // 2,
        lower_bound=max(n * m, len(rows)),
        known=functools.partial(known_ranks.gram, n, m),
    )


@dataclasses.dataclass(frozen=True)
class _Matrix:
    """How a matrix is made from its E free entries.

    Attributes:
        labels: names of the free entries.
        index: (rows, columns), the free entry at each place.
        sign: (rows, columns), what it is multiplied by: 1, -1 or 0.
    """

    labels: tuple[str, ...]
    index: np.ndarray
    sign: np.ndarray

    def fill(self, entries: np.ndarray) -> np.ndarray:
        """The matrices (..., rows, columns) with free entries (..., E)."""
        return entries[..., self.index] * self.sign


def _general(letter: str, rows: int, columns: int) -> _Matrix:
    index = np.arange(rows * columns).reshape(rows, columns)
    return _Matrix(_entry_names(letter, *np.indices(index.shape)), index, np.ones_like(index))


def _vector(letter: str, rows: int) -> _Matrix:
    index = np.arange(rows)[:, None]
    return _Matrix(numbered(letter, rows, start=1), index, np.ones_like(index))


def _triangular(letter: str, side: int, sign: int) -> _Matrix:
    """A symmetric matrix for sign 1, a skew-symmetric one for -1, from its upper triangle."""
    rows, columns = np.triu_indices(side, 0 if sign > 0 else 1)
    index, signs = np.zeros((2, side, side), np.int64)
    index[rows, columns] = index[columns, rows] = np.arange(len(rows))
    signs[columns, rows] = sign
    signs[rows, columns] = 1
    return _Matrix(_entry_names(letter, rows, columns), index, signs)


def _matrix_product(
    name: str,
    left: _Matrix,
    right: _Matrix,
    *,
    trivial_rank: int,
    known: Callable[[str], Record],
    lower_bound: int | None = None,
    c_labels: tuple[str, ...] | None = None,
) -> Target:
    """The product C of two matrices, C listed column by column."""
    n, p = left.index.shape[0], right.index.shape[1]

    def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        c = left.fill(a) @ right.fill(b)
        return c.swapaxes(-1, -2).reshape(*c.shape[:-2], p * n)

    transposed = _entry_names("c", *np.indices((n, p)).swapaxes(1, 2))
    labels = (left.labels, right.labels, c_labels or transposed)
    return Target(
        name=name,
        labels=labels,
        multiply=multiply,
        trivial_rank=trivial_rank,
        # All flattenings have full rank over every field: for each entry of a, b or c there is a
        # product of two entries that occurs with it, with coefficient 1 or -1, and with no other.
        lower_bound=lower_bound or max(map(len, labels)),
        known=known,
    )


def _entry_names(letter: str, rows: np.ndarray, columns: np.ndarray) -> tuple[str, ...]:
    """Names of the entries at these places, counted from 0: a11, a12, ...; a1_10 from 10 on."""
    gap = "" if max(rows.max(initial=0), columns.max(initial=0)) < 9 else "_"
    places = zip(rows.ravel().tolist(), columns.ravel().tolist(), strict=True)
    return tuple(f"{letter}{i + 1}{gap}{j + 1}" for i, j in places)
