"""The losses: quantiles in the right order, and only actions with weight count."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from training.losses import example_losses, quantile_loss
from training.replay import Example


def test_the_quantile_loss_is_least_at_the_quantiles():
    """Returns between -100 and 0 with a long tail; Huber's loss blurs over about one move."""
    places = (np.arange(400) + 0.5) / 400
    returns = jnp.asarray(-100 * (1 - places) ** 2)
    levels = (np.arange(8) + 0.5) / 8

    def loss(quantiles):
        return jax.vmap(quantile_loss, (None, 0))(quantiles, returns).mean()

    @jax.jit
    def descend(quantiles):
        return jax.lax.fori_loop(
            0, 3000, lambda _, x: x - 5.0 * jax.grad(loss)(x) * len(x), quantiles
        )

    found = np.asarray(descend(jnp.full(8, -50.0)))
    assert (np.diff(found) > 0).all()
    np.testing.assert_allclose(found, -100 * (1 - levels) ** 2, atol=1.0)


def test_the_quantile_loss_vanishes_where_all_predictions_are_right():
    assert quantile_loss(jnp.full(4, -7.0), jnp.array(-7.0)) == 0
    assert quantile_loss(jnp.full(4, -7.0), jnp.array(-6.0)) > 0


def test_the_lowest_quantile_suffers_from_being_too_high():
    too_high, too_low = jnp.array([0.0, -5.0]), jnp.array([-10.0, -5.0])
    target = jnp.array(-5.0)
    assert quantile_loss(too_high, target) > quantile_loss(too_low, target)


def examples(config, weights) -> Example:
    """Two actions that may be played, and then tokens that are no action."""
    actions = np.zeros((4, 3, 2), np.int8)
    actions[:2] = [[[1, 0], [1, 0], [1, 0]], [[1, 0], [1, 1], [0, 1]]]
    state = config.rules.init(jnp.asarray(config.targets[0].padded(config.side)))
    example = Example(
        state=state,
        tokens=config.action_space.encode(jnp.asarray(actions)),
        weights=jnp.asarray(weights, jnp.float32),
        value=jnp.array(-2.0),
        step=jnp.array(0),
    )
    return jax.tree.map(lambda x: x[None], example)


def test_the_policy_loss_is_the_cross_entropy_over_actions_with_weight(tiny, random_params):
    given = examples(tiny, [0.75, 0.25, 0, 0])
    one = jax.tree.map(lambda x: x[0], given)
    params = random_params(tiny.agent, one.state)

    @jax.jit
    def both(params):
        scored = tiny.agent.apply(params, one.state, one.tokens, method="score")
        return example_losses(tiny, params, given, jax.random.split(jax.random.key(0), 1)), scored

    losses, (log_probs, quantiles) = both(params)
    expected = -(0.75 * log_probs[0] + 0.25 * log_probs[1])
    np.testing.assert_allclose(losses.policy, [expected], rtol=1e-5)
    np.testing.assert_allclose(losses.value, [quantile_loss(quantiles, one.value)], rtol=1e-5)
    error = abs(np.mean(quantiles) - one.value)
    np.testing.assert_allclose(losses.value_error, [error], rtol=1e-5)
    assert log_probs[2] < -1e6, "padding is no action"


def test_dropout_follows_the_keys(tiny, random_params):
    network = dataclasses.replace(tiny.network, dropout=0.5)
    config = dataclasses.replace(tiny, network=network)
    given = examples(tiny, [0.75, 0.25, 0, 0])
    params = random_params(tiny.agent, jax.tree.map(lambda x: x[0], given).state)
    run = jax.jit(lambda seed: example_losses(config, params, given, jax.random.split(seed, 1)))
    once, again, other = (run(jax.random.key(seed)) for seed in (0, 0, 1))
    assert once == again
    assert once.policy != other.policy
    assert once.value != other.value
