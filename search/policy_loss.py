"""What the learner makes of the weights of a search."""

import jax.numpy as jnp
from jaxtyping import Array, Float

# 1 minus a sum of probabilities in float32 is rounding error below this.
NEGLIGIBLE_MASS = 1e-5


def policy_loss(
    log_probs: Float[Array, "K"], weights: Float[Array, "K"], unsampled_mass: bool
) -> Float[Array, ""]:
    """The cross-entropy of the policy to the improved policy at ONE position: a scalar.

    With ``unsampled_mass`` all actions without weight are one event, "another action", of which the
    improved policy has 1 - sum(weights) and the policy 1 - sum(probabilities). Then the loss is
    least where the policy's probabilities are the weights. Without that event weights that sum to
    less than 1 would draw all probability to the K actions. A demonstration, whose weight is 1, has
    no such event.

    Args:
        log_probs: of the K actions by the policy that learns.
        weights: of the search. Actions without weight may be padding, whose log-probability is
            meaningless.
        unsampled_mass: `SearchConfig.unsampled_mass`.
    """
    is_weighted = weights > 0
    scored = jnp.where(is_weighted, log_probs, 0.0)
    loss = -jnp.sum(weights * scored)
    if not unsampled_mass:
        return loss
    rest = 1.0 - weights.sum()
    probability = 1.0 - jnp.sum(jnp.where(is_weighted, jnp.exp(scored), 0.0))
    # The policy may have left the rest since the search. Where the rest is as good as gone, its
    # logarithm neither grows nor has a gradient.
    other = -rest * jnp.log(jnp.maximum(probability, NEGLIGIBLE_MASS))
    return loss + jnp.where(rest > NEGLIGIBLE_MASS, other, 0.0)
