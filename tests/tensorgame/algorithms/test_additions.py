"""Common sums are computed once, and the program is still the same linear map."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorgame.algorithms import additions, released
from tensorgame.algorithms.additions import (
    Program,
    gaussian_gcd,
    naive_additions,
    reduce_additions,
)
from tensorgame.algorithms.factorization import Factorization
from tensorgame.targets import from_tensor, matmul

# Rows are products, as entries of a, b and c in the order 11, 12, 21, 22; - stands for -1.
STRASSEN = "1001 1001 1001, 0011 1000 001-, 1000 010- 0101, 0001 -010 1010, 1100 0001 -100,"
STRASSEN += "-010 1100 0001, 010- 0011 1000"
# Strassen 1969 in the form of Winograd 1971.
WINOGRAD = "1000 1000 1111, 0100 0010 1000, 11-- 0001 0100, 0001 1--1 00-0, 0011 -100 0101,"
WINOGRAD += "-011 1-01 0111, 10-0 0-01 0011"


def two_by_two(products: str) -> Factorization:
    rows = [
        [[-1 if x == "-" else int(x) for x in factor] for factor in product.split()]
        for product in products.split(",")
    ]
    u, v, w = np.array(rows).transpose(1, 2, 0)
    return Factorization(target=matmul(2, 2, 2), u=u, v=v, w=w[[0, 2, 1, 3]])


def computed(program: Program, inputs: list[complex], modulus: int) -> list[complex]:
    """Runs the program on numbers, apart from how it proves itself."""
    values = list(inputs)
    for step in program.steps:
        values.append(complex(*step.p) * values[step.i] + complex(*step.q) * values[step.j])
    outputs = [sum(complex(*c) * values[x] for x, c in terms) for terms in program.outputs]
    return [complex(x.real % modulus, x.imag) for x in outputs] if modulus else outputs


@st.composite
def factorizations(draw, rings=(0, 2, 3, 5, "i")) -> Factorization:
    ring = draw(st.sampled_from(rings))
    sides = draw(st.tuples(*[st.integers(1, 6)] * 3))
    rank, largest = draw(st.integers(1, 12)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tail = (2,) if ring == "i" else ()
    u, v, w = (rng.integers(-largest, largest + 1, (side, rank, *tail)) for side in sides)
    target = from_tensor("random", np.ones(sides, int))
    return Factorization(target=target, modulus=0 if ring == "i" else ring, u=u, v=v, w=w)


@pytest.mark.parametrize("seed", range(5))
def test_the_known_numbers_for_two_by_two(seed):
    for products, naive, reduced in ((STRASSEN, 18, 18), (WINOGRAD, 24, 15)):
        f = two_by_two(products)
        f.check()
        assert sum(naive_additions(f)) == naive
        assert sum(p.additions for p in reduce_additions(f, seed=seed)) == reduced


def test_strassen_modulo_two_counts_the_same():
    f = two_by_two(WINOGRAD)
    f = Factorization(target=f.target, modulus=2, u=f.u, v=f.v, w=f.w)
    assert [p.additions for p in reduce_additions(f)] == [4, 4, 7]


@settings(deadline=None, max_examples=60)
@given(factorizations(), st.integers(0, 9))
def test_programs_compute_the_factors(f, seed):
    rng = np.random.default_rng(seed)
    naive = naive_additions(f)
    for factor, before, program in zip(
        (f.u.swapaxes(0, 1), f.v.swapaxes(0, 1), f.w),
        naive,
        reduce_additions(f, seed=seed),
        strict=True,
    ):
        inputs = rng.integers(-9, 10, program.inputs).tolist()
        numbers = factor[..., 0] + 1j * factor[..., 1] if f.is_complex else factor
        want = numbers @ np.array(inputs)
        want = want % f.modulus if f.modulus else want
        assert computed(program, inputs, f.modulus) == list(want)
        assert program.additions <= before
        assert len(program.outputs) == len(factor)


@settings(deadline=None, max_examples=60)
@given(factorizations(rings=(2, 3, 0)))
def test_no_sum_is_left_that_occurs_twice(f):
    for program in reduce_additions(f):
        seen = Counter()
        for terms in program.outputs:
            for (i, (x, _)), (j, (y, _)) in itertools.combinations(sorted(terms), 2):
                if f.modulus:
                    seen[i, j, y * pow(x, -1, f.modulus) % f.modulus] += 1
                else:
                    divisor = np.gcd(x, y) * np.sign(x)
                    seen[i, j, x // divisor, y // divisor] += 1
        assert max(seen.values(), default=1) == 1


def test_multiples_of_a_sum_count_as_the_same():
    u = np.array([[1, -2, 3], [2, -4, 6]])
    f = Factorization(
        target=from_tensor("t", np.ones((2, 1, 1), int)), u=u, v=[[1] * 3], w=[[1] * 3]
    )
    left, right, outputs = reduce_additions(f)
    assert (left.additions, right.additions, outputs.additions) == (1, 0, 2)
    assert [step.q for step in left.steps] == [(2, 0)]


def test_gaussian_multiples_of_a_sum_count_as_the_same():
    # (1, i) times 1, i and 1 + i.
    u = np.array([[[1, 0], [0, 1], [1, 1]], [[0, 1], [-1, 0], [-1, 1]]])
    one = np.zeros((1, 3, 2), int)
    f = Factorization(target=from_tensor("t", np.ones((2, 1, 1), int)), u=u, v=one, w=one)
    assert [p.additions for p in reduce_additions(f)] == [1, 0, 0]


@settings(deadline=None, max_examples=100)
@given(*[st.tuples(st.integers(-30, 30), st.integers(-30, 30))] * 3)
def test_gaussian_gcd_divides_and_is_greatest(x, y, factor):
    def times(a, b):
        return (a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0])

    def divides(d, z):
        real, imaginary = times(z, (d[0], -d[1]))
        norm = d[0] ** 2 + d[1] ** 2
        return real % norm == imaginary % norm == 0 if norm else z == (0, 0)

    divisor = gaussian_gcd(times(x, factor), times(y, factor))
    assert divides(divisor, times(x, factor))
    assert divides(divisor, times(y, factor))
    assert divides(factor, divisor)


def test_the_result_depends_on_the_seed_alone_and_more_attempts_are_no_worse():
    f = released.load("alphatensor:4,4,4:mod2")
    assert reduce_additions(f, seed=3) == reduce_additions(f, seed=3)
    totals = [
        [p.additions for p in reduce_additions(f, attempts=attempts)] for attempts in (1, 4, 16)
    ]
    for fewer, more in itertools.pairwise(totals):
        assert all(x >= y for x, y in zip(fewer, more, strict=True))
    assert totals[0] != totals[-1]
    with pytest.raises(ValueError, match="attempts is 0; it has to be at least 1"):
        reduce_additions(f, attempts=0)


@pytest.mark.parametrize(
    ("name", "naive", "most"),
    [("3,3,3", 110, 72), ("4,4,4:mod2", 340, 215), ("4,5,5", 549, 335), ("5,5,5", 643, 390)],
)
def test_released_algorithms_need_few_additions(name, naive, most):
    f = released.load(f"alphatensor:{name}")
    assert sum(naive_additions(f)) == naive
    assert sum(p.additions for p in reduce_additions(f)) <= most


def test_a_program_for_another_map_is_not_returned(monkeypatch):
    run = additions._Elimination.run

    def spoiled(self):
        program = run(self)
        return Program(program.inputs, program.modulus, program.steps, program.outputs[::-1])

    monkeypatch.setattr(additions._Elimination, "run", spoiled)
    with pytest.raises(AssertionError, match="computes another linear map"):
        reduce_additions(two_by_two(STRASSEN))
