"""Checkpoints: the whole state of a run with the numbers that the host counts."""

import pathlib
import sys
from typing import NamedTuple

import jax
import orbax.checkpoint as ocp
from absl import logging

from training.config import ConfigError

_KEPT = 2


class Checkpoint(NamedTuple):
    """What a run goes on from.

    Attributes:
        step: training steps made.
        state: the device state after them.
        counters: the host's numbers.
    """

    step: int
    state: object
    counters: dict[str, float]


class Checkpoints:
    """The last checkpoints of a work folder; a crash while one is written leaves the others."""

    def __init__(self, workdir: pathlib.Path):
        # Orbax tells each save and restore as a warning or an info line.
        logging.set_verbosity(logging.ERROR)
        self.folder = workdir.resolve() / "checkpoints"
        # In the background a save would read buffers that the next step is given to overwrite.
        options = ocp.CheckpointManagerOptions(max_to_keep=_KEPT, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    @property
    def latest(self) -> int | None:
        """The step of the newest checkpoint."""
        return self._manager.latest_step()

    def save(self, step: int, state: object, counters: dict[str, float]) -> None:
        """Writes a checkpoint, unless there is one of this step, and drops the oldest."""
        if step == self.latest:
            return
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(_filled(state)), counters=ocp.args.JsonSave(counters)
        )
        self._manager.save(step, args=items)

    def restore(self, state_like: object) -> Checkpoint | None:
        """The newest readable checkpoint, placed on devices like ``state_like``; None without any.

        Damaged ones are dropped with a warning as soon as an older one could be read.

        Raises:
            ConfigError: there are checkpoints, but none can be read.
        """
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(_filled(state_like)), counters=ocp.args.JsonRestore()
        )
        damaged = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self._manager.restore(step, args=items)
            except Exception as error:  # a dozen unrelated types, by what is damaged
                reason, _, _ = str(error).partition("\n")
                damaged[step] = f"{type(error).__name__}: {reason[:200]}"
                continue
            for bad, reason in damaged.items():
                print(f"warning: dropped the damaged checkpoint {bad} ({reason})", file=sys.stderr)
                self._manager.delete(bad)
            state = jax.tree.map(
                lambda like, saved: saved if like.size else like, state_like, restored.state
            )
            return Checkpoint(step, state, restored.counters)
        if damaged:
            raise ConfigError(
                f"no checkpoint in {self.folder} can be read ({damaged[max(damaged)]}); remove "
                "that folder to start over, or name another one with --workdir"
            )
        return None


def _filled(state: object) -> object:
    """``state`` without arrays of size zero, such as an empty history: Orbax refuses them."""
    return jax.tree.map(lambda x: x if x.size else None, state)
