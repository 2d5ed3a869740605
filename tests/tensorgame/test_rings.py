"""Coefficient rings."""

import jax.numpy as jnp
import numpy as np
import pytest

from tensorgame.rings import Z2, integers

RINGS = {"Z_2": Z2, "Z": integers(1), "Z up to 2": integers(2)}


@pytest.mark.parametrize("ring", RINGS.values(), ids=RINGS.keys())
def test_symbols_are_the_coefficients_in_order(ring):
    coefficients = {"Z_2": [0, 1]}.get(ring.name, list(range(-ring.high, ring.high + 1)))
    assert [ring.low + symbol for symbol in range(ring.num_symbols)] == coefficients


def test_only_where_minus_one_is_not_one_there_are_signs():
    assert not Z2.has_signs
    assert integers(1).has_signs


def test_reduction_is_modulo_two_over_z2_and_none_over_z():
    x = jnp.arange(-5, 6)
    np.testing.assert_array_equal(Z2.reduce(x), [1, 0] * 5 + [1])
    np.testing.assert_array_equal(integers(1).reduce(x), x)


def test_residuals_over_z_leave_room_for_coefficients_that_grow():
    assert np.iinfo(integers(2).dtype).max >= 2**15 - 1
    assert Z2.dtype == np.int8


def test_rings_are_named_after_their_modulus():
    assert [ring.name for ring in RINGS.values()] == ["Z_2", "Z", "Z"]
