import itertools
import time

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from tensorgame import targets
from tensorgame.algorithms import released
from tensorgame.algorithms.factorization import Factorization, IncorrectFactorization
from tensorgame.algorithms.lifting import lift, try_lift

SEEDS = st.integers(0, 2**32 - 1)

# Strassen's algorithm modulo 2, one product a line: bit t is row t of u, v, w.
STRASSEN = [
    (9, 9, 9),
    (12, 1, 10),
    (1, 10, 12),
    (8, 5, 3),
    (3, 8, 5),
    (5, 3, 8),
    (10, 12, 1),
]
# Found by random flips from the schoolbook algorithm for <3,3,3>: right modulo 2 with 23 products,
# and not the reduction of any solution modulo 4.
UNLIFTABLE = [
    (325, 4, 195),
    (448, 73, 63),
    (146, 292, 315),
    (338, 265, 378),
    (219, 316, 26),
    (63, 313, 18),
    (192, 65, 30),
    (32, 511, 24),
    (320, 9, 325),
    (455, 5, 27),
    (349, 315, 138),
    (292, 511, 32),
    (365, 319, 130),
    (356, 63, 186),
    (24, 7, 24),
    (16, 292, 195),
    (452, 360, 27),
    (36, 441, 40),
    (340, 45, 506),
    (340, 18, 146),
    (326, 297, 371),
    (228, 121, 58),
    (390, 260, 314),
]


def from_bits(size: int, products: list[tuple[int, int, int]]) -> Factorization:
    bits = np.array(products).T[:, None, :] >> np.arange(size * size)[:, None] & 1
    target = targets.matmul(size, size, size)
    return Factorization(target=target, modulus=2, u=bits[0], v=bits[1], w=bits[2])


def modulo(prime: int, target: targets.Target, *factors: np.ndarray) -> Factorization:
    """Rows are products."""
    u, v, w = (np.array(factor).T for factor in factors)
    return Factorization(target=target, modulus=prime, u=u, v=v, w=w)


def strassen(prime: int) -> Factorization:
    """Modulo any prime: the signs are those of the lift."""
    lifted = lift(from_bits(2, STRASSEN))
    return Factorization(target=lifted.target, modulus=prime, u=lifted.u, v=lifted.v, w=lifted.w)


def schoolbook(target: targets.Target, prime: int) -> Factorization:
    """A product for each pair of entries that are multiplied with each other."""
    pairs = np.argwhere(target.tensor.any(axis=2))
    u, v = (np.eye(side, dtype=int)[:, at] for side, at in zip(target.shape, pairs.T, strict=False))
    w = target.tensor[pairs[:, 0], pairs[:, 1]].T
    return Factorization(target=target, modulus=prime, u=u, v=v, w=w)


def toom_cook(n: int, m: int, points: list[int], prime: int) -> Factorization:
    """The polynomial product from its values at points and at infinity."""

    def values(size: int) -> np.ndarray:
        rows = [[point**i % prime for i in range(size)] for point in points]
        return np.array([*rows, [0] * (size - 1) + [1]])

    w = inverse_modulo(values(n + m - 1), prime)
    target = targets.polynomial(n, m)
    return modulo(prime, target, values(n), values(m), w.T)


def twice(f: Factorization, sizes: tuple[int, int, int]) -> Factorization:
    """The algorithm for matrices of these sizes, applied to blocks that it multiplies as well."""
    n, m, p = sizes

    def squared(x: np.ndarray, rows: int, columns: int) -> np.ndarray:
        blocks = x.reshape(rows, columns, -1)
        both = np.einsum("ijr,kls->ikjlrs", blocks, blocks)
        return both.reshape((rows * columns) ** 2, -1)

    return Factorization(
        target=targets.matmul(n * n, m * m, p * p),
        modulus=f.modulus,
        u=squared(f.u, n, m),
        v=squared(f.v, m, p),
        w=squared(f.w, p, n),
    )


def inverse_modulo(matrix: np.ndarray, prime: int) -> np.ndarray | None:
    """The inverse; None if the matrix has none."""
    size = len(matrix)
    rows = np.concatenate([matrix % prime, np.eye(size, dtype=int)], axis=1)
    for i in range(size):
        pivots = np.flatnonzero(rows[i:, i])
        if not len(pivots):
            return None
        rows[[i, i + pivots[0]]] = rows[[i + pivots[0], i]]
        rows[i] = rows[i] * pow(int(rows[i, i]), -1, prime) % prime
        others = np.arange(size) != i
        rows[others] = (rows[others] - np.outer(rows[others, i], rows[i])) % prime
    return rows[:, size:]


def in_random_order_and_bases(
    f: Factorization, sizes: tuple[int, int, int], rng: np.random.Generator
) -> Factorization:
    """C = A B computed as C = P^-1 ((P A Q)(Q^-1 B R)) R^-1 for random P, Q, R modulo p."""
    n, m, p = sizes

    def invertible(size: int) -> tuple[np.ndarray, np.ndarray]:
        while True:
            matrix = rng.integers(0, f.modulus, (size, size))
            inverse = inverse_modulo(matrix, f.modulus)
            if inverse is not None:
                return matrix, inverse

    (p_, p_inverse), (q, q_inverse), (r, r_inverse) = map(invertible, (n, m, p))
    order = rng.permutation(f.rank)
    u = np.einsum("xys,xi,jy->ijs", f.u.reshape(n, m, -1), p_, q)
    v = np.einsum("yzs,yj,kz->jks", f.v.reshape(m, p, -1), q_inverse, r)
    w = np.einsum("zxs,ix,zk->kis", f.w.reshape(p, n, -1), p_inverse, r_inverse)
    u, v, w = (x.reshape(-1, f.rank)[:, order] for x in (u, v, w))
    return Factorization(target=f.target, modulus=f.modulus, u=u, v=v, w=w)


def assert_lifts(lifted: Factorization | None, f: Factorization) -> None:
    assert lifted is not None
    assert lifted.modulus == 0
    lifted.check()
    inverse = pow(lifted.denominator, -1, f.modulus)
    u, v, w = (factor * inverse for factor in (lifted.u, lifted.v, lifted.w))
    reduced = Factorization(target=f.target, modulus=f.modulus, u=u, v=v, w=w)
    assert reduced.key() == f.key()


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(SEEDS)
def test_the_orbit_of_strassen_lifts_to_signs(seed):
    f = in_random_order_and_bases(from_bits(2, STRASSEN), (2, 2, 2), np.random.default_rng(seed))
    f.check()
    lifted = lift(f, seed=seed % 10)
    assert_lifts(lifted, f)
    assert lifted.coefficients() == (-1, 0, 1)
    for name in "uvw":
        np.testing.assert_array_equal(getattr(lifted, name) % 2, getattr(f, name))


@pytest.mark.parametrize("prime", [3, 5, 17])
@hypothesis.settings(max_examples=8, deadline=None)
@hypothesis.given(seed=st.integers(0, 10**4))
# Modulo 17 no attempt lifts these within seven digits.
@hypothesis.example(seed=1946)
@hypothesis.example(seed=1053)
def test_the_orbit_of_strassen_lifts_from_other_primes(prime, seed):
    f = in_random_order_and_bases(strassen(prime), (2, 2, 2), np.random.default_rng(seed))
    f.check()
    assert_lifts(lift(f), f)


@pytest.mark.parametrize("prime", [3, 5, 17, 101, 1048573])
def test_the_integers_behind_small_residues_come_back(prime):
    f = strassen(prime)
    outcome = try_lift(f, attempts=1)
    assert_lifts(outcome.factorization, f)
    assert outcome.factorization.coefficients() == (-1, 0, 1)
    assert outcome.reason == "exact over Z as it is, with the residues closest to zero"


def test_units_within_products_are_no_obstacle():
    f = strassen(17)
    a, b = np.random.default_rng(0).integers(1, 17, (2, 7))
    inverse = np.array([pow(int(product), -1, 17) for product in a * b])
    scaled = Factorization(target=f.target, modulus=17, u=f.u * a, v=f.v * b, w=f.w * inverse)
    lifted = lift(scaled, attempts=1)
    assert_lifts(lifted, scaled)
    assert lifted.coefficients() == (-1, 0, 1)


@pytest.mark.parametrize("prime", [2, 3, 7])
@pytest.mark.parametrize(
    "name",
    [
        "matmul:1,1,1",
        "matmul:1,3,2",
        "matmul:3,3,3",
        "skew-matvec:4",
        "polynomial:3,2",
        "cyclic-convolution:3",
        "quaternion",
    ],
)
def test_schoolbook_lifts_to_signs(name, prime):
    f = schoolbook(targets.parse(name), prime)
    lifted = lift(f)
    assert_lifts(lifted, f)
    assert set(lifted.coefficients()) <= {-1, 0, 1}


def test_a_tensor_of_larger_integers_lifts():
    # Its entries are not those of an algorithm with residues in {-1, 0, 1}.
    target = targets.from_tensor("example", np.array([[[7, 0], [1, 4]], [[0, -5], [2, 11]]]))
    for prime in (2, 3, 5):
        f = schoolbook(target, prime)
        assert_lifts(lift(f), f)


@pytest.mark.parametrize("prime", [2, 3])
def test_laderman_lifts(prime):
    f = released.load("alphatensor:3,3,3")
    f = Factorization(target=f.target, modulus=prime, u=f.u, v=f.v, w=f.w)
    f = in_random_order_and_bases(f, (3, 3, 3), np.random.default_rng(0))
    lifted = lift(f, attempts=4)
    assert_lifts(lifted, f)
    if prime == 2:
        assert lifted.denominator == 1
        assert max(map(abs, lifted.coefficients())) <= 2


def test_strassen_applied_twice_lifts_to_signs():
    # Nearly every choice of signs modulo 4 is a dead end here.
    f = twice(from_bits(2, STRASSEN), (2, 2, 2))
    assert f.check() == "checked: 49 products reproduce all 4096 entries over Z_2"
    lifted = lift(f)
    assert_lifts(lifted, f)
    assert lifted.coefficients() == (-1, 0, 1)


def test_strassen_applied_twice_lifts_in_other_bases():
    f = twice(from_bits(2, STRASSEN), (2, 2, 2))
    f = in_random_order_and_bases(f, (4, 4, 4), np.random.default_rng(1))
    lifted = lift(f, attempts=3)
    assert_lifts(lifted, f)
    assert max(map(abs, lifted.coefficients())) <= 2


def test_a_duplicated_pair_of_products_lifts():
    # The pair vanishes modulo 2 only; one of the two has to change its sign.
    f = from_bits(2, [*STRASSEN, (6, 5, 3), (6, 5, 3)])
    assert_lifts(lift(f), f)


def test_karatsuba_lifts_to_signs():
    f = modulo(
        2,
        targets.polynomial(2, 2),
        [[1, 0], [1, 1], [0, 1]],
        [[1, 0], [1, 1], [0, 1]],
        [[1, 1, 0], [0, 1, 0], [0, 1, 1]],
    )
    lifted = lift(f)
    assert_lifts(lifted, f)
    assert lifted.coefficients() == (-1, 0, 1)


def test_two_products_for_the_cyclic_convolution_of_two_need_a_half():
    # (a1 + a2)(b1 + b2) and (a1 - a2)(b1 - b2); half their sum is c1, half their difference c2.
    signs = [[1, 1], [1, -1]]
    f = modulo(3, targets.cyclic_convolution(2), signs, signs, -np.array(signs))
    f.check()
    outcome = try_lift(f)
    assert_lifts(outcome.factorization, f)
    assert outcome.factorization.denominator == 2
    assert outcome.factorization.ring == "Q"
    assert outcome.reason.startswith("exact over Q after attempt ")


@pytest.mark.parametrize(
    ("n", "m", "points", "prime"),
    [
        (2, 3, [0, 1, -1], 3),
        (2, 3, [0, 1, -1], 7),
        (3, 3, [0, 1, -1, 2], 5),
        (3, 3, [0, 1, -1, 2], 7),
        (3, 3, [0, 1, 3, 5], 7),
        (3, 3, [0, 1, 3, -2], 17),
    ],
)
def test_toom_cook_lifts_to_fractions(n, m, points, prime):
    f = toom_cook(n, m, points, prime)
    f.check()
    lifted = lift(f)
    assert_lifts(lifted, f)
    # There are no four integers whose differences are all 1 or -1, nor three.
    assert lifted.denominator > 1


def test_denominators_are_spread_over_the_factors():
    # The group ring of three signs needs its eight characters, and an eighth of what they give.
    i, j = np.indices((8, 8))
    tensor = np.zeros((8, 8, 8), int)
    tensor[i, j, i ^ j] = 1
    characters = (-1) ** np.array([[(a & b).bit_count() for a in range(8)] for b in range(8)])
    inverse_of_8 = pow(8, -1, 5)
    f = modulo(
        5,
        targets.from_tensor("three signs", tensor),
        characters,
        characters,
        characters * inverse_of_8,
    )
    f.check()
    lifted = lift(f)
    assert_lifts(lifted, f)
    assert lifted.denominator == 2
    assert lifted.coefficients() == (-1, 1)


def test_no_solution_modulo_the_square_is_told_at_once():
    f = from_bits(3, UNLIFTABLE)
    f.check()
    start = time.perf_counter()
    outcome = try_lift(f)
    assert time.perf_counter() - start < 5
    assert outcome.factorization is None
    assert outcome.proved_impossible
    assert outcome.reason == "no solution modulo 4 exists, so no lift does"
    assert lift(f) is None


@pytest.mark.parametrize("prime", [2, 3, 17])
def test_a_rank_that_drops_modulo_the_prime_is_proved_not_to_lift(prime):
    # The determinant is the prime, which is zero modulo the prime and not modulo its square.
    matrix = np.array([[1, 1], [1, 1 + prime]])
    target = targets.from_tensor("determinant p", matrix[:, :, None])
    outcome = try_lift(modulo(prime, target, [[1, 1]], [[1, 1]], [[1]]))
    assert outcome.proved_impossible
    assert outcome.reason == f"no solution modulo {prime**2} exists, so no lift does"


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(SEEDS, st.sampled_from([(2, 1), (2, 2), (3, 1)]))
def test_a_proof_of_impossibility_agrees_with_trying_everything(seed, prime_and_rank):
    prime, rank = prime_and_rank
    rng = np.random.default_rng(seed)
    u, v, w = (rng.integers(0, prime, (side, rank)) for side in (2, 2, 1))
    tensor = np.einsum("ir,jr,kr->ijk", u, v, w) + prime * rng.integers(0, prime, (2, 2, 1))
    tensor[0, 0, 0] += prime**2  # never zero
    target = targets.from_tensor("random", tensor)
    outcome = try_lift(Factorization(target=target, modulus=prime, u=u, v=v, w=w), attempts=3)
    x = np.concatenate([u, v, w]).ravel()
    every = x + prime * np.array(list(itertools.product(range(prime), repeat=x.size)))
    every = every.reshape(-1, 5, rank)
    sums = np.einsum("nir,njr,nkr->nijk", every[:, :2], every[:, 2:4], every[:, 4:])
    exists = not ((sums - tensor) % prime**2).any(axis=(1, 2, 3)).all()
    assert outcome.proved_impossible == (not exists)
    if outcome.factorization is not None:
        outcome.factorization.check()


def roots_of_unity(prime: int, root: int, order: int) -> Factorization:
    """Cyclic convolution by the discrete Fourier transform."""
    powers = np.array([[pow(root, i * j, prime) for i in range(order)] for j in range(order)])
    w = inverse_modulo(powers, prime)
    return modulo(prime, targets.cyclic_convolution(order), powers, powers, w.T)


def quaternions_as_matrices() -> Factorization:
    """Seven products modulo 3: with i = [[0, -1], [1, 0]] and j = [[1, 1], [1, -1]] = -j^-1."""
    one, i, j = np.eye(2, dtype=int), np.array([[0, -1], [1, 0]]), np.array([[1, 1], [1, -1]])
    basis = np.stack([one, i, j, i @ j]).reshape(4, 4) % 3  # quaternions to entries of matrices
    f = strassen(3)
    back = inverse_modulo(basis, 3)
    transposed = [0, 2, 1, 3]
    u, v, w = basis @ f.u, basis @ f.v, back.T @ f.w[transposed]
    return Factorization(target=targets.quaternion(), modulus=3, u=u, v=v, w=w)


@pytest.mark.parametrize(
    "f",
    [roots_of_unity(7, 2, 3), roots_of_unity(17, 4, 4), quaternions_as_matrices()],
    ids=["3 products modulo 7", "4 products modulo 17", "quaternions"],
)
def test_lifts_that_exist_modulo_every_power_but_not_over_the_rationals(f):
    # Over Q the cyclic convolutions need 4 and 5 products (Winograd 1978), quaternions 8.
    f.check()
    outcome = try_lift(f, attempts=3)
    assert outcome.factorization is None
    assert not outcome.proved_impossible
    assert outcome.reason == "not liftable along the paths of 3 attempts"


def test_the_seed_determines_the_result():
    for f in (from_bits(2, STRASSEN), strassen(5)):
        f = in_random_order_and_bases(f, (2, 2, 2), np.random.default_rng(0))
        results = [lift(f, seed=seed) for seed in (3, 3, 4, 5, 6)]
        entries = [
            (g.denominator, *np.concatenate([g.u, g.v, g.w]).ravel().tolist()) for g in results
        ]
        assert entries[0] == entries[1]
        assert len(set(entries)) > 1


def test_too_few_steps_are_an_honest_failure():
    f = toom_cook(3, 3, [0, 1, -1, 2], 5)
    assert lift(f, steps=1) is None
    assert lift(f, steps=8) is not None


def test_bad_arguments_are_refused():
    f = from_bits(2, STRASSEN)
    with pytest.raises(ValueError, match="modulus is 0"):
        lift(lift(f))
    with pytest.raises(ValueError, match="modulus is 1048583"):
        lift(schoolbook(f.target, 1048583))
    for steps in (0, 40):
        with pytest.raises(ValueError, match=rf"steps is {steps}; modulo 2 .* from 1 to 39"):
            lift(f, steps=steps)
    with pytest.raises(ValueError, match=r"steps is 9; modulo 17 .* from 1 to 8"):
        lift(strassen(17), steps=9)
    with pytest.raises(ValueError, match="attempts is 0"):
        lift(f, attempts=0)
    with pytest.raises(IncorrectFactorization):
        lift(from_bits(2, STRASSEN[1:]))
