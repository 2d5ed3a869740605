"""The K actions of a node: distinct ones by stochastic beam search, or independent samples.

The K largest Gumbel-perturbed log-probabilities among all |F|^(3S) actions are a sample without
replacement. Beam search over the tokens finds them exactly, in k steps of K beams (Kool et al.
2019, arXiv 1903.06059). Independent samples are the paper's; equal ones are merged (Methods,
"Sampled AlphaZero").
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int32, Key

from networks.network import AgentNetwork
from networks.policy_head import Cache
from tensorgame.factors import ActionSpace
from tensorgame.game import State

# Stands for log 0. Finite, so that differences of dead slots are not NaN.
DEAD = -1e9
# Actions of up to so many tokens are decoded without a loop, whose steps on a GPU wait for the host
# and copy the state that they share.
_UNROLLED = 8


class SampledActions(NamedTuple):
    """K slots with an action each, or with none: a dead slot, which is never to be chosen.

    Beam search sorts them by falling perturbed log-probability; its dead slots are those for which
    there were no actions left. Independent samples keep their order; the dead slots are those that
    repeat an earlier action.

    Attributes:
        tokens: (K, k), int32; meaningless in dead slots.
        log_probs: exact log-probabilities, (K,).
        prior_logits: what the tree takes for them, (K,): the same with beam search, the log of the
            share of the samples otherwise. Dead slots have `DEAD`.
        gumbels: standard Gumbel variables, (K,): those that selected the actions with beam search,
            fresh ones otherwise.
    """

    tokens: Int32[Array, "K k"]
    log_probs: Float[Array, "K"]
    prior_logits: Float[Array, "K"]
    gumbels: Float[Array, "K"]


class _Prefixes(NamedTuple):
    """Prefixes of actions: tokens (K, k), log-probabilities and, of beams, perturbed ones (K,),
    whether the current factor has a non-zero entry (K,), and the decoder's cache.
    """

    tokens: Int32[Array, "K k"]
    log_probs: Float[Array, "K"]
    perturbed: Float[Array, "K"]
    started: Bool[Array, "K"]
    cache: Cache


def is_alive(prior_logits: Float[Array, "*batch"]) -> Bool[Array, "*batch"]:
    """Which slots hold an action."""
    return prior_logits > DEAD / 2


def sample_actions(
    network: AgentNetwork,
    params: dict,
    key: Key[Array, ""],
    state: State,
    num_actions: int,
    sampling: str = "beam",
) -> tuple[SampledActions, Float[Array, "q"]]:
    """Draws K actions for ONE state and evaluates it.

    Args:
        network: the network.
        params: its parameters.
        key: the key is consumed.
        state: one game.
        num_actions: K.
        sampling: one of `search.config.SAMPLINGS`.

    Returns:
        The actions, and the value quantiles (q,).
    """
    is_beam = sampling == "beam"
    root_key, tokens_key = jax.random.split(key)
    memory = network.apply(params, state, method="encode")
    first, quantiles, cache = network.apply(params, memory, method="start")
    prefixes = _empty_prefixes(num_actions, network.space.num_tokens, cache)
    if is_beam:
        prefixes = _as_beams(prefixes, root_key)

    def next_log_probs(prefixes: _Prefixes, position: jax.Array) -> tuple[jax.Array, Cache]:
        token = jax.lax.dynamic_index_in_dim(prefixes.tokens, position - 1, axis=1)
        log_probs, cache = network.apply(
            params, memory, prefixes.cache, token, position, prefixes.started[:, None],
            method="extend",
        )  # fmt: skip
        return log_probs[:, 0], cache

    choose = _choose_beams if is_beam else _choose_independently
    prefixes = _decode(network.space, tokens_key, prefixes, first, next_log_probs, choose)
    return _read_beams(prefixes) if is_beam else _merge(prefixes, root_key), quantiles


def _empty_prefixes(count: int, num_tokens: int, cache: Cache) -> _Prefixes:
    return _Prefixes(
        tokens=jnp.zeros((count, num_tokens), jnp.int32),
        log_probs=jnp.zeros(count),
        perturbed=jnp.zeros(count),
        started=jnp.zeros(count, bool),
        cache=jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), cache),
    )


def _decode(
    space: ActionSpace,
    key: Key[Array, ""],
    prefixes: _Prefixes,
    first: Float[Array, "V"],
    next_log_probs: Callable,
    choose: Callable,
) -> _Prefixes:
    """Prolongs K empty prefixes by k tokens.

    Args:
        space: the action space.
        key: the key is consumed.
        prefixes: empty ones.
        first: log-probabilities of the first token, (V,).
        next_log_probs: from prefixes and a position, those of the next token (K, V), and a cache.
        choose: from prefixes, log-probabilities (K, V) and a key, the prefixes to prolong and their
            next tokens (K,).
    """
    nonzero = jnp.asarray(space.nonzero)
    first_key, rest_key = jax.random.split(key)

    def extend(prefixes: _Prefixes, log_probs: jax.Array, position, key) -> _Prefixes:
        prefixes, token = choose(prefixes, log_probs, key)
        started = prefixes.started | nonzero[token]
        return prefixes._replace(
            tokens=prefixes.tokens.at[:, position].set(token),
            started=started & jnp.logical_not(space.starts_factor(position + 1)),
        )

    def step(prefixes: _Prefixes, position_and_key) -> tuple[_Prefixes, None]:
        position, key = position_and_key
        log_probs, cache = next_log_probs(prefixes, position)
        return extend(prefixes._replace(cache=cache), log_probs, position, key), None

    first = jnp.broadcast_to(first, (len(prefixes.tokens), space.vocabulary))
    prefixes = extend(prefixes, first, 0, first_key)
    steps = jnp.arange(1, space.num_tokens), jax.random.split(rest_key, space.num_tokens - 1)
    return jax.lax.scan(step, prefixes, steps, unroll=space.num_tokens <= _UNROLLED)[0]


# Stochastic beam search --------------------------------------------------------------------------


def _as_beams(prefixes: _Prefixes, key: Key[Array, ""]) -> _Prefixes:
    """One live beam; the others are dead until there are enough prefixes."""
    alive = jnp.arange(len(prefixes.tokens)) == 0
    return prefixes._replace(
        log_probs=jnp.where(alive, 0.0, DEAD),
        # The largest of all is drawn too. Fixed at 0, as in Kool et al., it leaves the order of the
        # actions right, but not the gaps between their Gumbels, which the search adds to values.
        perturbed=jnp.where(alive, jax.random.gumbel(key), DEAD),
    )


def _choose_beams(
    prefixes: _Prefixes, next_log_probs: Float[Array, "K V"], key: Key[Array, ""]
) -> tuple[_Prefixes, Int[Array, "K"]]:
    """The K best of the K x V prolonged prefixes."""
    count, vocabulary = next_log_probs.shape
    log_probs = jnp.maximum(prefixes.log_probs[:, None] + next_log_probs, DEAD)
    perturbed = log_probs + jax.random.gumbel(key, log_probs.shape)
    perturbed = _condition_on_maximum(perturbed, prefixes.perturbed)
    perturbed, flat = largest(perturbed.reshape(-1), count)
    parent, token = jnp.divmod(flat, vocabulary)
    prefixes = _Prefixes(
        tokens=prefixes.tokens[parent],
        log_probs=log_probs.reshape(-1)[flat],
        perturbed=perturbed,
        started=prefixes.started[parent],
        cache=jax.tree.map(lambda x: x[parent], prefixes.cache),
    )
    return prefixes, token


def largest(
    values: Float[Array, "n"], count: int
) -> tuple[Float[Array, "{count}"], Int32[Array, "{count}"]]:
    """`jax.lax.top_k`, but for the order of equal values: the largest, sorted, and their indices.

    All of the ``count`` largest lie in the groups with the ``count`` largest maxima, which leaves
    two short selections instead of a long one.
    """
    size = _group_size(len(values), count)
    if size == 1:
        return tuple(jax.lax.top_k(values, count))
    groups = values.reshape(-1, size)
    _, best = jax.lax.top_k(groups.max(axis=1), count)
    values, place = jax.lax.top_k(groups[best].reshape(-1), count)
    return values, best[place // size] * size + place % size


def _group_size(total: int, count: int) -> int:
    """The divisor of ``total`` that makes the two selections of `largest` shortest together.

    1 if they would not be a quarter of the long one.
    """
    sizes = [s for s in range(1, total // count + 1) if total % s == 0]
    size = min(sizes, key=lambda s: total // s + count * s, default=1)
    return size if total // size + count * size <= total // 4 else 1


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


def _read_beams(beams: _Prefixes) -> SampledActions:
    alive = is_alive(beams.log_probs)
    return SampledActions(
        tokens=beams.tokens,
        log_probs=beams.log_probs,
        prior_logits=jnp.where(alive, beams.log_probs, DEAD),
        # The difference of two numbers near -1e9 is rounding error.
        gumbels=jnp.where(alive, beams.perturbed - beams.log_probs, 0.0),
    )


# Independent samples -----------------------------------------------------------------------------


def _choose_independently(
    prefixes: _Prefixes, next_log_probs: Float[Array, "K V"], key: Key[Array, ""]
) -> tuple[_Prefixes, Int[Array, "K"]]:
    """A random token for each prefix."""
    token = jax.random.categorical(key, next_log_probs)
    chosen = jnp.take_along_axis(next_log_probs, token[:, None], axis=1)[:, 0]
    return prefixes._replace(log_probs=prefixes.log_probs + chosen), token


def _merge(samples: _Prefixes, key: Key[Array, ""]) -> SampledActions:
    """Equal samples share the slot of the first."""
    count = len(samples.tokens)
    equal = (samples.tokens[:, None] == samples.tokens[None]).all(axis=-1)
    is_first = jnp.argmax(equal, axis=1) == jnp.arange(count)
    return SampledActions(
        tokens=samples.tokens,
        log_probs=samples.log_probs,
        prior_logits=jnp.where(is_first, jnp.log(equal.sum(axis=1) / count), DEAD),
        gumbels=jax.random.gumbel(key, (count,)),
    )
