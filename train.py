"""Discovers matrix multiplication algorithms: ``python train.py``.

The same command again goes on from the last checkpoint in its work folder, with a new time budget.
Exit status: 0, an algorithm of the wanted rank is there; 1, the run ended without one; 2, bad
input; 130 (143), stopped by Ctrl-C (SIGTERM) after a checkpoint.
"""

import argparse
import dataclasses
import math
import os
import pathlib
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated

import jax
import tyro

from training.checkpoint import Checkpoints
from training.config import Config, ConfigError
from training.progress import COUNTERS, Progress, plot, waiting
from training.records import Records
from training.step import StepOutput, TrainState, init_state, make_mesh, make_step
from training.workdir import claim, default_workdir

_CHECKPOINT_SECONDS = 60.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Discover matrix multiplication algorithms by playing TensorGame.

    Exit status: 0 for an algorithm of the wanted rank, 1 without one, 2 for bad input.
    """

    config: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A Python file that defines config = Config(...); the flags below change single fields."""
    workdir: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Where everything is kept, and looked for to go on from; by default a folder in runs/ that is
    named after the configuration."""
    run: Annotated[Config, tyro.conf.arg(name="")] = Config()


class Diverged(RuntimeError):
    """A number of the learner is not finite."""


class Interrupts:
    """Notes the first Ctrl-C or SIGTERM inside the context; the second acts as usual.

    Attributes:
        number: of the signal, 0 without one.
    """

    def __enter__(self) -> "Interrupts":
        self.number = 0
        signals = (signal.SIGINT, signal.SIGTERM)
        self._handlers = {number: signal.signal(number, self._note) for number in signals}
        return self

    def __exit__(self, *_exception: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        self.number = number
        self.__exit__()
        print("stopping after the steps in progress ...", flush=True)


@dataclasses.dataclass(frozen=True)
class Loop:
    """The steps of a run until it is over.

    Attributes:
        step: the compiled training step.
        clock: seconds since the run began, those of earlier sessions included.
        limit: seconds at which to give up.
    """

    step: Callable[[TrainState], tuple[TrainState, StepOutput]]
    config: Config
    records: Records
    progress: Progress
    checkpoints: Checkpoints
    clock: Callable[[], float]
    limit: float

    def run(self, state: TrainState) -> int:
        """Makes steps; returns the exit status.

        Raises:
            Diverged: a loss is not finite.
        """
        pending: list[StepOutput] = []
        saved = self.clock()
        with Interrupts() as interrupts, self.progress:
            while True:
                over = self.records.reached or interrupts.number or self.clock() >= self.limit
                saving = over or self.clock() - saved >= _CHECKPOINT_SECONDS
                if not saving:
                    state, output = self.step(state)
                    pending.append(output)
                # While outputs are handled, the device is at work on the step after them; only
                # before a checkpoint all are.
                while len(pending) > (not saving):
                    self._handle(pending.pop(0))
                if saving:
                    counters = self.progress.counters
                    self.checkpoints.save(counters["step"], state, counters)
                    saved = self.clock()
                if over:
                    break
        if self.records.reached:
            return 0
        return 128 + interrupts.number if interrupts.number else 1

    def _handle(self, output: StepOutput) -> None:
        """Keeps what a step found and tells of it."""
        metrics, found = jax.device_get(output)
        step, seconds = self.progress.counters["step"] + 1, self.clock()
        ...
