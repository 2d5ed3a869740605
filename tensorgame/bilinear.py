"""What a bilinear map is to the rest of this package, and how any tensor becomes one."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping

import numpy as np

from tensorgame import known_ranks
from tensorgame.known_ranks import Record

# Entries of a tensor, 8 bytes each.
_MAX_ENTRIES = 10**8
# What the search for pivots in `_unit_pivots` looks at: entries, for it to take seconds at most,
# and their size, for their products to fit into int64.
_PIVOTED_ENTRIES = 10**6
_LARGEST_PIVOTED = 2**31


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
        known: best known ranks by ring, "Z", "Q", "Z[i]", "Q[i]" or "Z_p" for a prime p; raises
            ValueError for other rings.
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
        tensor = np.ascontiguousarray(self.multiply(a[:, None], b[None, :]), np.int64)
        tensor.setflags(write=False)
        return tensor

    def padded(self, side: int) -> np.ndarray:
        """T in the corner of a cube of zeros: shape (S, S, S), int64, for S at least `side`."""
        return np.pad(self.tensor, [(0, side - length) for length in self.shape])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Target) and np.array_equal(self.tensor, other.tensor)

    def __hash__(self) -> int:
        return hash(self.shape)


def check_shape(name: str, *shape: int) -> None:
    """Raises ValueError if there can be no such tensor, before anything large is made."""
    if min(shape) < 1:
        raise ValueError(f"{name} has no entries: its shape is {shape}; take larger sizes")
    if math.prod(shape) > _MAX_ENTRIES:
        raise ValueError(
            f"{name} has shape {shape}, {math.prod(shape):.0e} entries, which is too large to hold "
            f"in memory; at most {_MAX_ENTRIES:.0e} entries are"
        )


def numbered(letter: str, length: int, start: int = 0) -> tuple[str, ...]:
    """a0, a1, ... or from another number on."""
    return tuple(f"{letter}{i}" for i in range(start, start + length))


def known_from(records: Mapping[str, Record]) -> Callable[[str], Record]:
    """Best known ranks by ring, from records by the ring that they are listed under."""
    return lambda ring: known_ranks.best(*known_ranks.among(ring, records))


def from_tensor(name: str, tensor: np.ndarray) -> Target:
    """Any tensor (I, J, K) of integers as a target.

    Schoolbook: the fewest products over the three ways to group the entries, by pairs of entries of
    a and b, of a and c, or of b and c.

    Raises:
        ValueError: if it is ragged, has another number of axes, no entries, or entries that are not
            integers within int64, or is zero, which no product is needed for.
    """
    integers = _integers(name, tensor)
    trivial = int(min(np.count_nonzero(integers.any(mode)) for mode in range(3)))

    def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        # One mode after the other; einsum would take all three at once.
        matrices = np.tensordot(a, integers, axes=1)
        return (b[..., None, :] @ matrices)[..., 0, :]

    return Target(
        name=name,
        labels=tuple(map(numbered, "abc", integers.shape, (1, 1, 1))),
        multiply=multiply,
        trivial_rank=trivial,
        lower_bound=max(_unit_pivots(np.moveaxis(integers, mode, 0)) for mode in range(3)),
        known=known_from({"Z": Record(trivial, "schoolbook")}),
    )


def _integers(name: str, tensor: np.ndarray) -> np.ndarray:
    """The tensor as a new int64 array, once it has been found to be one."""
    try:
        given = np.asarray(tensor)
    except ValueError:
        raise ValueError(f"{name} is ragged; a target has three axes of fixed lengths") from None
    if given.dtype.kind not in "biuf":
        raise ValueError(f"{name} has dtype {given.dtype}; a target holds integers")
    if given.ndim != 3 or not given.size:
        raise ValueError(f"{name} has shape {given.shape}; a target has three axes, none empty")
    if given.dtype.kind == "f" and not np.isfinite(given).all():
        raise ValueError(f"{name} holds NaN or infinite entries; a target holds integers")
    if given.dtype.kind == "f" and (given != np.floor(given)).any():
        wrong = given[given != np.floor(given)][0]
        raise ValueError(f"{name} holds {wrong}, not an integer; a target holds integers")
    if max(int(given.max()), -int(given.min())) >= 2**63:
        raise ValueError(f"{name} holds entries beyond int64; a target holds smaller integers")
    integers = given.astype(np.int64)
    if not integers.any():
        raise ValueError(f"{name} holds a tensor of zeros, which is already solved: rank 0")
    return integers


def _unit_pivots(slices: np.ndarray) -> int:
    """A lower bound, over every field, on the rank of the flattening with the slices as rows.

    Elimination over Z with no other pivots than 1 and -1, on the sparsest columns: its steps remain
    valid modulo every prime, and so do the pivots.
    """
    matrix = slices.reshape(len(slices), -1)
    weights = np.count_nonzero(matrix, axis=0)
    # Other columns could exceed int64, or take long; a part has no larger rank than the whole.
    usable = np.flatnonzero((weights > 0) & (np.abs(matrix).max(axis=0) < _LARGEST_PIVOTED))
    sparsest = usable[np.argsort(weights[usable], kind="stable")]
    matrix = matrix[:, sparsest[: max(_PIVOTED_ENTRIES // len(matrix), 1)]]
    pivots = 0
    for at, row in enumerate(matrix):
        units = np.flatnonzero(np.abs(row) == 1)
        if not len(units):
            continue
        pivots += 1
        column = matrix[:, units[0]]
        below = at + 1 + np.flatnonzero(column[at + 1 :])
        matrix[below] -= (column[below] * column[at])[:, None] * row
        if np.abs(matrix[below]).max(initial=0) >= _LARGEST_PIVOTED:
            break
    return pivots
