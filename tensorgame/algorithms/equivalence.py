"""Whether two algorithms are the same up to the symmetries of their target.

For matrix multiplication these are permutations of the products, factors a, b, c with a b c = 1
within a product, and the maps of `tensorgame.algorithms.symmetries`: sandwiching over the field of
the coefficients (Q for Z; Q[i] if either algorithm is complex; Z_p), rotation and transposition.
For each of the at most six ways to turn the sizes of one into those of the other, `compare` first
looks at invariants and then searches for the sandwiching (`tensorgame.algorithms.sandwich_search`).
For other targets only permutation and scaling are decided; invariants may show more. Products of
zero are left aside.

Verdicts are proved: an equivalence by exact arithmetic on the transformation found, the opposite by
an invariant or by a search that was exhausted.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Literal

import numpy as np

from tensorgame.algorithms.factorization import Factorization
from tensorgame.algorithms.invariants import classify, general_features, matmul_features
from tensorgame.algorithms.sandwich_search import SandwichSearch
from tensorgame.algorithms.symmetries import (
    Transformation,
    image_keys,
    match_keys,
    matching,
    product_keys,
    sizes,
    turn,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare` found.

    Attributes:
      verdict: whether the algorithms are equivalent, as far as it was decided.
      reason: why, in one sentence.
      witness: for "equivalent" the transformation that takes the first algorithm to the second,
        which ``witness.maps(first, second)`` checks; otherwise None.
    """

    verdict: Literal["equivalent", "not equivalent", "undecided"]
    reason: str
    witness: Transformation | None = None


def compare(first: Factorization, second: Factorization, *, budget: int = 5_000) -> Comparison:
    """Decides whether a symmetry of the target takes the first algorithm to the second.

    Algorithms for <n, m, p> and for its sizes in another order are compared too, by rotating and
    transposing. Over Q, different scales of whole matrices are allowed; for an algorithm over Z and
    one over Z_p nothing but "not equivalent" can be said, although one may reduce to the other.

    Args:
      first: a correct algorithm.
      second: another one.
      budget: how many matches of products the search may try, over all six symmetries; the default
        takes about a minute for <4, 4, 4>.

    Raises:
      IncorrectFactorization: one of them is wrong.
      ValueError: budget is negative.
    """
    if budget < 0:
        raise ValueError(f"budget is {budget}; it has to be at least 0")
    first.check()
    second.check()
    difference = _obvious_difference(first, second)
    if difference:
        return Comparison("not equivalent", difference)
    permutation = matching(first, second) if first.target == second.target else None
    if permutation is not None:
        return Comparison(
            "equivalent",
            "their products are the same up to order and scaling",
            Transformation(transposed=False, rotations=0, sandwich=None, permutation=permutation),
        )
    if sizes(first.target) is not None:
        return _compare_matmul(first, second, budget)
    return _compare_general(_nonzero(first), _nonzero(second))


def _obvious_difference(first: Factorization, second: Factorization) -> str:
    """What is different about the field, the target or the number of products, or ""."""
    if first.modulus != second.modulus:
        return (
            f"one is over {first.ring} and the other over {second.ring}, "
            "fields of different characteristic"
        )
    lengths = [sizes(factorization.target) for factorization in (first, second)]
    if None in lengths:
        same_target = first.target == second.target
    else:
        same_target = sorted(lengths[0]) == sorted(lengths[1])
    if not same_target:
        return f"their targets differ: {first.target.name} and {second.target.name}"
    if first.rank != second.rank:
        return f"they have {first.rank} and {second.rank} products"
    counts = [_nonzero(factorization).rank for factorization in (first, second)]
    if counts[0] != counts[1]:
        return f"they have {counts[0]} and {counts[1]} products that are not zero"
    return ""


def _nonzero(factorization: Factorization) -> Factorization:
    """Without the products that have a factor of zero. A target of zero does not exist."""
    present = [
        factor.reshape(len(factor), factorization.rank, -1).any((0, 2))
        for factor in (factorization.u, factorization.v, factorization.w)
    ]
    keep = np.logical_and.reduce(present)
    u, v, w = (factor[:, keep] for factor in (factorization.u, factorization.v, factorization.w))
    return dataclasses.replace(factorization, u=u, v=v, w=w)


def _compare_general(first: Factorization, second: Factorization) -> Comparison:
    """Compares algorithms with the same target, of which no symmetry is known."""
    found = []
    for modes in itertools.permutations(range(3)):
        if [first.target.shape[mode] for mode in modes] == list(second.target.shape):
            classes = classify(general_features(first, modes), general_features(second, range(3)))
            found.append(classes)
    if all(isinstance(classes, str) for classes in found):
        return Comparison("not equivalent", f"an invariant differs: {_names(found)}")
    return Comparison(
        "undecided",
        "they differ by more than order and scaling, and for a target other than matrix "
        "multiplication no symmetries are tried",
    )


def _compare_matmul(
    first: Factorization,
    second: Factorization,
    budget: int,
) -> Comparison:
    """Compares algorithms for <n, m, p> with its sizes in any two orders."""
    is_complex = first.is_complex or second.is_complex
    nonzero_first, nonzero_second = _nonzero(first), _nonzero(second)
    features = matmul_features(nonzero_second, is_complex)
    differing, searches = [], []
    for transposed, rotations in itertools.product((False, True), range(3)):
        turned = turn(nonzero_first, transposed, rotations)
        if sizes(turned.target) != sizes(second.target):
            continue
        classes = classify(matmul_features(turned, is_complex), features)
        if isinstance(classes, str):
            differing.append(classes)
            continue
        search = SandwichSearch(turned, nonzero_second, classes, is_complex, budget)
        sandwich = search.run()
        if sandwich is not None:
            return _equivalent(first, second, transposed, rotations, sandwich)
        budget = search.budget
        searches.append(search)
    return _without_equivalence(differing, searches)


def _equivalent(
    first: Factorization,
    second: Factorization,
    transposed: bool,
    rotations: int,
    sandwich: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> Comparison:
    keys = image_keys(turn(first, transposed, rotations), sandwich)
    permutation = match_keys(keys, product_keys(second))
    turns = [*["transposing"] * transposed, *["rotating"] * (rotations > 0), "sandwiching"]
    return Comparison(
        "equivalent",
        f"{' and '.join(turns)} takes the first to the second",
        Transformation(
            transposed=transposed, rotations=rotations, sandwich=sandwich, permutation=permutation
        ),
    )


def _without_equivalence(differing: list[str], searches: list[SandwichSearch]) -> Comparison:
    if not searches:
        return Comparison("not equivalent", f"an invariant differs: {_names(differing)}")
    if any(search.budget < 0 for search in searches):
        return Comparison(
            "undecided", "their invariants agree, and the search ran out of its budget"
        )
    if any(search.gaps for search in searches):
        return Comparison(
            "undecided",
            "their invariants agree, and no transformation was found, but for a matching of the "
            "products that leaves a family of transformations not all of them were tried",
        )
    return Comparison(
        "not equivalent",
        "no transformation takes the products of one to those of the other: all were excluded",
    )


def _names(invariants: list[str]) -> str:
    """The invariants that differ, each once, in the order in which they were found."""
    return ", or for another symmetry ".join(dict.fromkeys(invariants))
