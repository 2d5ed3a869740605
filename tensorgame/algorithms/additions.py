"""The additions of an algorithm, with sums that occur more than once computed once.

An algorithm with R products evaluates three linear maps: the left factors ``u^T a``, the right
factors ``v^T b`` and the outputs ``w m``. Written out, a row with n nonzero coefficients costs
n - 1 additions. Greedy common-subexpression elimination (Paar, "Optimized arithmetic for
Reed-Solomon encoders", ISIT 1997; for matrix multiplication e.g. Martensson and Stankovski Wagner,
"The number of the beast", arXiv 2404.07116) repeatedly makes the two-term sum that occurs in most
rows, up to a common scale, a variable of its own.

Additions and subtractions count one each, over Z_2 they are XORs; multiplications by constants,
signs and the common denominator do not count.
"""

from __future__ import annotations

import dataclasses
import functools
import random
from collections import Counter
from collections.abc import Iterator

import numpy as np

from tensorgame.algorithms.arithmetic import Gaussian, gaussian_gcd, gaussian_quotient
from tensorgame.algorithms.factorization import Factorization


@dataclasses.dataclass(frozen=True)
class Step:
    """The new variable ``p x_i + q x_j``, for i < j."""

    i: int
    j: int
    p: Gaussian
    q: Gaussian


@dataclasses.dataclass(frozen=True)
class Program:
    """A straight-line program for a linear map.

    Attributes:
      inputs: the number of inputs, which are the variables 0 to ``inputs`` - 1.
      modulus: 0, or a prime p for arithmetic modulo p.
      steps: step n makes variable ``inputs + n`` from two earlier ones.
      outputs: for each output the variables that it sums, with their coefficients.
    """

    inputs: int
    modulus: int
    steps: tuple[Step, ...]
    outputs: tuple[tuple[tuple[int, Gaussian], ...], ...]

    @property
    def additions(self) -> int:
        """The number of two-term sums that the program computes."""
        return len(self.steps) + sum(max(len(terms) - 1, 0) for terms in self.outputs)

    def matrix(self) -> np.ndarray:
        """What the program computes: exact coefficients (outputs, inputs, 2), dtype object."""
        unit = np.zeros((self.inputs, self.inputs, 2), object)
        unit[np.arange(self.inputs), np.arange(self.inputs), 0] = 1
        variables = list(unit)
        for step in self.steps:
            variables.append(_times(variables[step.i], step.p) + _times(variables[step.j], step.q))
        zero = np.zeros((self.inputs, 2), object)
        rows = [
            sum((_times(variables[x], coefficient) for x, coefficient in terms), zero)
            for terms in self.outputs
        ]
        matrix = np.stack(rows)
        return matrix % self.modulus if self.modulus else matrix


def naive_additions(factorization: Factorization) -> tuple[int, int, int]:
    """The additions of the three linear maps written out: n - 1 for n nonzero coefficients."""
    counts = (np.count_nonzero(rows.any(axis=2), axis=1) for rows in _maps(factorization))
    return tuple(int(np.maximum(count - 1, 0).sum()) for count in counts)


def reduce_additions(
    factorization: Factorization, *, attempts: int = 1, seed: int = 0
) -> tuple[Program, Program, Program]:
    """Programs with few additions for the left factors, the right factors and the outputs.

    They compute the numerators; the common denominator is left to the caller. Each is proved:
    evaluated back, it is the factor.

    Args:
      factorization: any; its ring is the one that the programs compute in.
      attempts: how often to start over with other choices among sums that occur equally often.
        The best program of each map counts.
      seed: the result is a function of this seed and the other arguments.

    Raises:
      ValueError: attempts is less than one.
    """
    if attempts < 1:
        raise ValueError(f"attempts is {attempts}; it has to be at least 1")
    return tuple(
        min(
            # A generator each, so that more attempts never make the result worse.
            (
                _eliminate(rows, factorization.modulus, random.Random(f"{seed} {mode} {attempt}"))
                for attempt in range(attempts)
            ),
            key=lambda program: program.additions,
        )
        for mode, rows in enumerate(_maps(factorization))
    )


def _maps(factorization: Factorization) -> Iterator[np.ndarray]:
    """The three linear maps as matrices (outputs, inputs, 2), int64."""
    for factor, swap in (
        (factorization.u, True),
        (factorization.v, True),
        (factorization.w, False),
    ):
        parts = factor if factorization.is_complex else np.stack([factor, 0 * factor], axis=-1)
        yield parts.swapaxes(0, 1) if swap else parts


def _eliminate(matrix: np.ndarray, modulus: int, rng: random.Random) -> Program:
    """One greedy elimination of a matrix (outputs, inputs, 2), proved."""
    program = _Elimination(matrix, modulus, rng).run()
    if not np.array_equal(program.matrix(), matrix):
        raise AssertionError("the program with fewer additions computes another linear map")
    return program


class _Elimination:
    """The rows that are left to write, by variable.

    A variable maps its coefficients to sets of rows, the bits of an int: intersecting two of them
    takes a tenth of a microsecond. Counts of a sum only ever fall, once its two variables exist. So
    sums wait in buckets by the last count known, an upper bound, and are counted again when their
    turn comes.
    """

    def __init__(self, matrix: np.ndarray, modulus: int, rng: random.Random) -> None:
        self._outputs, self._inputs = matrix.shape[:2]
        self._modulus, self._rng = modulus, rng
        self._variables: list[dict[Gaussian, int]] = []
        self._steps: list[Step] = []
        self._buckets: list[list[Step]] = [[] for _ in range(self._outputs + 1)]
        for column in matrix.swapaxes(0, 1).tolist():
            rows: dict[Gaussian, int] = {}
            for row, (real, imaginary) in enumerate(column):
                if real or imaginary:
                    rows[real, imaginary] = rows.get((real, imaginary), 0) | 1 << row
            self._add(rows)

    def run(self) -> Program:
        """Extracts sums until none occurs twice."""
        for count in range(self._outputs, 1, -1):
            # New sums cannot occur more often than the one that made their variable.
            bucket = self._buckets[count]
            while bucket:
                at = self._rng.randrange(len(bucket))
                bucket[at], bucket[-1] = bucket[-1], bucket[at]
                step = bucket.pop()
                current = self._count(step)
                if current == count:
                    self._extract(step)
                elif current > 1:
                    self._buckets[current].append(step)
        outputs: list[list[tuple[int, Gaussian]]] = [[] for _ in range(self._outputs)]
        for x, variable in enumerate(self._variables):
            for coefficient, rows in variable.items():
                for row in _bits(rows):
                    outputs[row].append((x, coefficient))
        return Program(self._inputs, self._modulus, tuple(self._steps), tuple(map(tuple, outputs)))

    def _add(self, rows: dict[Gaussian, int]) -> None:
        """Appends a variable, and counts its sums with all others."""
        j = len(self._variables)
        for i, other in enumerate(self._variables):
            counts: Counter[tuple[Gaussian, Gaussian]] = Counter()
            for x, rows_x in other.items():
                for y, rows_y in rows.items():
                    if common := rows_x & rows_y:
                        counts[_split(x, y, self._modulus)[1]] += common.bit_count()
            for (p, q), count in counts.items():
                if count > 1:
                    self._buckets[count].append(Step(i, j, p, q))
        self._variables.append(rows)

    def _occurrences(self, step: Step) -> Iterator[tuple[Gaussian, Gaussian, int]]:
        """The coefficients with which the sum occurs, and in which rows."""
        for x, rows_x in self._variables[step.i].items():
            for y, rows_y in self._variables[step.j].items():
                common = rows_x & rows_y
                if common and _split(x, y, self._modulus)[1] == (step.p, step.q):
                    yield x, y, common

    def _count(self, step: Step) -> int:
        return sum(rows.bit_count() for _, _, rows in self._occurrences(step))

    def _extract(self, step: Step) -> None:
        """Makes the sum a variable wherever it occurs."""
        new: dict[Gaussian, int] = {}
        for x, y, common in list(self._occurrences(step)):
            for variable, coefficient in ((step.i, x), (step.j, y)):
                self._variables[variable][coefficient] &= ~common
            scale = _split(x, y, self._modulus)[0]
            new[scale] = new.get(scale, 0) | common
        for variable in (step.i, step.j):
            left = {c: rows for c, rows in self._variables[variable].items() if rows}
            self._variables[variable] = left
        self._steps.append(step)
        self._add(new)


@functools.lru_cache(maxsize=2**16)
def _split(x: Gaussian, y: Gaussian, modulus: int) -> tuple[Gaussian, tuple[Gaussian, Gaussian]]:
    """(s, (p, q)) with x = s p and y = s q, where p and q are the same for all multiples of (x, y).

    Modulo a prime p is 1; otherwise p and q have no common divisor, and the argument of p lies in
    [0, pi/2).
    """
    if modulus:
        return x, ((1, 0), (y[0] * pow(x[0], -1, modulus) % modulus, 0))
    scale = gaussian_gcd(x, y)
    p = gaussian_quotient(x, scale)
    while not (p[0] > 0 and p[1] >= 0):
        p, scale = (-p[1], p[0]), (scale[1], -scale[0])
    return scale, (p, gaussian_quotient(y, scale))


def _times(vectors: np.ndarray, number: Gaussian) -> np.ndarray:
    """Gaussian integers (..., 2) times a Gaussian integer."""
    real, imaginary = vectors[..., 0], vectors[..., 1]
    a, b = number
    return np.stack([a * real - b * imaginary, a * imaginary + b * real], axis=-1)


def _bits(number: int) -> Iterator[int]:
    """The places of the ones of a number >= 0."""
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest
