"""Targets by name: what they compute, their ranks, and errors."""

import dataclasses
import itertools
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tensorgame import targets
from tensorgame.algorithms.factorization import Factorization, IncorrectFactorization

RINGS = ["Z", "Z[i]", "Z_2", "Z_3", "Z_5", "Z_17", "Q", "Q[i]"]
MATRIX_FAMILIES = ["symmetric-matmul", "symmetric-symmetric", "skew-matmul"]
NAMES = [
    *(f"matmul:{n},{m},{p}" for n, m, p in itertools.product((1, 2, 3), repeat=3)),
    "matmul:4,4,4",
    "matmul:2,4,5",
    *(f"{family}:{n}" for family in ["skew-matvec", *MATRIX_FAMILIES] for n in (2, 3, 4)),
    *(f"{family}:1" for family in ["symmetric-matmul", "symmetric-symmetric", "symmetric-matvec"]),
    *(f"symmetric-matvec:{n}" for n in (2, 3, 4, 10)),
    *(f"gram:{n},{m}" for n, m in [(1, 1), (1, 3), (2, 1), (2, 3), (3, 3), (4, 4)]),
    *(f"polynomial:{n},{m}" for n, m in [(1, 1), (1, 4), (2, 2), (3, 2), (5, 5), (2, 7), (8, 9)]),
    *(f"cyclic-convolution:{n}" for n in (1, 2, 3, 4, 5, 6, 8, 12, 16)),
    "complex",
    "quaternion",
]


def random_pair(target, seed=0):
    rng = np.random.default_rng(seed)
    rows, columns, _ = target.shape
    return rng.integers(-9, 10, (5, rows)), rng.integers(-9, 10, (5, columns))


def schoolbook(target):
    """One product for each nonzero fibre of the tensor, along the mode with the fewest."""
    tensor = target.tensor
    along = min(range(3), key=lambda mode: np.count_nonzero(tensor.any(mode)))
    rest = [mode for mode in range(3) if mode != along]
    places = np.argwhere(tensor.any(along))
    factors = [None, None, None]
    for mode, at in zip(rest, places.T, strict=True):
        factors[mode] = np.eye(tensor.shape[mode], dtype=int)[:, at]
    factors[along] = np.moveaxis(tensor, along, 0)[:, places[:, 0], places[:, 1]]
    return Factorization(target=target, u=factors[0], v=factors[1], w=factors[2])


@pytest.mark.parametrize("name", NAMES)
class TestEveryFamily:
    def test_shape_labels_and_tensor_agree(self, name):
        target = targets.parse(name)
        assert target.tensor.shape == target.shape
        assert target.tensor.dtype == np.int64
        assert not target.tensor.flags.writeable
        assert target.side == max(target.shape)
        for labels in target.labels:
            assert len(set(labels)) == len(labels)
            assert all(label.isidentifier() for label in labels)

    def test_padding_is_empty(self, name):
        target = targets.parse(name)
        padded = target.padded(target.side + 1)
        rows, columns, results = target.shape
        assert padded.shape == (target.side + 1,) * 3
        np.testing.assert_array_equal(padded[:rows, :columns, :results], target.tensor)
        assert np.abs(padded).sum() == np.abs(target.tensor).sum()

    def test_the_tensor_gives_the_map(self, name):
        target = targets.parse(name)
        a, b = random_pair(target)
        for dtype in (int, object):
            c = target.multiply(a.astype(dtype), b.astype(dtype))
            assert c.dtype == dtype
            np.testing.assert_array_equal(c, np.einsum("ijk,ni,nj->nk", target.tensor, a, b))
            np.testing.assert_array_equal(target.multiply(a[0], b[0]), c[0])

    def test_numbers_beyond_int64_are_exact(self, name):
        target = targets.parse(name)
        a, b = random_pair(target)
        large = target.multiply(a.astype(object) * 10**30, b.astype(object))
        assert (large == target.multiply(a, b).astype(object) * 10**30).all()

    def test_arguments_broadcast(self, name):
        target = targets.parse(name)
        a, b = random_pair(target)
        c = target.multiply(a[:, None], b[None, :])
        assert c.shape == (5, 5, target.shape[2])
        np.testing.assert_array_equal(c[3, 1], target.multiply(a[3], b[1]))

    def test_its_name_gives_an_equal_target(self, name):
        target = targets.parse(name)
        assert target.name == name
        assert target == targets.parse(name)
        assert hash(target) == hash(targets.parse(name))
        assert target != targets.matmul(2, 2, 6)

    def test_ranks_are_in_order(self, name):
        target = targets.parse(name)
        for ring in RINGS:
            record = target.known(ring)
            assert 1 <= target.lower_bound <= record.rank <= target.trivial_rank
            assert record.source

    def test_larger_rings_need_no_more_products(self, name):
        rank = {ring: targets.parse(name).known(ring).rank for ring in RINGS}
        assert rank["Z"] >= max(rank.values())
        assert rank["Q"] >= rank["Q[i]"]

    def test_grouping_entries_attains_the_trivial_rank(self, name):
        target = targets.parse(name)
        algorithm = schoolbook(target)
        assert algorithm.rank == target.trivial_rank
        assert algorithm.check().startswith(f"checked: {target.trivial_rank} products")

    def test_its_tensor_alone_gives_an_equal_target(self, name):
        target = targets.parse(name)
        copy = targets.from_tensor("copy", target.tensor)
        assert copy == target
        assert copy.trivial_rank == target.trivial_rank
        # Pivots of 1 and -1 prove that the largest flattening has full rank over every field.
        assert copy.lower_bound == target.side <= target.lower_bound


def matrix(kind, entries, n):
    """An n x n matrix by its definition, entry by entry."""
    full = np.zeros((n, n), entries.dtype)
    places = [(i, j) for i in range(n) for j in range(n) if kind == "general" or i <= j]
    if kind == "skew":
        places = [(i, j) for i, j in places if i < j]
    for value, (i, j) in zip(entries, places, strict=True):
        full[i, j] = value
        if kind != "general" and i != j:
            full[j, i] = -value if kind == "skew" else value
    return full


class TestDefinitions:
    @pytest.mark.parametrize(("n", "m", "p"), [(1, 1, 1), (2, 3, 4), (4, 2, 3), (3, 3, 3)])
    def test_matmul_lists_c_by_columns(self, n, m, p):
        target = targets.matmul(n, m, p)
        a, b = random_pair(target)
        for x, y, c in zip(a, b, target.multiply(a, b), strict=True):
            np.testing.assert_array_equal(c.reshape(p, n).T, x.reshape(n, m) @ y.reshape(m, p))
        for i, j, k in itertools.product(range(n), range(m), range(p)):
            assert target.tensor[i * m + j, j * p + k, k * n + i] == 1
        assert target.labels[2][:n] == tuple(f"c{i + 1}1" for i in range(n))

    def test_labels_of_two_digits_keep_apart(self):
        a, b, c = targets.matmul(11, 1, 2).labels
        assert a[9:] == ("a10_1", "a11_1")
        assert b == ("b11", "b12")
        assert c[10:12] == ("c11_1", "c1_2")

    @pytest.mark.parametrize("n", [2, 3, 5])
    @pytest.mark.parametrize(
        ("family", "left", "right"),
        [
            ("symmetric-matmul", "symmetric", "general"),
            ("skew-matmul", "skew", "general"),
            ("symmetric-symmetric", "symmetric", "symmetric"),
        ],
    )
    def test_structured_products(self, family, left, right, n):
        target = targets.parse(f"{family}:{n}")
        a, b = random_pair(target)
        for x, y, c in zip(a, b, target.multiply(a, b), strict=True):
            product = matrix(left, x, n) @ matrix(right, y, n)
            np.testing.assert_array_equal(c.reshape(n, n).T, product)

    @pytest.mark.parametrize("n", [2, 3, 5])
    @pytest.mark.parametrize("kind", ["skew", "symmetric"])
    def test_structured_matrix_times_vector(self, kind, n):
        target = targets.parse(f"{kind}-matvec:{n}")
        a, b = random_pair(target)
        for x, y, c in zip(a, b, target.multiply(a, b), strict=True):
            np.testing.assert_array_equal(c, matrix(kind, x, n) @ y)
        assert target.labels[0][0] == ("a12" if kind == "skew" else "a11")
        assert target.labels[2] == tuple(f"c{i + 1}" for i in range(n))

    @pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 3), (4, 4)])
    def test_gram(self, n, m):
        target = targets.gram(n, m)
        x, y = random_pair(target)
        for one, other, c in zip(x, y, target.multiply(x, y), strict=True):
            full = one.reshape(n, m) @ other.reshape(n, m).T
            np.testing.assert_array_equal(c, [full[i, j] for i in range(n) for j in range(i, n)])
        same = x[0].reshape(n, m)
        symmetric = matrix("symmetric", target.multiply(x[0], x[0]), n)
        np.testing.assert_array_equal(symmetric, same @ same.T)

    @pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 5), (7, 3)])
    def test_polynomial(self, n, m):
        target = targets.polynomial(n, m)
        a, b = random_pair(target)
        for x, y, c in zip(a, b, target.multiply(a, b), strict=True):
            np.testing.assert_array_equal(c, np.convolve(x, y))

    @pytest.mark.parametrize("n", [1, 2, 5, 8])
    def test_cyclic_convolution(self, n):
        target = targets.cyclic_convolution(n)
        a, b = random_pair(target)
        want = np.fft.ifft(np.fft.fft(a) * np.fft.fft(b)).real
        np.testing.assert_array_equal(target.multiply(a, b), np.rint(want).astype(int))

    def test_complex(self):
        target = targets.complex_numbers()
        a, b = random_pair(target)
        product = (a @ [1, 1j]) * (b @ [1, 1j])
        np.testing.assert_array_equal(target.multiply(a, b) @ [1, 1j], product)

    def test_hamiltons_table(self):
        """The bridge: i^2 = j^2 = k^2 = ijk = -1, from which all other products follow."""
        multiply = targets.quaternion().multiply
        one, i, j, k = np.eye(4, dtype=int)
        for x, y, product in [
            *((one, x, x) for x in (one, i, j, k)),
            *((x, one, x) for x in (i, j, k)),
            *((x, x, -one) for x in (i, j, k)),
            *((i, j, k), (j, k, i), (k, i, j)),
            *((j, i, -k), (k, j, -i), (i, k, -j)),
        ]:
            np.testing.assert_array_equal(multiply(x, y), product)


def proved(name, u, v, w, modulus=0, denominator=1):
    """The rank of an algorithm that is right."""
    algorithm = Factorization(
        target=targets.parse(name), modulus=modulus, denominator=denominator, u=u, v=v, w=w
    )
    algorithm.check()
    return algorithm.rank


STRASSEN = [  # u over a11 a12 a21 a22, v over b, w over c11 c21 c12 c22
    ((1, 0, 0, 1), (1, 0, 0, 1), (1, 0, 0, 1)),
    ((0, 0, 1, 1), (1, 0, 0, 0), (0, 1, 0, -1)),
    ((1, 0, 0, 0), (0, 1, 0, -1), (0, 0, 1, 1)),
    ((0, 0, 0, 1), (-1, 0, 1, 0), (1, 1, 0, 0)),
    ((1, 1, 0, 0), (0, 0, 0, 1), (-1, 0, 1, 0)),
    ((-1, 0, 1, 0), (1, 1, 0, 0), (0, 0, 0, 1)),
    ((0, 1, 0, -1), (0, 0, 1, 1), (1, 0, 0, 0)),
]
# Over (1, i, j, k).
QUATERNION = [
    ((1, 1, -1, 1), (1, 0, 0, 0), (0, 1, -1, 0)),
    ((0, 0, 1, 1), (0, 1, -1, 0), (0, 1, 0, -1)),
    ((0, 0, 0, 1), (1, 1, 0, 0), (-1, -1, 1, 1)),
    ((1, 0, 0, 0), (0, 0, 1, 1), (1, 1, 1, 1)),
    ((1, -1, 1, 1), (0, 0, 1, 0), (-1, 0, 0, -1)),
    ((1, 0, -1, 0), (1, -1, 1, 1), (0, -1, 0, 0)),
    ((1, 1, 0, 0), (1, 0, 0, -1), (1, 0, 1, 0)),
    ((0, 1, 0, -1), (1, 1, 1, -1), (-1, 0, 0, 0)),
]


def columns(products):
    """u, v and w, each with one column a product."""
    return tuple(np.array(factor).T for factor in zip(*products, strict=True))


class TestRecordsProvedByAlgorithms:
    def test_strassen(self):
        rank = proved("matmul:2,2,2", *columns(STRASSEN))
        assert rank == targets.matmul(2, 2, 2).known("Z").rank == 7
        assert rank == targets.matmul(2, 2, 2).lower_bound

    def test_a_wrong_algorithm_proves_nothing(self):
        u, v, w = columns(STRASSEN)
        with pytest.raises(IncorrectFactorization):
            proved("matmul:2,2,2", u, v, -w)

    @pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 9])
    def test_skew_matvec_of_the_paper(self, n):
        places = list(itertools.combinations(range(n), 2))
        products = {}
        for i, j in places:
            if i < n - 2:
                u, v, w = np.zeros(len(places), int), np.zeros(n, int), np.zeros(n, int)
                u[places.index((i, j))], v[j], v[i] = 1, 1, -1
                products["w", i, j] = u, v, w
        for i in range(n):
            u = np.array([int(i == second) - int(i == first) for first, second in places])
            products["q", i] = u, np.eye(n, dtype=int)[i], np.zeros(n, int)
        for (kind, *at), (_, _, w) in products.items():
            if kind == "w":
                i, j = at
                w[i] += 1
                if j < n - 2:
                    w[j] += 1
                w[n - 2] -= (j < n - 2) + (j == n - 1)
                w[n - 1] -= j < n - 1
            else:
                w[at[0]] -= at[0] < n - 2
                w[n - 2] += at[0] != n - 2
                w[n - 1] += at[0] != n - 1
        rank = proved(f"skew-matvec:{n}", *columns(list(products.values())))
        assert {targets.skew_matvec(n).known(ring).rank for ring in RINGS} == {rank}

    @pytest.mark.parametrize("n", [1, 2, 3, 6])
    def test_symmetric_matvec(self, n):
        places = list(itertools.combinations_with_replacement(range(n), 2))
        unit = np.eye(n, dtype=int)
        products = []
        for i, j in places:
            if i < j:
                u = np.array([int(at == (i, j)) for at in places])
                products.append((u, unit[i] + unit[j], unit[i] + unit[j]))
            else:
                u = np.array([int(at == (i, i)) - int(i in at and at != (i, i)) for at in places])
                products.append((u, unit[i], unit[i]))
        rank = proved(f"symmetric-matvec:{n}", *columns(products))
        target = targets.symmetric_matvec(n)
        assert {target.known(ring).rank for ring in RINGS} == {rank} == {target.lower_bound}

    def test_gauss(self):
        u = v = np.array([[1, 0, 1], [0, 1, 1]])
        rank = proved("complex", u, v, np.array([[1, -1, 0], [-1, -1, 1]]))
        assert rank == targets.complex_numbers().known("Z").rank == 3

    @pytest.mark.parametrize(("p", "root"), [(5, 2), (13, 5), (17, 4)])
    def test_complex_numbers_where_minus_one_is_a_square(self, p, root):
        half = pow(2, -1, p)
        u = np.array([[1, 1], [root, -root]])
        w = half * np.array([[1, 1], [-root, root]])
        rank = proved("complex", u, u, w, modulus=p)
        assert rank == targets.complex_numbers().known(f"Z_{p}").rank == 2
        assert targets.complex_numbers().known("Z_3").rank == 3

    def test_complex_numbers_over_gaussian_rationals(self):
        u = np.array([[[2, 0], [2, 0]], [[0, 2], [0, -2]]])
        w = np.array([[[1, 0], [1, 0]], [[0, -1], [0, 1]]])
        rank = proved("complex", u, u, w, denominator=2)
        assert rank == targets.complex_numbers().known("Q[i]").rank == 2

    def test_quaternions_in_eight_products_over_every_ring(self):
        rank = proved("quaternion", *columns(QUATERNION))
        target = targets.quaternion()
        assert rank == target.known("Z").rank == target.known("Z_2").rank == 8

    @pytest.mark.parametrize("p", [3, 5, 7, 11])
    def test_quaternions_modulo_odd_primes_are_matrices(self, p):
        x, y = next(
            (x, y) for x, y in itertools.product(range(p), repeat=2) if (x * x + y * y + 1) % p == 0
        )
        i, j = np.array([[0, 1], [-1, 0]]), np.array([[x, y], [y, -x]])
        basis = np.stack([np.eye(2, dtype=int), i, j, i @ j]).reshape(4, 4).T
        u, v, w = columns(STRASSEN)
        w = w[[0, 2, 1, 3]]  # c by rows
        inverse = inverse_modulo(basis, p)
        rank = proved("quaternion", basis.T @ u, basis.T @ v, inverse @ w, modulus=p)
        assert rank == targets.quaternion().known(f"Z_{p}").rank == 7


def inverse_modulo(matrix, p):
    """The inverse modulo p by elimination; fails if there is none."""
    side = len(matrix)
    work = np.concatenate([matrix % p, np.eye(side, dtype=int)], axis=1).astype(object)
    for at in range(side):
        pivot = next(row for row in range(at, side) if work[row, at])
        work[[at, pivot]] = work[[pivot, at]]
        work[at] = work[at] * pow(int(work[at, at]), -1, p) % p
        for row in range(side):
            if row != at:
                work[row] = (work[row] - work[row, at] * work[at]) % p
    return work[:, side:].astype(int)


@dataclasses.dataclass(frozen=True)
class Remainders:
    """Polynomials modulo one factor, and an algorithm for products there.

    ``reduce(n)`` takes the n coefficients of a polynomial to the d of its remainder, in some basis;
    u (= v) and w are those of an algorithm for the product of remainders.
    """

    reduce: object
    u: np.ndarray
    w: np.ndarray


KARATSUBA = {
    1: (np.eye(1, dtype=int), np.eye(1, dtype=int)),
    2: (np.array([[1, 0, 1], [0, 1, 1]]), np.array([[1, 0, 0], [-1, -1, 1], [0, 1, 0]])),
    3: (
        np.array([[1, 0, 0, 1, 1, 0], [0, 1, 0, 1, 0, 1], [0, 0, 1, 0, 1, 1]]),
        np.array(
            [
                [1, 0, 0, 0, 0, 0],
                [-1, -1, 0, 1, 0, 0],
                [-1, 1, -1, 0, 1, 0],
                [0, -1, -1, 0, 0, 1],
                [0, 0, 1, 0, 0, 0],
            ]
        ),
    ),
}


def in_halves(u, w):
    """Polynomials of twice as many coefficients, as linear polynomials of polynomials."""
    (outer_u, outer_w), length = KARATSUBA[2], len(w)
    folded = np.zeros((2 * length + 1, 3 * w.shape[1]), int)
    for at, rows in enumerate(np.kron(outer_w, w).reshape(3, length, -1)):
        folded[at * len(u) : at * len(u) + length] += rows
    return np.kron(outer_u, u), folded


KARATSUBA[4] = in_halves(*KARATSUBA[2])


def modulo_irreducible(*coefficients):
    """Modulo the monic polynomial with these lower coefficients, from the constant term on."""
    degree = len(coefficients)

    def reduce(n):
        rows = [np.eye(degree, dtype=int)[i] for i in range(degree)]
        while len(rows) < n:
            last = rows[-1]
            rows.append(np.concatenate([[0], last[:-1]]) - last[-1] * np.array(coefficients))
        return np.array(rows[:n]).T

    u, w = KARATSUBA[degree]
    return Remainders(reduce, u, reduce(2 * degree - 1) @ w)


def at_point(point, multiplicity=1):
    """Modulo (x - point)^multiplicity, in powers of x - point; point None for infinity."""

    def reduce(n):
        if point is None:
            return np.eye(n, dtype=int)[::-1][:multiplicity]
        taylor = [[math.comb(i, k) * point ** max(i - k, 0) for i in range(n)] for k in range(3)]
        return np.array(taylor[:multiplicity])

    u, w = KARATSUBA[multiplicity]
    # Products that only enter coefficients beyond the remainder are left out.
    used = w[:multiplicity].any(axis=0)
    return Remainders(reduce, u[:, used], w[:multiplicity, used])


def by_remainders(name, p, factors):
    """The rank of the algorithm modulo p that these coprime factors give; it is proved."""
    a, b, c = targets.parse(name).shape
    u = np.concatenate([factor.reduce(a).T @ factor.u for factor in factors], axis=1)
    v = np.concatenate([factor.reduce(b).T @ factor.u for factor in factors], axis=1)
    inverse = inverse_modulo(np.concatenate([factor.reduce(c) for factor in factors]), p)
    parts, at = [], 0
    for factor in factors:
        parts.append(inverse[:, at : at + len(factor.w)] @ factor.w)
        at += len(factor.w)
    return proved(name, u % p, v % p, np.concatenate(parts, axis=1) % p, modulus=p)


QUARTICS = [modulo_irreducible(1, 1, 0, 0), modulo_irreducible(1, 0, 0, 1)]
CUBICS = [modulo_irreducible(1, 1, 0), modulo_irreducible(1, 0, 1)]  # modulo 2
TRIPLE_POINTS = [at_point(0, 3), at_point(1, 3)]


class TestPolynomialRecordsProvedByRemainders:
    @pytest.mark.parametrize(("n", "m"), [(1, 5), (2, 2), (3, 4), (8, 8), (9, 10), (6, 13)])
    def test_toom_cook_modulo_17(self, n, m):
        points = [at_point(None), *(at_point(x) for x in range(17))][: n + m - 1]
        rank = by_remainders(f"polynomial:{n},{m}", 17, points)
        assert rank == targets.polynomial(n, m).known("Z_17").rank == n + m - 1
        assert rank == targets.polynomial(n, m).known("Q").rank
        assert rank == targets.polynomial(n, m).lower_bound

    def test_double_points_modulo_17(self):
        points = [at_point(None, 2), at_point(0, 2), *(at_point(x) for x in range(1, 17))]
        rank = by_remainders("polynomial:10,11", 17, points)
        assert rank == targets.polynomial(10, 11).known("Z_17").rank == 22

    def test_karatsuba_over_the_integers(self):
        for n, (u, w) in KARATSUBA.items():
            rank = proved(f"polynomial:{n},{n}", u, u, w)
            assert rank == targets.polynomial(n, n).known("Z").rank

    @pytest.mark.parametrize(
        ("n", "rank", "factors"),
        [
            (8, 26, [at_point(None)]),
            (9, 30, [at_point(None, 3)]),
            (10, 35, [at_point(None), QUARTICS[0]]),
            (11, 39, [at_point(None, 3), QUARTICS[0]]),
            (12, 44, [at_point(None), *QUARTICS]),
            (13, 48, [at_point(None, 3), *QUARTICS]),
        ],
    )
    def test_chinese_remainders_modulo_2(self, n, rank, factors):
        factors = [*TRIPLE_POINTS, modulo_irreducible(1, 1), *CUBICS, *factors]
        assert by_remainders(f"polynomial:{n},{n}", 2, factors) == rank
        assert targets.polynomial(n, n).known("Z_2").rank == rank

    def test_montgomery(self):
        known = [targets.polynomial(n, n).known("Z") for n in range(4, 8)]
        assert [record.rank for record in known] == [9, 13, 17, 22]
        assert known[1].source == "Montgomery 2005"

    @pytest.mark.parametrize(("n", "root"), [(2, 16), (4, 4), (8, 2), (16, 3)])
    def test_the_fourier_transform_modulo_17(self, n, root):
        points = [at_point(pow(root, k, 17)) for k in range(n)]
        rank = by_remainders(f"cyclic-convolution:{n}", 17, points)
        target = targets.cyclic_convolution(n)
        assert rank == target.known("Z_17").rank == target.lower_bound == n

    @pytest.mark.parametrize(
        ("n", "p", "factors"),
        [
            (3, 2, [at_point(1), modulo_irreducible(1, 1)]),
            (7, 2, [at_point(1), *CUBICS]),
            (3, 3, [at_point(1, 3)]),
            (4, 3, [at_point(1), at_point(-1), modulo_irreducible(1, 0)]),
            (6, 3, [at_point(1, 3), at_point(-1, 3)]),
        ],
    )
    def test_cyclic_convolution_modulo_small_primes(self, n, p, factors):
        rank = by_remainders(f"cyclic-convolution:{n}", p, factors)
        # A product modulo (x - 1)^3 takes 5, of polynomials with three coefficients one more.
        assert rank <= targets.cyclic_convolution(n).known(f"Z_{p}").rank <= rank + 2

    @pytest.mark.parametrize(("n", "divisors"), [(1, 1), (2, 2), (7, 2), (12, 6), (16, 5)])
    def test_winograd_over_the_rationals(self, n, divisors):
        assert targets.cyclic_convolution(n).known("Q").rank == 2 * n - divisors


class TestMatmulRecords:
    @pytest.mark.parametrize(
        ("sizes", "ranks"),
        [
            ("3,3,3", {"Z": 23, "Z_2": 23, "Q": 23}),
            ("4,4,4", {"Z": 49, "Z_2": 47, "Z_3": 48, "Q": 48, "Q[i]": 48}),
            ("5,5,5", {"Z": 93, "Z_2": 93}),
            ("2,4,5", {"Z": 33, "Z_2": 33, "Z_7": 32, "Q": 32}),
            ("3,4,7", {"Z": 64, "Z_2": 64, "Z_3": 64, "Z_5": 63, "Q": 63}),
            ("3,3,6", {"Z": 42, "Z_2": 42, "Z_3": 40, "Q": 40}),
            ("2,3,9", {"Z": 45, "Z_2": 45}),
            ("9,9,9", {"Z_2": 516, "Z_3": 498, "Q": 498}),
            ("16,16,16", {"Z": 2401, "Z_2": 2209, "Q": 2304}),
            ("1,30,40", {"Z": 1200, "Q": 1200}),
        ],
    )
    def test_by_ring(self, sizes, ranks):
        target = targets.parse(f"matmul:{sizes}")
        assert {ring: target.known(ring).rank for ring in ranks} == ranks

    def test_sources_say_who_or_how(self):
        assert targets.matmul(2, 2, 2).known("Z").source == "Strassen 1969"
        assert targets.matmul(4, 4, 4).known("Z_2").source == "AlphaTensor 2022"
        assert targets.matmul(4, 4, 4).known("Z").source == "2,2,2 x 2,2,2"
        assert targets.matmul(2, 3, 3).known("Z").source == "Hopcroft and Kerr 1971"
        assert targets.matmul(1, 2, 3).known("Z").source == "schoolbook"

    @settings(deadline=None, max_examples=30)
    @given(st.tuples(*[st.integers(1, 10)] * 3), st.sampled_from(RINGS))
    def test_order_of_sizes_and_larger_sizes(self, sizes, ring):
        target = targets.matmul(*sizes)
        for order in itertools.permutations(sizes):
            other = targets.matmul(*order)
            assert other.known(ring) == target.known(ring)
            assert other.lower_bound == target.lower_bound
        n, m, p = sizes
        larger = targets.matmul(n, m, p + 1)
        assert larger.lower_bound >= target.lower_bound
        assert larger.known(ring).rank <= target.known(ring).rank + n * m

    def test_lower_bounds(self):
        bounds = {"2,2,2": 7, "2,2,3": 11, "2,2,4": 14, "2,2,5": 14, "2,3,3": 14, "3,3,3": 19}
        bounds |= {"4,4,4": 34, "5,5,5": 53, "6,6,6": 76, "1,4,5": 20, "2,9,9": 81}
        assert {s: targets.parse(f"matmul:{s}").lower_bound for s in bounds} == bounds


class TestStructuredRecords:
    def test_two_symmetric_matrices(self):
        known = targets.symmetric_symmetric(2).known
        assert [known(ring).rank for ring in ("Z", "Z_2", "Z_3", "Q")] == [6, 6, 5, 5]
        known = targets.symmetric_symmetric(4).known
        assert [known(ring).rank for ring in ("Z", "Z_2", "Z_3", "Q")] == [32, 32, 30, 30]

    def test_skew_times_general(self):
        known = targets.skew_matmul(3).known
        assert [known(ring).rank for ring in ("Z", "Z_2", "Z_3", "Q")] == [15, 15, 14, 14]

    def test_gram(self):
        assert targets.gram(4, 4).known("Z").rank == 34
        assert "RXTX" in targets.gram(4, 4).known("Z").source
        assert targets.gram(4, 8).known("Z").rank == 68
        # Two 4 x 4 blocks on the diagonal, one product of 4 x 8 and 8 x 4 beside it.
        assert (
            targets.gram(8, 8).known("Z").rank == 2 * 68 + targets.matmul(4, 8, 4).known("Z").rank
        )


class TestRings:
    @pytest.mark.parametrize("name", ["matmul:2,2,2", "quaternion", "complex", "polynomial:3,3"])
    @pytest.mark.parametrize("ring", ["R", "Z_4", "Z_1", "Z_", "Z_-3", "", "Z_02", "z"])
    def test_other_rings_are_refused(self, name, ring):
        with pytest.raises(ValueError, match=r"ring is .* has to be Z, Q, .* prime p"):
            targets.parse(name).known(ring)


class TestParse:
    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("", "is unknown; targets are matmul:n,m,p, .*cyclic-convolution:n, .*tensor:FILE"),
            ("convolution:2", "is unknown"),
            ("Matmul:2,2,2", "is unknown"),
            ("matmul", "has 0 arguments; matmul:n,m,p has 3"),
            ("matmul:2,2", "has 2 arguments; matmul:n,m,p has 3"),
            ("matmul:2,2,2,2", "has 4 arguments"),
            ("complex:2", "has 1 arguments; complex has 0"),
            ("complex:", "has 1 arguments; complex has 0"),
            ("matmul:a,2,2", "'a', which is not an integer"),
            ("matmul:2,2,2 ", "'2 ', which is not an integer"),
            ("matmul:2,,2", "'', which is not an integer"),
            ("matmul:2,2.0,2", "'2.0', which is not an integer"),
            ("matmul:1_0,2,2", "'1_0', which is not an integer"),
            ("matmul:2,0,2", "0, which is not positive"),
            ("matmul:2,2,-2", "-2, which is not positive"),
            ("matmul:22,22,22", "too large to hold in memory"),
            ("matmul:999999999,999999999,999999999", "too large to hold in memory"),
            ("matmul:9999999999,2,2", "not an integer of up to 9 digits"),
            ("symmetric-symmetric:999999999", "too large to hold in memory"),
            ("gram:99999,99999", "too large to hold in memory"),
            ("polynomial:999999999,1", "too large to hold in memory"),
            ("cyclic-convolution:465", "too large to hold in memory"),
            ("skew-matvec:1", "has no entries"),
            ("skew-matmul:1", "has no entries"),
        ],
    )
    def test_other_names_are_refused(self, name, says):
        with pytest.raises(ValueError, match=says) as refusal:
            targets.parse(name)
        assert name in str(refusal.value)
        assert "\n" not in str(refusal.value)

    @pytest.mark.parametrize("make", [lambda: targets.matmul(0, 2, 2), lambda: targets.gram(2, 0)])
    def test_sizes_given_directly_are_checked_too(self, make):
        with pytest.raises(ValueError, match="no entries"):
            make()


class TestTensors:
    def test_names_of_files_round_trip(self, tmp_path):
        tensor = targets.matmul(2, 1, 2).tensor
        np.save(tmp_path / "t.npy", tensor)
        target = targets.parse(f"tensor:{tmp_path}/t.npy")
        assert targets.parse(target.name) == target == targets.matmul(2, 1, 2)

    def test_archives(self, tmp_path):
        tensor = targets.complex_numbers().tensor
        np.savez(tmp_path / "one.npz", any=tensor.astype(float))
        np.savez(tmp_path / "several.npz", other=np.zeros(3), tensor=tensor)
        for file in ("one", "several"):
            assert targets.parse(f"tensor:{tmp_path}/{file}.npz") == targets.complex_numbers()

    def test_files_that_are_not_right(self, tmp_path):
        np.save(tmp_path / "objects.npy", np.array([[["a"]]], object), allow_pickle=True)
        (tmp_path / "text.npy").write_text("1 2 3")
        (tmp_path / "text.npz").write_text("1 2 3")
        (tmp_path / "empty.npy").touch()
        (tmp_path / "pickle.npy").write_bytes(pickle.dumps([1]))
        np.savez(tmp_path / "two.npz", a=np.ones(1), b=np.ones(1))
        np.savez(tmp_path / "none.npz")
        np.savez(tmp_path / "cut.npz", np.ones((9, 9, 9)))
        cut = (tmp_path / "cut.npz").read_bytes()
        (tmp_path / "cut.npz").write_bytes(cut[:300])
        np.save(tmp_path / "matrix.npy", np.eye(3))
        for file, says in [
            ("objects.npy", "cannot be read as an array of numbers: Object arrays"),
            ("text.npy", "cannot be read"),
            ("text.npz", "cannot be read"),
            ("empty.npy", "cannot be read"),
            ("pickle.npy", "cannot be read"),
            ("missing.npy", "cannot be read.*No such file"),
            ("cut.npz", "cannot be read"),
            ("two.npz", "holds 2 arrays, none called tensor"),
            ("none.npz", "holds 0 arrays"),
            ("t.txt", "names no .npy or .npz file"),
            ("matrix.npy", r"has shape \(3, 3\); a target has three axes"),
        ]:
            with pytest.raises(ValueError, match=says) as refusal:
                targets.parse(f"tensor:{tmp_path}/{file}")
            assert file in str(refusal.value)
            assert "\n" not in str(refusal.value)

    @pytest.mark.parametrize(
        ("tensor", "says"),
        [
            ([[[1], [2, 3]]], "x is ragged"),
            (np.array([[[1]]], object), "x has dtype object"),
            (np.array([[[1j]]]), "x has dtype complex128"),
            ([[["1"]]], "x has dtype <U1"),
            (np.ones((2, 2)), r"x has shape \(2, 2\)"),
            (np.ones((2, 2, 2, 2)), "three axes"),
            (np.ones((2, 0, 2)), "none empty"),
            ([[[np.nan]]], "NaN or infinite"),
            ([[[1, np.inf]]], "NaN or infinite"),
            ([[[1, 0.5]]], "0.5, not an integer"),
            ([[[1e300]]], "beyond int64"),
            (np.array([[[2**63]]], np.uint64), "beyond int64"),
            (np.array([[[-(2**63)]]]), "beyond int64"),
            (np.zeros((2, 2, 2)), "already solved"),
        ],
    )
    def test_tensors_that_are_not_right(self, tensor, says):
        with pytest.raises(ValueError, match=says):
            targets.from_tensor("x", tensor)

    def test_later_changes_of_the_array_change_nothing(self):
        array = np.ones((1, 2, 1), int)
        target = targets.from_tensor("x", array)
        array[:] = 5
        np.testing.assert_array_equal(target.tensor, np.ones((1, 2, 1)))

    def test_multiples_of_a_prime_bound_nothing_modulo_it(self):
        assert targets.from_tensor("x", 2 * np.eye(3, dtype=int)[None]).lower_bound == 0
        assert targets.from_tensor("x", np.diag([1, 2, 1])[None]).lower_bound == 2

    def test_large_entries_are_passed_over(self):
        assert targets.from_tensor("x", np.diag([1, 2**62, 1])[None]).lower_bound == 2

    @settings(deadline=None, max_examples=60)
    @given(
        hnp.arrays(
            np.int64,
            hnp.array_shapes(min_dims=3, max_dims=3, max_side=4),
            elements=st.integers(-4, 4),
        ).filter(np.any)
    )
    def test_any_tensor(self, tensor):
        target = targets.from_tensor("x", tensor)
        np.testing.assert_array_equal(target.tensor, tensor)
        assert schoolbook(target).rank == target.trivial_rank
        schoolbook(target).check()
        for modulus in (2, 3):
            flat = [np.moveaxis(tensor % modulus, mode, 0) for mode in range(3)]
            ranks = [rank_modulo(part.reshape(len(part), -1), modulus) for part in flat]
            assert target.lower_bound <= max(ranks)


def rank_modulo(matrix, p):
    work, rank = matrix.astype(object) % p, 0
    for column in range(work.shape[1]):
        rows = [row for row in range(rank, len(work)) if work[row, column]]
        if rows:
            work[[rank, rows[0]]] = work[[rows[0], rank]]
            work[rank] = work[rank] * pow(work[rank, column], -1, p) % p
            for row in range(rank + 1, len(work)):
                work[row] = (work[row] - work[row, column] * work[rank]) % p
            rank += 1
    return rank


class TestListing:
    def test_every_family_has_a_row(self):
        rows = targets.listing()
        assert len(rows) == len(targets.FAMILIES) + 1
        assert rows[0].pattern == "matmul:n,m,p"
        assert rows[-1].pattern == "tensor:FILE"
        for row in rows:
            assert row.description.endswith(".")
            assert len(row.description) < 90

    def test_examples_match_their_patterns(self):
        for row in targets.listing()[:-1]:
            assert targets.parse(row.example.name) == row.example
            assert row.example.name.count(",") == row.pattern.count(",")
            assert row.example.known("Z").rank < row.example.trivial_rank
