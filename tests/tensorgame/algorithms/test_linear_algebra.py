from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tensorgame.algorithms.linear_algebra import embed, inverse, null_space, ranks, row_reduce

MODULI = st.sampled_from([0, 2, 3, 101, 2**61 - 1])
SIDES = st.integers(1, 4)


@st.composite
def low_rank_matrices(draw) -> np.ndarray:
    """(3, n, m), int64: products of small matrices, so that all ranks occur."""
    n, m, k = draw(SIDES), draw(SIDES), draw(SIDES)
    size = draw(st.sampled_from([1, 2, 100_000]))
    entries = st.integers(-size, size)
    return draw(arrays(np.int64, (3, n, k), elements=entries)) @ draw(
        arrays(np.int64, (3, k, m), elements=entries)
    )


@given(low_rank_matrices(), MODULI)
@settings(deadline=None, max_examples=150)
def test_ranks_null_spaces_and_echelon_forms_agree(matrices, modulus):
    for matrix, rank in zip(matrices, ranks(matrices, modulus), strict=True):
        rows, pivots = row_reduce(matrix, modulus)
        basis = null_space(matrix, modulus)
        assert len(rows) == len(pivots) == rank == matrix.shape[1] - len(basis)
        image = matrix.astype(object) @ basis.T.astype(object)
        assert not (image % modulus if modulus else image).any()
        assert (ranks(basis[None], modulus) == len(basis)).all()


@pytest.mark.parametrize(("modulus", "rank"), [(0, 2), (2, 1), (3, 1), (5, 2)])
def test_rank_depends_on_the_field(modulus, rank):
    assert ranks(np.array([[[1, 4], [1, 10]]]), modulus).tolist() == [rank]


def test_ranks_beyond_int64_are_exact():
    large = 2**62
    nearly = np.array([[[large, large - 1], [large + 1, large]]])  # The determinant is 1.
    assert ranks(nearly, 0).tolist() == [2]
    assert ranks(np.array([[[large, large], [large, large]]]), 0).tolist() == [1]
    assert ranks(np.array([[[-(2**63), 2], [2**62, -1]]]), 0).tolist() == [1]


@given(arrays(np.int64, (3, 3), elements=st.integers(-5, 5)), MODULI)
@settings(deadline=None, max_examples=100)
def test_inverse_is_one_or_the_matrix_is_singular(matrix, modulus):
    found = inverse(matrix, modulus)
    if found is None:
        assert ranks(matrix[None], modulus)[0] < 3
    else:
        product = matrix.astype(object) @ found.astype(object)
        assert ((product % modulus if modulus else product) == np.eye(3, dtype=int)).all()


def test_null_space_over_q_is_primitive():
    basis = null_space(np.array([[Fraction(1, 2), Fraction(1, 3), 0]], object), 0)
    assert basis.tolist() == [[-2, 3, 0], [0, 0, 1]]


@given(arrays(np.int64, (2, 2, 3, 3), elements=st.integers(-3, 3)))
@settings(deadline=None, max_examples=50)
def test_embedding_is_a_homomorphism(parts):
    (a_re, a_im), (b_re, b_im) = parts
    product = embed(a_re @ b_re - a_im @ b_im, a_re @ b_im + a_im @ b_re)
    np.testing.assert_array_equal(embed(a_re, a_im) @ embed(b_re, b_im), product)
