"""Several processes as one run: start-up, and decisions that all of them take at the same step.

Each process runs the whole program on its own devices, and JAX joins them. What a step reports is
the same everywhere, but clocks, signals and files are not; what depends on these has to be agreed
upon, as a process that leaves the loop alone makes the others wait for ever.
"""

import contextlib
import io
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from training.config import ConfigError
from training.storage import Path

T = TypeVar("T")

Distributed = Literal["on", "off", "auto"]

# Processes talk of stopping about so often; it costs a step's overlap with the host's work.
_SECONDS_PER_ROUND = 2.0
# A process that fails alone does not keep the others longer than this.
_SHUTDOWN_SECONDS = 20
_COUNT, _ID = "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


def start(mode: Distributed) -> None:
    """Joins the processes of a run; to be called before JAX is used.

    JAX finds the others by itself on Cloud TPUs, Slurm, Open MPI and Kubernetes. Elsewhere three
    variables of the environment tell: JAX_COORDINATOR_ADDRESS (host:port of process 0),
    JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Args:
        mode: ``on`` has to find others, ``off`` does not look, and ``auto`` takes what it finds.

    Raises:
        ConfigError: ``on`` found nothing, the variables are incomplete, or the others did not come.
    """
    if mode == "off" or jax.distributed.is_initialized():
        return
    # Slurm would be given one device a process, so that a single task would lose the others.
    if mode == "auto" and os.environ.get("SLURM_NTASKS") == "1":
        return
    try:
        jax.distributed.initialize(
            num_processes=_number(_COUNT),
            process_id=_number(_ID),
            shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        reason, _, _ = str(error).partition("\n")
        nothing_there = "coordinator_address should be defined" in reason
        if mode == "auto" and (nothing_there or "must be called before" in reason):
            return
        raise ConfigError(
            f"--distributed is {mode}, but the processes could not be joined ({reason}); start one "
            "on each host of a cluster that JAX knows, or set JAX_COORDINATOR_ADDRESS, "
            f"{_COUNT} and {_ID}, or run alone with --distributed off"
        ) from None


def _number(variable: str) -> int | None:
    value = os.environ.get(variable)
    if value is not None and not value.isdecimal():
        raise ConfigError(f"the environment has {variable}={value}; it must be a whole number")
    return None if value is None else int(value)


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return jax.process_index() == 0


@contextlib.contextmanager
def voice(workdir: Path) -> Iterator[Path]:
    """Where this process keeps its books: process 0 in ``workdir``, the others nowhere, silently.

    The others do the same work as process 0, in a folder that is removed: so what process 0 refuses
    all refuse, at the same step.
    """
    if is_first():
        yield workdir
        return
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        yield pathlib.Path(folder)


def from_first(number: int) -> int:
    """The ``number`` of process 0; all processes have to ask."""
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def together(action: Callable[[], T]) -> T:
    """Does something in each process, which fails in all if it fails in one.

    Raises:
        ConfigError: that of ``action``, or of another process.
    """
    result, refusal = None, None
    try:
        result = action()
    except ConfigError as error:
        refusal = error
    refused = multihost_utils.process_allgather(np.int32(refusal is not None)).reshape(-1)
    if refusal is not None:
        raise refusal
    if refused.any():
        raise ConfigError(f"process {refused.argmax()} cannot run; its own message says why")
    return result


def check_shared(workdir: Path) -> None:
    """Refuses a work folder that process 0 has made and this process does not see.

    Raises:
        ConfigError: it is not there.
    """
    if not workdir.is_dir():
        raise ConfigError(
            f"workdir is {workdir}, which process {jax.process_index()} does not see; name one "
            "that all hosts share, on a network file system, with --workdir"
        )


class Wishes(NamedTuple):
    """What a process wants of the loop.

    Attributes:
        signal: the number of the signal that it got, or 0.
        over: whether to stop for another reason.
        saving: whether a checkpoint is due.
    """

    signal: int
    over: bool
    saving: bool


class Agreement:
    """Turns the wishes of each process into those of all, at the same call in all of them.

    A single process has its will at once. Several talk only in some calls, of which process 0 says
    when the next one is, as its clock decides.
    """

    def __init__(self) -> None:
        self._calls_left = 0
        self._calls = 1
        self._last = time.monotonic()

    def __call__(self, wishes: Wishes) -> Wishes:
        """The wishes of process 0, and the signal of any; none between the rounds.

        All processes have to make the same calls.
        """
        if jax.process_count() == 1:
            return wishes
        if self._calls_left:
            self._calls_left -= 1
            return Wishes(0, False, False)
        said = np.array([*wishes, self._calls_in_a_round()], np.int32)
        said = multihost_utils.process_allgather(said)
        self._calls = self._calls_left = int(said[0, 3])
        return Wishes(int(said[:, 0].max()), bool(said[0, 1]), bool(said[0, 2]))

    def _calls_in_a_round(self) -> int:
        """So many that a round takes its seconds, at most twice as many as in the last one."""
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        fits = self._calls * _SECONDS_PER_ROUND / max(seconds, 1e-3)
        return int(np.clip(fits, 1, 2 * self._calls))
