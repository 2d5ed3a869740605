"""The configuration of the search."""

import dataclasses

ALGORITHMS = ("gumbel", "sampled_alphazero")
"""What `SearchConfig.algorithm` may be."""
SAMPLINGS = ("beam", "independent")
"""What `SearchConfig.sampling` may be."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """The search, its effort and its sharpness."""

    algorithm: str = "gumbel"
    """How the tree grows and is read: gumbel (sequential halving, improves the policy with any
    number of simulations) or sampled_alphazero (PUCT and visit counts, as in the paper)."""
    sampling: str = "beam"
    """How the K actions of a node are drawn: beam (distinct ones, stochastic beam search) or
    independent (K samples, equal ones merged, as in the paper)."""
    num_actions: int = 8
    """K, actions sampled at each node (32)."""
    num_simulations: int = 8
    """Network evaluations for each move, besides the root's (800)."""
    considered_actions: int = 0
    """gumbel: how many of the K, those with the largest perturbed log-probabilities, are tried at
    the root. With fewer the search looks deeper; 0 for all K."""
    rescale_values: bool = True
    """Stretch the values at a node to [0, 1]; otherwise they count in moves."""
    value_scale: float = 0.1
    """gumbel: weight of the completed values against the prior logits."""
    maxvisit_init: float = 50.0
    """gumbel: visits that are added to the largest visit count in that weight."""
    unsampled_mass: bool = False
    """gumbel with beam: the actions that were not sampled keep their share of the improved policy,
    so that the weights of the K sum to less than 1; otherwise these share it all."""
    temperature_visits: float = 100.0
    """sampled_alphazero: N-bar > 1; roots with N > N-bar visits have the temperature
    log N / log N-bar, others 1 (100)."""
    noise_fraction: float = 0.0
    """sampled_alphazero: share of Dirichlet noise in the root's prior; the paper mentions none."""
    noise_alpha: float = 0.3
    """sampled_alphazero: concentration of that noise."""

    @property
    def is_one_ply(self) -> bool:
        """Whether every simulation tries another action of the root, so that no tree is needed.

        With beams the considered actions are those of the first slots, and sequential halving
        begins with one visit of each.
        """
        considered = self.considered_actions or self.num_actions
        return (
            self.algorithm == "gumbel"
            and self.sampling == "beam"
            and self.num_simulations <= considered
        )


def check(config: SearchConfig) -> None:
    """Refuses names that do not exist and options that do not go together.

    Raises:
        ValueError: one sentence with the field, its value and what would work.
    """
    for field, allowed in (("algorithm", ALGORITHMS), ("sampling", SAMPLINGS)):
        value = getattr(config, field)
        if value not in allowed:
            raise ValueError(f"search.{field} is {value!r}; use one of {', '.join(allowed)}")
    if config.unsampled_mass and (config.algorithm, config.sampling) != ("gumbel", "beam"):
        raise ValueError(
            f"search.unsampled_mass is set with search.algorithm {config.algorithm} and "
            f"search.sampling {config.sampling}; it needs gumbel and beam"
        )
    if config.considered_actions > config.num_actions:
        raise ValueError(
            f"search.considered_actions is {config.considered_actions}, more than the "
            f"{config.num_actions} of search.num_actions; use 0 for all of them"
        )
    if config.temperature_visits <= 1:
        raise ValueError(
            f"search.temperature_visits is {config.temperature_visits}; it must be above 1"
        )
