"""The search for the sandwiching that takes one algorithm to another.

A match of products, r of the first algorithm with s of the second, puts linear conditions on x, y
and z in ``x U_r y^-1 ~ U'_s, y V_r z^-1 ~ V'_s, z W_r x^-1 ~ W'_s``, whatever the scales are:

* x takes the image of U_r into that of U'_s and the kernel of W_r into that of W'_s;
* for matched r, s, t the traces of M = U_r V_s W_t and of its partner M' vanish together, and then
  tr(M') x M = tr(M) M' x. For r = s = t the scales cancel, so x M = M' x even if the trace is zero.

A few matches determine x, y and z up to scalars. The search goes through the matches of a short
sequence of products, which is chosen so that the conditions determine much and the candidates are
few, and drops those without invertible solutions.

Over Q the conditions, which have integer coefficients, are reduced modulo a prime P. That only adds
solutions: what has no solution modulo P has none. Whatever is accepted, or dropped because its only
solutions are singular, is so by exact arithmetic.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from tensorgame.algorithms.factorization import Factorization
from tensorgame.algorithms.invariants import Classes, exact_factors
from tensorgame.algorithms.linear_algebra import (
    embed,
    integers,
    inverse,
    null_space,
    ranks,
    reduced,
    row_reduce,
)
from tensorgame.algorithms.symmetries import (
    as_vectors,
    canonical_rows,
    image_keys,
    match_keys,
    product_keys,
)

_Sandwich = tuple[np.ndarray, np.ndarray, np.ndarray]
# Pairs (r, s): product r of the first algorithm goes to product s of the second.
_Matched = tuple[tuple[int, int], ...]
# Reduced equations modulo a prime on x, y and z.
_Systems = tuple[np.ndarray, np.ndarray, np.ndarray]

# Words of three products are built from the newest match and the first ones.
_WORD_MATCHES = 4
# Classes, the smallest ones, among which the next product to match is chosen.
_TRIED_CLASSES = 24
# Elements of a space tried for an invertible one, and for a solution where they are too many.
_TRIALS = 8
_SAMPLES = 16
# So many choices of x, y, z over Z_p end the matching, and so many are gone through at its end.
_FEW = 64
_MAX_CHOICES = 4096
# As many determinants may be taken to prove that all solutions are singular.
_MAX_DETERMINANTS = 4096


class _Side:
    """One algorithm: its matrices, and what the conditions need of them, exact."""

    def __init__(self, factorization: Factorization, is_complex: bool) -> None:
        self.factorization = factorization
        self.modulus = factorization.modulus
        self.degree = 2 if is_complex else 1
        self.scale = factorization.denominator**3
        self.factors = exact_factors(factorization, is_complex)
        self.word = functools.cache(self._word)
        self.left_null = functools.cache(self._left_null)
        self.right_null = functools.cache(self._right_null)

    def _word(self, mode: int, triple: tuple[int, int, int]) -> np.ndarray:
        """U_r V_s W_t for mode 0, V_s W_t U_r for mode 1, W_t U_r V_s for mode 2."""
        a, b, c = (self.factors[k % 3][triple[k % 3]] for k in range(mode, mode + 3))
        return reduced(reduced(a @ b, self.modulus) @ c, self.modulus)

    def trace(self, triple: tuple[int, int, int]) -> np.ndarray:
        """The trace of U_r V_s W_t, as an embedded number (e, e) of Python integers."""
        word = self.word(0, triple)
        parts = [int(word[k :: self.degree, :: self.degree].trace()) for k in range(self.degree)]
        return _number([reduced(part, self.modulus) for part in parts])

    def _left_null(self, mode: int, r: int) -> np.ndarray:
        return null_space(self.factors[mode][r].T, self.modulus)

    def _right_null(self, mode: int, r: int) -> np.ndarray:
        return null_space(self.factors[mode][r], self.modulus).T


def _number(parts: list[int]) -> np.ndarray:
    """A real or complex number as a matrix."""
    if len(parts) == 1:
        return np.array([parts], object)
    real, imaginary = parts
    return np.array([[real, -imaginary], [imaginary, real]], object)


def _equations(left: np.ndarray, right: np.ndarray, degree: int) -> np.ndarray:
    """The rows of the equations ``left x right = 0`` in the entries of x, parts first."""
    n, rows = left.shape[1] // degree, left.shape[0] * right.shape[1]
    entries = np.kron(left, right.T).reshape(rows, n, degree, n, degree)
    if degree == 1:
        return entries.reshape(rows, n * n)
    real = entries[:, :, 0, :, 0] + entries[:, :, 1, :, 1]
    imaginary = entries[:, :, 1, :, 0] - entries[:, :, 0, :, 1]
    return np.concatenate([real.reshape(rows, n * n), imaginary.reshape(rows, n * n)], axis=1)


def _matrices(vectors: np.ndarray, degree: int) -> np.ndarray:
    """Solutions (B, e n n) as (embedded) matrices (B, e n, e n)."""
    n = math.isqrt(vectors.shape[1] // degree)
    parts = vectors.reshape(-1, degree, n, n)
    if degree == 1:
        return parts[:, 0]
    return embed(parts[:, 0], parts[:, 1])


def _triples(matched: _Matched) -> Iterator[tuple[tuple[int, int], ...]]:
    """The triples of matches that hold the newest match, and otherwise the first ones."""
    newest = matched[-1]
    pool = dict.fromkeys([*matched[:_WORD_MATCHES], newest])
    return (triple for triple in itertools.product(pool, repeat=3) if newest in triple)


class _Conditions:
    """The linear conditions on x, y and z, by mode 0, 1, 2."""

    def __init__(self, first: _Side, second: _Side) -> None:
        self.first, self.second = first, second
        self.degree = first.degree
        self.orders = [factor.shape[1] // self.degree for factor in first.factors]

    def traces_agree(self, matched: _Matched) -> bool:
        """Whether the traces of the words with the newest match vanish together."""
        for triple in _triples(matched):
            r, s = zip(*triple, strict=True)
            if self.first.trace(r).any() != self.second.trace(s).any():
                return False
        return True

    def rows(self, mode: int, matched: _Matched, modulus: int) -> np.ndarray:
        """The equations that the newest match adds: (rows, e n n), exact for modulus 0."""
        first, second, before = self.first, self.second, (mode - 1) % 3
        r, s = matched[-1]
        terms = [
            (second.left_null(mode, s), first.factors[mode][r]),
            (second.factors[before][s], first.right_null(before, r)),
        ]
        blocks = [
            _equations(integers(left, modulus), integers(right, modulus), self.degree)
            for left, right in terms
        ]
        blocks += [self._word_rows(mode, triple, modulus) for triple in _triples(matched)]
        return reduced(np.concatenate(blocks), modulus)

    def _word_rows(
        self, mode: int, triple: tuple[tuple[int, int], ...], modulus: int
    ) -> np.ndarray:
        """``x M trace(M') = trace(M) M' x``, or with the scales in place of the traces."""
        r, s = zip(*triple, strict=True)
        if len(set(triple)) == 1:
            weights = [
                _number([side.scale, 0][: self.degree]) for side in (self.first, self.second)
            ]
        else:
            weights = [self.first.trace(r), self.second.trace(s)]
        identity = integers(np.eye(self.orders[mode], dtype=int), modulus)
        whole = integers(np.eye(self.orders[mode] * self.degree, dtype=int), modulus)
        word, partner = (
            integers(side.word(mode, at), modulus) @ np.kron(identity, integers(weight, modulus))
            for side, at, weight in zip(
                (self.first, self.second), (r, s), weights[::-1], strict=True
            )
        )
        return _equations(whole, reduced(word, modulus), self.degree) - _equations(
            reduced(partner, modulus), whole, self.degree
        )

    def all_rows(self, mode: int, matched: _Matched, modulus: int) -> np.ndarray:
        """The equations of all matches."""
        blocks = [self.rows(mode, matched[: k + 1], modulus) for k in range(len(matched))]
        return np.concatenate([self.nothing(mode, modulus), *blocks])

    def nothing(self, mode: int, modulus: int) -> np.ndarray:
        """No equations."""
        return integers(np.zeros((0, self.degree * self.orders[mode] ** 2), int), modulus)

    def reduce(self, systems: _Systems, matched: _Matched, prime: int) -> _Systems:
        """The reduced equations modulo a prime with those of the newest match added."""
        return tuple(
            row_reduce(np.concatenate([rows, self.rows(mode, matched, prime)]), prime)[0]
            for mode, rows in enumerate(systems)
        )


def _freedom(systems: _Systems) -> list[int]:
    """The dimensions of the spaces of solutions."""
    return [rows.shape[1] - len(rows) for rows in systems]


def _product_order(side: _Side, classes: Classes, prime: int) -> list[int]:
    """The products in the order in which they are to be matched.

    Each next one reduces the freedom of x, y, z most, when the algorithm is matched with itself,
    for the number of candidates that it has.
    """
    conditions = _Conditions(side, side)
    systems = tuple(conditions.nothing(mode, prime) for mode in range(3))
    matched: _Matched = ()
    labels = classes.products
    rest = list(range(len(labels)))
    while rest and sum(_freedom(systems)) > 3 * side.degree:
        groups: dict[int, list[int]] = {}
        for r in rest:
            groups.setdefault(int(labels[r]), []).append(r)
        smallest = sorted(groups.values(), key=len)[:_TRIED_CLASSES]
        options = [(*matched, (group[0], group[0])) for group in smallest]
        extended = [conditions.reduce(systems, option, prime) for option in options]
        gains = [
            (sum(_freedom(systems)) - sum(_freedom(new))) / (1 + math.log2(len(group)))
            for new, group in zip(extended, smallest, strict=True)
        ]
        best = int(np.argmax(gains))
        if not gains[best]:
            break
        matched, systems = options[best], extended[best]
        newest = matched[-1][0]
        rest.remove(newest)
        table = np.stack([labels, classes.pairs[:, newest], classes.pairs[newest]])
        labels = np.unique(table, axis=1, return_inverse=True)[1].ravel()
    return [r for r, _ in matched] + sorted(rest, key=lambda r: (labels == labels[r]).sum())


class SandwichSearch:
    """The search for x, y, z that take the products of the first to those of the second.

    Attributes:
      budget: matches that may still be tried; negative if that was not enough.
      gaps: whether some matching was given up without proof.
    """

    def __init__(
        self,
        first: Factorization,
        second: Factorization,
        classes: tuple[Classes, Classes],
        is_complex: bool,
        budget: int,
    ) -> None:
        self.budget, self.gaps = budget, False
        self._first, self._second = _Side(first, is_complex), _Side(second, is_complex)
        self._classes = classes
        self._modulus, self._degree = first.modulus, self._first.degree
        self._prime = self._modulus or _suitable_prime(self._first, self._second)
        self._conditions = _Conditions(self._first, self._second)
        self._target_keys = Counter(_residue_keys(self._second, self._second.factors, self._prime))
        self._rng = np.random.default_rng(0)

    def run(self) -> _Sandwich | None:
        """x, y and z, proved; None if there are none, or if ``budget`` or ``gaps`` say so."""
        order = _product_order(self._first, self._classes[0], self._prime)
        nothing = tuple(self._conditions.nothing(mode, self._prime) for mode in range(3))
        stack: list[tuple[_Matched, _Systems]] = [((), nothing)]
        while stack:
            matched, systems = stack.pop()
            if matched:
                self.budget -= 1
                if self.budget < 0:
                    return None
                systems = self._extended(matched, systems)
                if systems is None:
                    continue
            if len(matched) == len(order) or self._are_few(systems):
                sandwich = self._solution(matched, systems)
                if sandwich is not None:
                    return sandwich
                continue
            candidates = self._candidates(matched, order[len(matched)])
            stack.extend(((*matched, pair), systems) for pair in reversed(candidates))
        return None

    def _are_few(self, systems: _Systems) -> bool:
        """Whether x, y, z are unique up to scalars, or few enough to go through."""
        freedom = _freedom(systems)
        if self._modulus:
            return self._modulus ** (sum(freedom) - 3) <= _FEW
        return set(freedom) == {self._degree}

    def _candidates(self, matched: _Matched, r: int) -> list[tuple[int, int]]:
        """The matches of r that agree with all classes."""
        first, second = self._classes
        fits = second.products == first.products[r]
        for q, t in matched:
            fits &= second.pairs[:, t] == first.pairs[r, q]
            fits &= second.pairs[t] == first.pairs[q, r]
            fits[t] = False
        return [(r, int(s)) for s in np.flatnonzero(fits)]

    def _extended(self, matched: _Matched, systems: _Systems) -> _Systems | None:
        """The equations with the newest match, or None if they have no invertible solution."""
        if not self._conditions.traces_agree(matched):
            return None
        systems = self._conditions.reduce(systems, matched, self._prime)
        if min(_freedom(systems)) == 0:
            return None
        for mode, rows in enumerate(systems):
            if not self._has_invertible(rows) and self._is_singular(mode, matched):
                return None
        return systems

    def _has_invertible(self, rows: np.ndarray) -> bool:
        """Whether some solutions modulo the prime are invertible, by trial."""
        basis = null_space(rows, self._prime)
        if len(basis) > self._degree:
            coefficients = self._rng.integers(0, self._prime, (_TRIALS, len(basis)))
            basis = reduced(coefficients.astype(basis.dtype) @ basis, self._prime)
        samples = _matrices(basis, self._degree)
        return bool((ranks(samples, self._prime) == samples.shape[1]).any())

    def _is_singular(self, mode: int, matched: _Matched) -> bool:
        """Whether all exact solutions are singular; False if that cannot be proved.

        A polynomial of degree d in each variable that vanishes at d + 1 values of each is zero.
        """
        basis = self._exact_basis(mode, matched)
        size, dimensions = self._conditions.orders[mode] * self._degree, len(basis)
        if self._modulus and self._modulus**dimensions <= _MAX_DETERMINANTS:
            values = self._modulus
        elif 0 < self._modulus <= size or (size + 1) ** dimensions > _MAX_DETERMINANTS:
            return False
        else:
            values = size + 1
        grid = np.array(list(itertools.product(range(values), repeat=dimensions)), object)
        samples = _matrices(reduced(grid @ basis, self._modulus), self._degree)
        return not (ranks(samples, self._modulus) == size).any()

    def _exact_basis(self, mode: int, matched: _Matched) -> np.ndarray:
        """A basis of the solutions over the field, or of a space around them."""
        rows = self._conditions.all_rows(mode, matched, self._modulus)
        if not self._modulus:
            # Few rows are left: those that are independent even modulo the prime.
            rows = rows[row_reduce(rows.T, self._prime)[1]]
        return null_space(rows, self._modulus)

    def _solution(self, matched: _Matched, systems: _Systems) -> _Sandwich | None:
        """x, y, z of these matches that take all products to products, proved."""
        if set(_freedom(systems)) == {self._degree}:
            vectors = [null_space(rows, self._prime)[:1] for rows in systems]
            if not self._agree([_matrices(vector, self._degree)[0] for vector in vectors]):
                return None
        choices, complete = self._choices(matched)
        for matrices in choices:
            self.budget -= 1
            if self.budget < 0:
                return None
            if self._agree(matrices):
                sandwich = tuple(_plain(matrix, self._degree) for matrix in matrices)
                if self._is_right(sandwich):
                    return sandwich
        self.gaps |= not complete
        return None

    def _choices(self, matched: _Matched) -> tuple[Iterable[tuple[np.ndarray, ...]], bool]:
        """Invertible exact solutions x, y, z, and whether these are all up to scalars."""
        found = [self._invertible(self._exact_basis(mode, matched)) for mode in range(3)]
        elements = [matrices for matrices, _ in found]
        complete = all(flag for _, flag in found)
        if not all(map(len, elements)):
            return [], complete
        if complete and math.prod(map(len, elements)) <= _MAX_CHOICES:
            return itertools.product(*elements), True
        picks = self._rng.integers(0, [len(matrices) for matrices in elements], (_SAMPLES, 3))
        return [tuple(m[k] for m, k in zip(elements, pick, strict=True)) for pick in picks], False

    def _invertible(self, basis: np.ndarray) -> tuple[np.ndarray, bool]:
        """Invertible elements of a space of solutions, and whether these are all up to scalars."""
        dimensions, complete = len(basis), True
        if dimensions <= self._degree:
            vectors = basis[:1]
        elif self._modulus and self._modulus**dimensions <= _MAX_DETERMINANTS:
            grid = itertools.product(range(self._modulus), repeat=dimensions)
            vectors = np.array([c for c in grid if next(filter(None, c), 0) == 1]) @ basis
        else:
            low, high = (0, self._modulus) if self._modulus else (-2, 3)
            vectors = self._rng.integers(low, high, (4 * _SAMPLES, dimensions)) @ basis
            complete = False
        matrices = _matrices(reduced(vectors, self._modulus), self._degree)
        return matrices[ranks(matrices, self._modulus) == matrices.shape[1]], complete

    def _agree(self, matrices: Sequence[np.ndarray]) -> bool:
        """Whether x, y, z may do what they should; False if not so modulo the prime.

        If they are invertible modulo the prime, then the scales of an equivalence are units, so
        that its reduction is one. Otherwise nothing can be said.
        """
        samples = [integers(matrix, self._prime) for matrix in matrices]
        inverses = [inverse(sample, self._prime) for sample in samples]
        if any(matrix is None for matrix in inverses):
            return True
        moved = []
        for mode, factor in enumerate(self._first.factors):
            half = reduced(samples[mode] @ integers(factor, self._prime), self._prime)
            moved.append(reduced(half @ inverses[(mode + 1) % 3], self._prime))
        return Counter(_residue_keys(self._first, moved, self._prime)) == self._target_keys

    def _is_right(self, sandwich: _Sandwich) -> bool:
        keys = image_keys(self._first.factorization, sandwich)
        return match_keys(keys, product_keys(self._second.factorization)) is not None


def _plain(matrix: np.ndarray, degree: int) -> np.ndarray:
    """A matrix (n, n), or (n, n, 2), of Python integers from an embedded one."""
    if degree == 1:
        return matrix.astype(object)
    return np.stack([matrix[::2, ::2], matrix[1::2, ::2]], -1).astype(object)


def _residue_keys(side: _Side, factors: list[np.ndarray], prime: int) -> list[tuple]:
    """The products with these matrices as residues, the same for equal tensors of rank one."""
    u, v, w = (as_vectors(integers(factor, prime), side.degree == 2) for factor in factors)
    w = reduced(w * pow(side.scale, -1, prime), prime)
    rows = canonical_rows(u, v, w, prime)
    return [tuple(row) for row in rows.reshape(len(rows), -1).tolist()]


def _suitable_prime(*sides: _Side) -> int:
    """A prime, 3 modulo 4 so that -1 has no root, that leaves scales and matrices nonzero."""
    prime = 2**28 - 57
    while not all(_suits(prime, side) for side in sides):
        prime -= 4
        while any(prime % divisor == 0 for divisor in range(3, math.isqrt(prime) + 1, 2)):
            prime -= 4
    return prime


def _suits(prime: int, side: _Side) -> bool:
    nonzero = [(factor % prime).any((1, 2)).all() for factor in side.factors]
    return bool(side.scale % prime) and all(nonzero)
