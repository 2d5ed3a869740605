"""Bilinear maps as target tensors, by name: ``matmul:2,3,4``.

A bilinear map (a, b) -> c is given by a NumPy function on flat vectors. Its values on unit vectors
are its tensor, ``c_k = sum_ij T_ijk a_i b_j``, so that the meaning of a target and what algorithms
are checked against have one source. This module needs NumPy only.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Record:
    """The best rank that is known, and who found it."""

    rank: int
    source: str


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """A bilinear map (a, b) -> c. Two are equal if their tensors are.

    Attributes:
        name: ``family:arguments``, as `parse` reads it.
        labels: names of the entries of a, b and c, in the order of the tensor's modes.
        multiply: the map's definition: integer or object arrays (..., I) and (..., J), which
            broadcast, to (..., K).
        trivial_rank: products of the schoolbook algorithm.
        lower_bound: products that every algorithm needs, over any field.
        known: best known ranks by ring, "Z", "Q", "Q[i]" or "Z_p" for a prime p.
    """

    name: str
    labels: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    multiply: Callable[[np.ndarray, np.ndarray], np.ndarray]
    trivial_rank: int
    lower_bound: int
    known: Callable[[str], Record]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(I, J, K), the sides of the tensor."""
        return tuple(len(labels) for labels in self.labels)

    @property
    def side(self) -> int:
        """S, the side of the smallest cube that holds the tensor."""
        return max(self.shape)

    @functools.cached_property
    def tensor(self) -> np.ndarray:
        """T, read-only: shape (I, J, K), int64."""
        rows, columns, _ = self.shape
        a, b = np.eye(rows, dtype=np.int64), np.eye(columns, dtype=np.int64)
        tensor = np.asarray(self.multiply(a[:, None], b[None, :]), np.int64)
        tensor.setflags(write=False)
        return tensor

    def padded(self, side: int) -> np.ndarray:
        """T in the corner of a cube of zeros: shape (S, S, S), int64, for S at least `side`."""
        return np.pad(self.tensor, [(0, side - length) for length in self.shape])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Target) and np.array_equal(self.tensor, other.tensor)

    def __hash__(self) -> int:
        return hash(self.shape)


def matmul(n: int, m: int, p: int) -> Target:
    """A B for A of n x m and B of m x p.

    The third mode is the transpose of C: ``T[i*m + j, j*p + k, k*n + i] = 1``, the convention of
    the factorizations that were released with the paper. Rank does not depend on the order of the
    sizes.
    """

    def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        c = a.reshape(*a.shape[:-1], n, m) @ b.reshape(*b.shape[:-1], m, p)
        return c.swapaxes(-1, -2).reshape(*c.shape[:-2], p * n)

    trivial = n * m * p
    sizes = tuple(sorted((n, m, p)))
    return Target(
        name=f"matmul:{n},{m},{p}",
        labels=(_entries("a", n, m), _entries("b", m, p), _transposed_entries("c", n, p)),
        multiply=multiply,
        trivial_rank=trivial,
        # The largest flattening rank where no better bound is known; matrix times vector and
        # column times row need all their products.
        lower_bound=trivial
        if sizes[0] == 1
        else _MATMUL_BOUNDS.get(sizes, max(n * m, m * p, p * n)),
        known=_known(trivial, _MATMUL_RECORDS.get(sizes, {})),
    )


# Lower bounds proved over every field, beyond the flattening rank, for sorted sizes: Winograd 1971
# (2,2,2); Alekseyev 1985 (2,2,3); Alekseev and Smirnov 2013 (2,2,4); Blaeser 2003 (2,3,3; 3,3,3).
_MATMUL_BOUNDS = {(2, 2, 2): 7, (2, 2, 3): 11, (2, 2, 4): 14, (2, 3, 3): 14, (3, 3, 3): 19}

_MATMUL_RECORDS: dict[tuple[int, int, int], dict[str, Record]] = {
    (2, 2, 2): {"Z": Record(7, "Strassen 1969")},
}


def _entries(letter: str, rows: int, columns: int) -> tuple[str, ...]:
    """Names of the entries of a matrix, row by row: a11, a12, ...; a1_10 where sizes exceed 9."""
    gap = "" if max(rows, columns) <= 9 else "_"
    return tuple(f"{letter}{i + 1}{gap}{j + 1}" for i in range(rows) for j in range(columns))


def _transposed_entries(letter: str, rows: int, columns: int) -> tuple[str, ...]:
    """The names of `_entries`, column by column."""
    names = np.array(_entries(letter, rows, columns)).reshape(rows, columns)
    return tuple(names.T.ravel().tolist())


def _known(trivial: int, records: Mapping[str, Record]) -> Callable[[str], Record]:
    """Best known ranks by ring, from the rings on file.

    Integer algorithms are valid over every ring and rational ones over Q[i]; modulo p a rational
    one may divide by zero.
    """

    def known(ring: str) -> Record:
        rings = {"Z": ["Z"], "Q": ["Z", "Q"], "Q[i]": ["Z", "Q", "Q[i]"]}.get(ring, ["Z", ring])
        candidates = [records[ring] for ring in rings if ring in records]
        return min([*candidates, Record(trivial, "schoolbook")], key=lambda record: record.rank)

    return known


def from_tensor(name: str, tensor: np.ndarray) -> Target:
    """Any tensor (I, J, K) of integers as a target.

    Raises:
        ValueError: if it has another number of axes, no entries, or entries that are not integers,
            or is zero, which no product is needed for.
    """
    tensor = np.asarray(tensor)
    if tensor.ndim != 3 or not tensor.size:
        raise ValueError(f"{name} has shape {tensor.shape}; a target has three axes, none empty")
    if not np.issubdtype(tensor.dtype, np.number) or np.iscomplexobj(tensor):
        raise ValueError(f"{name} has dtype {tensor.dtype}; a target holds integers")
    # NaN, infinities and numbers beyond int64 do not come back equal; warnings would say no more.
    with np.errstate(invalid="ignore"):
        integers = tensor.astype(np.int64)
    if not np.array_equal(integers, tensor):
        raise ValueError(f"{name} holds entries that are not integers; a target holds integers")
    if not integers.any():
        raise ValueError(f"{name} holds a tensor of zeros, which is already solved: rank 0")
    trivial = int(min(np.count_nonzero(np.abs(integers).sum(mode)) for mode in range(3)))
    return Target(
        name=name,
        labels=tuple(
            tuple(f"{letter}{i + 1}" for i in range(length))
            for letter, length in zip("abc", integers.shape, strict=True)
        ),
        multiply=lambda a, b: np.einsum("ijk,...i,...j->...k", integers, a, b),
        trivial_rank=trivial,
        lower_bound=1,
        known=_known(trivial, {}),
    )


# One function a family; its docstring is what users are told.
FAMILIES: dict[str, Callable[..., Target]] = {"matmul": matmul}


def parse(name: str) -> Target:
    """The target called ``name``: ``family:n,m,...``, or ``tensor:FILE`` for a tensor from a file.

    Raises:
        ValueError: if there is no such target; the message lists the families.
    """
    family, _, text = name.partition(":")
    if family not in FAMILIES:
        raise ValueError(f"{name!r} is unknown; the families are {', '.join(FAMILIES)}")
    make = FAMILIES[family]
    wanted = list(inspect.signature(make).parameters)
    arguments = [int(a) for a in text.split(",")]
    if len(arguments) != len(wanted) or min(arguments) < 1:
        raise ValueError(f"{name!r}")
    return make(*arguments)
