"""Coefficient rings."""

import jax.numpy as jnp
import numpy as np
import pytest

from tensorgame.rings import Z2, integers, modular, parse


def test_units_are_those_of_the_ring():
    assert [r.num_units for r in (Z2, modular(3), modular(17), integers())] == [1, 2, 16, 2]


def test_reduction_is_modulo_p_and_none_over_z():
    x = jnp.arange(-5, 6)
    np.testing.assert_array_equal(Z2.reduce(x), [1, 0] * 5 + [1])
    np.testing.assert_array_equal(modular(17).reduce(x), [*range(12, 17), *range(6)])
    np.testing.assert_array_equal(integers().reduce(x), x)


@pytest.mark.parametrize("prime", [2, 3, 17, 127])
def test_normalizers_modulo_p_are_inverses(prime):
    ring = modular(prime)
    leading = jnp.arange(1, prime, dtype=jnp.int8)
    units = np.asarray(ring.normalizer(leading), int)
    assert (units * np.asarray(leading) % prime == 1).all()
    assert ring.normalizer(jnp.int8(0)) == 1


def test_normalizers_over_z_are_signs():
    signs = integers(range(-2, 3)).normalizer(jnp.arange(-2, 3))
    assert signs.tolist() == [-1, -1, 1, 1, 1]


def test_rings_have_names_to_be_parsed():
    assert parse("z2", (-1, 0, 1)) == Z2
    assert parse("z17", (-1, 0, 1)) == modular(17)
    assert parse("z", (-2, -1, 0, 1, 2)) == integers(range(-2, 3))


@pytest.mark.parametrize(
    ("name", "coefficients", "says"),
    [
        ("q", (0, 1), "'q' is no ring; write z, z2"),
        ("z4", (0, 1), "the modulus is 4, which is not a prime"),
        ("z1", (0, 1), "the modulus is 1"),
        ("z131", (0, 1), "coefficients go up to 130; at most 127"),
        ("z", (0, 1), "coefficients are 0 1; they need 0 and 1 and with each c also -c"),
        ("z", (-1, 1), "they need 0 and 1"),
        ("z", (-2, 0, 2), "they need 0 and 1"),
        ("z", (1, 0, -1), "have to be different and increasing"),
        ("z", (-1, 0, 0, 1), "have to be different and increasing"),
        ("z", (-200, -1, 0, 1, 200), "coefficients go up to 200; at most 127"),
    ],
)
def test_what_is_no_ring_is_refused(name, coefficients, says):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as refusal:
        parse(name, coefficients)
    assert says in str(refusal.value)


def test_residuals_over_z_leave_room_for_coefficients_that_grow():
    assert np.iinfo(integers(range(-2, 3)).dtype).max >= 2**15 - 1
    assert Z2.dtype == modular(127).dtype == np.int8


def test_rings_are_named_after_their_modulus():
    assert [ring.name for ring in (Z2, modular(17), integers())] == ["Z_2", "Z_17", "Z"]
