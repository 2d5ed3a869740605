"""The host's loop around the compiled training step."""

import dataclasses
import math
import signal
from collections.abc import Callable
from types import FrameType

import jax

from training.checkpoint import Checkpoints
from training.config import Config
from training.distributed import Agreement, Wishes
from training.progress import Progress
from training.records import Records
from training.step import Found, StepOutput, TrainState

CHECKPOINT_SECONDS = 60.0


class DivergenceError(RuntimeError):
    """A loss or a gradient is not finite."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loop:
    """Makes steps, keeps what they find and writes checkpoints.

    Attributes:
        step: the compiled training step.
        clock: seconds since the run began, over all its sessions.
        limit: the seconds at which it gives up.
    """

    config: Config
    step: Callable[[TrainState], tuple[TrainState, StepOutput]]
    records: Records
    progress: Progress
    checkpoints: Checkpoints
    clock: Callable[[], float]
    limit: float

    def run(self, state: TrainState) -> int:
        """Goes on until the rank wanted is found, the time is over, or a signal comes.

        Returns:
            The number of the signal, or 0.

        Raises:
            DivergenceError: a loss or a gradient is not finite.
        """
        pending: list[StepOutput] = []
        agree = Agreement()
        saved = self.clock()
        with _Interrupts() as interrupts, self.progress:
            while True:
                now = self.clock()
                over = self.records.reached or now >= self.limit
                saving = now - saved >= CHECKPOINT_SECONDS
                number, over, saving = agree(Wishes(interrupts.number, over, saving))
                over = number or over
                saving = saving or over
                if not over:
                    state, output = self.step(state)
                    pending.append(output)
                # The device is at work on the last step while the one before is handled here; a
                # checkpoint has to include what the host knows of all of them.
                while len(pending) > (0 if saving else 1):
                    self._handle(pending.pop(0))
                if saving:
                    counters = self.progress.counters
                    self.checkpoints.save(counters["step"], state, counters)
                    saved = self.clock()
                if over:
                    return number

    def _handle(self, output: StepOutput) -> None:
        """Waits for the output of a step, keeps what was found, and tells of it."""
        metrics, found = jax.device_get(output)
        seconds = self.clock()
        self._keep(found, seconds)
        self.progress.update(metrics, self.records.best_ranks, seconds)
        for name, value in metrics.items():
            if name.endswith(("_loss", "_norm")) and not math.isfinite(value):
                raise DivergenceError(
                    f"{name} became {value} at step {self.progress.counters['step']}"
                )

    def _keep(self, found: Found, seconds: float) -> None:
        """Offers the solved games of all devices to the records."""
        counters = self.progress.counters
        for moves, actions in zip(found.moves, found.actions, strict=True):
            for records, count, factors in zip(self.records.each, moves, actions, strict=True):
                if count > self.config.max_moves:
                    continue
                best = records.offer(
                    factors[:count],
                    step=counters["step"] + 1,
                    seconds=round(seconds, 3),
                    compile_seconds=counters["compile_seconds"],
                )
                if best is not None:
                    print(f"{best.summary()} after {seconds:.1f} s", flush=True)


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
