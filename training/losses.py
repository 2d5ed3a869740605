"""Policy and value losses (paper, Methods; quantile regression: Dabney et al. 2018)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from search.policy_loss import policy_loss
from training.config import Config
from training.replay import Example


class Losses(NamedTuple):
    """Of one example, or means; float32.

    Attributes:
        policy: cross-entropy of the policy.
        value: quantile regression loss of the value.
        value_error: distance of the mean of the quantiles from the realised return, in moves; it is
            reported, and not learned from.
    """

    policy: Float[Array, "*batch"]
    value: Float[Array, "*batch"]
    value_error: Float[Array, "*batch"]


def quantile_loss(quantiles: Float[Array, "q"], target: Float[Array, ""]) -> Float[Array, ""]:
    """Quantile regression with Huber's loss (delta = 1): a scalar.

    Args:
        quantiles: predictions for the levels (i + 1/2) / q, shape (q,).
        target: the return, a scalar.
    """
    count = quantiles.shape[-1]
    levels = (jnp.arange(count) + 0.5) / count
    error = target - quantiles
    # A prediction above the target has a negative error and the weight 1 - level. With the sign
    # reversed the quantiles come out in falling order and risk seeking becomes risk averse.
    weight = jnp.abs(levels - (error < 0))
    return jnp.mean(weight * optax.losses.huber_loss(error))


def example_losses(
    config: Config, params: dict, examples: Example, keys: Key[Array, "N"]
) -> Losses:
    """Losses of each of N examples, (N,) each; the keys are for dropout.

    The keys may be those that sampled the examples.
    """

    def one(example: Example, key: jax.Array) -> Losses:
        # Not a number that is folded into these keys elsewhere (replay, reanalyse).
        rngs = {"dropout": jax.random.fold_in(key, 2**31 + 2)} if config.network.dropout else None
        log_probs, quantiles = config.agent.apply(
            params, example.state, example.tokens, method="score", rngs=rngs
        )
        policy = policy_loss(log_probs, example.weights, config.search.unsampled_mass)
        return Losses(
            policy=policy,
            value=quantile_loss(quantiles, example.value),
            value_error=jnp.abs(quantiles.mean() - example.value),
        )

    return jax.vmap(one)(examples, keys)
