"""What the compiler options of training/step.py are worth: the step with and without them.

    python benchmarks/compiler_options.py

Both programs are compiled in one process and then make steps in turn, so that a busy machine slows
both. Self-play is on from the first step. One JSON line for each.
"""

import dataclasses
import statistics
import time
from unittest import mock

import jax
from reporting import command_line, commit, cpu_name, report

from training import mesh as meshes
from training import step
from training.config import Config, GameConfig, LearnerConfig


@dataclasses.dataclass
class _Program:
    """A compiled step, the state it is at, and what it took."""

    options: dict[str, object]
    compile_seconds: float
    step: jax.stages.Compiled
    state: step.TrainState
    milliseconds: list[float] = dataclasses.field(default_factory=list)

    def run(self) -> None:
        """Makes one step and notes its time."""
        began = time.perf_counter()
        self.state, output = self.step(self.state)
        jax.block_until_ready((self.state, output))
        self.milliseconds.append(1e3 * (time.perf_counter() - began))


def main() -> None:
    """Runs the command line."""
    parser = command_line(__doc__)
    parser.add_argument("--ring", choices=("z2", "z"), default="z2")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each program (10)")
    arguments = parser.parse_args()
    config = Config(
        game=GameConfig(ring=arguments.ring), learner=LearnerConfig(demonstration_steps=0)
    )
    options = step.compiler_options(config, jax.default_backend())
    programs = [_compile(config, options), _compile(config, {})]
    # The first round warms up.
    for _ in range(1 + arguments.steps):
        for program in programs:
            program.run()
    device = jax.devices()[0]
    for program in programs:
        line = {
            "targets": config.game.targets,
            "ring": config.game.ring,
            "options": program.options,
            "compile_seconds": round(program.compile_seconds, 1),
            "step_milliseconds": round(statistics.median(program.milliseconds[1:]), 1),
            "steps": arguments.steps,
            "device": cpu_name() if device.platform == "cpu" else device.device_kind,
            "devices": config.num_devices,
            "jax": jax.__version__,
            "commit": arguments.commit or commit(),
        }
        report(line, arguments.output)


def _compile(config: Config, options: dict[str, object]) -> _Program:
    """The step with ``options``; tracing does not count."""
    mesh = meshes.make_mesh(config)
    state = step.make_init(config, mesh)(config.seed)
    with mock.patch.object(step, "compiler_options", return_value=options):
        lowered = step.make_step(config, mesh).lower(state)
        began = time.perf_counter()
        compiled = lowered.compile()
    return _Program(options, time.perf_counter() - began, compiled, state)


if __name__ == "__main__":
    main()
