"""What checkpoints and metrics cost, as shares of the time of a training step.

    python benchmarks/overhead.py --steps 40 -- --game.ring z

The same compiled step is made bare, then in the loop of train.py without checkpoints, then with a
checkpoint every few steps, in turn for several rounds. What the loop adds to a step is the cost of
the metrics and the proofs; what checkpoints add, by their number, is the cost of one, whether they
hold up the loop or take its cores. One JSON line. What follows ``--`` are flags of train.py.
"""

import argparse
import contextlib
import dataclasses
import importlib.metadata
import io
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import jax
import tyro
from reporting import command_line, commit, cpu_name, report

from training.agents import open_agents
from training.checkpoint import Checkpoints
from training.config import Config
from training.flops import costs_of
from training.loop import Loop
from training.mesh import make_mesh
from training.metrics import COUNTERS
from training.progress import Progress
from training.step import StepOutput, TrainState, make_init, make_step
from training.workdir import claimed
from training.writers import make_writers

_NEVER = 1e9
Step = Callable[[TrainState], tuple[TrainState, StepOutput]]


def main() -> int:
    """Runs the command line; returns the exit status."""
    options = _parse()
    config = tyro.cli(Config, prog="overhead.py --", args=options.overrides)
    config.validate()
    mesh = make_mesh(config)
    state = make_init(config, mesh)(config.seed)
    size = sum(x.nbytes for x in jax.tree.leaves(state))
    step = make_step(config, mesh).lower(state).compile()
    # Steps without play are shorter, and find nothing.
    for _ in range(config.learner.demonstration_steps + options.warmup):
        state, _ = step(state)
    device = mesh.devices.flat[0]
    line = {
        **_measure(config, step, state, options),
        "checkpoint_megabytes": round(size / 1e6, 1),
        "steps": options.steps,
        "rounds": options.rounds,
        "targets": config.game.targets,
        "ring": config.game.ring,
        "device": f"{mesh.size} x {cpu_name() if device.platform == 'cpu' else device.device_kind}",
        "jax": importlib.metadata.version("jax"),
        "commit": options.commit or commit(),
    }
    report(line, options.output)
    return 0


def _parse() -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("--steps", type=int, default=40, help="steps of each part of a round (40)")
    parser.add_argument("--rounds", type=int, default=5, help="(5)")
    parser.add_argument("--warmup", type=int, default=20, help="steps with play before (20)")
    parser.add_argument("overrides", nargs="*", help="flags of train.py, after --")
    return parser.parse_args()


def _measure(
    config: Config, step: Step, state: TrainState, options: argparse.Namespace
) -> dict[str, float]:
    """Medians over the rounds, and the shares at one checkpoint a minute."""
    bare, told, costs, blocked = [], [], [], []
    for _ in range(options.rounds):
        seconds, state = _bare(step, state, options.steps)
        bare.append(seconds / options.steps)
        without = _Timed(config, step, options.steps, _NEVER)
        state = without.run(state)
        told.append(without.seconds / options.steps)
        # About four checkpoints.
        minutes = without.seconds / 60 / 5
        with_some = _Timed(config, step, options.steps, minutes)
        state = with_some.run(state)
        costs.append((with_some.seconds - without.seconds) / max(len(with_some.saves), 1))
        blocked += with_some.saves
    step_seconds, cost = statistics.median(bare), statistics.median(costs)
    metrics = statistics.median(b - a for a, b in zip(bare, told, strict=True))
    return {
        "step_milliseconds": round(1e3 * step_seconds, 2),
        "metrics_milliseconds": round(1e3 * metrics, 3),
        "checkpoint_milliseconds": round(1e3 * cost, 1),
        "save_call_milliseconds": round(1e3 * statistics.median(blocked), 1),
        "metrics_share": round(metrics / step_seconds, 4),
        "checkpoint_share": round(cost / 60, 5),
        "share": round(metrics / step_seconds + cost / 60, 4),
    }


def _bare(step: Step, state: TrainState, steps: int) -> tuple[float, TrainState]:
    """Seconds of the steps alone, each output fetched one step late."""
    state, late = step(state)
    jax.block_until_ready(late)
    began = time.perf_counter()
    for _ in range(steps):
        state, output = step(state)
        jax.block_until_ready(late)
        late = output
    return time.perf_counter() - began, state


class _Timed:
    """A run of the loop of train.py over a number of steps.

    Attributes:
        seconds: from the call of the first step to that of the last but one.
        saves: seconds for which each checkpoint held up the loop.
    """

    def __init__(self, config: Config, step: Step, steps: int, minutes: float):
        self.seconds = 0.0
        self.saves: list[float] = []
        # No rank ends it.
        nothing = (1,) * len(config.targets)
        self._config = dataclasses.replace(config, checkpoint_minutes=minutes, target_ranks=nothing)
        self._step = step
        self._steps = steps
        self._calls: list[float] = []

    def run(self, state: TrainState) -> TrainState:
        """Makes the steps; the last checkpoint, at the end of a run, does not count."""
        with tempfile.TemporaryDirectory() as folder:
            workdir = pathlib.Path(folder)
            with claimed(workdir, self._config), Checkpoints(workdir) as checkpoints:
                self._time_saves(checkpoints)
                agents = open_agents(self._config, workdir)
                writers = [make_writers(one.config, one.folder) for one in agents]
                counters, costs = [COUNTERS] * len(agents), costs_of(self._config)
                loop = Loop(
                    config=self._config,
                    agents=agents,
                    step=self._make_step,
                    progress=Progress(self._config, counters, _NEVER, costs, writers),
                    checkpoints=checkpoints,
                    clock=self._clock,
                    limit=_NEVER,
                )
                with contextlib.redirect_stdout(io.StringIO()):
                    loop.run(state)
        self.saves = self.saves[:-1]
        self.seconds = self._calls[-1] - self._calls[0]
        return self._state

    def _clock(self) -> float:
        """The time, or the end of all times after the last step."""
        return 2 * _NEVER if len(self._calls) > self._steps else time.monotonic()

    def _make_step(self, state: TrainState) -> tuple[TrainState, StepOutput]:
        self._calls.append(time.perf_counter())
        self._state, output = self._step(state)
        return self._state, output

    def _time_saves(self, checkpoints: Checkpoints) -> None:
        save = checkpoints.save

        def timed(*arguments: object) -> None:
            began = time.perf_counter()
            save(*arguments)
            self.saves.append(time.perf_counter() - began)

        checkpoints.save = timed


if __name__ == "__main__":
    sys.exit(main())
