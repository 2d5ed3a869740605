"""How the training step scales over the devices of one host.

    python benchmarks/scaling.py --settings 3,3,3 --devices 1 2 4 8 --output FILE

Weak scaling gives every device as many games and positions as the setting has; strong scaling
divides those of the setting. One JSON line a setting, mode and number of devices, as soon as it is
there. On GPUs some steps are traced: how long the kernels of all-reduces take in a step, less how
long they take alone, is time that a device waits for others. After the strong runs the parameters
are compared: on any number of devices they have to be the same but for the rounding of sums, until
that makes one move fall out differently, when games part. On a CPU devices can be pretended, to see
that the program is right, not fast:

    export XLA_FLAGS=--xla_force_host_platform_device_count=8
    python benchmarks/scaling.py --settings default --devices 1 2 4 8
"""

import argparse
import collections
import dataclasses
import pathlib
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from reporting import command_line, efficiency, origin, report
from throughput import SETTINGS

from training.config import Config
from training.mesh import AXIS, make_mesh
from training.step import TrainState, make_init, make_step

_COLLECTIVE = re.compile(r" (all-reduce|all-gather|reduce-scatter|all-to-all)(?:-start)?\(")
# Names of a GPU's kernels: NCCL's and XLA's own.
_ALL_REDUCE = re.compile("all.?reduce", re.IGNORECASE)
_MODES = ("weak", "strong")
# Steps that are traced.
_TRACED = 2
# A difference that the order of sums explains.
_TOLERANCE = 1e-3


class _Program(NamedTuple):
    config: Config
    mesh: Mesh
    init: Callable[[int], TrainState]
    step: jax.stages.Compiled
    compile_seconds: float


def main() -> int:
    """Runs the command line; returns 1 if the first step differs between numbers of devices."""
    options = _parse()
    is_same = True
    for name in options.settings:
        programs: dict[Config, _Program] = {}
        for mode in options.modes:
            first: dict[str, object] = {}
            reference = None
            for count in options.devices:
                config = _config(SETTINGS[name], mode, count, options.simulations)
                if config not in programs:
                    programs[config] = _program(config)
                program = programs[config]
                measured, params = _measure(program, options, keep=mode == "strong")
                first = first or measured
                reference = params if reference is None else reference
                differences = [_difference(*x) for x in zip(params, reference, strict=True)]
                is_same &= max(differences[:1], default=0.0) <= _TOLERANCE
                line = {
                    "setting": name,
                    "mode": mode,
                    **measured,
                    "efficiency": round(efficiency(first, measured), 4),
                    "differences": differences,
                    **origin(options.commit),
                }
                report(line, options.output)
    return 0 if is_same else 1


def _parse() -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=["3,3,3"])
    parser.add_argument("--devices", nargs="+", type=int, default=[1, 2], metavar="COUNT")
    parser.add_argument(
        "--modes", nargs="+", choices=_MODES, default=list(_MODES), help="both by default"
    )
    parser.add_argument(
        "--steps", type=int, default=20, help="whose time counts, after the first one (20)"
    )
    parser.add_argument("--simulations", type=int, help="of each move; the setting's")
    return parser.parse_args()


def _config(config: Config, mode: str, devices: int, simulations: int | None) -> Config:
    """The setting on so many devices, playing from its first step."""
    times = devices if mode == "weak" else 1
    learner, search, selfplay = config.learner, config.search, config.selfplay
    if simulations:
        search = dataclasses.replace(search, num_simulations=simulations)
    config = dataclasses.replace(
        config,
        devices=devices,
        search=search,
        learner=dataclasses.replace(
            learner,
            demonstration_steps=0,
            replay_batch=learner.replay_batch * times,
            demonstration_batch=learner.demonstration_batch * times,
        ),
        selfplay=dataclasses.replace(selfplay, num_games=selfplay.num_games * times),
    )
    config.validate()
    return config


def _program(config: Config) -> _Program:
    mesh = make_mesh(config)
    init = make_init(config, mesh)
    began = time.perf_counter()
    step = make_step(config, mesh).lower(jax.eval_shape(init, 0)).compile()
    seconds = time.perf_counter() - began
    print(f"compiled for {mesh.size} devices in {seconds:.0f} s", file=sys.stderr, flush=True)
    return _Program(config, mesh, init, step, seconds)


def _measure(
    program: _Program, options: argparse.Namespace, *, keep: bool
) -> tuple[dict[str, object], list[dict]]:
    """What is said of one program, and if kept the parameters after each of its first steps."""
    config, mesh, init, step, compile_seconds = program
    collectives = collections.Counter(_COLLECTIVE.findall(step.as_text()))
    state, times, params = init(0), [], []
    # The first one also makes the communicators and loads the kernels.
    for _ in range(1 + options.steps):
        began = time.perf_counter()
        state, output = step(state)
        jax.block_until_ready(output)
        times.append(time.perf_counter() - began)
        if keep:
            params.append(jax.device_get(state.params))
    seconds = statistics.median(times[1:])
    state, reducing = _reducing_seconds(step, state)
    moves = config.selfplay.num_games * config.selfplay.moves_per_step
    learner = config.learner
    positions = learner.updates_per_step * (learner.replay_batch + learner.demonstration_batch)
    exchange = _exchange_seconds(mesh, state) * learner.updates_per_step
    measured = {
        "devices": mesh.size,
        "games": config.selfplay.num_games,
        "positions": learner.replay_batch + learner.demonstration_batch,
        "compile_seconds": round(compile_seconds, 1),
        "step_milliseconds": round(1e3 * seconds, 3),
        "moves_per_second": round(moves / seconds, 1),
        "evaluations_per_second": round(moves * (config.search.num_simulations + 1) / seconds),
        "learner_positions_per_second": round(positions / seconds),
        "exchange_share": round(exchange / seconds, 5),
        "waiting_share": reducing and round(max(0.0, reducing - exchange) / seconds, 5),
        "collectives": dict(collectives),
    }
    return measured, params


def _reducing_seconds(
    step: jax.stages.Compiled, state: TrainState
) -> tuple[TrainState, float | None]:
    """The state after some steps, and the mean time a GPU's all-reduces took in one.

    None where there were none, or no GPUs.
    """
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(_TRACED):
                state, output = step(state)
            jax.block_until_ready(output)
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        planes = jax.profiler.ProfileData.from_file(str(path)).planes
        devices = [plane for plane in planes if plane.name.startswith("/device:GPU")]
        nanoseconds = [
            event.duration_ns
            for plane in devices
            for line in plane.lines
            if line.name.startswith("Stream")
            for event in line.events
            if _ALL_REDUCE.search(event.name)
        ]
    return state, sum(nanoseconds) / 1e9 / len(devices) / _TRACED if nanoseconds else None


def _exchange_seconds(mesh: Mesh, state: TrainState) -> float:
    """Of one sum over the devices of arrays like the gradient, with nothing else to do."""
    everywhere = PartitionSpec()

    def add(tree: dict) -> dict:
        return jax.lax.psum(tree, AXIS)

    mapped = jax.shard_map(
        add, mesh=mesh, in_specs=everywhere, out_specs=everywhere, check_vma=False
    )
    gradients = jax.tree.map(jnp.zeros_like, state.params)
    return _median_seconds(jax.jit(mapped), gradients)


def _median_seconds(function: Callable[[dict], dict], argument: dict) -> float:
    jax.block_until_ready(function(argument))
    times = []
    for _ in range(20):
        began = time.perf_counter()
        jax.block_until_ready(function(argument))
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _difference(params: dict, reference: dict) -> float:
    """The largest difference of a parameter, by the largest parameter."""
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(reference), strict=True)
    largest = max(float(np.abs(x).max()) for x in jax.tree.leaves(reference))
    return max(float(np.abs(x - y).max()) for x, y in pairs) / largest


if __name__ == "__main__":
    sys.exit(main())
