"""Sampled AlphaZero, the search of the paper (Methods; Hubert et al. 2021, arXiv 2104.06303).

A node's K actions are tried by PUCT, and the visit counts of the root are the improved policy.

Three choices are not in the paper. Values are stretched to [0, 1] between the smallest and the
largest at a node by default (`SearchConfig.rescale_values`), as in MuZero: raw ones count in moves,
and a move is far more than the largest exploration term, c / K times the root of the visits.
Actions that have not been tried have the smallest value then, and the node's own value otherwise.
And the root of the number of visits that PUCT multiplies the prior with counts the node's own
evaluation, as in mctx, so that the first visit too goes by the prior.
"""

import functools

import jax
import jax.numpy as jnp
import mctx
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from networks.network import AgentNetwork
from search.config import SearchConfig
from search.sampling import DEAD, is_alive
from search.tree import SearchResult, Simulator, grow_tree, read_result
from tensorgame.game import State
from tensorgame.symmetries import SignedPermutation

# c(s) = 1.25 + log((1 + 19652 + visits) / 19652): the constants of AlphaZero.
_PUCT_INIT, _PUCT_BASE = 1.25, 19652.0


def search(
    network: AgentNetwork,
    config: SearchConfig,
    params: dict,
    keys: Key[Array, "B"],
    states: State,
    symmetries: SignedPermutation | None = None,
) -> SearchResult:
    """See `search.search.search`."""
    root_keys, noise_keys, act_keys = jax.vmap(
        functools.partial(jax.random.split, num=3), out_axes=1
    )(keys)
    simulator = Simulator(network, config, params, symmetries)
    root = simulator.evaluate(root_keys, states)
    prior_logits = root.sampled.prior_logits
    if config.noise_fraction:
        add_noise = functools.partial(_add_noise, config)
        prior_logits = jax.vmap(add_noise)(noise_keys, prior_logits)
    tree = grow_tree(
        simulator,
        root,
        prior_logits,
        root_selection=functools.partial(_select, config, depth=0),
        interior_selection=functools.partial(_select, config),
    )
    summary = tree.summary()
    weights = visit_policy(summary.visit_counts, config.temperature_visits)
    allowed = jnp.where(worth_playing(summary.visit_counts, summary.qvalues), weights, 0.0)
    choice = jax.vmap(jax.random.categorical)(act_keys, jnp.log(allowed))
    value = (weights * summary.qvalues).sum(axis=-1)
    return read_result(simulator, root, tree, choice, weights, value)


def visit_policy(visits: Float[Array, "*batch K"], threshold: float) -> Float[Array, "*batch K"]:
    """The improved policy N^(1 / tau), normalised, of visit counts N (..., K) (paper, Methods).

    With n visits in all, tau is log n / log N-bar above the ``threshold`` N-bar and 1 below.
    """
    total = visits.sum(axis=-1, keepdims=True)
    temperature = jnp.maximum(jnp.log(jnp.maximum(total, 1.0)) / jnp.log(threshold), 1.0)
    # Shares, as they cannot overflow; 0 stays 0.
    powers = (visits / total) ** (1.0 / temperature)
    return powers / powers.sum(axis=-1, keepdims=True)


def worth_playing(
    visits: Float[Array, "*batch K"], qvalues: Float[Array, "*batch K"]
) -> Bool[Array, "*batch K"]:
    """The visited actions whose value is not below that of the most visited one (paper, Methods).

    Of several with the most visits that with the largest value counts.
    """
    most = visits == visits.max(axis=-1, keepdims=True)
    bar = jnp.where(most, qvalues, -jnp.inf).max(axis=-1, keepdims=True)
    return (visits > 0) & (qvalues >= bar)


def _select(
    config: SearchConfig, _key: None, tree: mctx.Tree, node: np.ndarray, depth: int
) -> Int[Array, ""]:
    """PUCT in ONE tree.

    Its key breaks ties. A constant one makes a constant order of slots, which is as good, since the
    order of sampled actions is random, and leaves a game independent of the others.
    """
    return mctx.muzero_action_selection(
        jax.random.key(0, impl="unsafe_rbg"),
        tree,
        node,
        depth,
        pb_c_init=_PUCT_INIT,
        pb_c_base=_PUCT_BASE,
        qtransform=functools.partial(_values, config),
    )


def _values(config: SearchConfig, tree: mctx.Tree, node: np.ndarray) -> Float[Array, "K"]:
    """What PUCT adds to the exploration term, (K,)."""
    if config.rescale_values:
        values = mctx.qtransform_by_parent_and_siblings(tree, node)
    else:
        is_visited = tree.children_visits[node] > 0
        values = jnp.where(is_visited, tree.qvalues(node), tree.node_values[node])
    # mctx masks slots at the root only; without a prior they could still win by their value.
    return jnp.where(is_alive(tree.children_prior_logits[node]), values, DEAD)


def _add_noise(
    config: SearchConfig, key: Key[Array, ""], prior_logits: Float[Array, "K"]
) -> Float[Array, "K"]:
    """Mixes Dirichlet noise over the live slots into ONE prior."""
    alive = is_alive(prior_logits)
    # Normalised Gamma variables, by their logarithms, which do not underflow for a small alpha.
    log_gammas = jax.random.loggamma(key, config.noise_alpha, prior_logits.shape)
    noise = jax.nn.softmax(jnp.where(alive, log_gammas, -jnp.inf))
    fraction = config.noise_fraction
    mixed = (1.0 - fraction) * jax.nn.softmax(prior_logits) + fraction * noise
    # A probability that underflows does not end an action's life.
    tiny = jnp.finfo(mixed.dtype).tiny
    return jnp.where(alive, jnp.log(jnp.maximum(mixed, tiny)), DEAD)
