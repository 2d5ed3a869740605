"""An algorithm for a bilinear map as three factor matrices, and its exact proof.

Product r is ``m_r = (u_r . a)(v_r . b)``, and row k of w says how the products add up to entry k of
c. For matrices c is the transpose of C = A B, flattened (see `tensorgame.targets.matmul`).

This module needs NumPy only and shares no code with the game, so that what the game finds is
proved by something that knows nothing of how it was found.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import operator
import re
from fractions import Fraction

import numpy as np

from tensorgame.targets import Target

_INT64_MAX = 2**63 - 1
# Up to here float64, with its fast matrix product, holds every integer.
_FLOAT64_EXACT = 2**53


class IncorrectFactorization(ValueError):  # noqa: N818
    """The products do not compute the bilinear map."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Factorization:
    """R products that are meant to compute a bilinear map.

    The factors are integers over a common denominator. The ring is that of the data: Z_p for a
    modulus p, or else Z, or Q with a denominator; Z[i] or Q[i] with imaginary parts.

    Attributes:
      target: the bilinear map, with a tensor of shape (I, J, K).
      modulus: 0, or a prime p for arithmetic modulo p.
      denominator: d >= 1; the factors are u / d, v / d and w / d. Always 1 modulo p.
      u, v, w: read-only int64 arrays of shapes (I, R), (J, R) and (K, R), reduced modulo
        ``modulus`` or in lowest terms with d; or all three with a last axis of two, the real and
        the imaginary part (it is dropped when all imaginary parts are zero). Any array of an
        integer dtype is accepted; it is copied.

    Building one checks its form only; ``check`` proves that it is right.

    Raises:
      ValueError: a field has a wrong type, shape or value.
    """

    target: Target
    modulus: int = 0
    denominator: int = 1
    u: np.ndarray
    v: np.ndarray
    w: np.ndarray

    def __post_init__(self) -> None:
        modulus, denominator = self._integer("modulus"), self._integer("denominator")
        if modulus and not _is_prime(modulus):
            raise ValueError(f"modulus is {modulus}; it has to be 0 (no modulus) or a prime")
        if denominator < 1:
            raise ValueError(f"denominator is {denominator}; it has to be positive")
        if modulus and denominator > 1:
            raise ValueError(f"denominator is {denominator}; modulo {modulus} it has to be 1")
        sides = dict(zip("uvw", self.target.shape, strict=True))
        factors = [self._factor(name, rows) for name, rows in sides.items()]
        shapes = [factor.shape[1:] for factor in factors]
        if len(set(shapes)) > 1:
            raise ValueError(
                f"u, v, w have {[shape[0] for shape in shapes]} columns and "
                f"{[len(shape) for shape in shapes]} trailing axes; all need one column per product"
                " and imaginary parts, or none"
            )
        if modulus:
            if len(shapes[0]) == 2:
                raise ValueError(f"modulus is {modulus}; imaginary parts need modulus 0")
            factors = [factor % modulus for factor in factors]
        elif len(shapes[0]) == 2 and not any(factor[..., 1].any() for factor in factors):
            factors = [factor[..., 0] for factor in factors]
        common = math.gcd(denominator, *(int(np.gcd.reduce(f, axis=None)) for f in factors))
        object.__setattr__(self, "modulus", modulus)
        object.__setattr__(self, "denominator", denominator // common)
        for name, factor in zip("uvw", factors, strict=True):
            reduced = factor // common
            reduced.setflags(write=False)
            object.__setattr__(self, name, reduced)

    def _integer(self, name: str) -> int:
        try:
            return operator.index(getattr(self, name))
        except TypeError:
            raise ValueError(
                f"{name} is {getattr(self, name)!r}; it has to be an integer"
            ) from None

    def _factor(self, name: str, rows: int) -> np.ndarray:
        given = np.asarray(getattr(self, name))
        if not np.issubdtype(given.dtype, np.integer):
            raise ValueError(f"{name} has dtype {given.dtype}; it has to be an integer dtype")
        is_matrix = given.ndim == 2 or (given.ndim == 3 and given.shape[2] == 2)
        if not is_matrix or given.shape[0] != rows or given.shape[1] < 1:
            raise ValueError(
                f"{name} has shape {given.shape}; for {self.target.name} it has to be ({rows}, R) "
                f"or, with imaginary parts, ({rows}, R, 2), with R >= 1"
            )
        if int(given.max()) > _INT64_MAX:
            raise ValueError(f"{name} holds {given.max()}; its entries have to fit into int64")
        return given.astype(np.int64)

    @property
    def rank(self) -> int:
        """The number of products R."""
        return self.u.shape[1]

    @property
    def is_complex(self) -> bool:
        """Whether there are imaginary parts."""
        return self.u.ndim == 3

    @property
    def ring(self) -> str:
        """The smallest ring that holds the factors: Z_p, Z, Q, Z[i] or Q[i]."""
        if self.modulus:
            return f"Z_{self.modulus}"
        return ("Z" if self.denominator == 1 else "Q") + ("[i]" if self.is_complex else "")

    def values(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """u, v and w for computing: (rows, R) in int64, float64 or complex128 as the ring needs."""
        factors = [self.u, self.v, self.w]
        if self.is_complex:
            factors = [factor[..., 0] + 1j * factor[..., 1] for factor in factors]
        if self.denominator > 1:
            factors = [factor / self.denominator for factor in factors]
        return tuple(factors)

    def check(self) -> str:
        """Proves the algorithm exactly, and returns the line that says so.

        Sums all products of factors in integers and compares them with the target's tensor, which
        its own definition gives on unit vectors.

        Raises:
          IncorrectFactorization: some entries are wrong; the message counts them and shows one.
        """
        scale = self.denominator**3
        want = self.target.tensor.astype(object) * scale
        real, imaginary = self._sum()
        if self.modulus:
            real, want = real % self.modulus, want % self.modulus
        wrong = np.argwhere((real != want) | (imaginary != 0))
        if len(wrong):
            at = tuple(wrong[0])
            a, b, c = (labels[i] for labels, i in zip(self.target.labels, at, strict=True))
            got = number_text(int(real[at]), int(imaginary[at]), scale) or "0"
            raise IncorrectFactorization(
                f"{len(wrong)} of the {want.size} entries are wrong over {self.ring}: the "
                f"coefficient of {a} {b} in {c} is {got}, not {want[at] // scale}"
            )
        return f"checked: {self.rank} products reproduce all {want.size} entries over {self.ring}"

    def _sum(self) -> tuple[np.ndarray, np.ndarray]:
        """The real and imaginary parts of ``sum_r u_r (x) v_r (x) w_r``, exact, not reduced."""
        if not self.is_complex:
            real = _outer_sum(self.u, self.v, self.w)
            return real, np.zeros_like(real)
        (a, b), (c, d), (e, f) = (np.moveaxis(factor, -1, 0) for factor in (self.u, self.v, self.w))
        real = _outer_sum(a, c, e) - _outer_sum(b, d, e) - _outer_sum(a, d, f) - _outer_sum(b, c, f)
        imaginary = (
            _outer_sum(a, c, f) + _outer_sum(a, d, e) + _outer_sum(b, c, e) - _outer_sum(b, d, f)
        )
        return real, imaginary

    def coefficients(self) -> tuple[int, ...]:
        """The distinct numerators in increasing order, of real and imaginary parts alike."""
        factors = [factor.ravel() for factor in (self.u, self.v, self.w)]
        return tuple(np.unique(np.concatenate(factors)).tolist())

    def canonical(self) -> Factorization:
        """The same products with units moved to w, so that equal products look equal.

        Modulo p the first nonzero entry of each u_r and v_r becomes 1; otherwise it becomes
        positive, and with imaginary parts its argument comes to lie in [0, pi/2).
        """
        factors, w = [], self.w
        for factor in (self.u, self.v):
            if self.modulus:
                units = np.array([x or 1 for x in _leading(factor).tolist()])
                inverses = np.array([pow(x, -1, self.modulus) for x in units.tolist()])
                factors.append(factor * inverses % self.modulus)
                w = w * units % self.modulus
            elif self.is_complex:
                turns = _turns_to_first_quadrant(_leading(factor))
                factors.append(_turn(factor, turns))
                w = _turn(w, -turns)
            else:
                signs = np.where(_leading(factor) < 0, -1, 1)
                factors.append(factor * signs)
                w = w * signs
        return dataclasses.replace(self, u=factors[0], v=factors[1], w=w)

    def key(self) -> bytes:
        """A SHA-256 digest of the target, the ring and the multiset of canonical products.

        It ignores the order of the products and moves of units within a product.
        """
        canonical = self.canonical()
        flat = [
            f.swapaxes(0, 1).reshape(self.rank, -1) for f in (canonical.u, canonical.v, canonical.w)
        ]
        rows = np.concatenate(flat, axis=1)
        header = np.array([*self.target.shape, self.modulus, self.denominator, self.is_complex])
        tensor = self.target.tensor.ravel()
        content = np.concatenate([header, tensor, rows[np.lexsort(rows.T)].ravel()])
        return hashlib.sha256(content.astype("<i8").tobytes()).digest()

    def equations(self) -> str:
        """The algorithm as text: one line per product, then one per entry of c."""
        a, b, c = self.target.labels
        products = [f"m{r + 1}" for r in range(self.rank)]
        lines = [f"All arithmetic is mod {self.modulus}."] if self.modulus else []
        terms = [self._texts(factor) for factor in (self.u, self.v, self.w)]
        for r, name in enumerate(products):
            left, right = _factor_text(terms[0][:, r], a), _factor_text(terms[1][:, r], b)
            gap = "" if left.endswith(")") and right.startswith("(") else " "
            lines.append(f"{name} = {left}{gap}{right}")
        for k in sorted(range(len(c)), key=lambda k: _natural(c[k])):
            lines.append(f"{c[k]} = {_sum_text(terms[2][k], products)}")
        return "\n".join(lines)

    def summary(self) -> str:
        """One line: the target, the rank and the ring."""
        return (
            f"{self.target.name} with {self.rank} products over {self.ring} "
            f"(schoolbook: {self.target.trivial_rank})"
        )

    def _texts(self, factor: np.ndarray) -> np.ndarray:
        """The entries as text, such as -1/2 or 1+i; "" for zero: (rows, R), dtype object."""
        texts = np.empty(factor.shape[:2], object)
        for at in np.ndindex(*texts.shape):
            real, imaginary = factor[at].tolist() if self.is_complex else (int(factor[at]), 0)
            texts[at] = number_text(real, imaginary, self.denominator)
        return texts


def number_text(real: int, imaginary: int, denominator: int) -> str:
    """(real + i imaginary) / denominator in lowest terms: 3, -1/2, i, 1-i/2; "" for zero."""
    text = str(Fraction(real, denominator)) if real else ""
    if imaginary:
        part = Fraction(abs(imaginary), denominator)
        sign = "-" if imaginary < 0 else "+" if real else ""
        size = "" if part.numerator == 1 else str(part.numerator)
        text += f"{sign}{size}i" + (f"/{part.denominator}" if part.denominator > 1 else "")
    return text


def _outer_sum(u: np.ndarray, v: np.ndarray, w: np.ndarray) -> np.ndarray:
    """``sum_r u_r (x) v_r (x) w_r`` of int64 matrices with R columns: exact, int64 or object."""
    largest = [np.abs(factor.astype(object)).max(axis=0, initial=0) for factor in (u, v, w)]
    # No intermediate value exceeds this sum of Python ints. A complex sum adds up four of these.
    bound = 4 * int(math.prod(largest).sum())
    if bound <= _FLOAT64_EXACT:
        exact, stored = np.float64, np.int64
    elif bound <= _INT64_MAX:
        exact = stored = np.int64
    else:
        exact = stored = object
    u, v, w = (factor.astype(exact) for factor in (u, v, w))
    return np.stack([((row * v) @ w.T).astype(stored) for row in u])


def _leading(factor: np.ndarray) -> np.ndarray:
    """The first nonzero entry of each column, or zero: (R,), with imaginary parts (R, 2)."""
    nonzero = factor.any(axis=2) if factor.ndim == 3 else factor != 0
    return factor[nonzero.argmax(axis=0), np.arange(factor.shape[1])]


def _turns_to_first_quadrant(numbers: np.ndarray) -> np.ndarray:
    """How often to multiply each of the numbers (R, 2) by i: (R,), 0 to 3."""
    real, imaginary = numbers.T
    return np.select(
        [(real > 0) & (imaginary >= 0), (imaginary > 0), (real < 0), (imaginary < 0)],
        [0, 3, 2, 1],
        default=0,
    )


def _turn(factor: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """The factor (rows, R, 2) with column r multiplied by i to the power ``turns[r]``."""
    real, imaginary = np.moveaxis(factor, -1, 0)
    turned = [(real, imaginary), (-imaginary, real), (-real, -imaginary), (imaginary, -real)]
    options = np.stack([np.stack(parts, axis=-1) for parts in turned])
    return np.take_along_axis(options, (turns % 4)[None, None, :, None], axis=0)[0]


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % d for d in range(2, math.isqrt(number) + 1))


def _natural(label: str) -> list[int]:
    """Sorts c2 before c10 and c12 before c21."""
    return [int(number) for number in re.findall(r"\d+", label)]


def _sum_text(coefficients: np.ndarray, names: tuple[str, ...] | list[str]) -> str:
    """A sum such as ``a11 - 2*a12``, or 0."""
    text = ""
    for coefficient, name in zip(coefficients.tolist(), names, strict=True):
        if not coefficient:
            continue
        sign, size = ("-", coefficient[1:]) if coefficient[0] == "-" else ("+", coefficient)
        if any(s in size for s in "+-"):
            sign, size = "+", f"({coefficient})"
        term = name if size == "1" else f"{size}\N{MIDDLE DOT}{name}"
        sign = sign.replace("-", "\N{MINUS SIGN}")
        text += f" {sign} {term}" if text else f"{sign}{term}".removeprefix("+")
    return text or "0"


def _factor_text(coefficients: np.ndarray, names: tuple[str, ...]) -> str:
    text = _sum_text(coefficients, names)
    return text if text in names else f"({text})"
