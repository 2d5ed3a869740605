"""The figures of an algorithm."""

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest

from tensorgame.algorithms import released
from tensorgame.algorithms.description import describe
from tensorgame.algorithms.factorization import Factorization, IncorrectFactorization
from tensorgame.targets import Record, from_tensor, matmul


def schoolbook(n: int, m: int, p: int, **fields: int) -> Factorization:
    rows = np.argwhere(matmul(n, m, p).tensor).T
    u, v, w = (
        (np.arange(side)[:, None] == row).astype(int)
        for side, row in zip(matmul(n, m, p).shape, rows, strict=True)
    )
    return Factorization(target=matmul(n, m, p), u=u, v=v, w=w, **fields)


def test_the_schoolbook_algorithm():
    d = describe(schoolbook(2, 3, 4))
    assert (d.target, d.ring, d.rank, d.trivial_rank) == ("matmul:2,3,4", "Z", 24, 24)
    assert d.omega == pytest.approx(3)
    assert d.nonzeros == (24, 24, 24)
    assert d.density == pytest.approx((1 / 6, 1 / 12, 1 / 8))
    assert d.naive_additions == d.reduced_additions == (0, 0, 16)
    assert d.coefficients == ("1",)
    assert d.growth == 24
    assert d.best_known == matmul(2, 3, 4).known("Z")
    assert d.proof == schoolbook(2, 3, 4).check()
    assert d.valid == schoolbook(2, 3, 4).validity()


def test_a_released_algorithm():
    f = released.load("alphatensor:2,2,2")
    d = describe(f)
    assert d.omega == pytest.approx(math.log2(7))
    norms = [np.square(factor).sum(0) for factor in f.values()]
    assert d.growth == np.prod(norms, axis=0).sum()
    assert d.naive_additions == (7, 7, 8)
    assert d.coefficients == ("-1", "1")


def test_denominators_count_in_coefficients_and_growth():
    f = schoolbook(2, 2, 2)
    d = describe(dataclasses.replace(f, denominator=2, u=f.u, v=2 * f.v, w=4 * f.w))
    assert d.ring == "Q"
    assert d.coefficients == ("1/2", "1", "2")
    assert d.growth == 8
    third = np.array([[1]])
    f = Factorization(
        target=from_tensor("t", np.array([[[2]]])),
        denominator=3,
        u=third,
        v=2 * third,
        w=27 * third,
    )
    assert describe(f).growth == Fraction(2**2 * 27**2, 3**6)


def test_complex_numbers():
    i, one = np.array([[[0, 1]]]), np.array([[[1, 0]]])
    f = Factorization(target=from_tensor("t", np.array([[[-1]]])), u=i, v=i, w=one)
    known = dataclasses.replace(f.target, known=lambda ring: Record(1, f"over {ring}"))
    d = describe(dataclasses.replace(f, target=known))
    assert d.ring == "Z[i]"
    assert d.best_known == Record(1, "over Z[i]")
    assert d.coefficients == ("i", "1")
    assert d.growth == 1
    assert d.omega is None
    assert d.nonzeros == (1, 1, 1)


def test_residues_have_no_size():
    f = schoolbook(2, 2, 2, modulus=5)
    d = describe(dataclasses.replace(f, u=-f.u, v=2 * f.v, w=2 * f.w))
    assert (d.ring, d.growth) == ("Z_5", None)
    assert d.coefficients == ("-1", "2")


def test_the_smallest_map_has_no_exponent():
    assert describe(schoolbook(1, 1, 1)).omega is None


def test_wrong_algorithms_are_refused():
    f = schoolbook(2, 2, 2)
    with pytest.raises(IncorrectFactorization):
        describe(dataclasses.replace(f, u=-f.u))
    with pytest.raises(ValueError, match="attempts is 0"):
        describe(f, attempts=0)
