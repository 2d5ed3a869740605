"""Reanalyse: replayed positions searched again (Schrittwieser et al. 2021, MuZero Unplugged)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Key

from search.search import search
from training.config import Config
from training.replay import Example


def reanalyse(
    config: Config,
    params: dict,
    keys: Key[Array, "M"],
    examples: Example,
    played: Bool[Array, "N"],
) -> Example:
    """Gives some of N examples the policy target of a new search with ``params``.

    The value target stays the return of the game, which was played to its end.

    Args:
        config: the run's.
        params: of the newest network.
        keys: those that sampled the first M examples, which the replay offered.
        examples: N examples.
        played: which of them come from finished games. The others know the best moves already.
    """
    # Spread evenly, so that the same are chosen on any number of devices.
    steps = np.floor(np.arange(len(keys) + 1) * config.learner.reanalysed_share + 1e-6)
    chosen = np.flatnonzero(np.diff(steps))
    states = jax.tree.map(lambda x: x[chosen], examples.state)
    # Splitting a key and folding small numbers into it may give the same keys.
    fresh = jax.vmap(lambda key: jax.random.fold_in(key, 2**31 + 1))(keys[chosen])
    result = search(config.agent, config.search, params, fresh, states, config.permutations)

    def replace(old: jax.Array, new: jax.Array) -> jax.Array:
        mask = played[chosen].reshape(-1, *[1] * (new.ndim - 1))
        return old.at[chosen].set(jnp.where(mask, new, old[chosen]))

    return examples._replace(
        tokens=replace(examples.tokens, result.tokens),
        weights=replace(examples.weights, result.weights),
    )
