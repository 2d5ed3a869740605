"""K distinct actions of a state by stochastic beam search (Kool et al. 2019, arXiv 1903.06059).

The K largest Gumbel-perturbed log-probabilities among all |F|^(3S) actions are a sample without
replacement. Beam search over the tokens finds them exactly, in k steps of K beams.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Key

from networks.network import AgentNetwork
from networks.policy_head import KeyValues
from tensorgame.game import State

# Stands for log 0. Finite, so that differences of dead beams are not NaN.
_DEAD = -1e9


class SampledActions(NamedTuple):
    """K distinct actions, by falling perturbed log-probability.

    Attributes:
        tokens: (K, k), int32.
        log_probs: exact log-probabilities, (K,).
        gumbels: the standard Gumbel variables that selected them, (K,).
    """

    tokens: Int32[Array, "K k"]
    log_probs: Float[Array, "K"]
    gumbels: Float[Array, "K"]


class _Beams(NamedTuple):
    """Prefixes of actions: tokens (K, k), log-probabilities and perturbed ones (K,), whether the
    current factor has a non-zero entry (K,), and the decoder's cache.
    """

    tokens: Int32[Array, "K k"]
    log_probs: Float[Array, "K"]
    perturbed: Float[Array, "K"]
    started: Bool[Array, "K"]
    cache: KeyValues


def sample_actions(
    network: AgentNetwork, params: dict, key: Key[Array, ""], state: State, num_actions: int
) -> tuple[SampledActions, Float[Array, "q"]]:
    """Draws K actions for ONE state and evaluates it.

    Args:
        network: the network.
        params: its parameters.
        key: the key is consumed.
        state: one game.
        num_actions: K, at most the size of the action space.

    Returns:
        The actions, and the value quantiles (q,).
    """
    space = network.space
    nonzero = jnp.asarray(space.nonzero)
    root_key, first_key, rest_key = jax.random.split(key, 3)
    memory = network.apply(params, state, method="encode")
    first, quantiles, cache = network.apply(params, memory, method="start")

    # One live beam, the empty prefix; the others are dead until there are enough prefixes.
    alive = jnp.arange(num_actions) == 0
    beams = _Beams(
        tokens=jnp.zeros((num_actions, space.num_tokens), jnp.int32),
        log_probs=jnp.where(alive, 0.0, _DEAD),
        # The largest of all is drawn too. Fixed at 0, as in Kool et al., it leaves the order of the
        # actions right, but not the gaps between their Gumbels, which the search adds to values.
        perturbed=jnp.where(alive, jax.random.gumbel(root_key), _DEAD),
        started=jnp.zeros(num_actions, bool),
        cache=jax.tree.map(lambda x: jnp.repeat(x, num_actions, axis=1), cache),
    )

    def extend(beams: _Beams, next_log_probs: jax.Array, position, key) -> _Beams:
        log_probs = jnp.maximum(beams.log_probs[:, None] + next_log_probs, _DEAD)
        perturbed = log_probs + jax.random.gumbel(key, log_probs.shape)
        perturbed = _condition_on_maximum(perturbed, beams.perturbed)
        perturbed, flat = jax.lax.top_k(perturbed.reshape(-1), num_actions)
        parent, token = jnp.divmod(flat, space.vocabulary)
        started = beams.started[parent] | nonzero[token]
        return _Beams(
            tokens=beams.tokens[parent].at[:, position].set(token),
            log_probs=log_probs.reshape(-1)[flat],
            perturbed=perturbed,
            started=started & jnp.logical_not(space.starts_factor(position + 1)),
            cache=jax.tree.map(lambda x: x[:, parent], beams.cache),
        )

    def next_token(beams: _Beams, step) -> tuple[_Beams, None]:
        position, key = step
        token = jax.lax.dynamic_index_in_dim(beams.tokens, position - 1, axis=1)
        log_probs, cache = network.apply(
            params, memory, beams.cache, token, position, beams.started[:, None], method="extend"
        )
        return extend(beams._replace(cache=cache), log_probs[:, 0], position, key), None

    first = jnp.broadcast_to(first, (num_actions, space.vocabulary))
    beams = extend(beams, first, 0, first_key)
    steps = jnp.arange(1, space.num_tokens), jax.random.split(rest_key, space.num_tokens - 1)
    beams, _ = jax.lax.scan(next_token, beams, steps)
    gumbels = beams.perturbed - beams.log_probs
    return SampledActions(beams.tokens, beams.log_probs, gumbels), quantiles


def _condition_on_maximum(
    perturbed: Float[Array, "K V"], maximum: Float[Array, "K"]
) -> Float[Array, "K V"]:
    """Shifts the Gumbels of each row (K, V) so that its largest equals ``maximum`` (K,).

    The children of a prefix have the maximum that the prefix itself drew (Kool et al., equation 26,
    in its numerically stable form).
    """
    largest = perturbed.max(axis=-1, keepdims=True)
    maximum = maximum[:, None]
    v = maximum - perturbed + jnp.log1p(-jnp.exp(perturbed - largest))
    return maximum - jnp.maximum(v, 0.0) - jnp.log1p(jnp.exp(-jnp.abs(v)))
