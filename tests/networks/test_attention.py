"""Attention against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from networks import attention
from networks.attention import FeedForward, attend


def by_definition(query, key, value, mask):
    """One head at a time, in NumPy."""
    result = np.zeros_like(query)
    for head in range(query.shape[1]):
        scores = query[:, head] @ key[:, head].T / np.sqrt(query.shape[-1])
        weights = np.where(mask, np.exp(scores), 0.0)
        result[:, head] = weights / weights.sum(axis=1, keepdims=True) @ value[:, head]
    return result


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(5, 7), (20, 30)])
def test_attention_is_a_softmax_over_the_keys_seen(queries, keys, masked):
    assert (queries * keys <= attention._FUSED_SCORES) == (queries == 5), "both ways are tried"
    rng = np.random.default_rng(0)
    query = rng.normal(size=(queries, 3, 4)).astype(np.float32)
    key, value = rng.normal(size=(2, keys, 3, 4)).astype(np.float32)
    mask = np.ones((queries, keys), bool)
    if masked:
        mask = np.arange(keys) <= np.arange(queries)[:, None]
    found = jax.jit(attend)(query, key, value, mask if masked else None)
    np.testing.assert_allclose(found, by_definition(query, key, value, mask), atol=1e-5)


@pytest.mark.parametrize("count", [4, 20])
def test_leading_axes_are_a_batch(count):
    query, key, value = np.random.default_rng(0).normal(size=(3, 2, count, 3, 4))
    batched = jax.jit(attend)(query, key, value)
    for found, *one in zip(batched, query, key, value, strict=True):
        everything = np.ones((count, count), bool)
        np.testing.assert_allclose(found, by_definition(*one, everything), atol=1e-5)


def test_the_feed_forward_block_acts_on_each_cell_alone():
    block = FeedForward(factor=2)
    cells = jax.random.normal(jax.random.key(0), (5, 6))
    params = block.init(jax.random.key(1), cells)
    changed = jax.jit(block.apply)(params, cells.at[2].add(1.0)) - block.apply(params, cells)
    np.testing.assert_array_equal(jnp.abs(changed).max(axis=1) > 0, np.arange(5) == 2)
