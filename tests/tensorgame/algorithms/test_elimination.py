import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from tensorgame.algorithms.elimination import (
    LARGEST_PRIME,
    BinaryElimination,
    PrimeElimination,
    eliminate,
    residues,
)

SEEDS = st.integers(0, 2**32 - 1)
# Below 509 float32 is exact, from 521 on it has to be float64.
PRIMES = st.sampled_from([2, 3, 5, 17, 61, 509, 521, 1048573])


def rank_modulo(matrix: np.ndarray, prime: int) -> int:
    """By the textbook, one entry at a time."""
    rows = [[int(entry) for entry in row] for row in matrix]
    rank = 0
    for column in range(matrix.shape[1]):
        pivot = next((r for r in range(rank, len(rows)) if rows[r][column] % prime), None)
        if pivot is None:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        inverse = pow(rows[rank][column], -1, prime)
        for r in range(rank + 1, len(rows)):
            factor = rows[r][column] * inverse
            pairs = zip(rows[r], rows[rank], strict=True)
            rows[r] = [(a - factor * b) % prime for a, b in pairs]
        rank += 1
    return rank


def random_matrix(rng: np.random.Generator, prime: int, largest: int) -> np.ndarray:
    """Of random shape and rank."""
    rows, columns = rng.integers(1, largest + 1, 2)
    inner = rng.integers(0, min(rows, columns) + 1)
    left, right = rng.integers(0, prime, (rows, inner)), rng.integers(0, prime, (inner, columns))
    return left @ right % prime


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(SEEDS, PRIMES)
def test_kernel_and_solutions_agree_with_the_textbook(seed, prime):
    rng = np.random.default_rng(seed)
    matrix = random_matrix(rng, prime, 40)
    rows, columns = matrix.shape
    system = eliminate(matrix, rng.permutation(columns), prime)
    rank = rank_modulo(matrix, prime)
    assert system.kernel.shape == (columns - rank, columns)
    assert rank_modulo(system.kernel % prime, prime) == columns - rank
    assert not (matrix @ system.kernel.T % prime).any()
    assert np.count_nonzero(~system.unused) == rank
    for side in (matrix @ rng.integers(0, prime, columns) % prime, rng.integers(0, prime, rows)):
        solution = system.solve(side)
        solvable = rank_modulo(np.column_stack([matrix, side]), prime) == rank
        assert (solution is not None) == solvable
        if solvable:
            assert not ((matrix @ solution - side) % prime).any()
            assert 2 * np.abs(solution).max() <= prime


@pytest.mark.parametrize("prime", [2, 3])
def test_solutions_are_those_that_exist(prime):
    rng = np.random.default_rng(0)
    every = np.array(list(itertools.product(range(prime), repeat=4)))
    for _ in range(30):
        matrix = rng.integers(0, prime, (4, 4))
        system = eliminate(matrix, np.arange(4), prime)
        images = {tuple(image) for image in (every @ matrix.T % prime).tolist()}
        for side in every:
            assert (system.solve(side) is not None) == (tuple(side.tolist()) in images)


@pytest.mark.parametrize("prime", [2, 3, 1009])
def test_many_blocks(prime):
    rng = np.random.default_rng(1)
    left, right = rng.integers(0, prime, (400, 170)), rng.integers(0, prime, (170, 330))
    matrix = left @ right % prime
    system = eliminate(matrix, rng.permutation(330), prime)
    assert not (matrix @ system.kernel.T % prime).any()
    assert np.count_nonzero(~system.unused) == 330 - len(system.kernel)
    sides = matrix @ rng.integers(0, prime, (330, 70)) % prime
    assert not system.reduce(sides)[system.unused].any()
    solution = system.solve(sides[:, 0])
    assert not ((matrix @ solution - sides[:, 0]) % prime).any()


@pytest.mark.parametrize("prime", [2, 5])
def test_earlier_columns_are_pivots_first(prime):
    # Columns 1 and 2 are equal, and column 0 is zero.
    matrix = np.array([[0, 1, 1, 0], [0, 1, 1, 1]])
    for order, free in (([0, 1, 2, 3], [0, 2]), ([3, 2, 1, 0], [1, 0])):
        system = eliminate(matrix, np.array(order), prime)
        np.testing.assert_array_equal(system.kernel[:, free], np.eye(2))
        solution = system.solve(np.array([1, 0]))
        assert not solution[free].any()


def test_the_two_algorithms_find_the_same_pivots_modulo_their_prime():
    # Integers that are a permutation matrix and zeros have one echelon form modulo any prime.
    rng = np.random.default_rng(2)
    matrix = np.zeros((90, 100), dtype=np.int64)
    matrix[np.arange(80), rng.permutation(100)[:80]] = 1
    order = rng.permutation(100)
    binary, prime = BinaryElimination(matrix, order), PrimeElimination(matrix, order, 7)
    np.testing.assert_array_equal(binary.kernel, prime.kernel)
    np.testing.assert_array_equal(binary.unused, prime.unused)


def test_residues_are_symmetric():
    assert residues(np.arange(-4, 5), 4).tolist() == [0, 1, 2, -1, 0, 1, 2, -1, 0]
    assert residues(np.arange(5), 5).tolist() == [0, 1, 2, -2, -1]


def test_a_prime_too_large_for_exact_floats_is_refused():
    with pytest.raises(ValueError, match="modulus is 1048583"):
        eliminate(np.eye(2, dtype=np.int64), np.arange(2), 1048583)
    assert LARGEST_PRIME < 1048583
