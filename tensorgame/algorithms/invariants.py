"""Invariants of algorithms under changes of basis, and the classes of products they tell apart.

Sandwiching conjugates U_r V_s W_t, up to the scales of the products (see
`tensorgame.algorithms.symmetries`), so that these numbers are the same for equivalent algorithms:

* ranks of U_r, V_r, W_r, of products such as U_r V_s, and of U_r and U_s side by side or stacked;
* whether the trace t(r, s, t) of U_r V_s W_t vanishes;
* the traces of the powers of U_r V_r W_r, and t(r, r, s) t(s, s, r), where the scales cancel.

All are exact. Colour refinement (the Weisfeiler-Leman algorithm of dimension one, on the complete
graph with these colours) then makes of them a class for each product. An equivalence takes
products to products of the same class, and pairs to pairs of the same class.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Hashable, Sequence
from fractions import Fraction

import numpy as np

from tensorgame.algorithms.factorization import Factorization
from tensorgame.algorithms.linear_algebra import ranks, reduced
from tensorgame.algorithms.symmetries import matrix_factors, monic, times

# Time and memory grow with the square and with the cube of the rank.
_MAX_RANK_OF_PAIRS = 400
_MAX_RANK_OF_TRIPLES = 160
_INT64_LIMIT = 2**62


@dataclasses.dataclass(frozen=True)
class Features:
    """Invariants of an algorithm.

    Attributes:
      singles: by name, one value a product.
      pairs: by name, one value for each ordered pair (r, s), row by row.
      triples: for r, s, t bits that say which traces vanish, (R, R, R); None if that is too many.
    """

    singles: dict[str, Sequence[Hashable]]
    pairs: dict[str, Sequence[Hashable]]
    triples: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Classes:
    """Classes of products (R,) and of ordered pairs (R, R); equal numbers mean the same class."""

    products: np.ndarray
    pairs: np.ndarray


def classify(first: Features, second: Features) -> tuple[Classes, Classes] | str:
    """The classes of two algorithms with common numbers, or the invariant that differs."""
    rank = len(next(iter(first.singles.values())))
    products = np.zeros((2, rank), np.int64)
    for name, values in first.singles.items():
        values = (
            [*zip(products[0], values, strict=True)],
            [*zip(products[1], second.singles[name], strict=True)],
        )
        products = _number(*values).reshape(2, rank)
        if _differ(products):
            return name
    pairs = np.zeros((2, rank, rank), np.int64)
    for name, values in first.pairs.items():
        numbers = _number(values, second.pairs[name]).reshape(2, rank, rank)
        pairs = _join(pairs, numbers, numbers.swapaxes(1, 2))
        if _differ(pairs):
            return name
    if first.triples is not None and second.triples is not None:
        pairs = _refine_pairs(pairs, products, np.stack([first.triples, second.triples]))
        if _differ(pairs):
            return "which traces of U_r V_s W_t vanish"
    products = _refine(products, pairs)
    if _differ(products):
        return "the classes of products after colour refinement"
    return Classes(products[0], pairs[0]), Classes(products[1], pairs[1])


def _number(first: Sequence[Hashable], second: Sequence[Hashable]) -> np.ndarray:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in [*first, *second]])


def _differ(numbers: np.ndarray) -> bool:
    first, second = numbers.reshape(2, -1)
    return not np.array_equal(np.sort(first), np.sort(second))


def _join(*numbers: np.ndarray) -> np.ndarray:
    """One number for each combination."""
    table = np.stack([n.ravel() for n in numbers], axis=1)
    return np.unique(table, axis=0, return_inverse=True)[1].reshape(numbers[0].shape)


def _rows_to_numbers(rows: np.ndarray) -> np.ndarray:
    shape = rows.shape[:-1]
    return np.unique(rows.reshape(-1, rows.shape[-1]), axis=0, return_inverse=True)[1].reshape(
        shape
    )


def _refine_pairs(pairs: np.ndarray, products: np.ndarray, triples: np.ndarray) -> np.ndarray:
    """Splits the classes of pairs (r, s) by the multiset over t of the triples (r, s, t)."""
    third = products[:, None, None, :] * 64 + triples
    third = _rows_to_numbers(np.sort(third, axis=-1))
    return _join(pairs, third, third.swapaxes(1, 2))


def _refine(products: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Splits the classes of products until the pairs split none of them any further."""
    while True:
        neighbours = pairs * (products.max() + 1) + products[:, None, :]
        rows = np.concatenate([products[..., None], np.sort(neighbours, axis=-1)], axis=-1)
        finer = _rows_to_numbers(rows)
        if finer.max() == products.max():
            return finer
        products = finer


def matmul_features(factorization: Factorization, is_complex: bool) -> Features:
    """The invariants of an algorithm for matrix multiplication without products of zero.

    They are taken over Q[i] if ``is_complex``, otherwise over the field of the factorization.
    """
    degree = 2 if is_complex else 1
    factors = exact_factors(factorization, is_complex)
    rank, modulus = factorization.rank, factorization.modulus
    singles: dict[str, Sequence[Hashable]] = {
        "the ranks of the factor matrices": _tuples([ranks(f, modulus) for f in factors]),
        "the traces and ranks of the powers of U_r V_r W_r": _power_traces(
            factorization, factors, degree
        ),
    }
    if rank > _MAX_RANK_OF_PAIRS:
        return Features(singles, {})
    pairs = {"the ranks of pairs of factor matrices": _tuples(_pair_ranks(factors, modulus))}
    if rank > _MAX_RANK_OF_TRIPLES:
        return Features(singles, pairs)
    traces = trace_tensor(factors, degree, modulus)
    pairs["the traces t(r, r, s) t(s, s, r)"] = _cycles(traces, factorization)
    return Features(singles, pairs, _vanishing(traces.any(-1)))


def exact_factors(factorization: Factorization, is_complex: bool) -> list[np.ndarray]:
    """`matrix_factors`, in int64 where traces of triple products fit."""
    factors, bound = matrix_factors(factorization, is_complex), 1
    for factor in factors:
        bound *= int(np.abs(factor).max()) * factor.shape[1]
    return [factor.astype(np.int64) for factor in factors] if bound < _INT64_LIMIT else factors


def _tuples(columns: Sequence[np.ndarray]) -> list[tuple]:
    return list(zip(*(column.ravel().tolist() for column in columns), strict=True))


def _power_traces(
    factorization: Factorization, factors: list[np.ndarray], degree: int
) -> list[tuple]:
    """The traces of the first powers of U_r V_r W_r, which fix its characteristic polynomial in
    characteristic zero, and the ranks of the powers.
    """
    modulus, denominator = factorization.modulus, factorization.denominator
    u, v, w = (factor.astype(object) for factor in factors)
    word = reduced(u @ v @ w, modulus)
    size = word.shape[1] // degree
    power, columns = word, []
    for exponent in range(1, size + 1):
        columns.append(ranks(power, modulus))
        for part in range(degree):
            trace = reduced(power[:, part::degree, ::degree].trace(axis1=1, axis2=2), modulus)
            columns.append(_divide(trace, denominator ** (3 * exponent)))
        power = reduced(power @ word, modulus)
    return _tuples(columns)


def _divide(numbers: np.ndarray, denominator: int) -> np.ndarray:
    if denominator == 1:
        return numbers
    return numbers.astype(object) * Fraction(1, denominator)


def _pair_ranks(factors: list[np.ndarray], modulus: int) -> list[np.ndarray]:
    columns = []
    for factor, following in zip(factors, [*factors[1:], factors[0]], strict=True):
        first, second = np.broadcast_arrays(factor[:, None], factor)
        columns.append(ranks(np.concatenate([first, second], axis=-1), modulus))
        columns.append(ranks(np.concatenate([first, second], axis=-2), modulus))
        columns.append(ranks(factor[:, None] @ following, modulus))
    return columns


def trace_tensor(factors: list[np.ndarray], degree: int, modulus: int) -> np.ndarray:
    """The traces of U_r V_s W_t: (R, R, R, 1), or (R, R, R, 2) with their imaginary parts."""
    u, v, w = factors
    rank = len(u)
    product = reduced(u[:, None] @ v, modulus)
    third = w[:, :, ::degree].swapaxes(1, 2).reshape(rank, -1).T
    parts = [product[:, :, k::degree].reshape(rank * rank, -1) @ third for k in range(degree)]
    return reduced(np.stack(parts, axis=-1), modulus).reshape(rank, rank, rank, degree)


def _cycles(traces: np.ndarray, factorization: Factorization) -> list[tuple]:
    """t(r, r, s) t(s, s, r) and its two rotations, and which of these traces vanish."""
    each = np.arange(len(traces))
    r, s = each[:, None], each[None, :]
    columns = []
    for at in [(r, r, s), (r, s, r), (s, r, r)]:
        one = traces[at].astype(object)
        product = times(one, one.swapaxes(0, 1), factorization.modulus)
        columns.append(one.any(-1))
        columns += [
            _divide(part, factorization.denominator**6) for part in np.moveaxis(product, -1, 0)
        ]
    return _tuples(columns)


def _vanishing(nonzero: np.ndarray) -> np.ndarray:
    """The pattern of zeros of t(r, s, t) under all orders of its arguments as six bits."""
    orders = itertools.permutations(range(3))
    return sum(nonzero.transpose(order).astype(np.int64) << bit for bit, order in enumerate(orders))


def general_features(factorization: Factorization, modes: Sequence[int]) -> Features:
    """Invariants under all linear maps of the modes, with the modes in the given order.

    They are the pairs of products that have a factor in common, up to scale.
    """
    factors = (factorization.u, factorization.v, factorization.w)
    same = [_parallel(factors[mode], factorization.modulus) for mode in modes]
    counts = [common.sum(1) for common in same]
    return Features(
        {"how many products share a factor with each product": _tuples(counts)},
        {"which pairs of products share factors": _tuples(same)},
    )


def _parallel(factor: np.ndarray, modulus: int) -> np.ndarray:
    """Which columns are multiples of each other: (R, R), bool."""
    parts = factor if factor.ndim == 3 else factor[..., None]
    lines, _ = monic(parts.swapaxes(0, 1).astype(object), modulus)
    rows = [tuple(line) for line in lines.reshape(len(lines), -1)]
    numbers = _number(rows, [])
    return numbers[:, None] == numbers
