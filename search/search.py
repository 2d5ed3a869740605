"""The search of the configured algorithm."""

from jaxtyping import Array, Key

from networks.network import AgentNetwork
from search import gumbel, sampled_alphazero
from search.config import SearchConfig, check
from search.tree import SearchResult
from tensorgame.game import State
from tensorgame.symmetries import SignedPermutation

_SEARCHES = {"gumbel": gumbel.search, "sampled_alphazero": sampled_alphazero.search}


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
        config: algorithm, effort and sharpness.
        params: parameters of the network.
        keys: one typed key a game, (B,), consumed. A game's result depends on its own key alone.
        states: B games.
        symmetries: signed permutations (N, S); each query of the network is made through a random
            one of them.

    Raises:
        ValueError: for options that `search.config.check` refuses.
    """
    check(config)
    return _SEARCHES[config.algorithm](network, config, params, keys, states, symmetries)
