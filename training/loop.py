"""The host's loop around the compiled training step."""

import dataclasses
import math
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn

import jax

from training.agents import Agent, have_reached
from training.checkpoint import CheckpointError, Checkpoints
from training.config import Config
from training.diagnosis import write_diagnosis
from training.distributed import Agreement, Wishes
from training.progress import Progress
from training.step import Found, StepOutput, TrainState


class DivergenceError(RuntimeError):
    """A loss or a gradient is not finite."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loop:
    """Makes steps, keeps what they find and writes checkpoints.

    Attributes:
        config: the run's.
        agents: those that the step trains.
        step: the compiled training step.
        progress: tells of each step.
        checkpoints: of the state and of what ``progress`` counts.
        clock: seconds since the run began, over all its sessions.
        limit: the seconds at which it gives up.
    """

    config: Config
    agents: Sequence[Agent]
    step: Callable[[TrainState], tuple[TrainState, StepOutput]]
    progress: Progress
    checkpoints: Checkpoints
    clock: Callable[[], float]
    limit: float

    def run(self, state: TrainState) -> int:
        """Goes on until the rank wanted is found, the time is over, or a signal comes.

        A notice of pre-emption counts as SIGTERM. Either way the last checkpoint is complete when
        this returns.

        Returns:
            The number of the signal, or 0.

        Raises:
            DivergenceError: a loss or a gradient is not finite.
            CheckpointError: the last checkpoint could not be written.
        """
        pending: list[StepOutput] = []
        agree = Agreement()
        saved = self.clock()
        with _Interrupts() as interrupts, self.progress:
            while True:
                number, over, saving = agree(self._wishes(interrupts, len(pending), saved))
                over = over or number > 0
                saving = saving or over
                if not over:
                    state, output = self.step(state)
                    pending.append(output)
                # The device is at work on the last step while the one before is handled here; a
                # checkpoint has to include what the host knows of all of them.
                while len(pending) > (0 if saving else 1):
                    self._handle(pending.pop(0), state, len(pending))
                if over:
                    self._save(state)
                    self.checkpoints.wait()
                    return number
                if saving:
                    self._try_to_save(state)
                    saved = self.clock()

    def _wishes(self, interrupts: "_Interrupts", pending: int, saved: float) -> Wishes:
        """What this process wants after so many steps that are not handled yet."""
        now = self.clock()
        if self.checkpoints.preempted(self.progress.step + pending):
            interrupts.number = signal.SIGTERM
        return Wishes(
            signal=interrupts.number,
            over=have_reached(self.agents) or now >= self.limit,
            saving=now - saved >= 60 * self.config.checkpoint_minutes,
        )

    def _save(self, state: TrainState) -> None:
        self.progress.flush()
        counters = {"agents": self.progress.counters}
        self.checkpoints.save(self.progress.step, state, counters)

    def _try_to_save(self, state: TrainState) -> None:
        """Begins to write a checkpoint; a disk that is full now may have room a minute later."""
        try:
            self._save(state)
        except CheckpointError as error:
            print(f"warning: {error}; trying again later", file=sys.stderr, flush=True)

    def _handle(self, output: StepOutput, newest: TrainState, steps_made: int) -> None:
        """Waits for the output of a step, keeps what was found, and tells of it."""
        outputs = _of_each(jax.device_get(output), len(self.agents))
        seconds = self.clock()
        for agent, one in zip(self.agents, outputs, strict=True):
            self._keep(agent, one.found, seconds)
        metrics = [one.metrics for one in outputs]
        self.progress.update(metrics, [a.records.best_ranks for a in self.agents], seconds)
        for agent, one in zip(self.agents, metrics, strict=True):
            for name, value in one.items():
                if name.endswith(("_loss", "_norm")) and not math.isfinite(value):
                    self._give_up(agent, f"{name} became {value}", newest, steps_made)

    def _keep(self, agent: Agent, found: Found, seconds: float) -> None:
        """Offers the solved games of a step to the agent's records."""
        for records, count, factors in zip(
            agent.records.each, found.moves, found.actions, strict=True
        ):
            if count > self.config.max_moves:
                continue
            best = records.offer(
                factors[:count],
                step=self.progress.step + 1,
                seconds=round(seconds, 3),
                compile_seconds=self.progress.compile_seconds,
            )
            if best is not None:
                print(f"{self._named(agent)}{best.summary()} after {seconds:.1f} s", flush=True)

    def _give_up(self, agent: Agent, what: str, newest: TrainState, steps_made: int) -> NoReturn:
        """Leaves a diagnosis of an agent that diverged.

        Raises:
            DivergenceError: always.
        """
        reason = f"{self._named(agent)}{what} at step {self.progress.step}"
        latest = self.checkpoints.latest
        checkpoint = None if latest is None else f"{self.checkpoints.folder}/{latest}"
        self.progress.flush()
        path = write_diagnosis(agent.folder, reason, newest, steps_made, checkpoint)
        raise DivergenceError(f"{reason}, see {path}")

    def _named(self, agent: Agent) -> str:
        """Says of which agent something is, if there are others."""
        return f"seed {agent.config.seed}: " if len(self.agents) > 1 else ""


def _of_each(output: StepOutput, agents: int) -> list[StepOutput]:
    """The output of a step for each of its agents."""
    if agents == 1:
        return [output]
    return [jax.tree.map(lambda x, i=index: x[i], output) for index in range(agents)]


class _Interrupts:
    """Inside the context, notes the first Ctrl-C or SIGTERM; the second acts as usual.

    Attributes:
        number: of the signal, or 0.
    """

    def __enter__(self) -> "_Interrupts":
        self.number = 0
        signals = (signal.SIGINT, signal.SIGTERM)
        self._usual = {number: signal.signal(number, self._note) for number in signals}
        return self

    def __exit__(self, *_exception: object) -> None:
        for number, handler in self._usual.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.number = number
        self.__exit__()
        print("stopping after the steps in progress; once more stops at once", flush=True)
