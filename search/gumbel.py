"""Gumbel AlphaZero over sampled actions (Danihelka et al. 2022, "Policy improvement by planning
with Gumbel").

With beam search the actions at the root are the Gumbel-top-K of the whole action space, so
sequential halving over them improves the policy over all actions. With independent samples, an
ablation, it improves that over the samples, each with its share as the prior and a fresh Gumbel.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import mctx
from jaxtyping import Array, Float, Key

from networks.network import AgentNetwork
from search.config import SearchConfig
from search.policy_loss import NEGLIGIBLE_MASS
from search.sampling import DEAD
from search.tree import Evaluation, SearchResult, Simulator, grow_tree, pad, read_result, try_first
from tensorgame.game import State
from tensorgame.symmetries import SignedPermutation


def search(
    network: AgentNetwork,
    config: SearchConfig,
    params: dict,
    keys: Key[Array, "B"],
    states: State,
    symmetries: SignedPermutation | None = None,
) -> SearchResult:
    """See `search.search.search`."""
    # One slot stands for all actions that were not sampled. It is never tried, so that it has the
    # mixed value of the others.
    spare = int(config.unsampled_mass)
    simulator = Simulator(network, config, params, symmetries, spare)
    root = simulator.evaluate(keys, states)
    prior_logits = root.sampled.prior_logits
    if config.unsampled_mass:
        rest = _log_of_rest(prior_logits)
        prior_logits = jnp.concatenate([prior_logits, rest[:, None]], axis=1)
    gumbels = pad(root.sampled.gumbels, spare, 0.0)
    qtransform = functools.partial(
        mctx.qtransform_completed_by_mix_value,
        value_scale=config.value_scale,
        maxvisit_init=config.maxvisit_init,
        rescale_values=config.rescale_values,
    )
    if config.is_one_ply:
        tree = try_first(simulator, root, prior_logits)
    else:
        tree = _halve_sequentially(simulator, root, prior_logits, gumbels, qtransform)

    summary = tree.summary()
    visits = summary.visit_counts
    improved = prior_logits + jax.vmap(qtransform, in_axes=(0, None))(tree, tree.ROOT_INDEX)
    # Dead slots have no visits, and there is a simulation at least.
    finalists = visits == visits.max(axis=-1, keepdims=True)
    choice = jnp.argmax(jnp.where(finalists, gumbels + improved, -jnp.inf), axis=-1)
    visited = jax.nn.softmax(jnp.where(visits > 0, improved, -jnp.inf))
    return read_result(
        simulator,
        root,
        tree,
        choice,
        weights=jax.nn.softmax(improved)[:, : config.num_actions],
        value=(visited * summary.qvalues).sum(axis=-1),
    )


def _halve_sequentially(
    simulator: Simulator,
    root: Evaluation,
    prior_logits: Float[Array, "B slots"],
    gumbels: Float[Array, "B slots"],
    qtransform: Callable,
) -> mctx.Tree:
    """`mctx.gumbel_muzero_policy` with the Gumbels that sampled the actions, not new ones.

    Below the root no dead slot is tried: its probability is 0, and as probabilities sum to more
    than the shares of visits they are compared with, one slot at least is above its share.
    """
    config = simulator.config
    return grow_tree(
        simulator,
        root,
        prior_logits,
        root_selection=functools.partial(
            mctx.gumbel_muzero_root_action_selection,
            num_simulations=config.num_simulations,
            max_num_considered_actions=config.considered_actions or config.num_actions,
            qtransform=qtransform,
        ),
        interior_selection=functools.partial(
            mctx.gumbel_muzero_interior_action_selection, qtransform=qtransform
        ),
        extra_data=mctx.GumbelMuZeroExtraData(root_gumbel=gumbels),
    )


def _log_of_rest(log_probs: Float[Array, "B K"]) -> Float[Array, "B"]:
    """The log-probability of all actions but these, (B,)."""
    rest = 1.0 - jnp.exp(log_probs).sum(axis=-1)
    has_rest = rest > NEGLIGIBLE_MASS
    return jnp.where(has_rest, jnp.log(jnp.where(has_rest, rest, 1.0)), DEAD)
