"""Checkpoints: the whole state of a run with the numbers that the host counts.

What a run restores, in this order, and what it does if that is damaged:

1. The configuration, from the command line. A folder of another one is refused.
2. The lock of the folder. A second process is refused.
3. The records, each proved again. A damaged one is refused by name: nothing may hide it.
4. The newest checkpoint that can be read: parameters, optimizer, key, step, games in progress and
   replay on the devices, counters on the host. Damaged ones are put aside with a warning; without
   any checkpoint the run begins at step 0, with the records that it has.
5. The metrics, cut back to the step of the checkpoint.

Records are never cut back: one that was found after the checkpoint stays.
"""

import sys
from collections.abc import Callable
from typing import NamedTuple

import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from jax.experimental.multihost_utils import sync_global_devices

from training.config import ConfigError
from training.distributed import is_first
from training.storage import Path

_KEPT = 2


class CheckpointError(OSError):
    """A checkpoint could not be written; the message says which, where, why and what is left."""


class Checkpoint(NamedTuple):
    """What a run goes on from.

    Attributes:
        step: training steps made.
        state: the device state after them.
        counters: the host's numbers; they can be written as JSON.
    """

    step: int
    state: object
    counters: dict[str, object]


class Checkpoints:
    """The last checkpoints of a work folder, written in the background.

    A checkpoint has a temporary name until it is complete, so that a crash leaves the others.
    """

    def __init__(self, workdir: Path):
        # Orbax tells each save and restore as a warning or an info line, and repeats errors.
        logging.set_verbosity(logging.FATAL)
        # Orbax wants absolute paths.
        self.folder = epath.Path(workdir).resolve() / "checkpoints"
        self._saving: int | None = None
        self._manager = self._open()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_exception: object) -> None:
        """Ends the threads; what is being written is completed if it can be."""
        try:
            self.wait()
        except CheckpointError as error:
            print(f"warning: {error}", file=sys.stderr)
        self._manager.close()

    @property
    def latest(self) -> int | None:
        """The step of the newest checkpoint, which may still be on its way."""
        return self._manager.latest_step()

    def preempted(self, step: int) -> bool:
        """Whether a notice of pre-emption came to any process and ``step`` is the one to save.

        JAX's own service decides on the same step for all processes, which have to ask at every
        step. A process of its own has no such service; its notice is SIGTERM.
        """
        return self._manager.reached_preemption(step)

    def save(self, step: int, state: object, counters: dict[str, object]) -> None:
        """Begins to write a checkpoint, unless there is one of this step; the oldest is dropped.

        Returns once the state is copied to the host, so that it may be donated to the next step.
        Waits for the checkpoint before if that one is not complete yet.

        Raises:
            CheckpointError: this one, or the one before, could not be written.
        """
        if step == self.latest:
            return
        # The counters are written in the background, while the host goes on counting.
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), counters=ocp.args.JsonSave(dict(counters))
        )
        self.wait()
        self._saving = step
        self._guarded(lambda: self._manager.save(step, args=items))

    def wait(self) -> None:
        """Waits for what is being written.

        Raises:
            CheckpointError: it could not be written.
        """
        self._guarded(self._manager.wait_until_finished)
        self._saving = None

    def restore(self, state_like: object) -> Checkpoint | None:
        """The newest readable checkpoint, placed as ``state_like`` says; None without any.

        Damaged ones are put aside with a warning as soon as an older one could be read.

        Args:
            state_like: arrays, or their shapes with shardings; the number of devices may differ
                from that of the process that wrote the checkpoint.

        Raises:
            ConfigError: there are checkpoints, but none can be read.
        """
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(state_like), counters=ocp.args.JsonRestore()
        )
        damaged = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self._manager.restore(step, args=items)
            except Exception as error:  # a dozen unrelated types, by what is damaged
                damaged[step] = f"{type(error).__name__}: {_first_line(error)}"
                continue
            for bad, reason in damaged.items():
                self._put_aside(bad, reason)
            return Checkpoint(step, restored.state, restored.counters)
        if damaged:
            raise ConfigError(
                f"no checkpoint in {self.folder} can be read ({damaged[max(damaged)]}); remove "
                "that folder to start over, or name another one with --workdir"
            )
        return None

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=_KEPT,
            # What a process that was killed has left half-written would pile up.
            cleanup_tmp_directories=True,
            # If a folder cannot be made in the background, threads wait for it for ten minutes,
            # even when the program wants to end.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
        )
        return ocp.CheckpointManager(self.folder, options=options)

    def _put_aside(self, step: int, reason: str) -> None:
        """Moves a damaged checkpoint out of the way of the next one of its step."""
        aside = self.folder.parent / "damaged_checkpoints"
        if is_first():
            aside.mkdir(exist_ok=True)
            earlier = len(list(aside.glob(f"{step}.*")))
            place = aside / f"{step}.{earlier}"
            (self.folder / str(step)).rename(place)
            print(
                f"warning: skipped the damaged checkpoint {step}, now {place} ({reason})",
                file=sys.stderr,
            )
        sync_global_devices(f"put aside {step}")
        self._manager.reload()

    def _guarded(self, act: Callable[[], object]) -> None:
        """Calls Orbax, whose errors of writing are of unrelated types."""
        try:
            act()
        except Exception as error:
            failed, self._saving = self._saving, None
            # A manager that has failed believes that the checkpoint is there.
            self._manager = self._open()
            raise CheckpointError(
                f"the checkpoint of step {failed} cannot be written to {self.folder} "
                f"({_first_line(error)}); the last complete one is of step {self.latest}"
            ) from error


def restore_parts(workdir: Path, parts_like: dict[str, object]) -> tuple[int, dict]:
    """The step and some parts of the state of the newest readable checkpoint, nothing else of it.

    Reads only, so that the run may be going on.

    Args:
        workdir: the work folder.
        parts_like: shapes with shardings, by the names of the state's fields.

    Raises:
        ConfigError: there is no checkpoint, or none can be read.
    """
    folder = epath.Path(workdir).resolve() / "checkpoints"
    reason = ""
    item = ocp.args.PyTreeRestore(
        item=parts_like,
        restore_args=ocp.checkpoint_utils.construct_restore_args(parts_like),
        partial_restore=True,
    )
    steps = ocp.utils.checkpoint_steps(folder) if folder.exists() else []
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        for step in sorted(steps, reverse=True):
            try:
                restored = checkpointer.restore(folder / str(step) / "state", args=item)
            except Exception as error:  # as in Checkpoints.restore
                reason = reason or _first_line(error)
                continue
            return step, restored
    raise ConfigError(f"no checkpoint in {folder} can be read: {reason or 'there is none'}")


def _first_line(error: BaseException) -> str:
    line, _, _ = str(error).partition("\n")
    # Orbax names files several times before it comes to what is wrong.
    return line[:600]
