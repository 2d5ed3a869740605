import time

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from tensorgame.factorization import Factorization, IncorrectFactorization
from tensorgame.lifting import lift

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
    return Factorization(sizes=(size,) * 3, modulus=2, u=bits[0], v=bits[1], w=bits[2])


def schoolbook(n: int, m: int, p: int) -> Factorization:
    u, v, w = (np.zeros((rows, n * m * p), dtype=int) for rows in (n * m, m * p, p * n))
    for r, (i, j, k) in enumerate(np.ndindex(n, m, p)):
        u[i * m + j, r] = v[j * p + k, r] = w[k * n + i, r] = 1
    return Factorization(sizes=(n, m, p), modulus=2, u=u, v=v, w=w)


def twice(f: Factorization) -> Factorization:
    """The algorithm applied to blocks whose products it computes as well."""
    n, m, p = f.sizes

    def squared(x, rows, columns):
        blocks = x.reshape(rows, columns, -1)
        both = np.einsum("ijr,kls->ikjlrs", blocks, blocks)
        return both.reshape((rows * columns) ** 2, -1)

    return Factorization(
        sizes=(n * n, m * m, p * p),
        modulus=2,
        u=squared(f.u, n, m),
        v=squared(f.v, m, p),
        w=squared(f.w, p, n),
    )


def in_random_order_and_bases(f: Factorization, rng: np.random.Generator) -> Factorization:
    """C = A B computed as C = P^-1 ((P A Q)(Q^-1 B R)) R^-1 for random P, Q, R over F_2."""
    n, m, p = f.sizes

    def invertible(size):
        while True:
            matrix = rng.integers(0, 2, (size, size))
            determinant = round(np.linalg.det(matrix))
            if determinant % 2:
                adjugate = np.rint(np.linalg.inv(matrix) * determinant).astype(int)
                return matrix, adjugate % 2

    (p_, p_inverse), (q, q_inverse), (r, r_inverse) = map(invertible, (n, m, p))
    order = rng.permutation(f.rank)
    u = np.einsum("xys,xi,jy->ijs", f.u.reshape(n, m, -1), p_, q)
    v = np.einsum("yzs,yj,kz->jks", f.v.reshape(m, p, -1), q_inverse, r)
    w = np.einsum("zxs,ix,zk->kis", f.w.reshape(p, n, -1), p_inverse, r_inverse)
    u, v, w = (x.reshape(-1, f.rank)[:, order] for x in (u, v, w))
    return Factorization(sizes=f.sizes, modulus=2, u=u, v=v, w=w)


def assert_lifts(lifted: Factorization | None, f: Factorization) -> None:
    assert lifted is not None
    assert lifted.modulus == 0
    lifted.check()
    for name in "uvw":
        np.testing.assert_array_equal(getattr(lifted, name) % 2, getattr(f, name))


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(SEEDS)
def test_the_orbit_of_strassen_lifts_to_signs(seed):
    f = in_random_order_and_bases(from_bits(2, STRASSEN), np.random.default_rng(seed))
    f.check()
    lifted = lift(f, seed=seed % 10)
    assert_lifts(lifted, f)
    assert lifted.coefficients() == (-1, 0, 1)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 3, 2), (2, 2, 3), (3, 3, 3)])
def test_schoolbook_lifts_to_signs(sizes):
    f = schoolbook(*sizes)
    lifted = lift(f)
    assert_lifts(lifted, f)
    assert set(lifted.coefficients()) <= {-1, 0, 1}


def test_strassen_applied_twice_lifts_to_signs():
    # Nearly every choice of signs modulo 4 is a dead end here.
    f = twice(from_bits(2, STRASSEN))
    assert f.check() == "checked: 49 products reproduce all 4096 entries over Z_2"
    lifted = lift(f)
    assert_lifts(lifted, f)
    assert lifted.coefficients() == (-1, 0, 1)


def test_strassen_applied_twice_lifts_in_other_bases():
    f = in_random_order_and_bases(twice(from_bits(2, STRASSEN)), np.random.default_rng(1))
    lifted = lift(f, attempts=3)
    assert_lifts(lifted, f)
    assert max(map(abs, lifted.coefficients())) <= 2


def test_a_duplicated_pair_of_products_lifts():
    # The pair vanishes modulo 2 only; one of the two has to change its sign.
    f = from_bits(2, [*STRASSEN, (6, 5, 3), (6, 5, 3)])
    assert_lifts(lift(f), f)


def test_no_lift_is_none_at_once():
    f = from_bits(3, UNLIFTABLE)
    f.check()
    start = time.perf_counter()
    assert lift(f) is None
    assert time.perf_counter() - start < 1


def test_the_seed_determines_the_result():
    f = in_random_order_and_bases(from_bits(2, STRASSEN), np.random.default_rng(0))
    results = [lift(f, seed=seed) for seed in (3, 3, 4, 5, 6)]
    entries = [tuple(np.concatenate([g.u, g.v, g.w]).ravel()) for g in results]
    assert entries[0] == entries[1]
    assert len(set(entries)) > 1


def test_bad_arguments_are_refused():
    f = from_bits(2, STRASSEN)
    with pytest.raises(ValueError, match="modulus is 0"):
        lift(lift(f))
    for steps in (0, 17):
        with pytest.raises(ValueError, match=f"steps is {steps}"):
            lift(f, steps=steps)
    with pytest.raises(ValueError, match="attempts is 0"):
        lift(f, attempts=0)
    with pytest.raises(IncorrectFactorization):
        lift(from_bits(2, STRASSEN[1:]))
