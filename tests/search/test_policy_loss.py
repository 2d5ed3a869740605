"""The loss is least where the policy has the weights of the search."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from search.policy_loss import policy_loss

# Six actions, of which the first three were sampled.
LOGITS = jnp.array([0.3, -1.0, 0.5, 0.2, 1.1, -0.4])
WEIGHTS = jnp.array([0.5, 0.1, 0.15])


def loss_of_logits(logits, weights=WEIGHTS, unsampled_mass=True):
    return policy_loss(jax.nn.log_softmax(logits)[:3], weights, unsampled_mass)


def test_it_is_the_cross_entropy_of_the_actions_and_all_others():
    probabilities = np.asarray(jax.nn.softmax(LOGITS), float)
    others = np.append(probabilities[:3], probabilities[3:].sum())
    expected = -(np.append(WEIGHTS, 0.25) * np.log(others)).sum()
    assert loss_of_logits(LOGITS) == pytest.approx(expected, rel=1e-5)


def test_its_gradient_vanishes_where_the_policy_has_the_weights_alone():
    rest = jnp.array([0.05, 0.15, 0.05])
    there = jnp.log(jnp.append(WEIGHTS, rest))
    np.testing.assert_allclose(jax.grad(loss_of_logits)(there), 0.0, atol=1e-6)
    assert jnp.abs(jax.grad(loss_of_logits)(LOGITS)).max() > 0.05
    # Without the event of the others the sampled ones draw all probability.
    alone = jax.grad(loss_of_logits)(there, unsampled_mass=False)
    assert (alone[:3] < 0).all()
    assert (alone[3:] > 0).all()


def test_the_others_keep_their_shares_among_themselves():
    """Their gradient is that of their sum."""
    gradient = jax.grad(loss_of_logits)(LOGITS)[3:]
    ratios = gradient / jax.nn.softmax(LOGITS)[3:]
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-4)


@pytest.mark.parametrize("unsampled_mass", [False, True])
def test_weights_that_sum_to_one_have_no_others(unsampled_mass):
    weights = jnp.array([0.2, 0.3, 0.5])
    expected = -(weights * jax.nn.log_softmax(LOGITS)[:3]).sum()
    assert loss_of_logits(LOGITS, weights, unsampled_mass) == pytest.approx(float(expected))
    gradient = jax.grad(loss_of_logits)(LOGITS, weights, unsampled_mass)
    expected = jax.nn.softmax(LOGITS) - jnp.append(weights, jnp.zeros(3))
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


@pytest.mark.parametrize("unsampled_mass", [False, True])
def test_a_demonstration_with_padding_is_the_log_probability_of_its_move(unsampled_mass):
    log_probs = jnp.array([-2.5, -1e9, 3.0])
    value, gradient = jax.value_and_grad(policy_loss)(
        log_probs, jnp.array([1.0, 0.0, 0.0]), unsampled_mass
    )
    assert value == pytest.approx(2.5)
    np.testing.assert_array_equal(gradient, [-1.0, 0.0, 0.0])


def test_a_policy_without_others_has_a_finite_loss_and_gradient():
    sure = jnp.log(jnp.array([0.6, 0.25, 0.15]))
    value, gradient = jax.value_and_grad(policy_loss)(sure, WEIGHTS, True)
    assert jnp.isfinite(value)
    np.testing.assert_allclose(gradient, -WEIGHTS, atol=1e-6)
