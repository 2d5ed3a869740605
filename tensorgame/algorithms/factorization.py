"""An algorithm for a bilinear map as three factor matrices, and its exact proof.

Product r is ``m_r = (u_r . a)(v_r . b)``, and row k of w says how the products add up to entry k of
c. For matrices c is the transpose of C = A B, flattened (see `tensorgame.targets.matmul`).

This module needs NumPy only and shares no code with the game, so that what the game finds is
proved by something that knows nothing of how it was found.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import operator
import re
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from tensorgame.algorithms.arithmetic import gaussian_gcd, residues
from tensorgame.targets import Target

_INT64_MAX = 2**63 - 1
# Up to here float64, with its fast matrix product, holds every integer.
_FLOAT64_EXACT = 2**53
# Products of two residues fit into int64, and trial division finds out at once what is prime.
_LARGEST_MODULUS = 2**31


class IncorrectFactorization(ValueError):  # noqa: N818
    """The products do not compute the bilinear map."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Factorization:
    """R products that are meant to compute a bilinear map.

    The factors are integers over a common denominator. The ring is that of the data: Z_p for a
    modulus p, or else Z, or Q with a denominator; Z[i] or Q[i] with imaginary parts.

    Attributes:
      target: the bilinear map, with a tensor of shape (I, J, K).
      modulus: 0, or a prime p < 2**31 for arithmetic modulo p.
      denominator: d, from 1 to 2**63 - 1; the factors are u / d, v / d and w / d. Always 1 modulo
        p.
      u, v, w: read-only int64 arrays of shapes (I, R), (J, R) and (K, R), reduced modulo
        ``modulus`` or in lowest terms with d; or all three with a last axis of two, the real and
        the imaginary part (it is dropped when all imaginary parts are zero). Anything that NumPy
        turns into such an array is accepted and copied, floats too if they are integers of at most
        2**53 (beyond it they have been rounded). No entry exceeds 2**63 - 1 in absolute value: with
        -2**63, the negative of a factor would not fit.

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
        if not isinstance(self.target, Target):
            raise ValueError(
                f"target is {self.target!r}; it has to be a Target, such as matmul(2, 2, 2)"
            )
        modulus, denominator = self._scalars()
        factors = [
            self._factor(name, rows) for name, rows in zip("uvw", self.target.shape, strict=True)
        ]
        shapes = [factor.shape for factor in factors]
        if len({shape[1:] for shape in shapes}) > 1:
            raise ValueError(
                f"u, v and w have shapes {shapes[0]}, {shapes[1]} and {shapes[2]}; they need the "
                "same number of columns, one a product, and all imaginary parts or none"
            )
        if factors[0].ndim == 3 and not any(factor[..., 1].any() for factor in factors):
            factors = [factor[..., 0] for factor in factors]
        if modulus:
            if factors[0].ndim == 3:
                raise ValueError(f"modulus is {modulus}; imaginary parts need modulus 0")
            factors = [factor % modulus for factor in factors]
        common = math.gcd(denominator, *(int(np.gcd.reduce(f, axis=None)) for f in factors))
        object.__setattr__(self, "modulus", modulus)
        object.__setattr__(self, "denominator", denominator // common)
        for name, factor in zip("uvw", factors, strict=True):
            reduced = factor // common
            reduced.setflags(write=False)
            object.__setattr__(self, name, reduced)

    def _scalars(self) -> tuple[int, int]:
        """The modulus and the denominator as Python ints."""
        modulus = _integer("modulus", self.modulus)
        denominator = _integer("denominator", self.denominator)
        if modulus and not (modulus < _LARGEST_MODULUS and _is_prime(modulus)):
            raise ValueError(
                f"modulus is {modulus}; it has to be 0 (no modulus) or a prime below 2**31"
            )
        if not 1 <= denominator <= _INT64_MAX:
            raise ValueError(f"denominator is {denominator}; it has to be from 1 to 2**63 - 1")
        if modulus and denominator > 1:
            raise ValueError(f"denominator is {denominator}; modulo {modulus} it has to be 1")
        return modulus, denominator

    def _factor(self, name: str, rows: int) -> np.ndarray:
        """A field as a new int64 array of the right form."""
        wanted = (
            f"for {self.target.name} it has to be ({rows}, R) or, with imaginary parts, "
            f"({rows}, R, 2), with R >= 1"
        )
        try:
            given = np.asarray(getattr(self, name))
        except ValueError:
            # NumPy's own message names neither the field nor the shape that would do.
            raise ValueError(f"{name} has rows of unequal lengths; {wanted}") from None
        is_matrix = given.ndim == 2 or (given.ndim == 3 and given.shape[2] == 2)
        if not is_matrix or given.shape[0] != rows or given.shape[1] < 1:
            raise ValueError(f"{name} has shape {given.shape}; {wanted}")
        return _int64(name, given)

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
        its own definition gives on unit vectors. The line names the ring, and the coefficients or
        the denominators: "checked: 7 products reproduce all 64 entries over Z, with coefficients
        in {-1, 0, 1}".

        Raises:
          IncorrectFactorization: some entries are wrong; the message counts them and shows one.
        """
        scale = self.denominator**3
        want = _scaled(self.target.tensor, scale)
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
        return (
            f"checked: {self.rank} products reproduce all {want.size} entries over {self.ring}"
            f"{self._kind()}"
        )

    def _kind(self) -> str:
        """What more there is to say of the coefficients than their ring."""
        if self.modulus:
            return ""
        numerators = self.coefficients()
        if self.denominator > 1:
            own = {self.denominator // math.gcd(self.denominator, n) for n in numerators} - {1}
            noun = "denominator" if len(own) == 1 else "denominators"
            return f", with {noun} {', '.join(map(str, sorted(own)))}"
        largest = max(map(abs, numerators))
        values = {0: "0", 1: "-1, 0, 1"}.get(largest, f"-{largest}, ..., {largest}")
        parts = "real and imaginary parts" if self.is_complex else "coefficients"
        return f", with {parts} in {{{values}}}"

    def validity(self) -> str:
        """Proves the algorithm and says over which commutative rings it computes the map.

        Entries of a and b may then also be matrices over such a ring, so that the algorithm can be
        applied to blocks. What is right modulo p is valid in characteristic p, and everywhere if
        its residues in (-p/2, p/2] happen to be right over Z.

        Raises:
          IncorrectFactorization: as ``check`` does.
        """
        self.check()
        if self.modulus:
            return self._validity_modulo()
        needs = []
        if self.denominator > 1:
            primes = [str(prime) for prime in _factors(self.denominator)]
            listed = " and ".join(filter(None, [", ".join(primes[:-1]), primes[-1]]))
            needs.append(f"{listed} {'is' if len(primes) == 1 else 'are'} invertible")
        if self.is_complex:
            needs.append("-1 has a square root")
        where = f" where {' and '.join(needs)}" if needs else ""
        return f"valid over every commutative ring{where}"

    def _validity_modulo(self) -> str:
        """`validity` of an algorithm over Z_p that is right."""
        u, v, w = (residues(factor, self.modulus) for factor in (self.u, self.v, self.w))
        lifted = dataclasses.replace(self, modulus=0, u=u, v=v, w=w)
        try:
            lifted.check()
        except IncorrectFactorization:
            return (
                f"valid over every commutative ring of characteristic {self.modulus}; "
                "the same coefficients are wrong over Z"
            )
        coefficients = ", ".join(map(str, lifted.coefficients()))
        return f"valid over every commutative ring: with {{{coefficients}}} it is right over Z too"

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
        """The same products with units moved to w, so that equal products look alike.

        Modulo p the first nonzero entry of each u_r and v_r becomes 1; otherwise it becomes
        positive, and with imaginary parts its argument comes to lie in [0, pi/2). No coefficient
        changes its size, except modulo p. A product with a factor of zeros becomes all zeros.
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
        leading = [_leading(factor) for factor in (*factors, w)]
        alive = np.all([x.any(axis=-1) if self.is_complex else x != 0 for x in leading], axis=0)
        u, v, w = (
            np.where(alive[..., None] if x.ndim == 3 else alive, x, 0) for x in (*factors, w)
        )
        return dataclasses.replace(self, u=u, v=v, w=w)

    def key(self) -> bytes:
        """A SHA-256 digest of the target, the modulus and the multiset of rank-one tensors.

        It ignores the order of the products and how a product's constants are spread over its
        factors, also those that are no units, as in (2 u) (x) v (x) w = u (x) v (x) (2 w).
        """
        canonical = self.canonical()
        (u, v, w), scale = (canonical.u, canonical.v, canonical.w), canonical.denominator**3
        if self.modulus == 0:
            split = _split_gaussian if canonical.is_complex else _split
            (u, first), (v, second) = split(u), split(v)
            w = _multiplied(_multiplied(w.astype(object), first), second)
            common = math.gcd(scale, *w.ravel().tolist())
            w, scale = w // common, scale // common
        if w.ndim == 3 and not any(factor[..., 1].any() for factor in (u, v, w)):
            u, v, w = u[..., 0], v[..., 0], w[..., 0]
        products = np.concatenate([u, v, w]).swapaxes(0, 1).reshape(self.rank, -1)
        content = (self.target.shape, self.modulus, scale, w.ndim, sorted(products.tolist()))
        # As text, since no integer type need hold what has been moved into w.
        digest = hashlib.sha256(repr(content).encode())
        digest.update(self.target.tensor.astype("<i8").tobytes())
        return digest.digest()

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
        if self.modulus:
            factor = residues(factor, self.modulus)
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
    # No intermediate value of a term that is not zero exceeds this sum of Python ints, and zero
    # times a value that did overflow is zero. A complex sum adds up four of these.
    bound = 4 * int(math.prod(largest).sum())
    if bound <= _FLOAT64_EXACT:
        exact, stored = np.float64, np.int64
    elif bound <= _INT64_MAX:
        exact = stored = np.int64
    else:
        exact = stored = object
    u, v, w = (factor.astype(exact) for factor in (u, v, w))
    # Factors are sparse: only the products that use a row count.
    used = [row.nonzero()[0] for row in u]
    slices = [(row[r] * v[:, r]) @ w[:, r].T for row, r in zip(u, used, strict=True)]
    return np.stack([rows.astype(stored) for rows in slices])


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


def _split(factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns without a common divisor, and those divisors: (rows, R) and (R,), dtype object."""
    divisors = np.maximum(np.gcd.reduce(factor, axis=0), 1)
    return factor // divisors, divisors.astype(object)


def _split_gaussian(factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`_split` for Gaussian integers: (rows, R, 2) and (R, 2)."""
    columns = factor.swapaxes(0, 1).tolist()
    divisors = np.array([functools.reduce(gaussian_gcd, column, (0, 0)) for column in columns])
    divisors = np.where(divisors.any(axis=1, keepdims=True), divisors, [1, 0]).astype(object)
    conjugates, norms = divisors * [1, -1], (divisors**2).sum(axis=1)
    primitive = _multiplied(factor.astype(object), conjugates) // norms[:, None]
    primitive = primitive.astype(np.int64)
    # Gaussian divisors are unique up to a power of i.
    turns = _turns_to_first_quadrant(_leading(primitive))
    return _turn(primitive, turns), _turn(divisors[None], -turns)[0]


def _multiplied(factor: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The factor (rows, R) or (rows, R, 2) with column r multiplied by ``numbers[r]``."""
    if factor.ndim == 2:
        return factor * numbers
    (a, b), (c, d) = np.moveaxis(factor, -1, 0), np.moveaxis(numbers, -1, 0)
    return np.stack([a * c - b * d, a * d + b * c], axis=-1)


def _scaled(tensor: np.ndarray, scale: int) -> np.ndarray:
    """The int64 tensor times ``scale``: exact, int64 or object."""
    largest = max(-int(tensor.min()), int(tensor.max()))
    return tensor.astype(np.int64 if largest * scale <= _INT64_MAX else object) * scale


def _integer(name: str, value: object) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name} is {value!r}; it has to be an integer") from None


def _int64(name: str, given: np.ndarray) -> np.ndarray:
    """A copy as int64 of numbers that are integers, whatever their type."""
    if given.dtype == object:
        given = np.array([_integer(f"an entry of {name}", x) for x in given.flat], object).reshape(
            given.shape
        )
    elif np.issubdtype(given.dtype, np.floating):
        numbers = given.astype(np.longdouble)
        bad = ~((np.abs(numbers) <= _FLOAT64_EXACT) & (numbers == np.rint(numbers)))
        if bad.any():
            raise ValueError(
                f"{name} holds {given[bad][0]}; floats have to be integers of at most 2**53"
            )
    elif not np.issubdtype(given.dtype, np.integer):
        raise ValueError(f"{name} has dtype {given.dtype}; it has to hold integers")
    largest = max((int(given.max()), int(given.min())), key=abs)
    if abs(largest) > _INT64_MAX:
        raise ValueError(f"{name} holds {largest}; no entry may exceed 2**63 - 1 in absolute value")
    return given.astype(np.int64)


def _factors(number: int) -> list[int]:
    """The prime factors in increasing order, each once; a product of large ones stays whole."""
    factors = []
    for divisor in range(2, 2**16):
        if number % divisor == 0:
            factors.append(divisor)
        while number % divisor == 0:
            number //= divisor
    return factors + [number] * (number > 1)


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % d for d in range(2, math.isqrt(number) + 1))


def _natural(label: str) -> list[int]:
    """Sorts c2 before c10 and c12 before c21."""
    return [int(number) for number in re.findall(r"\d+", label)]


def _sum_text(coefficients: np.ndarray, names: Sequence[str]) -> str:
    """A sum such as ``a11 - 2*a12``, or 0."""
    text = ""
    for coefficient, name in zip(coefficients.tolist(), names, strict=True):
        if not coefficient:
            continue
        sign, size = ("-", coefficient[1:]) if coefficient[0] == "-" else ("+", coefficient)
        if "+" in size or "-" in size:
            sign, size = "+", f"({coefficient})"
        term = name if size == "1" else f"{size}\N{MIDDLE DOT}{name}"
        text += f" {sign} {term}" if text else f"{sign}{term}".removeprefix("+")
    return text.replace("-", "\N{MINUS SIGN}") or "0"


def _factor_text(coefficients: np.ndarray, names: Sequence[str]) -> str:
    text = _sum_text(coefficients, names)
    return text if text in names else f"({text})"
