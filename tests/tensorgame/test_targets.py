"""Target tensors by name."""

import itertools

import numpy as np
import pytest

from tensorgame import targets

SIZES = list(itertools.product((1, 2, 3), repeat=3))


@pytest.mark.parametrize("sizes", SIZES)
def test_the_tensor_multiplies_matrices(sizes):
    n, m, p = sizes
    target = targets.Target(sizes)
    tensor = target.tensor()
    assert tensor.sum() == n * m * p == target.trivial_rank
    assert set(np.unique(tensor)) <= {0, 1}
    assert tensor.shape == (max(n * m, m * p, p * n),) * 3
    rng = np.random.default_rng(0)
    a, b = rng.integers(-9, 10, (n, m)), rng.integers(-9, 10, (m, p))
    side_a, side_b, side_c = target.shape
    inside = tensor[:side_a, :side_b, :side_c].astype(int)
    c_transposed = np.einsum("xyz,x,y->z", inside, a.ravel(), b.ravel()).reshape(p, n)
    np.testing.assert_array_equal(c_transposed.T, a @ b)
    assert inside.sum() == tensor.sum(), "the padding is empty"


@pytest.mark.parametrize("sizes", SIZES)
def test_names_and_targets_are_one_to_one(sizes):
    target = targets.Target(sizes)
    assert targets.parse(target.name) == target


@pytest.mark.parametrize("sizes", SIZES)
def test_ranks_are_in_order_and_do_not_depend_on_the_order_of_the_sizes(sizes):
    target = targets.Target(sizes)
    for modulus in (0, 2):
        assert target.side <= target.lower_bound <= target.best_known(modulus)
        assert target.best_known(modulus) <= target.trivial_rank
        for other in itertools.permutations(sizes):
            assert targets.Target(other).best_known(modulus) == target.best_known(modulus)
            assert targets.Target(other).lower_bound == target.lower_bound


def test_four_by_four_has_one_record_for_each_field():
    assert targets.parse("matmul:4,4,4").best_known(2) == 47
    assert targets.parse("matmul:4,4,4").best_known(0) == 49


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("matmul", "unknown"),
        ("matmul:2,2", "unknown"),
        ("matmul:2,2,2,2", "unknown"),
        ("matmul:2,2,2 ", "unknown"),
        ("matmul:a,b,c", "unknown"),
        ("convolution:2,2,2", "unknown"),
        ("matmul:2,0,2", "must be positive"),
        ("matmul:2,2,-2", "must be positive"),
    ],
)
def test_other_names_are_refused(name, says):
    with pytest.raises(ValueError, match=says) as refusal:
        targets.parse(name)
    assert repr(name) in str(refusal.value)
