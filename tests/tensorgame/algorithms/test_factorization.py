"""The exact gate: what is right is proved, anything else is refused."""

import dataclasses
import itertools
import re
import subprocess
import sys
import time

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from tensorgame.algorithms.factorization import Factorization, IncorrectFactorization, number_text
from tensorgame.targets import Target, from_tensor, matmul

# Strassen 1969, as printed in textbooks. Rows are products; entries in the order 11, 12, 21, 22.
STRASSEN_A = [
    [1, 0, 0, 1],
    [0, 0, 1, 1],
    [1, 0, 0, 0],
    [0, 0, 0, 1],
    [1, 1, 0, 0],
    [-1, 0, 1, 0],
    [0, 1, 0, -1],
]
STRASSEN_B = [
    [1, 0, 0, 1],
    [1, 0, 0, 0],
    [0, 1, 0, -1],
    [-1, 0, 1, 0],
    [0, 0, 0, 1],
    [1, 1, 0, 0],
    [0, 0, 1, 1],
]
STRASSEN_C = [
    [1, 0, 0, 1],
    [0, 0, 1, -1],
    [0, 1, 0, 1],
    [1, 0, 1, 0],
    [-1, 1, 0, 0],
    [0, 0, 0, 1],
    [1, 0, 0, 0],
]
STRASSEN_TEXT = """\
m1 = (a11 + a22)(b11 + b22)
m2 = (a21 + a22) b11
m3 = a11 (b12 − b22)
m4 = a22 (−b11 + b21)
m5 = (a11 + a12) b22
m6 = (−a11 + a21)(b11 + b12)
m7 = (a12 − a22)(b21 + b22)
c11 = m1 + m4 − m5 + m7
c12 = m3 + m5
c21 = m2 + m4
c22 = m1 − m2 + m3 + m6"""  # noqa: RUF001

SMALL = st.integers(-3, 3)
SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
# A busy machine is no failure.
UNHURRIED = hypothesis.settings(max_examples=40, deadline=None)


def strassen(modulus: int = 0) -> Factorization:
    return Factorization(
        target=matmul(2, 2, 2),
        modulus=modulus,
        u=np.array(STRASSEN_A).T,
        v=np.array(STRASSEN_B).T,
        w=np.array(STRASSEN_C).T[[0, 2, 1, 3]],
    )


def in_bases(p: list, q: list, s: list, scale: complex, denominator: int) -> Factorization:
    """Strassen's algorithm for C = P^-1 ((P A Q^-1)(Q B S^-1)) S, with u * scale and w / scale.

    All numbers have to be multiples of 1 / denominator, a power of two: floats are then exact.
    """
    f, (p, q, s) = strassen(), (np.array(x, complex) for x in (p, q, s))
    p_inverse, q_inverse, s_inverse = (np.linalg.inv(x) for x in (p, q, s))
    u = np.einsum("xyr,xi,jy->ijr", f.u.reshape(2, 2, 7), p, q_inverse) * scale
    v = np.einsum("yzr,yj,kz->jkr", f.v.reshape(2, 2, 7), q, s_inverse)
    w = np.einsum("zxr,ix,zk->kir", f.w.reshape(2, 2, 7), p_inverse, s) / scale
    numerators = [denominator * x.reshape(4, 7) for x in (u, v, w)]
    parts = [np.rint(np.stack([x.real, x.imag], axis=-1)) for x in numerators]
    return Factorization(
        target=f.target, denominator=denominator, **dict(zip("uvw", parts, strict=True))
    )


UNIT = [[1, 0], [0, 1]]
SHEAR = [[1, 1], [0, 1]]
GAUSSIAN = [[1, 1j], [1j, 0]]

# One algorithm for <2,2,2> over each ring.
STRASSENS = {
    "Z": strassen(),
    "Z_2": strassen(2),
    "Z_3": strassen(3),
    "Z_7": strassen(7),
    "Q": in_bases(SHEAR, [[2, 0], [1, 1]], UNIT, 0.5, 4),
    "Z[i]": in_bases(GAUSSIAN, SHEAR, [[1j, 0], [0, 1]], 1j, 1),
    "Q[i]": in_bases(GAUSSIAN, SHEAR, UNIT, 1 + 1j, 2),
}


def schoolbook(n: int, m: int, p: int, modulus: int = 0) -> Factorization:
    u, v, w = (np.zeros((rows, n * m * p), dtype=int) for rows in (n * m, m * p, p * n))
    for r, (i, j, k) in enumerate(np.ndindex(n, m, p)):
        u[i * m + j, r] = v[j * p + k, r] = w[k * n + i, r] = 1
    return Factorization(target=matmul(n, m, p), modulus=modulus, u=u, v=v, w=w)


def with_products(f: Factorization, *products: tuple[list, list, list]) -> Factorization:
    columns = zip(*products, strict=True)
    factors = {
        name: np.append(getattr(f, name), np.array(list(column), dtype=object).T, axis=1)
        for name, column in zip("uvw", columns, strict=True)
    }
    return dataclasses.replace(f, **factors)


def single_changes(f: Factorization, changes: tuple[int, ...]):
    for name in "uvw":
        for position in np.ndindex(getattr(f, name).shape):
            for change in changes:
                changed = getattr(f, name).copy()
                changed[position] += change
                yield dataclasses.replace(f, **{name: changed})


def tensor_of(u: np.ndarray, v: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The sum of the products' tensors, in Python ints."""
    tensor = np.zeros((len(u), len(v), len(w)), dtype=object)
    for i, j, k in np.ndindex(*tensor.shape):
        tensor[i, j, k] = sum(int(x) * int(y) * int(z) for x, y, z in zip(u[i], v[j], w[k]))  # noqa: B905
    return tensor


def in_target(tensor: np.ndarray) -> Target:
    hypothesis.assume(tensor.any())
    return from_tensor("random", tensor.astype(np.int64))


# --- Proofs ---


@pytest.mark.parametrize(
    ("ring", "kind"),
    [
        ("Z", ", with coefficients in {-1, 0, 1}"),
        ("Z_2", ""),
        ("Z_3", ""),
        ("Q", ", with denominators 2, 4"),
        ("Z[i]", ", with real and imaginary parts in {-1, 0, 1}"),
        ("Q[i]", ", with denominator 2"),
    ],
)
def test_strassen_is_proved_over_every_ring(ring, kind):
    f = STRASSENS[ring]
    assert f.ring == ring
    assert f.check() == f"checked: 7 products reproduce all 64 entries over {ring}{kind}"


@pytest.mark.parametrize(
    ("factor", "kind"), [(2, "{-2, ..., 2}"), (-5, "{-5, ..., 5}"), (1, "{-1, 0, 1}")]
)
def test_the_proof_names_the_smallest_set_of_coefficients(factor, kind):
    target = from_tensor("square", np.array([[[factor]]]))
    line = Factorization(target=target, u=[[factor]], v=[[1]], w=[[1]]).check()
    assert (
        line == f"checked: 1 products reproduce all 1 entries over Z, with coefficients in {kind}"
    )


@UNHURRIED
@hypothesis.given(SIZES, st.sampled_from([0, 2, 3, 2147483647]))
def test_schoolbook_is_proved(sizes, modulus):
    f = schoolbook(*sizes, modulus)
    n, m, p = sizes
    entries = n * m * m * p * p * n
    assert f"{n * m * p} products reproduce all {entries} entries over Z" in f.check()
    assert f.summary() == (
        f"matmul:{n},{m},{p} with {n * m * p} products over {f.ring} (schoolbook: {n * m * p})"
    )


def test_the_third_mode_is_c_transposed():
    f = schoolbook(2, 2, 2)
    with pytest.raises(IncorrectFactorization):
        dataclasses.replace(f, w=f.w[[0, 2, 1, 3]]).check()


@pytest.mark.parametrize("ring", STRASSENS)
def test_every_single_change_of_strassen_is_rejected(ring):
    f = STRASSENS[ring]
    changes = tuple(x for x in (1, -1, 2, -3) if not f.modulus or x % f.modulus)
    changed = list(single_changes(f, changes))
    assert len(changed) == len(changes) * 84 * (2 if f.is_complex else 1)
    for g in changed:
        with pytest.raises(IncorrectFactorization, match=r"of the 64 entries are wrong over "):
            g.check()


def test_right_modulo_2_only_is_rejected_over_the_integers():
    with pytest.raises(IncorrectFactorization):
        dataclasses.replace(strassen(2), modulus=0).check()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"u": [[3], [5]]}, "1 of the 4 entries are wrong over Z: the coefficient of a1 b1 in c1"
         " is 3, not 1"),
        ({"u": [[-1], [0]]}, "2 of the 4 entries are wrong over Z: the coefficient of a1 b1 in c1"
         " is -1, not 1"),
        ({"u": [[1], [0]]}, "the coefficient of a2 b1 in c1 is 0, not 5"),
        ({"modulus": 3, "u": [[1], [1]]}, "over Z_3: the coefficient of a2 b1 in c1 is 1, not 2"),
        ({"denominator": 2, "u": [[2], [11]], "v": [[2], [0]], "w": [[2]]},
         "over Q: the coefficient of a2 b1 in c1 is 11/2, not 5"),
        ({"u": [[[1, -1]], [[5, 0]]], "v": [[[1, 0]], [[0, 0]]], "w": [[[1, 0]]]},
         "over Z[i]: the coefficient of a1 b1 in c1 is 1-i, not 1"),
    ],
)  # fmt: skip
def test_the_error_counts_and_shows_wrong_entries(changes, message):
    target = from_tensor("pair", np.array([[[1], [0]], [[5], [0]]]))
    fields = {"u": [[1], [5]], "v": [[1], [0]], "w": [[1]]}
    Factorization(target=target, **fields).check()
    with pytest.raises(IncorrectFactorization, match=re.escape(message)):
        Factorization(target=target, **(fields | changes)).check()


def test_a_proof_of_many_products_is_fast():
    f = schoolbook(6, 6, 6)
    start = time.perf_counter()
    f.check()
    assert time.perf_counter() - start < 1


# --- Random tensors over each ring ---


@st.composite
def random_factors(draw: st.DrawFn, entries: st.SearchStrategy[int] = SMALL) -> list[np.ndarray]:
    rank = draw(st.integers(1, 4))
    sides = draw(st.tuples(*[st.integers(1, 3)] * 3))
    drawn = [draw(st.lists(entries, min_size=n * rank, max_size=n * rank)) for n in sides]
    return [np.array(x, object).reshape(-1, rank) for x in drawn]


@UNHURRIED
@hypothesis.given(random_factors(), SEEDS)
def test_random_integer_factorizations_are_proved(factors, seed):
    u, v, w = factors
    tensor = tensor_of(u, v, w)
    Factorization(target=in_target(tensor), u=u, v=v, w=w).check()
    at = tuple(np.random.default_rng(seed).integers(tensor.shape))
    tensor[at] += 1
    with pytest.raises(IncorrectFactorization, match=r"^1 of the"):
        Factorization(target=in_target(tensor), u=u, v=v, w=w).check()


@UNHURRIED
@hypothesis.given(random_factors(), SEEDS, st.sampled_from([2, 3, 5, 101, 2147483647]))
def test_random_factorizations_modulo_p_are_proved(factors, seed, modulus):
    u, v, w = factors
    rng = np.random.default_rng(seed)
    tensor = tensor_of(u, v, w)
    other = tensor + modulus * rng.integers(-2, 3, tensor.shape)
    Factorization(target=in_target(other), modulus=modulus, u=u, v=v, w=w).check()
    other[tuple(rng.integers(tensor.shape))] += int(rng.integers(1, modulus))
    with pytest.raises(IncorrectFactorization, match=r"^1 of the"):
        Factorization(target=in_target(other), modulus=modulus, u=u, v=v, w=w).check()


def rescaled(u: np.ndarray, v: np.ndarray, w: np.ndarray, seed: int) -> dict[str, object]:
    """Fields with u and v multiplied by random positive integers, and w divided by them."""
    first, second = np.random.default_rng(seed).integers(1, 7, (2, u.shape[1])).astype(object)
    common = 60**2  # A multiple of every product of two numbers up to 6.
    return {
        "denominator": common,
        "u": u * first * common,
        "v": v * second * common,
        "w": w * (common // (first * second)),
    }


@UNHURRIED
@hypothesis.given(random_factors(), SEEDS)
def test_random_rational_factorizations_are_proved(factors, seed):
    u, v, w = factors
    target, fields = in_target(tensor_of(u, v, w)), rescaled(u, v, w, seed)
    f = Factorization(target=target, **fields)
    f.check()
    assert f.key() == Factorization(target=target, u=u, v=v, w=w).key()
    with pytest.raises(IncorrectFactorization):
        Factorization(target=target, **(fields | {"denominator": 3601})).check()


def with_conjugates(factors: list[np.ndarray], more: list[np.ndarray]) -> list[np.ndarray]:
    """Gaussian factors and their conjugates: the sum of their products is real."""
    pairs = [np.stack(parts, axis=-1) for parts in zip(factors, more, strict=True)]
    return [np.concatenate([pair, pair * [1, -1]], axis=1) for pair in pairs]


def gaussian_tensor(factors: list[np.ndarray]) -> np.ndarray:
    u, v, w = (x[..., 0] + 1j * x[..., 1] for x in factors)
    tensor = np.einsum("ir,jr,kr->ijk", *(x.astype(complex) for x in (u, v, w)))
    assert not tensor.imag.any()
    return tensor.real


@UNHURRIED
@hypothesis.given(random_factors(), SEEDS)
def test_random_gaussian_factorizations_are_proved(factors, seed):
    rng = np.random.default_rng(seed)
    factors = with_conjugates(factors, [rng.integers(-3, 4, x.shape) for x in factors])
    target = in_target(gaussian_tensor(factors))
    f = Factorization(target=target, **dict(zip("uvw", factors, strict=True)))
    f.check()
    halves = dataclasses.replace(f, denominator=2, u=f.u, v=2 * f.v, w=4 * f.w)
    halves.check()
    assert halves.key() == f.key()
    name = "uvw"[seed % 3]
    changed = getattr(f, name).copy()
    changed.flat[seed % changed.size] += 1
    g = dataclasses.replace(f, **{name: changed})
    if np.array_equal(gaussian_sum(g), target.tensor):
        g.check()
    else:
        with pytest.raises(IncorrectFactorization):
            g.check()


def gaussian_sum(f: Factorization) -> np.ndarray:
    u, v, w = (x.astype(complex) for x in f.values())
    return np.einsum("ir,jr,kr->ijk", u, v, w)


# --- 64 bits ---

HUGE = 2**63 - 1


@pytest.mark.parametrize("exponents", [(32, 32, 0), (0, 32, 32), (22, 21, 21), (62, 1, 1)])
def test_overflow_cannot_hide_an_error(exponents):
    # The extra product adds 2**64, which is 0 in wrapping 64-bit arithmetic.
    a, b, c = (2**exponent for exponent in exponents)
    f = with_products(schoolbook(1, 1, 2), ([a], [b, b], [c, c]))
    with pytest.raises(IncorrectFactorization, match=f"is {2**64 + 1}, not 1"):
        f.check()


@pytest.mark.parametrize("exponents", [(17, 17, 18), (27, 26, 0), (62, 0, 0), (31, 31, 0)])
def test_rounding_cannot_hide_an_error(exponents):
    # 2**e + 1 is no float64.
    a, b, c = (2**exponent for exponent in exponents)
    target = from_tensor("odd", np.array([[[a * b * c + 1]]]))
    f = Factorization(target=target, u=[[a, 1]], v=[[b, 1]], w=[[c, 1]])
    f.check()
    with pytest.raises(IncorrectFactorization):
        dataclasses.replace(f, w=[[c, 0]]).check()


def test_huge_coefficients_that_cancel_are_proved():
    ends, middle = [-HUGE] * 4, [2**62] * 4
    f = with_products(strassen(), (ends, middle, [2**62] * 4), (ends, middle, [-(2**62)] * 4))
    assert f.check().startswith("checked: 9 products reproduce all 64 entries over Z,")


def test_huge_gaussian_coefficients_that_cancel_are_proved():
    u, v, w = (np.array([[[x, y], [x, y]]]) for x, y in ((HUGE, -HUGE), (2**62, 1), (-1, HUGE)))
    one, rest = np.array([[[1, 0]]]), [np.array(x) for x in (u, v, w)]
    rest[2] = rest[2] * np.array([[[1], [-1]]])
    factors = [np.concatenate([one, x], axis=1) for x in rest]
    f = Factorization(target=matmul(1, 1, 1), **dict(zip("uvw", factors, strict=True)))
    f.check()
    with pytest.raises(IncorrectFactorization):
        dataclasses.replace(f, w=f.w + np.array([[[0, 0], [0, -1], [0, 0]]])).check()


def test_the_four_parts_of_a_gaussian_product_cannot_overflow_together():
    # (1 + i)(1 - i)(1 + i) = 2 + 2i, though no part of it exceeds 1. With its conjugate and one
    # more product, 2**63 + 1 is to be told from what it is when wrapped.
    u, v, w = (np.array([[[x, y], [x, -y], [1, 0]]]) for x, y in ((2**61, 2**61), (1, -1), (1, 1)))
    target = from_tensor("wrapped", np.array([[[1 - 2**63]]]))
    with pytest.raises(IncorrectFactorization, match=f"is {2**63 + 1}, not {1 - 2**63}"):
        Factorization(target=target, u=u, v=v, w=w).check()


def test_denominators_whose_cube_exceeds_64_bits():
    target, d = from_tensor("number", np.array([[[3**5]]])), 3**20
    f = Factorization(target=target, denominator=d, u=[[3**39]], v=[[1]], w=[[3**26]])
    assert f.check().endswith(f"entries over Q, with denominator {d}")
    with pytest.raises(IncorrectFactorization, match=re.escape(f"is {3**26 + 1}/{3**21}, not 243")):
        dataclasses.replace(f, w=f.w + 1).check()


EDGES = st.sampled_from([0, 1, -1, 3, 2**26, -(2**31) - 1, 2**53 + 1, 2**62, -(2**62) - 1, HUGE])


@UNHURRIED
@hypothesis.given(random_factors(), random_factors(EDGES), st.integers(-1, 1))
def test_huge_products_are_summed_exactly(factors, huge, error):
    tensor = tensor_of(*factors)
    sides = [len(x) for x in factors]
    columns = [
        [int(x) for x in np.resize(part[:, 0], n)] for part, n in zip(huge, sides, strict=True)
    ]
    negative = [columns[0], columns[1], [-x for x in columns[2]]]
    fields = dict(zip("uvw", factors, strict=True))
    f = Factorization(target=in_target(tensor), **fields)
    f = with_products(f, columns, negative)
    f.check()
    g = with_products(f, [[error] * n for n in sides])
    if error:
        with pytest.raises(IncorrectFactorization):
            g.check()
    else:
        g.check()


# --- Input that is refused ---

ONES = np.ones((4, 7), dtype=int)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": None}, "target is None; it has to be a Target"),
        ({"target": (2, 2, 2)}, "target is (2, 2, 2); it has to be a Target"),
        (
            {"target": matmul(2, 2, 3)},
            "v has shape (4, 7); for matmul:2,2,3 it has to be (6, R) or, with imaginary parts, "
            "(6, R, 2), with R >= 1",
        ),
        ({"modulus": 4}, "modulus is 4; it has to be 0 (no modulus) or a prime below 2**31"),
        ({"modulus": -2}, "modulus is -2"),
        ({"modulus": 1}, "modulus is 1"),
        ({"modulus": 2.0}, "modulus is 2.0; it has to be an integer"),
        ({"modulus": None}, "modulus is None; it has to be an integer"),
        ({"modulus": 2**61 - 1}, f"modulus is {2**61 - 1}"),
        ({"denominator": 0}, "denominator is 0; it has to be from 1 to 2**63 - 1"),
        ({"denominator": 2**63}, f"denominator is {2**63}"),
        ({"denominator": 0.5}, "denominator is 0.5; it has to be an integer"),
        ({"denominator": 2, "modulus": 3}, "denominator is 2; modulo 3 it has to be 1"),
        ({"u": ONES * 0.5}, "u holds 0.5; floats have to be integers of at most 2**53"),
        ({"u": np.where(STRASSENS["Z"].u > 0, np.nan, 1)}, "u holds nan; floats have to be"),
        ({"v": ONES * np.inf}, "v holds inf; floats have to be"),
        ({"v": ONES * 2.0**54}, "v holds 1.8014398509481984e+16; floats have to be"),
        ({"v": ONES.astype(bool)}, "v has dtype bool; it has to hold integers"),
        ({"v": ONES * 1j}, "v has dtype complex128"),
        ({"w": [["1"] * 7] * 4}, "w has dtype <U1"),
        ({"w": [[None] * 7] * 4}, "an entry of w is None; it has to be an integer"),
        ({"u": ONES.T}, "u has shape (7, 4)"),
        ({"u": [1] * 28}, "u has shape (28,)"),
        ({"u": ONES[:, :0]}, "u has shape (4, 0)"),
        ({"u": 5}, "u has shape ()"),
        ({"v": np.ones((4, 7, 3), int)}, "v has shape (4, 7, 3)"),
        ({"u": [[1, 2], [1], [1, 2], [3]]}, "u has rows of unequal lengths; for matmul:2,2,2 it"),
        (
            {"w": ONES[:, :6]},
            "u, v and w have shapes (4, 7), (4, 7) and (4, 6); they need the same number of",
        ),
        ({"w": np.ones((4, 7, 2), int)}, "shapes (4, 7), (4, 7) and (4, 7, 2)"),
        (
            {name: np.ones((4, 7, 2), int) for name in "uvw"} | {"modulus": 5},
            "modulus is 5; imaginary parts need modulus 0",
        ),
        ({"u": np.full((4, 7), 2**63, dtype=np.uint64)}, f"u holds {2**63}; no entry may exceed"),
        ({"u": [[2**70] * 7] * 4}, f"u holds {2**70}; no entry may exceed"),
        ({"u": np.full((4, 7), -(2**63))}, f"u holds {-(2**63)}; no entry may exceed"),
    ],
)
def test_bad_fields_are_refused(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        dataclasses.replace(strassen(), **changes)
    assert not isinstance(caught.value, IncorrectFactorization)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float16, np.float64, object])
def test_any_numbers_that_are_integers_are_accepted(dtype):
    u = np.array(STRASSEN_A).T.astype(dtype)
    for given in (u, u.tolist()):
        f = dataclasses.replace(strassen(), u=given)
        f.check()
        assert f.u.dtype == np.int64


def test_factors_are_read_only_copies():
    u = np.array(STRASSEN_A).T
    f = dataclasses.replace(strassen(), u=u)
    u[:] = 0
    f.check()
    with pytest.raises(ValueError, match="read-only"):
        f.u[0, 0] = 5


def test_entries_are_reduced_modulo_p():
    f = dataclasses.replace(strassen(2), u=strassen().u * -3)
    assert f.coefficients() == (0, 1)
    f.check()


def test_fractions_are_in_lowest_terms():
    f = STRASSENS["Q"]
    g = dataclasses.replace(f, denominator=6 * f.denominator, u=6 * f.u, v=6 * f.v, w=6 * f.w)
    assert g.denominator == f.denominator
    np.testing.assert_array_equal(g.w, f.w)


def test_imaginary_parts_of_zero_are_dropped():
    factors = {x: np.stack([getattr(strassen(), x), np.zeros((4, 7))], axis=-1) for x in "uvw"}
    for modulus in (0, 2):
        f = Factorization(target=matmul(2, 2, 2), modulus=modulus, **factors)
        assert not f.is_complex
        f.check()


@pytest.mark.parametrize(
    ("ring", "dtype"),
    [("Z", np.int64), ("Z_3", np.int64), ("Q", np.float64), ("Z[i]", complex), ("Q[i]", complex)],
)
def test_values_compute_the_product(ring, dtype):
    f = STRASSENS[ring]
    u, v, w = f.values()
    assert u.dtype == v.dtype == w.dtype == dtype
    a, b = np.random.default_rng(0).integers(-9, 10, (2, 2, 2))
    c = w @ ((u.T @ a.ravel()) * (v.T @ b.ravel()))
    difference = c.reshape(2, 2).T - a @ b
    np.testing.assert_array_equal(difference % f.modulus if f.modulus else difference, 0)


# --- Where an algorithm is valid ---


@pytest.mark.parametrize(
    ("ring", "text"),
    [
        ("Z", "valid over every commutative ring"),
        ("Z_3", "valid over every commutative ring: with {-1, 0, 1} it is right over Z too"),
        (
            "Z_2",
            "valid over every commutative ring of characteristic 2; the same coefficients are "
            "wrong over Z",
        ),
        ("Q", "valid over every commutative ring where 2 is invertible"),
        ("Z[i]", "valid over every commutative ring where -1 has a square root"),
        (
            "Q[i]",
            "valid over every commutative ring where 2 is invertible and -1 has a square root",
        ),
    ],
)
def test_validity(ring, text):
    assert STRASSENS[ring].validity() == text


def test_validity_names_all_primes():
    target = from_tensor("one", np.ones((1, 1, 1), int))
    f = Factorization(target=target, denominator=12, u=[[5]], v=[[12 * 12]], w=[[12]])
    with pytest.raises(IncorrectFactorization):
        f.validity()
    f = Factorization(target=target, denominator=60, u=[[4]], v=[[25 * 60]], w=[[36]])
    assert f.validity().endswith("where 3 and 5 are invertible")
    f = Factorization(target=target, denominator=30, u=[[1]], v=[[30 * 30]], w=[[30]])
    assert f.validity().endswith("where 2, 3 and 5 are invertible")


def test_schoolbook_modulo_2_is_valid_everywhere():
    assert "with {0, 1} it is right over Z too" in schoolbook(2, 1, 2, 2).validity()


# --- Canonical form and key ---


def reordered(f: Factorization, rng: np.random.Generator) -> Factorization:
    order = rng.permutation(f.rank)
    return dataclasses.replace(f, u=f.u[:, order], v=f.v[:, order], w=f.w[:, order])


def gaussian_powers(factor: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """The factor (rows, R, 2) with column r multiplied by i ** turns[r]."""
    result = factor.copy()
    for r, turn in enumerate(turns):
        for _ in range(turn):
            result[:, r] = np.stack([-result[:, r, 1], result[:, r, 0]], axis=-1)
    return result


def units_moved(f: Factorization, rng: np.random.Generator) -> Factorization:
    """The same products, with random units in the factors whose product is one."""
    if f.is_complex:
        first, second = rng.integers(0, 4, (2, f.rank))
        third = (-first - second) % 4
        turned = zip((f.u, f.v, f.w), (first, second, third), strict=True)
        u, v, w = (gaussian_powers(x, turns) for x, turns in turned)
    elif f.modulus:
        first, second = rng.integers(1, f.modulus, (2, f.rank))
        third = [pow(int(x * y), -1, f.modulus) for x, y in zip(first, second, strict=True)]
        u, v, w = f.u * first, f.v * second, f.w * third
    else:
        first, second = rng.choice([-1, 1], (2, f.rank))
        u, v, w = f.u * first, f.v * second, f.w * first * second
    return dataclasses.replace(f, u=u, v=v, w=w)


@UNHURRIED
@hypothesis.given(st.sampled_from(sorted(STRASSENS)), SEEDS)
def test_canonical_form_and_key_ignore_order_and_units(ring, seed):
    f, rng = STRASSENS[ring], np.random.default_rng(seed)
    moved = units_moved(f, rng)
    moved.check()
    canonical = moved.canonical()
    canonical.check()
    for name in "uvw":
        np.testing.assert_array_equal(getattr(canonical, name), getattr(f.canonical(), name))
        again = getattr(canonical.canonical(), name)
        np.testing.assert_array_equal(again, getattr(canonical, name))
    assert canonical.ring == ring
    assert reordered(moved, rng).key() == canonical.key() == f.key()


def test_canonical_form_keeps_the_sizes_of_coefficients():
    f = dataclasses.replace(strassen(), u=strassen().u * 2)
    assert f.canonical().coefficients() == (-2, -1, 0, 1, 2)


@UNHURRIED
@hypothesis.given(random_factors(), SEEDS)
def test_the_key_ignores_how_constants_are_spread(factors, seed):
    u, v, w = factors
    target = in_target(tensor_of(u, v, w))
    f = Factorization(target=target, u=u * 6, v=v, w=w)
    g = Factorization(target=target, u=u * -1, v=v * 2, w=w * -3)
    h = Factorization(target=target, denominator=5, u=u * 15, v=v, w=w * 50)
    assert f.key() == g.key() == h.key()
    assert f.key() != Factorization(target=target, u=u, v=v, w=w).key()


@UNHURRIED
@hypothesis.given(random_factors(), SEEDS)
def test_the_key_ignores_how_gaussian_constants_are_spread(factors, seed):
    rng = np.random.default_rng(seed)
    u, v, w = (np.stack([x, rng.integers(-3, 4, x.shape)], axis=-1) for x in factors)
    target = from_tensor("any", np.ones([len(x) for x in (u, v, w)], int))

    def times(x: np.ndarray, real: int, imaginary: int) -> np.ndarray:
        a, b = x[..., 0], x[..., 1]
        return np.stack([a * real - b * imaginary, a * imaginary + b * real], axis=-1)

    f = Factorization(target=target, u=times(u, 2, 3), v=times(v, -1, 1), w=w)
    g = Factorization(target=target, u=u, v=times(v, 0, 1), w=times(times(w, 1, 1), 2, 3))
    assert f.key() == g.key()


def test_the_key_sees_that_gaussian_factors_make_real_products():
    f = strassen()
    u, v, w = (np.stack([x, 0 * x], axis=-1) for x in (f.u, f.v, f.w))
    # (1 + i)(1 - i) = 2.
    u, v = u + gaussian_powers(u, [1] * 7), v + gaussian_powers(v, [3] * 7)
    g = dataclasses.replace(f, denominator=2, u=u * 2, v=v * 2, w=w)
    g.check()
    assert g.is_complex
    assert g.key() == f.key()


def test_the_key_ignores_what_a_zero_factor_multiplies():
    zero, some, other = [0, 0, 0, 0], [1, 2, 0, 1], [0, 3, 1, 1]
    for ring in ("Z", "Z_3"):
        added = itertools.permutations((zero, some, other))
        assert len({with_products(STRASSENS[ring], product).key() for product in added}) == 1


def test_the_key_separates_different_algorithms():
    different = [*STRASSENS.values(), *single_changes(strassen(), (1, -1))]
    different += [dataclasses.replace(strassen(), w=-strassen().w)]
    different += [schoolbook(*sizes) for sizes in ((2, 2, 2), (1, 2, 4), (4, 2, 1))]
    different += [with_products(strassen(), ([1, 0, 0, 1], [1, 0, 0, 1], [1, 0, 0, 1]))]
    assert len({f.key() for f in different}) == len(different)


def test_canonical_form_and_key_of_huge_coefficients():
    ends = [-HUGE] * 4
    f = with_products(strassen(), (ends, ends, ends), (ends, ends, [HUGE] * 4))
    f.canonical().check()
    g = with_products(strassen(), ([HUGE] * 4, ends, ends), (ends, ends, ends))
    assert f.key() == g.key()


# --- Text ---


def test_strassen_equations():
    assert strassen().equations() == STRASSEN_TEXT


DOT = from_tensor("dot", np.eye(2, dtype=int)[..., None])


def test_equations_with_other_coefficients():
    f = Factorization(
        target=DOT,
        u=[[2, 0, -1], [-3, -1, 0]],
        v=[[0, 1, 1], [1, 0, 0]],
        w=[[-2, 0, 1]],
    )
    assert f.equations() == (
        "m1 = (2·a1 − 3·a2) b2\nm2 = (−a2) b1\nm3 = (−a1) b1\nc1 = −2·m1 + m3"  # noqa: RUF001
    )


def test_equations_modulo_p_use_the_smallest_representatives():
    f = Factorization(target=DOT, modulus=5, u=[[4], [0]], v=[[0], [3]], w=[[2]])
    assert f.equations() == "All arithmetic is mod 5.\nm1 = (−a1)(−2·b2)\nc1 = 2·m1"  # noqa: RUF001


def test_equations_with_fractions():
    f = Factorization(target=DOT, denominator=6, u=[[3], [-6]], v=[[4], [0]], w=[[-1]])
    assert f.equations() == "m1 = (1/2·a1 − a2)(2/3·b1)\nc1 = −1/6·m1"  # noqa: RUF001


def test_equations_with_sums_as_coefficients():
    u, v, w = [[[1, -1]], [[-1, -1]]], [[[0, -2]], [[0, 0]]], [[[0, 0]]]
    f = Factorization(target=DOT, u=u, v=v, w=w)
    assert f.equations() == "m1 = ((1−i)·a1 + (−1−i)·a2)(−2i·b1)\nc1 = 0"  # noqa: RUF001


def test_equations_of_complex_numbers():
    # (a1 + i a2)(b1 + i b2) and its conjugate, which differ by 2i times the imaginary part.
    tensor = np.zeros((2, 2, 2), int)
    tensor[0, 0, 0], tensor[1, 1, 0], tensor[0, 1, 1], tensor[1, 0, 1] = 1, -1, 1, 1
    u = np.array([[[2, 0], [2, 0]], [[0, 2], [0, -2]]])
    w = np.array([[[1, 0], [1, 0]], [[0, -1], [0, 1]]])
    f = Factorization(target=from_tensor("complex", tensor), denominator=2, u=u, v=u, w=w)
    f.check()
    assert f.equations() == (
        "m1 = (a1 + i·a2)(b1 + i·b2)\n"
        "m2 = (a1 − i·a2)(b1 − i·b2)\n"  # noqa: RUF001
        "c1 = 1/2·m1 + 1/2·m2\n"
        "c2 = −i/2·m1 + i/2·m2"  # noqa: RUF001
    )


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ((0, 0, 3), ""),
        ((3, 0, 1), "3"),
        ((-2, 0, 4), "-1/2"),
        ((0, 1, 1), "i"),
        ((0, -6, 4), "-3i/2"),
        ((2, -1, 2), "1-i/2"),
        ((-1, 1, 1), "-1+i"),
    ],
)
def test_numbers_as_text(number, text):
    assert number_text(*number) == text


def evaluated(f: Factorization, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Runs the printed equations of a matrix product on a and b."""
    text = f.equations()
    assert not any(line != line.strip() for line in text.splitlines())
    text = text.removeprefix(f"All arithmetic is mod {f.modulus}.\n")
    text = text.replace("\N{MINUS SIGN}", "-").replace("\N{MIDDLE DOT}", "*").replace(")(", ")*(")
    text = re.sub(r"\b(\d+)i\b", r"\1*i", re.sub(r"(?<=[\w)]) (?=[\w(])", "*", text))
    names = f.target.labels
    values = {"i": 1j}
    for labels, matrix in zip(names, (a, b), strict=False):
        values |= dict(zip(labels, matrix.ravel().tolist(), strict=True))
    for line in text.splitlines():
        name, expression = line.split(" = ")
        values[name] = eval(expression, {"__builtins__": {}}, values)
    c = np.array([values[name] for name in names[2]]).reshape(b.shape[1], len(a)).T
    return c % f.modulus if f.modulus else c


@pytest.mark.parametrize("f", STRASSENS.values(), ids=STRASSENS)
def test_equations_compute_the_product(f):
    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b = rng.integers(-9, 10, (2, 2, 2))
        want = a @ b % f.modulus if f.modulus else a @ b
        np.testing.assert_array_equal(evaluated(f, a, b), want)


def test_equations_of_large_sizes_separate_the_indices():
    f = schoolbook(1, 11, 2)
    rng = np.random.default_rng(0)
    a, b = rng.integers(-9, 10, (1, 11)), rng.integers(-9, 10, (11, 2))
    assert "m22 = a1_11 b11_2" in f.equations()
    np.testing.assert_array_equal(evaluated(f, a, b), a @ b)


def test_the_proof_needs_numpy_only():
    program = "import sys, tensorgame.algorithms.factorization; print(*sys.modules)"
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in result.stdout.split()}
    assert "numpy" in loaded
    assert not loaded & {"jax", "flax", "networks", "search", "training"}
