"""Attention against its definition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from networks import attention
from networks.attention import BlockConfig, FromHeads, ToHeads, attend
from networks.fused_attention import MOST_QUERIES, fused_attention


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
    assert (queries * keys <= attention._FEW_SCORES["cpu"]) == (queries == 5), "both ways are tried"
    rng = np.random.default_rng(0)
    query = rng.normal(size=(queries, 3, 4)).astype(np.float32)
    key, value = rng.normal(size=(2, keys, 3, 4)).astype(np.float32)
    mask = np.ones((queries, keys), bool)
    if masked:
        mask = np.arange(keys) <= np.arange(queries)[:, None]
    sources = query[:, None], np.stack([key, value], axis=1)
    found = jax.jit(attend)(*sources, mask=mask if masked else None)
    np.testing.assert_allclose(found, by_definition(query, key, value, mask), atol=1e-5)


@pytest.mark.parametrize("queries", [20, 257])
def test_kernels_take_any_number_of_queries_in_parts(monkeypatch, queries):
    assert -(-queries // MOST_QUERIES) in (1, 3), "one part, and equal ones that need padding"
    batch = [
        jax.random.normal(jax.random.key(i), (2, count, held, 2, 16))
        for i, (count, held) in enumerate([(queries, 1), (30, 2)])
    ]
    received = jax.random.normal(jax.random.key(2), (2, queries, 2, 16))

    def gradient(*sources):
        return jax.grad(lambda x: (attend(*x) * received).sum())(sources)

    expected, expected_gradient = attend(*batch), gradient(*batch)
    monkeypatch.setattr(attention, "runs_triton", lambda: True)
    in_xla = functools.partial(fused_attention, interpret=True)
    monkeypatch.setattr(attention, "fused_attention", in_xla)
    np.testing.assert_allclose(jax.jit(attend)(*batch), expected, atol=1e-5)
    for found, of_each in zip(gradient(*batch), expected_gradient, strict=True):
        np.testing.assert_allclose(found, of_each, atol=1e-4)


@pytest.mark.parametrize("count", [4, 20])
def test_leading_axes_are_a_batch(count):
    packed = np.random.default_rng(0).normal(size=(2, count, 3, 3, 4))
    batched = jax.jit(attend)(packed)
    for found, one in zip(batched, packed, strict=True):
        expected = by_definition(*one.swapaxes(0, 1), np.ones((count, count), bool))
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("count", [4, 20])
def test_weights_are_float32_and_the_result_is_of_the_dtype_of_its_sources(count):
    """With bfloat16 inputs the one difference is their own rounding and that of the result."""
    given = jax.random.normal(jax.random.key(0), (count, 3, 3, 4)).astype(jnp.bfloat16)
    found = jax.jit(attend)(given)
    assert found.dtype == jnp.bfloat16
    everything = np.ones((count, count), bool)
    expected = by_definition(*np.asarray(given.astype(jnp.float32)).swapaxes(0, 1), everything)
    np.testing.assert_allclose(found.astype(jnp.float32), expected, atol=0.02)


def layer_norm(x):
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6)


def test_the_block_is_that_of_the_paper():
    """Cross-attention of 5 cells of width 6 to 7 of width 8, against the definition."""
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((5, 6), (7, 8)))
    config = BlockConfig(heads=3, head_dim=4, mlp_factor=2, dtype=jnp.dtype(jnp.float32))
    to_query, to_memory, from_heads = ToHeads(config, 1), ToHeads(config, 2), FromHeads(config)
    of_query, of_memory = to_query.init(jax.random.key(1), x), to_memory.init(jax.random.key(2), y)
    query = to_query.apply(of_query, x)
    attended = attend(query, to_memory.apply(of_memory, y))
    of_output = from_heads.init(jax.random.key(3), x, attended)
    found = from_heads.apply(of_output, x, attended)

    weights = of_query["params"]["DenseGeneral_0"]["kernel"][:, 0]
    expected_query = np.einsum("nc,chd->nhd", layer_norm(x), weights)
    np.testing.assert_allclose(query[:, 0], expected_query, atol=1e-5)
    weights = of_memory["params"]["DenseGeneral_0"]["kernel"]
    expected_key, expected_value = np.einsum("nc,ckhd->knhd", layer_norm(y), weights)
    attended = by_definition(expected_query, expected_key, expected_value, np.ones((5, 7), bool))
    params = of_output["params"]
    x = x + np.einsum("nhd,hdc->nc", attended, params["DenseGeneral_0"]["kernel"])
    hidden = jax.nn.gelu(layer_norm(x) @ params["Dense_0"]["kernel"])
    assert hidden.shape == (5, 12)
    np.testing.assert_allclose(found, x + hidden @ params["Dense_1"]["kernel"], atol=1e-5)


def test_what_comes_after_the_heads_acts_on_each_cell_alone():
    config = BlockConfig(heads=2, head_dim=4, mlp_factor=2, dtype=jnp.dtype(jnp.float32))
    block = FromHeads(config)
    cells, attended = jnp.ones((5, 6)), jax.random.normal(jax.random.key(0), (5, 2, 4))
    params = block.init(jax.random.key(1), cells, attended)
    apply = jax.jit(block.apply)
    changed = apply(params, cells.at[2, 0].add(1.0), attended) - apply(params, cells, attended)
    np.testing.assert_array_equal(jnp.abs(changed).max(axis=1) > 0, np.arange(5) == 2)
