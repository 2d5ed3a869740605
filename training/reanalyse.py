"""Reanalyse: replayed positions searched again (Schrittwieser et al. 2021, MuZero Unplugged)."""

import jax
from jaxtyping import Array, Bool, Key

from search.search import search
from training.config import Config
from training.replay import Example, put, spread


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
    chosen = spread(len(keys), config.learner.reanalysed_share)
    replayed = jax.tree.map(lambda x: x[chosen], examples)
    # Splitting a key and folding small numbers into it may give the same keys.
    fresh = jax.vmap(lambda key: jax.random.fold_in(key, 2**31 + 1))(keys[chosen])
    result = search(config.agent, config.search, params, fresh, replayed.state, config.permutations)
    searched = replayed._replace(tokens=result.tokens, weights=result.weights)
    return put(examples, chosen, searched, played[chosen])
