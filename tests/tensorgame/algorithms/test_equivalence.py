import collections
import dataclasses
import itertools
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorgame.algorithms import released
from tensorgame.algorithms.equivalence import compare
from tensorgame.algorithms.factorization import Factorization, IncorrectFactorization
from tensorgame.algorithms.invariants import Classes, classify, exact_factors, matmul_features
from tensorgame.algorithms.linear_algebra import embed, inverse
from tensorgame.algorithms.sandwich_search import SandwichSearch
from tensorgame.algorithms.symmetries import (
    Transformation,
    matching,
    rotate,
    sizes,
    transform,
    transpose,
    turn,
)
from tensorgame.targets import from_tensor, matmul


def algorithm(size, products, sums, modulus=0) -> Factorization:
    """An algorithm from the factors of its products and the products that each entry of C adds."""
    n, m, p = size
    lines = products.strip().splitlines()
    u, v, w = (np.zeros((rows, len(lines)), int) for rows in (n * m, m * p, p * n))
    for r, line in enumerate(lines):
        for sign, letter, i, j in re.findall(r"([+-]?)([ab])(\d)(\d)", line):
            factor, columns = (u, m) if letter == "a" else (v, p)
            factor[(int(i) - 1) * columns + int(j) - 1, r] = -1 if sign == "-" else 1
    for k, terms in enumerate(sums):
        for term in terms:
            w[(k % p) * n + k // p, abs(term) - 1] = np.sign(term)
    return Factorization(target=matmul(n, m, p), modulus=modulus, u=u, v=v, w=w)


def schoolbook(n, m, p, modulus=0) -> Factorization:
    target = matmul(n, m, p)
    columns = np.argwhere(target.tensor).T
    u, v, w = (np.eye(side, dtype=int)[:, c] for side, c in zip(target.shape, columns, strict=True))
    return Factorization(target=target, modulus=modulus, u=u, v=v, w=w)


STRASSEN = algorithm(
    (2, 2, 2),
    """
    (a11+a22) (b11+b22)
    (a21+a22) b11
    a11 (b12-b22)
    a22 (-b11+b21)
    (a11+a12) b22
    (-a11+a21) (b11+b12)
    (a12-a22) (b21+b22)
    """,
    [[1, 4, -5, 7], [3, 5], [2, 4], [1, -2, 3, 6]],
)
# Winograd's variant, which needs 15 additions instead of 18.
WINOGRAD = algorithm(
    (2, 2, 2),
    """
    a11 b11
    a12 b21
    (a11+a12-a21-a22) b22
    a22 (b11-b12-b21+b22)
    (a21+a22) (-b11+b12)
    (-a11+a21+a22) (b11-b12+b22)
    (a11-a21) (-b12+b22)
    """,
    [[1, 2], [1, 3, 5, 6], [1, -4, 6, 7], [1, 5, 6, 7]],
)
# Laderman, Bulletin of the AMS 82 (1976).
LADERMAN = algorithm(
    (3, 3, 3),
    """
    (a11+a12+a13-a21-a22-a32-a33) b22
    (a11-a21) (-b12+b22)
    a22 (-b11+b12+b21-b22-b23-b31+b33)
    (-a11+a21+a22) (b11-b12+b22)
    (a21+a22) (-b11+b12)
    a11 b11
    (-a11+a31+a32) (b11-b13+b23)
    (-a11+a31) (b13-b23)
    (a31+a32) (-b11+b13)
    (a11+a12+a13-a22-a23-a31-a32) b23
    a32 (-b11+b13+b21-b22-b23-b31+b32)
    (-a13+a32+a33) (b22+b31-b32)
    (a13-a33) (b22-b32)
    a13 b31
    (a32+a33) (-b31+b32)
    (-a13+a22+a23) (b23+b31-b33)
    (a13-a23) (b23-b33)
    (a22+a23) (-b31+b33)
    a12 b21
    a23 b32
    a21 b13
    a31 b12
    a33 b33
    """,
    [
        [6, 14, 19],
        [1, 4, 5, 6, 12, 14, 15],
        [6, 7, 9, 10, 14, 16, 18],
        [2, 3, 4, 6, 14, 16, 17],
        [2, 4, 5, 6, 20],
        [14, 16, 17, 18, 21],
        [6, 7, 8, 11, 12, 13, 14],
        [12, 13, 14, 15, 22],
        [6, 7, 8, 9, 23],
    ],
)


def modulo(factorization, modulus) -> Factorization:
    return dataclasses.replace(factorization, modulus=modulus)


def kron(first, second) -> Factorization:
    """The second algorithm applied to the blocks of the first, both for <2, 2, 2>."""
    factors = []
    for a, b in [(first.u, second.u), (first.v, second.v), (first.w, second.w)]:
        a, b = a.reshape(2, 2, -1), b.reshape(2, 2, -1)
        factors.append(np.einsum("ijr,kls->ikjlrs", a, b).reshape(16, -1))
    u, v, w = factors
    return Factorization(target=matmul(4, 4, 4), modulus=first.modulus, u=u, v=v, w=w)


def invertible(rng, n, modulus, is_complex=False) -> np.ndarray:
    """A random invertible matrix with small entries."""
    while True:
        low, high = (0, modulus) if modulus else (-1, 2)
        matrix = rng.integers(low, high, (n, n, 2) if is_complex else (n, n))
        square = embed(matrix[..., 0], matrix[..., 1]) if is_complex else matrix
        if inverse(square, modulus) is not None:
            return matrix


def image(factorization, seed, is_complex=False) -> Factorization:
    """A random sandwich image, its products shuffled and their scales moved."""
    rng = np.random.default_rng(seed)
    matrices = [
        invertible(rng, n, factorization.modulus, is_complex) for n in sizes(factorization.target)
    ]
    moved = transform(factorization, *matrices)
    order, signs = rng.permutation(moved.rank), rng.choice([-1, 1], moved.rank)
    shape = (-1, 1) if moved.is_complex else (-1,)
    u, v, w = moved.u * signs.reshape(shape), moved.v, moved.w * signs.reshape(shape)
    return dataclasses.replace(moved, u=u[:, order], v=v[:, order], w=w[:, order])


def walk(factorization, rng, steps) -> Factorization:
    """A random walk of flips modulo 2 (Kauers and Moosbauer 2022): other algorithms, same rank.

    a (x) b (x) c + a (x) d (x) e = a (x) (b + d) (x) c + a (x) d (x) (e - c).
    """
    factors = [factorization.u.T.copy(), factorization.v.T.copy(), factorization.w.T.copy()]
    for _ in range(steps):
        first, second, third = rng.permutation(3)
        r, s = rng.permutation(factorization.rank)[:2]
        if (factors[first][r] == factors[first][s]).all():
            factors[second][r] += factors[second][s]
            factors[third][s] += factors[third][r]
    u, v, w = (factor.T % 2 for factor in factors)
    return dataclasses.replace(factorization, u=u, v=v, w=w)


SEEDS = st.integers(0, 2**32 - 1)
ALGORITHMS = st.sampled_from(
    [
        STRASSEN,
        modulo(WINOGRAD, 2),
        modulo(STRASSEN, 3),
        schoolbook(1, 2, 3),
        schoolbook(2, 1, 2, 2),
        schoolbook(2, 3, 1, 5),
    ]
)


@given(ALGORITHMS, SEEDS, st.booleans(), st.integers(0, 2), st.booleans())
@settings(deadline=None, max_examples=60)
def test_group_elements_map_right_algorithms_to_right_ones(base, seed, transposed, turns, gaussian):
    moved = turn(image(base, seed, gaussian and not base.modulus), transposed, turns)
    assert moved.rank == base.rank
    moved.check()


@pytest.mark.parametrize("base", [LADERMAN, schoolbook(2, 3, 4), schoolbook(1, 2, 3, 2)])
def test_rotating_thrice_and_transposing_twice_change_nothing(base):
    for same in (rotate(rotate(rotate(base))), transpose(transpose(base))):
        assert same.target == base.target
        assert matching(base, same) == tuple(range(base.rank))
    n, m, p = sizes(base.target)
    assert sizes(rotate(base).target) == (m, p, n)
    assert sizes(transpose(base).target) == (n, p, m)


def test_transform_is_a_group_action():
    rng = np.random.default_rng(0)
    first, second = ([invertible(rng, n, 0) for n in (3, 3, 3)] for _ in range(2))
    twice = transform(transform(LADERMAN, *first), *second)
    once = transform(LADERMAN, *(b @ a for a, b in zip(first, second, strict=True)))
    assert twice.key() == once.key()
    identity = [np.eye(3, dtype=int)] * 3
    assert transform(LADERMAN, *identity).key() == LADERMAN.key()


def test_transform_accepts_fractions():
    x = np.array([[Fraction(1, 2), 0], [0, 3]], object)
    moved = transform(STRASSEN, x, np.eye(2, dtype=int), np.eye(2, dtype=int))
    moved.check()
    assert moved.ring == "Q"
    reduced = transform(modulo(STRASSEN, 5), x, np.eye(2, dtype=int), np.eye(2, dtype=int))
    reduced.check()


@pytest.mark.parametrize(
    ("base", "x", "message"),
    [
        (STRASSEN, np.ones((2, 2), int), "x is singular"),
        (STRASSEN, np.eye(3, dtype=int), r"x has shape \(3, 3\)"),
        (modulo(STRASSEN, 2), np.ones((2, 2, 2), int), "x has imaginary parts"),
        (modulo(STRASSEN, 2), np.full((2, 2), Fraction(1, 2)), "x has an entry outside the field"),
        (STRASSEN, np.array([[2**62, 1], [2**62 - 1, 1]]), "beyond int64"),
    ],
)
def test_transform_refuses(base, x, message):
    with pytest.raises(ValueError, match=message):
        transform(base, x, np.array([[2**62, 1], [2**62 - 1, 1]]), np.eye(2, dtype=int))


def polynomials(modulus=0) -> Factorization:
    """(a0 + a1 t)(b0 + b1 t) with Karatsuba's three products."""
    tensor = np.zeros((2, 2, 3), int)
    for i, j in itertools.product(range(2), repeat=2):
        tensor[i, j, i + j] = 1
    u = np.array([[1, 0, 1], [0, 1, 1]])
    w = np.array([[1, 0, 0], [-1, -1, 1], [0, 1, 0]])
    return Factorization(target=from_tensor("poly", tensor), modulus=modulus, u=u, v=u, w=w)


def test_only_matrix_multiplication_has_a_sandwich():
    with pytest.raises(ValueError, match="target is poly; only matrix multiplication"):
        rotate(polynomials())
    assert sizes(polynomials().target) is None


def assert_equivalent(first, second) -> None:
    found = compare(first, second)
    assert found.verdict == "equivalent", found.reason
    assert found.witness.maps(first, second)


@given(ALGORITHMS, SEEDS, st.booleans(), st.integers(0, 2), st.booleans())
@settings(deadline=None, max_examples=25)
def test_images_are_equivalent(base, seed, transposed, turns, gaussian):
    moved = turn(image(base, seed, gaussian and not base.modulus), transposed, turns)
    assert_equivalent(base, moved)


@given(SEEDS)
@settings(deadline=None, max_examples=10)
def test_images_have_the_same_classes(seed):
    moved = image(LADERMAN, seed)
    first, second = classify(matmul_features(LADERMAN, False), matmul_features(moved, False))
    counts = [collections.Counter(classes.products.tolist()) for classes in (first, second)]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("modulus", [0, 2, 3, 2**31 - 1])
def test_winograds_variant_is_strassens_algorithm(modulus):
    """All algorithms for <2, 2, 2> with seven products are equivalent (de Groote 1978)."""
    assert_equivalent(modulo(STRASSEN, modulus), modulo(WINOGRAD, modulus))


@pytest.mark.parametrize(
    "base",
    [LADERMAN, modulo(LADERMAN, 2), modulo(kron(STRASSEN, WINOGRAD), 2), schoolbook(2, 2, 3, 3)],
)
def test_images_of_larger_algorithms(base):
    assert_equivalent(base, image(rotate(transpose(base)), 1))


def test_strassen_twice_is_strassen_after_winograd():
    assert_equivalent(kron(STRASSEN, STRASSEN), kron(STRASSEN, WINOGRAD))


def test_scaling_beyond_units():
    u, w = STRASSEN.u.copy(), STRASSEN.w * 6
    u[:, 2] *= 3
    w[:, 2] //= 3
    scaled = dataclasses.replace(STRASSEN, denominator=6, u=u * 6, v=STRASSEN.v * 6, w=w)
    assert matching(STRASSEN, scaled) == tuple(range(7))
    assert_equivalent(STRASSEN, scaled)


def test_witness_that_is_wrong_is_refused():
    witness = compare(STRASSEN, image(STRASSEN, 3)).witness
    assert not witness.maps(STRASSEN, image(STRASSEN, 4))
    permutation = (witness.permutation[1], witness.permutation[0], *witness.permutation[2:])
    wrong = dataclasses.replace(witness, permutation=permutation)
    assert not wrong.maps(STRASSEN, image(STRASSEN, 3))
    repeated = dataclasses.replace(witness, permutation=(0,) * 7)
    assert not repeated.maps(STRASSEN, image(STRASSEN, 3))


def test_products_of_zero_do_not_matter():
    def with_zero(base, at):
        u, v, w = (np.insert(f, at, 1, axis=1) for f in (base.u, base.v, base.w))
        v[:, at] = 0
        return dataclasses.replace(base, u=u, v=v, w=w)

    assert_equivalent(with_zero(STRASSEN, 3), with_zero(image(WINOGRAD, 5), 0))
    assert compare(with_zero(STRASSEN, 3), schoolbook(2, 2, 2)).verdict == "not equivalent"


def orbit(base) -> set[bytes]:
    """The keys of all images modulo 2 of an algorithm for <2, 2, 2>."""
    matrices = np.array(list(itertools.product(range(2), repeat=4))).reshape(-1, 2, 2)
    group = [matrix for matrix in matrices if inverse(matrix, 2) is not None]
    turned = [turn(base, t, k) for t in (False, True) for k in range(3)]
    return {
        transform(f, *sandwich).key()
        for f in turned
        for sandwich in itertools.product(group, repeat=3)
    }


def search_alone(first, second) -> bool:
    """Whether the search finds a sandwiching without the help of invariants."""
    classes = Classes(np.zeros(first.rank, int), np.zeros((first.rank, first.rank), int))
    for transposed, rotations in itertools.product((False, True), range(3)):
        turned = turn(first, transposed, rotations)
        search = SandwichSearch(turned, second, (classes, classes), False, 100_000)
        if search.run() is not None:
            return True
        assert search.budget > 0
        assert not search.gaps
    return False


def test_verdicts_modulo_2_agree_with_the_whole_orbit():
    rng = np.random.default_rng(0)
    base = walk(schoolbook(2, 2, 2, 2), rng, 500)
    images = orbit(base)
    verdicts = collections.Counter()
    for number in range(40):
        other = walk(base, rng, 200)
        other.check()
        found = compare(base, other)
        assert found.verdict == ("equivalent" if other.key() in images else "not equivalent")
        verdicts[found.verdict] += 1
        if number < 4:
            assert search_alone(base, other) == (other.key() in images)
    assert len(verdicts) == 2


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (STRASSEN, modulo(STRASSEN, 2), "fields of different characteristic"),
        (STRASSEN, LADERMAN, "their targets differ: matmul:2,2,2 and matmul:3,3,3"),
        (schoolbook(2, 2, 3), schoolbook(1, 3, 4), "their targets differ"),
        (STRASSEN, polynomials(), "their targets differ"),
        (STRASSEN, schoolbook(2, 2, 2), "they have 7 and 8 products"),
    ],
)
def test_obvious_differences(first, second, reason):
    found = compare(first, second)
    assert (found.verdict, found.witness) == ("not equivalent", None)
    assert reason in found.reason


def test_different_invariants_are_named():
    other = walk(schoolbook(2, 2, 2, 2), np.random.default_rng(1), 300)
    found = compare(other, schoolbook(2, 2, 2, 2))
    assert found.verdict == "not equivalent"
    assert "an invariant differs: the ranks" in found.reason


def test_without_budget_nothing_is_decided():
    found = compare(STRASSEN, image(STRASSEN, 0), budget=0)
    assert (found.verdict, found.witness) == ("undecided", None)
    assert "budget" in found.reason
    with pytest.raises(ValueError, match="budget is -1"):
        compare(STRASSEN, STRASSEN, budget=-1)


def test_other_targets_up_to_order_and_scaling():
    first = polynomials()
    order = [2, 0, 1]
    second = dataclasses.replace(
        first, u=-first.u[:, order], v=first.v[:, order], w=-first.w[:, order]
    )
    found = compare(first, second)
    assert found.verdict == "equivalent"
    assert found.witness.maps(first, second)
    # Evaluation at 0, infinity and -1 instead of 1.
    u = np.array([[1, 0, 1], [0, 1, -1]])
    w = np.array([[1, 0, 0], [1, 1, -1], [0, 1, 0]])
    third = dataclasses.replace(first, u=u, v=u, w=w)
    assert compare(first, third).verdict == "undecided"


def test_other_targets_with_different_invariants():
    """A number times a vector with three products, two of which share a factor, or none."""
    tensor = np.zeros((2, 2, 2), int)
    tensor[0] = np.eye(2)
    target, u = from_tensor("scale", tensor), np.array([[1, 1, 1], [0, 0, 0]])
    shared = Factorization(
        target=target,
        u=u,
        v=np.array([[1, 0, 0], [0, 1, 1]]),
        w=np.array([[1, 0, 0], [0, 2, -1]]),
    )
    distinct = Factorization(
        target=target,
        u=u,
        v=np.array([[1, 0, 1], [0, 1, 1]]),
        w=np.array([[0, -1, 1], [-1, 0, 1]]),
    )
    found = compare(shared, distinct)
    assert found.verdict == "not equivalent"
    assert "share a factor" in found.reason


@pytest.mark.parametrize("modulus", [0, 2**31 - 1])
def test_matrices_that_are_singular_modulo_the_prime_of_the_search(modulus):
    x = np.array([[2**28 - 57, 1], [0, 1]])
    moved = transform(modulo(STRASSEN, modulus), x, np.eye(2, dtype=int), np.eye(2, dtype=int))
    assert_equivalent(modulo(STRASSEN, modulus), moved)
    assert_equivalent(moved, modulo(STRASSEN, modulus))


def test_wrong_algorithms_are_refused():
    wrong = dataclasses.replace(STRASSEN, u=-STRASSEN.u)
    with pytest.raises(IncorrectFactorization):
        compare(STRASSEN, wrong)


def test_large_coefficients():
    """Beyond int64 in the traces, although not in the factors."""
    x = np.array([[12_345, 678], [-91_011, 1_213]])
    moved = transform(STRASSEN, x, x.T, np.eye(2, dtype=int))
    assert max(moved.coefficients()) > 2**31
    assert exact_factors(moved, False)[0].dtype == object
    assert_equivalent(moved, image(WINOGRAD, 0))


def test_identity_without_sandwich_applies():
    identity = Transformation(
        transposed=False, rotations=0, sandwich=None, permutation=tuple(range(7))
    )
    assert identity.apply(STRASSEN) is STRASSEN
    assert identity.maps(STRASSEN, STRASSEN)
    assert not identity.maps(STRASSEN, WINOGRAD)


def test_the_released_algorithm_is_not_ladermans():
    found = compare(released.load("alphatensor:3,3,3"), LADERMAN)
    assert found.verdict == "not equivalent"
