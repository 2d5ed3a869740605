"""Hensel lifting of factorizations modulo a prime to the integers or the rationals.

Kauers and Moosbauer, "Flip graphs for matrix multiplication" (arXiv 2212.01175), there modulo 2.
Let x hold all entries of u, v, w, let E(x) = T - sum_r u_r (x) v_r (x) w_r, and let J be the
Jacobian of that sum modulo p. If E(x) = 0 modulo p^k, then x + p^k d is a solution modulo p^(k+1)
exactly if J d = E(x) / p^k modulo p. J depends on x modulo p only, so one elimination serves all
steps of an attempt. For k = 1 that holds for every x with the same residues at once: where the
first step has no solution, no lift exists that reduces to this factorization.

These choices make small numbers likely:

* The unknowns without pivot keep their first value. Entries with large residues come first as
  pivots, zeros last. Zeros then stay zero where the other entries alone can solve a step.
* The others are then algebraic numbers, which need not be rational. Modulo odd primes every second
  attempt takes pivots vector by vector, so that the small vectors among u_r, v_r and w_r are free
  as a whole. Fixing a factor of rank one fixes how a change of bases acts on its lines, which is a
  linear condition; single entries here and there give equations of higher degree.
* Modulo 2 the entries start with random signs, and coefficients stay in {-1, 0, 1} whenever signs
  alone can solve the first step. Modulo odd primes each product is first scaled by units such that
  its residues in (-p/2, p/2) are small.
* Where J is singular, the digits chosen modulo p^2 may admit no solution modulo p^3, and almost all
  of them do not for, say, Strassen's algorithm applied twice modulo 2. The kernel of J spans the
  other choices. Their effect on E / p^2 is nearly additive, so a few linear solves find a better
  one.
* After each step the residues in (-p^k/2, p^k/2] are tried as integers, and then the fractions
  with numerators and denominators up to sqrt(p^k/2) that have these residues (Wang, "A p-adic
  algorithm for univariate partial fractions", SYMSAC 1981; such a fraction is unique). An algorithm
  that needs 1/2 is found so, since 1/2 has a residue modulo every power of 3.

For <4,4,4> with 49 products J has 4096 rows (equations) and 2352 columns (unknowns).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from fractions import Fraction

import numpy as np

from tensorgame.algorithms.arithmetic import residues
from tensorgame.algorithms.elimination import LARGEST_PRIME, Elimination, eliminate
from tensorgame.algorithms.factorization import Factorization, IncorrectFactorization
from tensorgame.targets import Target

# The last digit is computed modulo p^(steps + 2), which fits into int64 as p is at most 2^20.
_MAX_BITS = 40
_DETOUR_ROUNDS = 8
_INT64_MAX = 2**63 - 1
# Up to here float64, with its fast matrix product, holds every integer.
_FLOAT64_EXACT = 2**53
# Of a lift whose numbers are of any use.
_LARGEST_DENOMINATOR = 2**30


@dataclasses.dataclass(frozen=True)
class Lift:
    """The outcome of `try_lift`.

    Attributes:
      factorization: over Z or Q, proved by ``check``; None if there is none or none was found.
      reason: one sentence: how it was found, or why there is none.
      proved_impossible: no factorization over Q without p in its denominator reduces to this one
        modulo p. False if there merely was no success.
    """

    factorization: Factorization | None
    reason: str
    proved_impossible: bool = False


def lift(
    factorization: Factorization, *, steps: int | None = None, attempts: int = 20, seed: int = 0
) -> Factorization | None:
    """The factorization over Z or Q that `try_lift` finds with the same arguments, or None."""
    return try_lift(factorization, steps=steps, attempts=attempts, seed=seed).factorization


def try_lift(
    factorization: Factorization, *, steps: int | None = None, attempts: int = 20, seed: int = 0
) -> Lift:
    """Lifts a factorization modulo a prime p to one over Z, or else Q, that reduces to it.

    Modulo odd primes products reduce to products up to units moved within a product.

    Args:
      factorization: a correct factorization with a modulus, at most 2^20.
      steps: the number of p-adic digits to try after the first, at least 1, with
        p^(steps + 1) <= 2^40. Default: as many as that allows.
      attempts: the number of random choices of pivots and signs to try, at least 1.
      seed: the result is a function of this seed and the other arguments.

    Returns:
      The factorization itself if its residues closest to zero are exact over Z, or else the first
      lift over Z whose coefficients are as small as the residues allow, which is
      {-1, 0, 1} modulo 2 where signs suffice; or else the one of all attempts with the smallest
      denominator and, among these, the smallest largest coefficient.

    Raises:
      IncorrectFactorization: the factorization is wrong modulo p.
      ValueError: it has no modulus, or a too large one, or steps or attempts is out of range.
    """
    prime = factorization.modulus
    if not 2 <= prime <= LARGEST_PRIME:
        raise ValueError(f"modulus is {prime}; it has to be a prime of at most {LARGEST_PRIME}")
    most = _steps_within(prime, _MAX_BITS)
    if steps is None:
        steps = most
    if not 1 <= steps <= most:
        raise ValueError(f"steps is {steps}; modulo {prime} it has to be from 1 to {most}")
    if attempts < 1:
        raise ValueError(f"attempts is {attempts}; it has to be at least 1")
    factorization.check()
    return _Search(factorization, steps, np.random.default_rng(seed)).run(attempts)


def _steps_within(prime: int, bits: int) -> int:
    """The largest s with prime^(s + 1) <= 2^bits."""
    return next(s for s in itertools.count() if prime ** (s + 2) > 2**bits)


class _Search:
    """Attempts to lift one factorization, each with its own order of pivots."""

    def __init__(self, factorization: Factorization, steps: int, rng: np.random.Generator) -> None:
        self._prime = factorization.modulus
        self._steps = steps
        self._rng = rng
        self._brent = _BrentEquations(factorization)
        self._jacobian = self._brent.jacobian()

    def run(self, attempts: int) -> Lift:
        """Makes attempts until one is as good as it can be."""
        p, brent = self._prime, self._brent
        as_it_is = brent.exact(brent.solution, 1)
        if as_it_is is not None and as_it_is.denominator == 1:
            return Lift(as_it_is, "exact over Z as it is, with the residues closest to zero")
        best = Lift(None, f"not liftable along the paths of {attempts} attempts")
        best_size = (math.inf, math.inf)
        for attempt in range(1, attempts + 1):
            system = eliminate(self._jacobian, self._order(attempt), p)
            start = brent.solution
            if p == 2:
                start = start * self._rng.choice([-1, 1], size=start.size)
            # Another start adds J d to E(start) / p, which changes nothing about solvability.
            change = system.solve(brent.digit(start, 1))
            if change is None:
                reason = f"no solution modulo {p * p} exists, so no lift does"
                return Lift(None, reason, proved_impossible=True)
            lifted, digits = self._hensel(system, start)
            if lifted is None or (size := _size(lifted)) >= best_size:
                continue
            reason = f"exact over {lifted.ring} after attempt {attempt} modulo {p}^{digits}"
            best, best_size = Lift(lifted, reason), size
            if size <= (1, self._smallest_possible(start, change)):
                break
        return best

    def _order(self, attempt: int) -> np.ndarray:
        """A random order of the unknowns in which those with large residues come early."""
        sizes = np.abs(self._brent.solution)
        ties = self._rng.random(sizes.size)
        if self._prime == 2 or attempt % 2:
            return np.lexsort([ties, -sizes])
        # Whole vectors u_r, v_r, w_r one after the other, zeros last.
        vectors = self._brent.vectors
        totals = np.bincount(vectors, sizes)
        ranks = -totals * self._rng.uniform(0.5, 1.5, totals.size)
        return np.lexsort([ties, -sizes, ranks[vectors], sizes == 0])

    def _smallest_possible(self, start: np.ndarray, change: np.ndarray) -> int:
        """A lower bound for the largest coefficient of the integer lifts of these residues.

        Those closest to zero are no lift themselves; ``change`` is what solves the first step.
        """
        p = self._prime
        # With the nonzero residues as first pivots, a zero changes only where it has to.
        if p == 2 and change[start == 0].any():
            return 2
        return (p + 1) // 2

    def _hensel(self, system: Elimination, x: np.ndarray) -> tuple[Factorization | None, int]:
        """Improves the solution x modulo p digit by digit until it is exact.

        Returns it, or None where a step has no solution, and the number of digits so far.
        """
        p, brent = self._prime, self._brent
        for k in range(1, self._steps + 1):
            if (found := brent.exact(x, k)) is not None:
                return found, k
            change = system.solve(brent.digit(x, k))
            # Modulo 8 it always looks for signs that solve it: they keep coefficients at 1.
            if k > 1 and (change is None or (p == 2 and k == 2)):
                x = self._detour(system, x, k)
                change = system.solve(brent.digit(x, k))
            if change is None:
                return None, k
            x = residues(x + change * p**k, p ** (k + 1))
        return brent.exact(x, self._steps + 1), self._steps + 1

    def _detour(self, system: Elimination, x: np.ndarray, k: int) -> np.ndarray:
        """Looks for another solution modulo p^k, equal to x modulo p^(k-1), where step k works.

        It prefers one that is a solution modulo p^(k+1) already. May return one that does not help.
        """
        p, brent, kernel = self._prime, self._brent, system.kernel

        def moved(kernel_vector: np.ndarray) -> np.ndarray:
            return residues(x + kernel_vector * p ** (k - 1), p**k)

        for _ in range(_DETOUR_ROUNDS):
            digit = brent.digit(x, k)
            if not digit.any() or not len(kernel):
                break
            effects = np.stack([brent.digit(moved(vector), k) for vector in kernel], axis=1)
            effects = (effects - digit[:, None]) % p
            choice = _solve(effects, -digit % p, p)
            if choice is None:
                obstruction = system.reduce(digit[:, None])[system.unused, 0]
                if not obstruction.any():
                    break
                choice = _solve(system.reduce(effects)[system.unused], -obstruction % p, p)
            if choice is None:
                if k > 2:  # effects are exactly additive from the third step on: no choice helps
                    break
                choice = self._rng.integers(0, p, size=len(kernel))
            x = moved(choice @ kernel % p)
        return x


def _solve(matrix: np.ndarray, side: np.ndarray, prime: int) -> np.ndarray | None:
    """A solution of one system, or None."""
    return eliminate(matrix, np.arange(matrix.shape[1]), prime).solve(side)


def _size(factorization: Factorization) -> tuple[int, int]:
    """The smaller, the better: the denominator and the largest numerator."""
    return factorization.denominator, max(map(abs, factorization.coefficients()))


class _BrentEquations:
    """The equations that the flat vector x of all entries of u, v, w has to solve.

    Attributes:
      solution: (unknowns,) int64, the solution modulo p, residues in (-p/2, p/2].
      vectors: (unknowns,) int64, which of the 3R vectors u_r, v_r and w_r each one belongs to.
    """

    def __init__(self, factorization: Factorization) -> None:
        self._target: Target = factorization.target
        self._prime = factorization.modulus
        self._rank = factorization.rank
        self._bounds = np.cumsum([factorization.u.size, factorization.v.size])
        factors = [factorization.u, factorization.v, factorization.w]
        if self._prime > 2:
            factors = _with_small_residues(factors, self._prime)
        flat = np.concatenate([factor.ravel() for factor in factors])
        self.solution = residues(flat, self._prime)
        columns = np.arange(self._rank)
        self.vectors = np.concatenate(
            [np.tile(columns + i * self._rank, len(factor)) for i, factor in enumerate(factors)]
        )

    def split(self, x: np.ndarray) -> list[np.ndarray]:
        """The factors u, v, w in x."""
        return [part.reshape(-1, self._rank) for part in np.split(x, self._bounds)]

    def digit(self, x: np.ndarray, k: int) -> np.ndarray:
        """E(x) / p^k modulo p for an x with E(x) = 0 modulo p^k: (equations,) int64."""
        modulus = self._prime ** (k + 1)
        u, v, w = self.split(x)
        of_u, of_v, of_w = (int(np.abs(factor).max()) for factor in (u, v, w))
        bound = self._rank * of_u * of_v * of_w
        if of_u * of_v > _INT64_MAX:
            u = u.astype(object)
        pairs = (u[:, None, :] * v[None, :, :]).reshape(-1, self._rank)
        if bound > _FLOAT64_EXACT:
            pairs = residues(pairs, modulus)
            bound = self._rank * (modulus // 2) * of_w
        exact = np.float64 if bound <= _FLOAT64_EXACT else np.int64
        if bound > _INT64_MAX:
            exact = object
        sums = (pairs.astype(exact) @ w.T.astype(exact)).ravel() % modulus
        error = (self._target.tensor.ravel() % modulus - sums.astype(np.int64)) % modulus
        return error // self._prime**k

    def jacobian(self) -> np.ndarray:
        """J, an array (equations, unknowns) of residues from 0 to p - 1, in a small dtype."""
        p, rank = self._prime, self._rank
        u, v, w = self.split(self.solution)
        sides = len(u), len(v), len(w)
        jacobian = np.zeros((*sides, sum(sides), rank), np.min_scalar_type(p - 1))
        of_v, of_w = sides[0], sides[0] + sides[1]
        for a in range(sides[0]):
            jacobian[a, :, :, a] = v[:, None] * w[None, :] % p
        for b in range(sides[1]):
            jacobian[:, b, :, of_v + b] = u[:, None] * w[None, :] % p
        for c in range(sides[2]):
            jacobian[:, :, c, of_w + c] = u[:, None] * v[None, :] % p
        return jacobian.reshape(math.prod(sides), -1)

    def exact(self, x: np.ndarray, k: int) -> Factorization | None:
        """The factorization over Z, or else Q, that x modulo p^k stands for, or None."""
        # An algorithm has no further digit either.
        if not self.digit(x, k).any() and (found := self._proved(*self.split(x))) is not None:
            return found
        fractions = _fractions(x, self._prime**k)
        if fractions is None:
            return None
        scaled = _over_common_denominator(*self.split(fractions))
        return scaled and self._proved(*scaled)

    def _proved(
        self, u: np.ndarray, v: np.ndarray, w: np.ndarray, denominator: int = 1
    ) -> Factorization | None:
        """The factorization, or None if it is wrong."""
        candidate = Factorization(target=self._target, denominator=denominator, u=u, v=v, w=w)
        try:
            candidate.check()
        except IncorrectFactorization:
            return None
        return candidate


def _with_small_residues(factors: list[np.ndarray], prime: int) -> list[np.ndarray]:
    """The same products, with units moved between their factors to make residues small."""
    scaled = np.concatenate(factors)
    bounds = np.cumsum([len(factor) for factor in factors])[:2]
    for r in range(scaled.shape[1]):
        vectors = np.split(scaled[:, r], bounds)
        units = [_smallest_scale(vector, prime) for vector in vectors]
        options = []
        # Two factors as they like, and the third takes the rest.
        for rest in range(3):
            chosen = [1 if i == rest else unit for i, unit in enumerate(units)]
            chosen[rest] = pow(math.prod(chosen), -1, prime)
            parts = [v * unit % prime for v, unit in zip(vectors, chosen, strict=True)]
            options.append(np.concatenate(parts))
        scaled[:, r] = min(options, key=lambda option: int(np.abs(residues(option, prime)).sum()))
    return np.split(scaled, bounds)


def _smallest_scale(vector: np.ndarray, prime: int) -> int:
    """The inverse of an entry that makes the residues of the vector smallest in sum."""
    scales = [pow(entry, -1, prime) for entry in np.unique(vector[vector != 0]).tolist()]
    return min(scales or [1], key=lambda scale: int(np.abs(residues(vector * scale, prime)).sum()))


def _fractions(x: np.ndarray, modulus: int) -> np.ndarray | None:
    """The fractions with small terms that have these residues, not all integers; or None.

    Returns:
      An object array of Fraction in the shape of x.
    """
    bound = math.isqrt(modulus // 2)
    distinct, places = np.unique(x, return_inverse=True)
    found = []
    for residue in distinct.tolist():
        fraction = _fraction(residue, modulus, bound)
        if fraction is None:
            return None
        found.append(fraction)
    if all(fraction.denominator == 1 for fraction in found):
        return None
    return np.array(found, dtype=object)[places]


def _fraction(residue: int, modulus: int, bound: int) -> Fraction | None:
    """The fraction with this residue and terms up to ``bound``, or None: Euclid's algorithm."""
    # Every remainder is its coefficient times the residue, modulo the modulus.
    older, newer = (modulus, 0), (residue % modulus, 1)
    while newer[0] > bound:
        quotient = older[0] // newer[0]
        older, newer = newer, tuple(o - quotient * n for o, n in zip(older, newer, strict=True))
    numerator, denominator = newer
    if abs(denominator) > bound or math.gcd(denominator, modulus) > 1:
        return None
    return Fraction(numerator, denominator)


def _over_common_denominator(
    u: np.ndarray, v: np.ndarray, w: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int] | None:
    """The same products as int64 over the smallest common denominator, with that denominator.

    Within a product a number may move from one factor to another. So the factors become integers
    without common divisor, and what is left of the product is a fraction; the denominator's cube
    has to cover those of all products. None if the numbers get too large.
    """
    matrices = [np.array(factor) for factor in (u, v, w)]
    left = []
    for r in range(u.shape[1]):
        contents = [_content(matrix[:, r]) for matrix in matrices]
        for matrix, content in zip(matrices, contents, strict=True):
            matrix[:, r] /= content
        left.append(math.prod(contents))
    common = math.lcm(*(fraction.denominator for fraction in left))
    if common > _LARGEST_DENOMINATOR:
        return None
    denominator = _cube_root_multiple(common)
    for r, fraction in enumerate(left):
        rest = fraction.denominator
        matrices[2][:, r] *= fraction.numerator
        for matrix in reversed(matrices):
            part = math.gcd(rest, denominator)
            matrix[:, r] *= denominator // part
            rest //= part
    if max(abs(entry) for matrix in matrices for entry in matrix.flat) > _INT64_MAX:
        return None
    return *(matrix.astype(np.int64) for matrix in matrices), denominator


def _content(vector: np.ndarray) -> Fraction:
    """The positive number that divides the vector into integers without common divisor."""
    numerator = math.gcd(*(fraction.numerator for fraction in vector))
    return Fraction(numerator or 1, math.lcm(*(fraction.denominator for fraction in vector)))


def _cube_root_multiple(number: int) -> int:
    """The smallest d such that the number divides d^3."""
    root, divisor = 1, 2
    while number > 1:
        if divisor * divisor > number:
            divisor = number
        exponent = 0
        while number % divisor == 0:
            number //= divisor
            exponent += 1
        root *= divisor ** -(-exponent // 3)
        divisor += 1
    return root
