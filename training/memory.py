"""What a run needs of the memory of a device, from shapes alone, before any is allocated."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import jax

from training.config import Config, ConfigError
from training.step import TrainState


class Budget(NamedTuple):
    """Bytes on each device.

    Attributes:
        network: parameters and the optimizer's state.
        games: games in progress.
        rings: their finished games.
        best: the best games of each target.
        chains: the games that places go on from.
        tree: the trees of a search of all games in progress, an estimate.
    """

    network: int
    games: int
    rings: int
    best: int
    chains: int
    tree: int

    @property
    def total(self) -> int:
        return sum(self)

    def line(self, limit: int | None) -> str:
        """One line for people, with the bytes that a device has if they are known."""
        parts = ", ".join(f"{name} {_readable(size)}" for name, size in self._asdict().items())
        has = f" of {_readable(limit)}" if limit else ""
        return f"memory of a device: {_readable(self.total)}{has}, besides activations ({parts})"


def budget(config: Config, state: TrainState, devices: int) -> Budget:
    """What a run with a state of these shapes (of all devices together) needs on each of them.

    The activations of the network are not counted: only the compiler knows what it keeps of them.
    """
    tree = config.num_seeds * config.selfplay.num_games * _tree_bytes(config, state)
    return Budget(
        network=_bytes((state.params, state.optimizer)),
        games=_bytes(state.episodes) // devices,
        rings=_bytes(state.replay) // devices,
        best=_bytes(state.best),
        chains=_bytes(state.chains) // devices,
        tree=tree // devices,
    )


def check_memory(config: Config, needed: Budget, limit: int | None, devices: int) -> None:
    """Refuses a budget that is larger than the ``limit`` of a device in bytes, if that is known.

    Raises:
        ConfigError: one sentence with the number of games or of kept games that would fit.
    """
    if not limit or needed.total <= limit:
        return
    games, kept = config.selfplay.num_games, config.selfplay.kept_games
    without_games = limit - needed.network - needed.best
    for_one = (needed.games + needed.rings + needed.chains + needed.tree) / games
    fitting = _allowed_games(config, devices, int(without_games / for_one))
    fitting_kept = int((limit - needed.total + needed.rings) * kept / needed.rings)
    options = [f"at most {fitting} fit"] * (fitting > 0)
    if fitting_kept > 0:
        options.append(f"all fit with a selfplay.kept_games of {fitting_kept} instead of {kept}")
    advice = ", or ".join(options) or (
        "not even the fewest would fit, so use a smaller network or more devices"
    )
    raise ConfigError(
        f"selfplay.num_games is {games}, for which a device needs {_readable(needed.total)} "
        f"besides activations, and it has {_readable(limit)}; {advice}"
    )


def memory_limit(devices: Sequence[jax.Device]) -> int | None:
    """The bytes that a run may use on each of the devices; None if that is not known.

    The CPU's devices share the memory of their machine.
    """
    mine = [device for device in devices if device.process_index == jax.process_index()]
    if mine[0].platform == "cpu":
        if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
            return None
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // len(mine)
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in mine]
    return None if None in limits else min(limits)


def _tree_bytes(config: Config, state: TrainState) -> int:
    """Of the tree of one game: mctx keeps six numbers for each slot of a node and five a node.

    `search.growth` keeps the depth of a node besides.
    """
    search, rules = config.search, state.episodes.state
    slots = search.num_actions + search.unsampled_mass
    position = _bytes(rules) // (config.selfplay.num_games * config.num_seeds)
    tokens = 4 * search.num_actions * config.action_space.num_tokens
    key = _bytes(jax.eval_shape(jax.random.key_data, state.key)) // config.num_seeds
    nodes = 1 if search.is_one_ply else search.num_simulations + 1
    return nodes * (24 * slots + 24 + position + tokens + key)


def _allowed_games(config: Config, devices: int, most: int) -> int:
    """The largest number of games up to ``most`` that goes with the batches and the devices."""
    batches = (config.learner.replay_batch, config.learner.demonstration_batch)
    for games in range(most - most % devices, 0, -devices):
        if all(batch % games == 0 or games % batch == 0 for batch in batches if batch):
            return games
    return 0


def _bytes(tree: object) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _readable(size: float) -> str:
    """1.5 GiB, 20.0 MiB or 3.1 KiB."""
    for unit in ("KiB", "MiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} GiB"
