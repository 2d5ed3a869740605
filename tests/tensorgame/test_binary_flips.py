"""Walks by flips as one kernel: it is the loop of other devices, and stays in its rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tensorgame import binary_flips
from tensorgame.factors import outer_sum


def terms(rows: int, extra: int, side: int) -> jax.Array:
    """Random terms over Z_2 few of whose factors differ, and rows without one."""
    bits = jax.random.bernoulli(jax.random.key(3), 0.5, (3, 4, side)).at[..., -1].set(True)
    which = jax.random.randint(jax.random.key(4), (rows, 3), 0, 4)
    return jnp.pad(bits[jnp.arange(3), which].astype(jnp.int8), ((0, extra), (0, 0), (0, 0)))


@pytest.mark.parametrize(("rows", "extra", "side"), [(12, 0, 31), (20, 3, 4), (33, 2, 16)])
def test_the_kernel_walks_as_the_loop_does(rows, extra, side):
    factors = terms(rows, extra, side)
    keys = jax.random.split(jax.random.key(0), 6)

    def walks(interpret: bool) -> jax.Array:
        walk = functools.partial(binary_flips.walk, flips=300, interpret=interpret)
        return jax.jit(jax.vmap(walk, (0, None)))(keys, factors)

    found = walks(interpret=False)
    np.testing.assert_array_equal(found, walks(interpret=True))
    sums = jax.vmap(outer_sum)(found) % 2
    np.testing.assert_array_equal(sums, jnp.broadcast_to(outer_sum(factors) % 2, sums.shape))
    lengths = np.asarray((found != 0).any(axis=(2, 3)).sum(axis=1))
    assert (lengths < rows).all(), "terms with two common factors become one"
