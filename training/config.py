"""The configuration of a run: one frozen dataclass, the source of every command-line flag.

Defaults are those of the main job: the 2 x 2 x 2 target on a laptop's CPU. The paper's number
stands in brackets where there is one. The docstring under each field is its ``--help`` text.
"""

import dataclasses
import math
from typing import Literal, get_args

import jax

from networks.network import AgentNetwork, NetworkConfig
from search.gumbel import SearchConfig
from tensorgame import rings, targets
from tensorgame.basis import BasisSampler
from tensorgame.demonstrations import DemonstrationSampler
from tensorgame.factors import ActionSpace
from tensorgame.game import Game

# Values of one token; the paper's largest is 5^5 = 3125.
MAX_VOCABULARY = 4096


class ConfigError(ValueError):
    """A configuration that cannot run; the message names the field, its value and what would."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GameConfig:
    """What is played."""

    target: str = "matmul:2,2,2"
    """The bilinear map to decompose: matmul:n,m,p."""
    ring: Literal["z2", "z"] = "z2"
    """Arithmetic: z2 (modulo 2) or z (the integers)."""
    max_coefficient: int = 1
    """Over z, factors have coefficients -c..c for this c (2). No effect over z2."""
    max_moves: int = 0
    """R_limit: an unsolved game ends after this many moves (125); 0 for the trivial rank + 2."""
    history: int = 0
    """H, past actions that the network sees (7)."""
    canonical_probability: float = 0.1
    """Share of games played in the canonical basis; the others change it at random."""
    basis_density: float = 0.2
    """Non-zero share off the diagonals of the triangular basis factors (.015, for S = 25)."""
    shared_basis: bool = True
    """One matrix for the three modes, as in the paper, or one each (over z rarely meets rank 7)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemonstrationConfig:
    """Random tensors with known factors, the supervised half of each batch."""

    max_factors: int = 0
    """Most factors left, their number being uniform from 1 (R_limit); 0 for the best known rank."""
    density: float = 0.4
    """Non-zero share of the entries of their factors (.2)."""
    large: float = 0.01
    """Share of coefficients beyond +-1 among the non-zero entries (.01)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfPlayConfig:
    """How games are played and kept."""

    num_games: int = 128
    """B, games in progress on all devices together."""
    moves_per_step: int = 4
    """Moves of every game in one training step."""
    kept_games: int = 4
    """Finished games kept for each game in progress; the oldest is overwritten."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnerConfig:
    """How the network learns."""

    demonstration_steps: int = 80
    """First steps, without play: a network that never finishes a game learns nothing from it."""
    updates_per_step: int = 8
    """Gradient updates in one training step."""
    replay_batch: int = 64
    """Positions of finished games in an update; a multiple or a divisor of the number of games."""
    demonstration_batch: int = 64
    """Demonstrations in an update; a multiple or a divisor of the number of games."""
    learning_rate: float = 3e-3
    """Of AdamW, after the warm-up (1e-4)."""
    warmup_updates: int = 100
    """Updates over which the learning rate rises from zero."""
    weight_decay: float = 1e-5
    """Decoupled weight decay (1e-5)."""
    max_gradient_norm: float = 4.0
    """Gradients are clipped to this global norm (4)."""
    policy_weight: float = 1.0
    """Weight of the policy loss."""
    value_weight: float = 1.0
    """Weight of the value loss, whose returns count in moves."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Discover matrix multiplication algorithms by playing TensorGame."""

    game: GameConfig = GameConfig()
    demonstrations: DemonstrationConfig = DemonstrationConfig()
    network: NetworkConfig = NetworkConfig()
    search: SearchConfig = SearchConfig()
    selfplay: SelfPlayConfig = SelfPlayConfig()
    learner: LearnerConfig = LearnerConfig()
    seed: int = 0
    """Seed of all randomness."""
    devices: int = 0
    """Devices to run on, 0 for all; but for the rounding of sums results do not depend on it."""
    target_rank: int = 0
    """The run succeeds with an algorithm of at most this rank; 0 for the best known rank."""
    lift: bool = True
    """Over z2, count an algorithm only once it is lifted to the integers."""
    max_minutes: float = 30.0
    """The run gives up after this much wall time, compilation included."""

    # Derived objects -----------------------------------------------------------------------------

    @property
    def target(self) -> targets.Target:
        return targets.parse(self.game.target)

    @property
    def ring(self) -> rings.Ring:
        if self.game.ring == "z2":
            return rings.Z2
        return rings.integers(self.game.max_coefficient)

    @property
    def max_moves(self) -> int:
        return self.game.max_moves or self.target.trivial_rank + 2

    @property
    def rank_wanted(self) -> int:
        return self.target_rank or self.target.best_known(self.ring.modulus)

    @property
    def rules(self) -> Game:
        return Game(self.ring, self.max_moves, self.game.history)

    @property
    def action_space(self) -> ActionSpace:
        size = self.network.token_size
        if not size:
            side = self.target.side
            fits = [d for d in range(1, side + 1) if self.ring.num_symbols**d <= MAX_VOCABULARY]
            size = max(d for d in fits if side % d == 0)
        return ActionSpace(self.ring, self.target.side, size)

    @property
    def agent(self) -> AgentNetwork:
        return AgentNetwork(self.network, self.rules, self.action_space)

    @property
    def bases(self) -> BasisSampler:
        return BasisSampler(
            ring=self.ring,
            shape=self.target.shape,
            density=self.game.basis_density,
            canonical=self.game.canonical_probability,
            shared=self.game.shared_basis,
        )

    @property
    def demonstrator(self) -> DemonstrationSampler:
        d = self.demonstrations
        return DemonstrationSampler(
            game=self.rules,
            side=self.target.side,
            max_factors=d.max_factors or self.target.best_known(self.ring.modulus),
            density=d.density,
            large=d.large,
        )

    @property
    def num_devices(self) -> int:
        return self.devices or jax.local_device_count()

    # Checks --------------------------------------------------------------------------------------

    def validate(self) -> None:
        """Refuses what cannot run, before anything is compiled.

        Raises:
            ConfigError: one sentence with the field, its value and what would work.
        """
        check_types(self)
        try:
            side = self.target.side
        except ValueError as error:
            raise ConfigError(str(error)) from None
        for section in ("game", "demonstrations", "network", "search", "selfplay", "learner"):
            _check_numbers(section, getattr(self, section))
        _check_numbers("", self)
        size = self.network.token_size
        _require(
            not size or side % size == 0,
            f"network.token_size is {size}, which does not divide the side {side} of "
            f"{self.game.target}; 0 picks one that does",
        )
        space = self.action_space
        _require(
            space.vocabulary <= MAX_VOCABULARY,
            f"network.token_size is {size}, which makes {space.vocabulary} values a token; at most "
            f"{MAX_VOCABULARY} are supported, so use a smaller divisor of {side}",
        )
        actions = self.search.num_actions
        _require(
            actions <= space.size,
            f"search.num_actions is {actions}, more than the {space.size} actions of "
            f"{self.game.target} over {space.ring.name}; use at most {space.size}",
        )
        devices, available = self.num_devices, jax.local_device_count()
        _require(
            devices <= available,
            f"devices is {devices}, but there are only {available}; use 0 for all of them",
        )
        games = self.selfplay.num_games
        _require(
            games % devices == 0,
            f"selfplay.num_games is {games}, which {devices} devices do not divide; "
            f"use a multiple of {devices}",
        )
        for field in ("replay_batch", "demonstration_batch"):
            batch = getattr(self.learner, field)
            _require(
                batch % devices == 0 and (batch % games == 0 or games % batch == 0),
                f"learner.{field} is {batch}; it must be a multiple or a divisor of "
                f"selfplay.num_games = {games}, and a multiple of {devices} devices",
            )
        factors, moves = self.demonstrator.max_factors, self.max_moves
        _require(
            factors <= moves,
            f"demonstrations.max_factors is {factors}, more than game.max_moves = {moves}",
        )
        _require(
            self.rank_wanted <= moves,
            f"target_rank is {self.rank_wanted}, which no game of game.max_moves = {moves} moves "
            f"shows; allow at least {self.rank_wanted} moves",
        )
        _require(
            self.rules.largest_start > 0,
            f"game.max_coefficient is {self.ring.high}, whose cube times game.max_moves = {moves} "
            f"overflows the {self.ring.dtype.name} residuals; use a smaller one",
        )

    def warnings(self) -> list[str]:
        """Sentences about settings that run but cannot succeed."""
        bound = self.target.lower_bound
        if self.rank_wanted < bound:
            return [
                f"target_rank is {self.rank_wanted}, below the proved lower bound {bound} for "
                f"{self.game.target}: the run will use its whole budget"
            ]
        return []


# Fields that may be zero; for some of them zero means "choose for me".
_MAY_BE_ZERO = {
    "game.max_moves",
    "game.history",
    "game.canonical_probability",
    "demonstrations.max_factors",
    "demonstrations.large",
    "network.token_size",
    "search.value_scale",
    "search.maxvisit_init",
    "learner.demonstration_steps",
    "learner.warmup_updates",
    "learner.weight_decay",
    "learner.policy_weight",
    "learner.value_weight",
    "seed",
    "devices",
    "target_rank",
}
_AT_MOST = {
    "game.canonical_probability": 1.0,
    "game.basis_density": 1.0,
    "demonstrations.density": 0.99,
    "demonstrations.large": 1.0,
}


def check_types(values: object, prefix: str = "") -> None:
    """Refuses values of a wrong type, which nothing else does in a configuration file.

    Raises:
        ConfigError: one sentence with the field, its value and what would work.
    """
    for field in dataclasses.fields(values):
        name, value, wanted = prefix + field.name, getattr(values, field.name), field.type
        if options := get_args(wanted):
            expected = " or ".join(options)
            fits = value in options
        else:
            expected = f"of type {wanted.__name__}"
            accepted = (float, int) if wanted is float else wanted
            # Python takes True for an int.
            fits = isinstance(value, accepted) and isinstance(value, bool) == (wanted is bool)
        _require(fits, f"{name} is {value!r}; it must be {expected}")
        if dataclasses.is_dataclass(value):
            check_types(value, f"{name}.")


def _check_numbers(section: str, values: object) -> None:
    """Refuses numbers out of range in one section of the configuration."""
    for field in dataclasses.fields(values):
        name, value = f"{section}.{field.name}".lstrip("."), getattr(values, field.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        _require(math.isfinite(value), f"{name} is {value}; it must be a finite number")
        if name in _MAY_BE_ZERO:
            _require(value >= 0, f"{name} is {value}; it must not be negative")
        else:
            _require(value > 0, f"{name} is {value}; it must be positive")
        if name in _AT_MOST:
            highest = _AT_MOST[name]
            _require(value <= highest, f"{name} is {value}; it must be at most {highest}")


def _require(condition: object, message: str) -> None:
    if not condition:
        raise ConfigError(message)
