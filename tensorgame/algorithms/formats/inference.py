"""What files of others leave unsaid: the ring, the common denominator, the target."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np

from tensorgame import targets
from tensorgame.algorithms.factorization import Factorization, IncorrectFactorization
from tensorgame.targets import Target

# A file of a few bytes can claim any size; matrices of 256 x 256 exceed all known algorithms.
_MOST_ENTRIES = 2**16


def has_name(target: Target) -> bool:
    """Whether the target's name alone says what it is."""
    if target.name.startswith("tensor:"):
        return False
    try:
        return targets.parse(target.name) == target
    except ValueError:
        return False


def target_of(name: str, tensor: np.ndarray | None) -> Target:
    """The target that a file names, with its tensor where it has no name of its own.

    Raises:
      ValueError: there is no such target, or no tensor.
    """
    if tensor is not None:
        return targets.from_tensor(name, tensor)
    if name.startswith("tensor:"):
        raise ValueError(f"the target {name!r} comes without its tensor")
    return targets.parse(name)


def matmul_sides(sizes: Sequence[int]) -> tuple[int, int, int]:
    """(n m, m p, p n): the lengths of u, v and w.

    Raises:
      ValueError: a size is no positive integer, or beyond all reason.
    """
    if len(sizes) != 3 or not all(type(size) is int and size > 0 for size in sizes):
        raise ValueError(f"the sizes {list(sizes)} have to be three positive integers")
    n, m, p = sizes
    sides = (n * m, m * p, p * n)
    if max(sides) > _MOST_ENTRIES:
        raise ValueError(f"matrices have up to {max(sides)} entries; {_MOST_ENTRIES} are possible")
    return sides


def int64_array(numbers: Iterable[int], name: str) -> np.ndarray:
    """A vector of int64.

    Raises:
      ValueError: a number does not fit.
    """
    try:
        return np.array(list(numbers), np.int64)
    except OverflowError:
        raise ValueError(f"{name} has entries that do not fit into int64") from None


def over_common_denominator(
    factors: Sequence[Sequence[Sequence[Fraction | int]]],
) -> dict[str, int | np.ndarray]:
    """u, v and w, each a sequence of R vectors, as fields of a Factorization.

    Raises:
      ValueError: a numerator does not fit into int64.
    """
    denominators = {x.denominator for factor in factors for vector in factor for x in vector}
    denominator = math.lcm(*denominators)
    fields: dict[str, int | np.ndarray] = {"denominator": denominator}
    for name, factor in zip("uvw", factors, strict=True):
        numerators = (int(x * denominator) for vector in factor for x in vector)
        fields[name] = int64_array(numerators, name).reshape(len(factor), -1).T
    return fields


def infer_ring(factorization: Factorization) -> Factorization:
    """The algorithm modulo 2 or 3 if that alone makes it right, and else as it is.

    Only coefficients that are residues, 0 to 1 or to 2, suggest a modulus.
    """
    coefficients = factorization.coefficients()
    if factorization.denominator > 1 or coefficients[0] < 0 or coefficients[-1] > 2:
        return factorization
    for modulus in (0, 2, 3):
        candidate = dataclasses.replace(factorization, modulus=modulus)
        if (not modulus or coefficients[-1] < modulus) and _is_right(candidate):
            return candidate
    return factorization


def _is_right(factorization: Factorization) -> bool:
    try:
        factorization.check()
    except IncorrectFactorization:
        return False
    return True
