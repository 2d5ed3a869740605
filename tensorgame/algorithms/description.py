"""What one wants to know of an algorithm before using it."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import numpy as np

from tensorgame.algorithms.additions import naive_additions, reduce_additions
from tensorgame.algorithms.arithmetic import residues
from tensorgame.algorithms.factorization import Factorization, number_text
from tensorgame.targets import Record, Target


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """Figures of a factorization; those of the three factors are in the order u, v, w.

    Attributes:
      target: the name of the bilinear map.
      ring: the smallest ring that holds the factors.
      rank: products.
      trivial_rank: products of the schoolbook algorithm.
      best_known: the best rank known over that ring, and its source.
      omega: for matrix multiplication <n,m,p>, the exponent 3 ln(rank) / ln(n m p) that recursion
        reaches; None for other maps and for <1,1,1>.
      nonzeros: nonzero coefficients.
      density: their share of the factor.
      naive_additions: additions of the equations as written: left factors, right factors, outputs.
      reduced_additions: the same with common sums computed once, by `reduce_additions`.
      coefficients: the distinct nonzero coefficients; modulo p those of smallest size.
      growth: sum_r |u_r|^2 |v_r|^2 |w_r|^2 of Euclidean norms, exact. Random rounding errors grow
        like its square root (arXiv 2609.26077). None modulo p, where numbers have no size.
      proof: the line of `Factorization.check`.
      valid: over which rings the algorithm computes the map, by `Factorization.validity`.
    """

    target: str
    ring: str
    rank: int
    trivial_rank: int
    best_known: Record
    omega: float | None
    nonzeros: tuple[int, int, int]
    density: tuple[float, float, float]
    naive_additions: tuple[int, int, int]
    reduced_additions: tuple[int, int, int]
    coefficients: tuple[str, ...]
    growth: Fraction | None
    proof: str
    valid: str


def describe(factorization: Factorization, *, attempts: int = 1, seed: int = 0) -> Description:
    """The figures of a factorization, which is proved first.

    Args:
      factorization: the algorithm.
      attempts: see `reduce_additions`; 100 save 1 to 5 % more than one.
      seed: the same.

    Raises:
      IncorrectFactorization: it does not compute its map.
      ValueError: attempts is less than one.
    """
    target, ring = factorization.target, factorization.ring
    proof, valid = factorization.check(), factorization.validity()
    factors = (factorization.u, factorization.v, factorization.w)
    nonzero = [f.any(axis=2) if factorization.is_complex else f != 0 for f in factors]
    programs = reduce_additions(factorization, attempts=attempts, seed=seed)
    return Description(
        target=target.name,
        ring=ring,
        rank=factorization.rank,
        trivial_rank=target.trivial_rank,
        best_known=target.known(ring),
        omega=_omega(target, factorization.rank),
        nonzeros=tuple(int(entries.sum()) for entries in nonzero),
        density=tuple(float(entries.mean()) for entries in nonzero),
        naive_additions=naive_additions(factorization),
        reduced_additions=tuple(program.additions for program in programs),
        coefficients=_coefficients(factorization),
        growth=_growth(factorization),
        proof=proof,
        valid=valid,
    )


def signed(factor: np.ndarray, modulus: int) -> np.ndarray:
    """The residues modulo p of smallest size, 1 modulo 2; the factor itself without a modulus."""
    return residues(factor, modulus) if modulus else factor


def _omega(target: Target, rank: int) -> float | None:
    """Recursion multiplies n m p times as many entries by ``rank`` times as many products."""
    family, _, _ = target.name.partition(":")
    if family != "matmul" or target.trivial_rank == 1:
        return None
    return 3 * math.log(rank) / math.log(target.trivial_rank)


def _coefficients(factorization: Factorization) -> tuple[str, ...]:
    """Real ones in increasing order; others by their real part first."""
    numbers: set[tuple[int, int]] = set()
    for factor in (factorization.u, factorization.v, factorization.w):
        if factorization.is_complex:
            numbers.update(map(tuple, factor.reshape(-1, 2).tolist()))
        else:
            numbers.update(
                (x, 0) for x in np.unique(signed(factor, factorization.modulus)).tolist()
            )
    numbers.discard((0, 0))
    return tuple(number_text(*number, factorization.denominator) for number in sorted(numbers))


def _growth(factorization: Factorization) -> Fraction | None:
    if factorization.modulus:
        return None
    norms = []
    for factor in (factorization.u, factorization.v, factorization.w):
        squares = factor.astype(object) ** 2
        norms.append(squares.sum(axis=(0, 2) if factorization.is_complex else 0))
    return Fraction(math.prod(norms).sum(), factorization.denominator**6)
