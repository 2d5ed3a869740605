"""The value head and the risk-seeking mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from networks.value_head import ValueHead, risk_seeking_mean


@pytest.mark.parametrize(("count", "above"), [(1, 1), (2, 1), (4, 1), (8, 2), (10, 2), (16, 4)])
def test_the_mean_is_that_of_the_top_quarter_and_at_least_one(count, above):
    quantiles = np.random.default_rng(0).normal(size=(3, count)).astype(np.float32)
    found = risk_seeking_mean(jnp.asarray(quantiles))
    np.testing.assert_allclose(found, quantiles[:, -above:].mean(axis=1), rtol=1e-5)


def test_outputs_are_scaled():
    features = jax.random.normal(jax.random.key(0), (6,))
    heads = [ValueHead(width=8, quantiles=4, scale=scale) for scale in (1.0, 12.0)]
    params = heads[0].init(jax.random.key(1), features)
    small, large = (jax.jit(head.apply)(params, features) for head in heads)
    assert small.shape == (4,)
    np.testing.assert_allclose(large, 12 * small, rtol=1e-5)
