"""A trace of a few steps, for xprof or Perfetto: ``python train.py --profile 5``."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator

import jax

from training.distributed import is_first
from training.step import StepOutput, TrainState

# The first steps load programs and fill caches.
_WARM_STEPS = 3

Step = Callable[[TrainState], tuple[TrainState, StepOutput]]


@contextlib.contextmanager
def profiled(step: Step, folder: pathlib.Path, idle: int, count: int) -> Iterator[Step]:
    """A training step that also traces ``count`` of its calls, between two waits for the device.

    Args:
        step: the compiled training step.
        folder: where the trace goes.
        idle: calls before the first that could be traced; a few more follow, to warm up.
        count: how many calls, 0 for none.
    """
    if not count or not is_first():
        yield step
        return
    trace = _Trace(step, folder, idle + _WARM_STEPS, count)
    try:
        yield trace
    finally:
        trace.stop()


class _Trace:
    def __init__(self, step: Step, folder: pathlib.Path, first: int, count: int):
        self._step, self._folder = step, folder
        self._first, self._last = first, first + count
        self._calls = 0
        self._is_open = False

    def __call__(self, state: TrainState) -> tuple[TrainState, StepOutput]:
        if self._calls == self._first:
            jax.block_until_ready(state)
            jax.profiler.start_trace(str(self._folder))
            self._is_open = True
        with jax.profiler.StepTraceAnnotation("train", step_num=self._calls):
            state, output = self._step(state)
        self._calls += 1
        if self._calls == self._last:
            jax.block_until_ready(state)
            self.stop()
        return state, output

    def stop(self) -> None:
        """Writes the trace, also of fewer calls if the run ends."""
        if self._is_open:
            self._is_open = False
            jax.profiler.stop_trace()
            print(
                f"profile of {self._calls - self._first} steps: {self._folder}\n"
                f"  open it with: pip install xprof && xprof --logdir {self._folder}\n"
                "  or drop the .trace.json.gz in it on https://ui.perfetto.dev",
                flush=True,
            )
        elif self._calls <= self._first:
            print(
                f"no profile: the run made {self._calls} steps, and it would have begun after "
                f"{self._first}",
                flush=True,
            )
