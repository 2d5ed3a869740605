"""Gumbel AlphaZero over sampled actions (Danihelka et al. 2022; paper, "Sampled AlphaZero").

The tree is mctx's. Its action axis 0..K-1 indexes the K actions that were sampled at a node, which
the node's embedding keeps. At the root they are the Gumbel-top-K of the whole action space, so
sequential halving over them improves the policy over all actions.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mctx
from jaxtyping import Array, Float, Int, Int8, Int32, Key, UInt32

from networks.network import AgentNetwork
from networks.value_head import risk_seeking_mean
from search.sampling import SampledActions, sample_actions
from tensorgame.game import State
from tensorgame.symmetries import SignedPermutation, permute_state, permute_tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Effort and sharpness of the search."""

    num_actions: int = 8
    """K, distinct actions sampled at each node (32)."""
    num_simulations: int = 8
    """Network evaluations for each move, besides the root's (800, without Gumbels)."""
    value_scale: float = 0.1
    """Weight of the completed values against the prior logits."""
    maxvisit_init: float = 50.0
    """Visits that are added to the largest visit count in that weight."""
    rescale_values: bool = True
    """Stretch the values at a node to [0, 1]; otherwise they count in moves."""


class SearchResult(NamedTuple):
    """For each of B games.

    Attributes:
        action: the move to play, (B, 3, S), int8.
        tokens: the K actions of the root, (B, K, k), int32.
        weights: their improved policy, (B, K), sums to 1.
        entropy: of the sampled part of the root's prior, in nats, (B,).
    """

    action: Int8[Array, "B 3 S"]
    tokens: Int32[Array, "B K k"]
    weights: Float[Array, "B K"]
    entropy: Float[Array, "B"]


class _Node(NamedTuple):
    """What the tree keeps of a node, for B games.

    The key (raw, as trees hold no typed keys) makes the randomness of the node and, folded with the
    choice of a child, that of its descendants.
    """

    state: State
    tokens: Int32[Array, "B K k"]
    key: UInt32[Array, "B words"]


def search(
    network: AgentNetwork,
    config: SearchConfig,
    params: dict,
    keys: Key[Array, "B"],
    states: State,
    symmetries: SignedPermutation | None = None,
) -> SearchResult:
    """Searches from B games, none of them finished.

    Args:
        network: the network.
        config: effort and sharpness.
        params: parameters of the network.
        keys: one typed key a game, (B,), consumed. A game's result depends on its own key alone.
        states: B games.
        symmetries: signed permutations (N, S); each query of the network is made through a random
            one of them.
    """

    def evaluate(keys: jax.Array, states: State) -> tuple[_Node, SampledActions, jax.Array]:
        sampled, quantiles = jax.vmap(
            lambda key, state: _query(network, config, params, key, state, symmetries)
        )(keys, states)
        node = _Node(states, sampled.tokens, jax.random.key_data(keys))
        return node, sampled, risk_seeking_mean(quantiles)

    def recurrent_fn(_params, _key, choice: jax.Array, parent: _Node):
        action = network.space.decode(_take(parent.tokens, choice))
        states, reward = jax.vmap(network.game.step)(parent.state, action)
        keys = jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(parent.key), choice)
        node, sampled, value = evaluate(keys, states)
        # Nothing is earned past the end of a game: its step is total, and there discount and value
        # vanish.
        alive = 1.0 - jax.vmap(network.game.done)(states)
        output = mctx.RecurrentFnOutput(
            reward=reward, discount=alive, prior_logits=sampled.log_probs, value=alive * value
        )
        return output, node

    node, sampled, value = evaluate(keys, states)
    root = mctx.RootFnOutput(prior_logits=sampled.log_probs, value=value, embedding=node)
    choice, weights = _sequential_halving(config, root, sampled.gumbels, recurrent_fn)
    prior = jax.nn.softmax(sampled.log_probs)
    return SearchResult(
        action=network.space.decode(_take(sampled.tokens, choice)),
        tokens=sampled.tokens,
        weights=weights,
        entropy=-jax.scipy.special.xlogy(prior, prior).sum(axis=-1),
    )


def _query(
    network: AgentNetwork,
    config: SearchConfig,
    params: dict,
    key: Key[Array, ""],
    state: State,
    symmetries: SignedPermutation | None,
) -> tuple[SampledActions, Float[Array, "q"]]:
    """`sample_actions` of ONE state, as it looks through a random symmetry."""
    if symmetries is None:
        return sample_actions(network, params, key, state, config.num_actions)
    choice_key, key = jax.random.split(key)
    choice = jax.random.randint(choice_key, (), 0, len(symmetries.places))
    by = jax.tree.map(lambda x: x[choice], symmetries)
    seen = permute_state(state, by, network.game.ring)
    sampled, quantiles = sample_actions(network, params, key, seen, config.num_actions)
    tokens = permute_tokens(sampled.tokens, by.inverse, network.space)
    return sampled._replace(tokens=tokens), quantiles


def _sequential_halving(
    config: SearchConfig, root: mctx.RootFnOutput, gumbels: Float[Array, "B K"], recurrent_fn
) -> tuple[Int[Array, "B"], Float[Array, "B K"]]:
    """The chosen index (B,) and the improved policy (B, K) over the root's actions.

    `mctx.gumbel_muzero_policy` with the Gumbels that sampled the actions, instead of new ones.
    """
    qtransform = functools.partial(
        mctx.qtransform_completed_by_mix_value,
        value_scale=config.value_scale,
        maxvisit_init=config.maxvisit_init,
        rescale_values=config.rescale_values,
    )
    tree = mctx.search(
        params=None,
        # Of the selection rules below none is random.
        rng_key=jax.random.key(0, impl="unsafe_rbg"),
        root=root,
        recurrent_fn=recurrent_fn,
        root_action_selection_fn=functools.partial(
            mctx.gumbel_muzero_root_action_selection,
            num_simulations=config.num_simulations,
            max_num_considered_actions=config.num_actions,
            qtransform=qtransform,
        ),
        interior_action_selection_fn=functools.partial(
            mctx.gumbel_muzero_interior_action_selection, qtransform=qtransform
        ),
        num_simulations=config.num_simulations,
        extra_data=mctx.GumbelMuZeroExtraData(root_gumbel=gumbels),
    )
    visits = tree.summary().visit_counts
    values = jax.vmap(qtransform, in_axes=(0, None))(tree, tree.ROOT_INDEX)
    improved = root.prior_logits + values
    finalists = visits == visits.max(axis=-1, keepdims=True)
    choice = jnp.argmax(jnp.where(finalists, gumbels + improved, -jnp.inf), axis=-1)
    return choice, jax.nn.softmax(improved)


def _take(tokens: Int32[Array, "B K k"], choice: Int[Array, "B"]) -> Int32[Array, "B k"]:
    """Row ``choice`` (B,) of tokens (B, K, k): (B, k)."""
    return jnp.take_along_axis(tokens, choice[:, None, None], axis=1)[:, 0]
