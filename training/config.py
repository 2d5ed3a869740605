"""The configuration of a run: one frozen dataclass, the source of every command-line flag.

Defaults are those of the main job: the 2 x 2 x 2 target on a laptop's CPU. The paper's number
stands in brackets where there is one. The docstring under each field is its ``--help`` text.
"""

import dataclasses
import functools
import math
from typing import Literal, get_args, get_origin

import jax
import numpy as np

from networks.network import AgentNetwork, NetworkConfig
from search import config as search_config
from search.config import SearchConfig
from tensorgame import rings, targets
from tensorgame.demonstrations import DemonstrationSampler
from tensorgame.factors import ActionSpace
from tensorgame.game import Game
from tensorgame.symmetries import BasisSampler, SignedPermutation, signed_permutations

# Values of one token; the paper's largest is 5^5 = 3125.
MAX_VOCABULARY = 4096
# The same where the size of a token is not given: two small tokens are decoded faster than a large.
_MANY_VALUES = 1024


class ConfigError(ValueError):
    """A configuration that cannot run; the message names the field, its value and what would."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GameConfig:
    """What is played."""

    targets: tuple[str, ...] = ("matmul:2,2,2",)
    """The bilinear maps to decompose, padded to the largest (all n,m,p <= 5); `python -m tensorgame
    targets` lists what there is."""
    target_weights: tuple[float, ...] = ()
    """How often each of them is played, in proportion; none for equally often."""
    ring: str = "z2"
    """Arithmetic: z (the integers) or zp modulo a prime p: z2, z3, z17."""
    coefficients: tuple[int, ...] = (-1, 0, 1)
    """Over z, the coefficients of factors (-2 -1 0 1 2). No effect over zp."""
    max_moves: int = 0
    """R_limit: an unsolved game ends after this many moves (125); 0 for the trivial rank + 2."""
    history: int = 0
    """H, past actions that the network sees (7)."""
    canonical_probability: float = 0.1
    """Share of games played in the canonical basis; the others change it at random."""
    basis_density: float = 0.2
    """Non-zero share off the diagonals of the triangular basis factors (.015, for S = 25)."""
    varied_density: bool = False
    """Each basis has its own such share, uniform between 0 and that one: bases from nearly
    canonical, in which games are soon solved, to dense, in which shorter algorithms are found."""
    shared_basis: bool = True
    """One matrix for the three modes, as in the paper, or one each (over z rarely meets rank 7). A
    mode takes the corner that its side has room for."""
    signed_permutations: int = 0
    """Fixed signed permutations (100): the network sees each position through a random one of them,
    in play and in learning; 0 for none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemonstrationConfig:
    """Random tensors with known factors, the supervised half of each batch."""

    max_factors: int = 0
    """Most factors left, their number being uniform from 1 (R_limit); 0 for the best known rank of
    each target."""
    density: float = 0.4
    """Non-zero share of the entries of their factors (.2)."""
    varied_density: bool = False
    """Each demonstration has its own such share, uniform between 0 and that one: from the sparse
    factors of schoolbook algorithms, which are soon learned, to dense ones."""
    large: float = 0.01
    """Share of coefficients beyond +-1 among the non-zero entries over z (.01)."""
    padded: bool = False
    """Factors fill the sides of the whole cube, not those of a target's modes (True)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfPlayConfig:
    """How games are played and kept."""

    num_games: int = 128
    """B, games in progress on all devices together."""
    moves_per_step: int = 4
    """Moves of every game in one training step."""
    kept_games: int = 4
    """Finished games kept for each game in progress; the oldest is overwritten."""
    continued_share: float = 0.0
    """Share of new games that go on from a random position of the last solved game of their place
    that was no longer than the one before it, in a new basis and order (unknown)."""
    continued_moves: int = 4
    """Most moves of the solved game that are taken back for that. The end of a game of few moves is
    soon played in another way, or in fewer."""
    continued_migration: float = 1 / 32
    """How often a place whose game is longer than the shortest of the run goes on from one of the
    best instead. Rarely in long runs: places that come from the first short game stay near it."""
    continued_sparser: float = 1.0
    """How often a place follows a game that is as long as its own and has fewer non-zero entries.
    Over z an agent finds sparse products, and seldom (0.05) leads away from the schoolbook's."""
    continued_basis_density: float = 0.0
    """Non-zero share off the diagonals of the triangular factors of continued games' bases; 0 for
    bases as in other games. In dense ones, at 0.5, no algorithm looks sparser than another, and
    chains do not stay near the schoolbook's. Over z few fit, more with coefficients to 2."""


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
    """Demonstrations in an update; a multiple or a divisor of the number of games. 0 for none, and
    then none in place of games that have not been played yet either."""
    best_games_share: float = 0.0
    """Share of the demonstrations that are made of the best solved games of the run, each in a new
    random basis and order (unknown). Half of those shown are of the shortest length."""
    best_games: int = 256
    """M, the different solved games kept of each target for that share, the shortest (unknown)."""
    flips: int = 0
    """Flips by which each place walks on from its solved game in a step (0). What they find is kept
    among the best games; 0 for pure self-play."""
    microbatches: int = 1
    """Parts of a batch that are differentiated one after the other, to fit into memory."""
    reanalysed_share: float = 0.0
    """Share of the replayed positions that are searched again with the newest network."""
    swapped_share: float = 0.0
    """Share of the replayed positions whose game has a random move swapped with the last (.5)."""
    learning_rate: float = 3e-3
    """Of AdamW, after the warm-up (1e-4)."""
    warmup_updates: int = 100
    """Updates over which the learning rate rises from zero."""
    decay_updates: int = 0
    """Updates after each of which the learning rate falls to a tenth (500,000); 0 for never."""
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
    num_seeds: int = 1
    """Independent agents that one program trains, with this and the following seeds. The run
    succeeds when each of them has found what is wanted."""
    devices: int = 0
    """Devices to run on, those of all processes together, 0 for all; but for the rounding of sums
    results do not depend on it."""
    target_ranks: tuple[int, ...] = ()
    """The run succeeds with algorithms of at most these ranks; none for the best known ones."""
    lift: bool = True
    """Over zp, count an algorithm only once it is lifted to the integers or rationals."""
    max_minutes: float = 30.0
    """The run gives up after this much wall time, compilation included."""
    checkpoint_minutes: float = 1.0
    """Wall time between two checkpoints; what came after the last one is lost with the process."""

    @property
    def agents(self) -> tuple["Config", ...]:
        """For each of its agents, the configuration of a run of that agent alone."""
        seeds = range(self.seed, self.seed + self.num_seeds)
        return tuple(dataclasses.replace(self, seed=seed, num_seeds=1) for seed in seeds)

    # Derived objects -----------------------------------------------------------------------------

    @property
    def targets(self) -> tuple[targets.Target, ...]:
        return tuple(_target(name) for name in self.game.targets)

    @property
    def side(self) -> int:
        """S, the side of the cube that holds all targets."""
        return max(target.side for target in self.targets)

    @property
    def corner(self) -> tuple[int, int, int]:
        """Sides of the corner of that cube that no position leaves.

        Signed permutations and padded demonstrations use the whole cube.
        """
        if self.game.signed_permutations or self.demonstrations.padded:
            return (self.side,) * 3
        u, v, w = np.max([target.shape for target in self.targets], axis=0).tolist()
        return u, v, w

    @property
    def target_shares(self) -> np.ndarray:
        """Probability of each target, float64."""
        weights = np.array(self.game.target_weights or [1.0] * len(self.targets))
        return weights / weights.sum()

    @property
    def ring(self) -> rings.Ring:
        return rings.parse(self.game.ring, self.game.coefficients)

    @property
    def max_moves(self) -> int:
        return self.game.max_moves or max(target.trivial_rank for target in self.targets) + 2

    @property
    def has_chains(self) -> bool:
        """Whether places go on from solved games (`training.chains`)."""
        return bool(self.selfplay.continued_share or self.learner.flips)

    @property
    def counting_ring(self) -> str:
        """The ring of the algorithms that count, as `Target.known` reads it."""
        return "Z" if self.lift else self.ring.name

    @property
    def ranks_wanted(self) -> tuple[int, ...]:
        """For each target."""
        known = [target.known(self.counting_ring).rank for target in self.targets]
        return self.target_ranks or tuple(known)

    @property
    def rules(self) -> Game:
        return Game(self.ring, self.max_moves, self.game.history)

    @property
    def action_space(self) -> ActionSpace:
        size = self.network.token_size
        if not size:
            side = self.side
            fits = [d for d in range(1, side + 1) if self.ring.num_symbols**d <= _MANY_VALUES]
            size = max(d for d in fits if side % d == 0)
        return ActionSpace(self.ring, self.side, size, self.corner)

    @property
    def agent(self) -> AgentNetwork:
        return AgentNetwork(self.network, self.rules, self.action_space)

    @property
    def bases(self) -> BasisSampler:
        return BasisSampler(
            ring=self.ring,
            side=self.side,
            density=self.game.basis_density,
            varied=self.game.varied_density,
            canonical=self.game.canonical_probability,
            shared=self.game.shared_basis,
        )

    @property
    def continued_bases(self) -> BasisSampler:
        """Of games that go on from the middle of another one.

        Over Z modes have a matrix each, as they fit or not each by itself.
        """
        bases = dataclasses.replace(
            self.bases, shared=self.game.shared_basis and bool(self.ring.modulus)
        )
        density = self.selfplay.continued_basis_density
        if not density:
            return bases
        return dataclasses.replace(bases, density=density, varied=False, canonical=0.0)

    @property
    def permutations(self) -> SignedPermutation | None:
        """The fixed signed permutations, (count, S), or None without them."""
        count = self.game.signed_permutations
        # A key of their own: the training step folds small numbers into that of the seed.
        key = jax.random.fold_in(jax.random.key(self.seed), 2**31)
        return signed_permutations(key, count, self.side, self.ring) if count else None

    @property
    def demonstrator(self) -> DemonstrationSampler:
        d = self.demonstrations
        known = [target.known(self.ring.name).rank for target in self.targets]
        return DemonstrationSampler(
            game=self.rules,
            side=self.side,
            shapes=tuple((self.side,) * 3 if d.padded else t.shape for t in self.targets),
            max_factors=tuple(d.max_factors or rank for rank in known),
            shares=tuple(self.target_shares.tolist()),
            density=d.density,
            varied=d.varied_density,
            large=d.large,
        )

    @property
    def num_devices(self) -> int:
        return self.devices or jax.device_count()

    # Checks --------------------------------------------------------------------------------------

    def validate(self) -> None:
        """Refuses what cannot run on the devices that are here, before anything is compiled.

        Raises:
            ConfigError: one sentence with the field, its value and what would work.
        """
        check_types(self)
        available, processes = jax.device_count(), jax.process_count()
        _require(
            self.devices <= available,
            f"devices is {self.devices}, but there are only {available}; use 0 for all of them",
        )
        _require(
            processes == 1 or self.devices in (0, available),
            f"devices is {self.devices}, but {processes} processes with {available} devices run "
            "together, and none can be left out; use 0 for all of them",
        )
        self.validate_for(self.num_devices)

    def validate_for(self, devices: int) -> None:
        """Refuses what cannot run on so many devices, which need not be here.

        Raises:
            ConfigError: one sentence with the field, its value and what would work.
        """
        check_types(self)
        for section in ("game", "demonstrations", "network", "search", "selfplay", "learner"):
            _check_numbers(section, getattr(self, section))
        _check_numbers("", self)
        self._check_targets()
        side, names = self.side, " ".join(self.game.targets)
        size = self.network.token_size
        _require(
            not size or side % size == 0,
            f"network.token_size is {size}, which does not divide the side {side} of {names}; "
            f"0 picks one that does",
        )
        space = self.action_space
        _require(
            space.vocabulary <= MAX_VOCABULARY,
            f"network.token_size is {size}, which makes {space.vocabulary} values a token; at most "
            f"{MAX_VOCABULARY} are supported, so use a smaller divisor of {side}",
        )
        try:
            search_config.check(self.search)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        actions = self.search.num_actions
        _require(
            actions <= space.size,
            f"search.num_actions is {actions}, more than the {space.size} actions of "
            f"{names} over {space.ring.name}; use at most {space.size}",
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
        for field, value in (
            ("learner.flips", self.learner.flips),
            ("selfplay.continued_share", self.selfplay.continued_share),
        ):
            _require(
                not value or self.learner.best_games_share > 0,
                f"{field} is {value}, but learner.best_games_share is 0, so that no best games are "
                "kept; give them a share of the demonstrations",
            )
        for field, batch, positions in (
            ("reanalysed_share", self.learner.replay_batch, "replayed positions"),
            ("best_games_share", self.learner.demonstration_batch, "demonstrations"),
        ):
            share = getattr(self.learner, field)
            _require(
                not share or batch,
                f"learner.{field} is {share}, but there are no {positions} in a batch; use 0",
            )
            chosen = share * batch / devices
            _require(
                abs(chosen - round(chosen)) < 1e-6,
                f"learner.{field} is {share}, which makes {chosen:g} of the {positions} on each of "
                f"{devices} devices; choose one that makes a whole number",
            )
        parts, batch = self.learner.microbatches, self.learner.replay_batch
        batch += self.learner.demonstration_batch
        _require(
            batch % (parts * devices) == 0,
            f"learner.microbatches is {parts}, which with {devices} devices does not divide the "
            f"{batch} positions of a batch; use a divisor of {batch // devices}",
        )
        factors, moves = max(self.demonstrator.max_factors), self.max_moves
        _require(
            factors <= moves,
            f"demonstrations.max_factors is {factors}, more than game.max_moves = {moves}",
        )
        _require(
            max(self.ranks_wanted) <= moves,
            f"target_ranks are {self.ranks_wanted}, which games of game.max_moves = {moves} moves "
            f"cannot show; allow at least {max(self.ranks_wanted)} moves",
        )

    def _check_targets(self) -> None:
        """Refuses targets and rings that do not exist or do not fit together."""
        game = self.game
        _require(game.targets, "game.targets is empty; name one, as in matmul:2,2,2")
        try:
            self.targets  # noqa: B018
        except ValueError as error:
            raise ConfigError(f"game.targets: {error}") from None
        try:
            self.ring  # noqa: B018
        except ValueError as error:
            field = "coefficients" if game.ring == "z" else "ring"
            raise ConfigError(f"game.{field}: {error}") from None
        count = len(game.targets)
        _require(len(set(game.targets)) == count, "game.targets holds a target twice; drop one")
        for name, values in (
            ("game.target_weights", game.target_weights),
            ("target_ranks", self.target_ranks),
        ):
            _require(
                len(values) in (0, count),
                f"{name} has {len(values)} values for {count} targets; give one each, or none",
            )
        _require(
            self.rules.largest_start > 0,
            f"game.coefficients go up to {self.ring.largest}, whose cube times game.max_moves = "
            f"{self.max_moves} overflows the {self.ring.dtype.name} residuals; use smaller ones",
        )
        largest = max(int(np.abs(target.tensor).max()) for target in self.targets)
        _require(
            self.ring.modulus or largest <= self.rules.largest_start,
            f"game.targets has entries up to {largest}; with game.max_moves = {self.max_moves} at "
            f"most {self.rules.largest_start} fits into {self.ring.dtype.name}",
        )

    def warnings(self) -> list[str]:
        """Sentences about settings that run but can hardly succeed."""
        sentences = []
        for target, wanted in zip(self.targets, self.ranks_wanted, strict=True):
            if wanted < target.lower_bound:
                sentences.append(
                    f"target_ranks wants {wanted} for {target.name}, below the proved lower bound "
                    f"{target.lower_bound}: the run will use its whole budget"
                )
            known = target.known(self.ring.name).rank
            if self.lift and known < target.known(self.counting_ring).rank:
                sentences.append(
                    f"for {target.name} {known} products are known over {self.ring.name} and more "
                    "over Z: such algorithms count only if they can be lifted; --no-lift counts all"
                )
        return sentences


@functools.lru_cache
def _target(name: str) -> targets.Target:
    """A tensor file is read once, so that it cannot change under a run."""
    return targets.parse(name)


# Fields that may be zero; for some of them zero means "choose for me".
_MAY_BE_ZERO = {
    "game.max_moves",
    "game.history",
    "game.canonical_probability",
    "game.signed_permutations",
    "demonstrations.max_factors",
    "demonstrations.large",
    "network.dropout",
    "network.token_size",
    "search.noise_fraction",
    "search.value_scale",
    "search.considered_actions",
    "search.maxvisit_init",
    "learner.demonstration_batch",
    "learner.demonstration_steps",
    "learner.best_games_share",
    "learner.decay_updates",
    "learner.flips",
    "learner.reanalysed_share",
    "learner.swapped_share",
    "learner.warmup_updates",
    "selfplay.continued_basis_density",
    "selfplay.continued_migration",
    "selfplay.continued_sparser",
    "selfplay.continued_share",
    "learner.weight_decay",
    "learner.policy_weight",
    "learner.value_weight",
    "seed",
    "devices",
}
_AT_MOST = {
    "network.dropout": 0.9,
    "search.noise_fraction": 1.0,
    "learner.best_games_share": 1.0,
    "learner.reanalysed_share": 1.0,
    "learner.swapped_share": 1.0,
    "selfplay.continued_migration": 1.0,
    "selfplay.continued_sparser": 1.0,
    "selfplay.continued_share": 1.0,
    "game.canonical_probability": 1.0,
    "selfplay.continued_basis_density": 1.0,
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
        if get_origin(wanted) is Literal:
            options = get_args(wanted)
            _require(value in options, f"{name} is {value!r}; it must be {' or '.join(options)}")
            continue
        if get_origin(wanted) is tuple:
            (item, _) = get_args(wanted)
            fits = isinstance(value, tuple) and all(_is_a(item, each) for each in value)
            _require(fits, f"{name} is {value!r}; it must be a tuple of type {item.__name__}")
            continue
        _require(_is_a(wanted, value), f"{name} is {value!r}; it must be of type {wanted.__name__}")
        if dataclasses.is_dataclass(value):
            check_types(value, f"{name}.")


def _is_a(wanted: type, value: object) -> bool:
    accepted = (float, int) if wanted is float else wanted
    # Python takes True for an int.
    return isinstance(value, accepted) and isinstance(value, bool) == (wanted is bool)


def _check_numbers(section: str, values: object) -> None:
    """Refuses numbers out of range in one section of the configuration."""
    for field in dataclasses.fields(values):
        name, value = f"{section}.{field.name}".lstrip("."), getattr(values, field.name)
        for number in value if isinstance(value, tuple) else [value]:
            if isinstance(number, int | float) and not isinstance(number, bool):
                _check_number(name, number)


def _check_number(name: str, value: float) -> None:
    _require(math.isfinite(value), f"{name} is {value}; it must be a finite number")
    if name in _MAY_BE_ZERO:
        _require(value >= 0, f"{name} is {value}; it must not be negative")
    elif name != "game.coefficients":
        _require(value > 0, f"{name} is {value}; it must be positive")
    if name in _AT_MOST:
        highest = _AT_MOST[name]
        _require(value <= highest, f"{name} is {value}; it must be at most {highest}")


def _require(condition: object, message: str) -> None:
    if not condition:
        raise ConfigError(message)
