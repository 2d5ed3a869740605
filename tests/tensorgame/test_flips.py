"""Random walks by flips: what they keep, and what they find."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tensorgame.factors import canonicalize, outer_sum
from tensorgame.flips import walk
from tensorgame.rings import integers, modular
from tensorgame.targets import parse

RINGS = [modular(2), modular(3), modular(17), integers(), integers((-2, -1, 0, 1, 2))]


def schoolbook(name: str, rows: int) -> jax.Array:
    """A term for each entry of a tensor with entries 0 and 1, padded to so many terms."""
    tensor = parse(name).padded(max(parse(name).shape))
    units = np.eye(len(tensor), dtype=np.int8)
    terms = np.array([units[list(place)] for place in np.argwhere(tensor)])
    return jnp.asarray(np.pad(terms, [(0, rows - len(terms)), (0, 0), (0, 0)]))


@functools.lru_cache
def walker(ring, flips):
    return jax.jit(jax.vmap(lambda key, factors: walk(key, factors, ring, flips), (0, None)))


@pytest.mark.parametrize("ring", RINGS, ids=lambda ring: f"{ring.name}-{ring.num_symbols}")
def test_a_walk_keeps_the_sum_and_the_rules(ring):
    start = schoolbook("matmul:2,2,2", 10)
    found, length = walker(ring, 100)(jax.random.split(jax.random.key(0), 32), start)
    sums = ring.reduce(jax.vmap(outer_sum)(found))
    np.testing.assert_array_equal(sums, jnp.broadcast_to(outer_sum(start), sums.shape))
    assert np.isin(found, ring.coefficients).all()
    canonical = jax.vmap(jax.vmap(lambda x: canonicalize(x, ring)))(found)
    np.testing.assert_array_equal(found, canonical)
    terms = (found != 0).any(axis=(2, 3))
    np.testing.assert_array_equal(terms, np.arange(10) < np.asarray(length)[:, None])
    np.testing.assert_array_equal((found != 0).any(axis=3).all(axis=2), terms)
    assert (length <= 8).all()
    assert len(np.unique(np.asarray(found), axis=0)) > 20, "walks go different ways"


def test_walks_shorten_the_schoolbook():
    start = schoolbook("matmul:2,2,2", 8)
    _, length = walker(modular(2), 1000)(jax.random.split(jax.random.key(0), 16), start)
    assert length.min() == 7


@pytest.mark.parametrize("ring", RINGS, ids=lambda ring: f"{ring.name}-{ring.num_symbols}")
def test_terms_with_two_common_factors_become_one(ring):
    """Also where they differ by a unit, and both vanish if they are opposite."""
    u, v, w, other = np.eye(4, dtype=np.int8)
    last = ring.reduce(jnp.array(-1))
    one, two = np.stack([u, v, w]), np.stack([u, v, other])
    for terms, expected in (([one, two], 1), ([one, np.stack([u, v, w * last])], 0)):
        factors = jnp.asarray(np.pad(np.stack(terms), [(0, 1), (0, 0), (0, 0)]), jnp.int8)
        found, length = walker(ring, 1)(jax.random.split(jax.random.key(0), 4), factors)
        np.testing.assert_array_equal(length, expected)
        sums = ring.reduce(jax.vmap(outer_sum)(found))
        total = ring.reduce(outer_sum(factors))
        np.testing.assert_array_equal(sums, jnp.broadcast_to(total, sums.shape))


def test_without_common_factors_nothing_moves():
    factors = jnp.stack([jnp.eye(4, dtype=jnp.int8)[jnp.array([i] * 3)] for i in range(4)])
    found, length = walker(modular(2), 10)(jax.random.split(jax.random.key(0), 2), factors)
    np.testing.assert_array_equal(found, jnp.stack([factors] * 2))
    np.testing.assert_array_equal(length, 4)
