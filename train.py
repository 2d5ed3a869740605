"""Discovers matrix multiplication algorithms: ``python train.py``.

The same command again goes on from the last checkpoint of its work folder, with a new time budget.
Exit status: 0, an algorithm of the wanted rank is there; 1, the run ended without one; 2, bad
input, or files that cannot be written; 3, a solved game was no algorithm, which is a mistake in the
program; 130 (143), stopped by Ctrl-C (SIGTERM or a notice of pre-emption) after a checkpoint.
"""

import argparse
import contextlib
import dataclasses
import pathlib
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, NamedTuple

import jax
import tyro

from training import storage
from training.agents import Agent, have_reached, open_agents, table
from training.checkpoint import Checkpoints
from training.compilation import keep_compiled
from training.config import Config, ConfigError, check_types
from training.distributed import (
    Distributed,
    check_shared,
    from_first,
    is_first,
    start,
    together,
    voice,
)
from training.flops import Costs, costs_of
from training.loop import DivergenceError, Loop
from training.memory import budget, check_memory, memory_limit
from training.mesh import make_mesh
from training.metrics import COUNTERS
from training.plotting import plot
from training.profiling import Step, profiled
from training.progress import Progress, waiting
from training.records import IncorrectRecordError
from training.step import TrainState, make_init, make_step
from training.workdir import claimed, default_workdir
from training.writers import Writer, make_writers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Discover matrix multiplication algorithms by playing TensorGame.

    Exit status: 0 for an algorithm of the wanted rank, 1 without one, 2 for bad input.
    """

    config: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A Python file that defines config = Config(...); the flags below change single fields."""
    workdir: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Where results are kept and the same run goes on; by default a folder of its own in runs/."""
    profile: Annotated[int, tyro.conf.arg(metavar="STEPS")] = 0
    """Traces so many steps into DIR/profile, once the run plays."""
    wandb: Annotated[str | None, tyro.conf.arg(metavar="PROJECT")] = None
    """Reports metrics to this project at Weights & Biases too."""
    distributed: Distributed = "auto"
    """Joins the processes that run this command on the hosts of a cluster: auto where JAX finds one
    (Cloud TPU, Slurm, Open MPI, Kubernetes) or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID are set; on fails where there is none, off runs alone. All hosts need to see the
    work folder."""
    run: Annotated[Config, tyro.conf.arg(name="")]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line ``argv``; returns the exit status."""
    began = time.monotonic()
    try:
        arguments = _parse(argv)
        start(arguments.distributed)
        keep_compiled()
        arguments.run.validate()
        workdir = storage.parse(arguments.workdir or default_workdir(arguments.run))
        _check_profile(arguments.profile, workdir)
        with voice(workdir) as books:
            return _open(arguments, workdir, books, began)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        reason = f"{_reason(error)}; once that is mended the same command goes on"
        print(f"error: {reason}", file=sys.stderr)
        return 2
    except IncorrectRecordError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _check_profile(steps: int, workdir: storage.Path) -> None:
    if steps < 0:
        raise ConfigError(f"--profile is {steps}; it must be a number of steps, 0 for none")
    if steps and storage.is_bucket(workdir):
        raise ConfigError(
            f"--profile is {steps}, but traces are written to local folders, and --workdir is "
            f"{workdir}; profile a run in another folder"
        )


def _reason(error: OSError) -> str:
    """What is wrong with which file; a write to a full disk does not name it."""
    if error.strerror is None:
        return str(error)
    return f"{error.filename or 'a file of the work folder'}: {error.strerror}"


class _Run(NamedTuple):
    """What a run has open.

    Attributes:
        config: its configuration.
        books: where this process keeps all but the checkpoints.
        agents: with what they have found.
        writers: of the metrics of each agent.
        checkpoints: those of all processes, in the work folder.
    """

    config: Config
    books: storage.Path
    agents: Sequence[Agent]
    writers: Sequence[Sequence[Writer]]
    checkpoints: Checkpoints


def _open(arguments: Arguments, workdir: storage.Path, books: storage.Path, began: float) -> int:
    """Opens the ``books`` of this process and runs; returns the exit status."""
    config = arguments.run
    if is_first():
        for warning in config.warnings():
            print(f"warning: {warning}", file=sys.stderr)
    with contextlib.ExitStack() as stack:
        together(lambda: stack.enter_context(claimed(books, config)))
        together(lambda: check_shared(workdir))
        agents = together(lambda: open_agents(config, books))
        if from_first(have_reached(agents)):
            print("All that is wanted was found earlier.\n")
            if is_first():
                _report(agents)
            return 0
        writers = together(
            lambda: [make_writers(one.config, one.folder, arguments.wandb) for one in agents]
        )
        checkpoints = stack.enter_context(Checkpoints(workdir))
        run = _Run(config, books, agents, writers, checkpoints)
        return from_first(_train(run, arguments.profile, began))


def _parse(argv: Sequence[str] | None) -> Arguments:
    # The file has to be known first, as it changes the defaults that --help shows.
    parser = argparse.ArgumentParser(prog="train.py", add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=pathlib.Path)
    path = parser.parse_known_args(argv)[0].config
    default = Arguments(run=load_config(path) if path else Config())
    return tyro.cli(Arguments, prog="train.py", args=argv, default=default)


def load_config(path: pathlib.Path) -> Config:
    """The ``config`` that a Python file defines."""
    if not path.is_file():
        raise ConfigError(
            f"--config is {path}, which is no file; name one like those in tpu_configs"
        )
    try:
        config = runpy.run_path(str(path)).get("config")
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        line = lines[-1] if lines else getattr(error, "lineno", "?")
        reason, _, _ = str(error).partition("\n")
        raise ConfigError(
            f"--config is {path}, whose line {line} raises {type(error).__name__}: {reason}; "
            "--help lists the fields of Config"
        ) from None
    if not isinstance(config, Config):
        raise ConfigError(f"--config is {path}, which has to define config = Config(...)")
    check_types(config)
    return config


def _train(run: _Run, profile: int, began: float) -> int:
    """Trains until the ranks are found or the budget used; returns the exit status."""
    compiling = time.monotonic()
    step, state, counters, costs = _prepare(run.config, run.checkpoints)
    compiling = round(time.monotonic() - compiling, 3)
    made, seconds = counters[0]["step"], counters[0]["seconds"]
    print(f"compiled in {compiling:.1f} s; at step {made} in {run.books}", flush=True)
    began -= seconds
    limit = seconds + 60 * run.config.max_minutes
    counters = [{**its, "compile_seconds": its["compile_seconds"] + compiling} for its in counters]
    loop = Loop(
        config=run.config,
        agents=run.agents,
        step=step,
        progress=Progress(run.config, counters, limit, costs, run.writers),
        checkpoints=run.checkpoints,
        clock=lambda: time.monotonic() - began,
        limit=limit,
    )
    # A profile of steps that do not play yet would not tell much.
    idle = max(0, run.config.learner.demonstration_steps - made)
    try:
        with profiled(step, run.books / "profile", idle, profile) as traced:
            stopped_by = dataclasses.replace(loop, step=traced).run(state)
        status = _conclude(run.config, run.agents, stopped_by)
    except DivergenceError as error:
        print(
            f"error: {error}; the last checkpoint is of step {run.checkpoints.latest} in "
            f"{run.checkpoints.folder}, a lower learner.learning_rate may help",
            file=sys.stderr,
        )
        status = 1
    for agent in run.agents:
        if curve := plot(agent.config, agent.folder):
            print(f"learning curve: {curve}")
    return status


def _prepare(
    config: Config, checkpoints: Checkpoints
) -> tuple[Step, TrainState, list[dict[str, float]], Costs]:
    """The compiled step and its costs, the state to go on from, and the counters of each agent."""
    mesh = make_mesh(config)
    init = make_init(config, mesh)
    shapes = jax.eval_shape(init, config.seed)
    together(lambda: _tell_memory(config, shapes, mesh))
    # XLA compiles outside of Python's lock, so what else there is to do costs no time of its own.
    with waiting("compiling the training step"), ThreadPoolExecutor(max_workers=1) as pool:
        compiled = pool.submit(make_step(config, mesh).lower(shapes).compile)
        restored = checkpoints.restore(shapes)
        state = init(config.seed) if restored is None else restored.state
        costs = costs_of(config)
        step = compiled.result()
    counters = [{}] * config.num_seeds if restored is None else restored.counters["agents"]
    return step, state, [{**COUNTERS, **its} for its in counters], costs


def _tell_memory(config: Config, shapes: TrainState, mesh: jax.sharding.Mesh) -> None:
    """Says what a device needs to hold, and refuses what it cannot."""
    needed, limit = budget(config, shapes, mesh.size), memory_limit(list(mesh.devices.flat))
    print(needed.line(limit))
    check_memory(config, needed, limit, mesh.size)


def _conclude(config: Config, agents: Sequence[Agent], stopped_by: int) -> int:
    """Says how the run ended; returns the exit status."""
    if have_reached(agents):
        print()
        _report(agents)
        return 0
    reason = "stopped by a signal" if stopped_by else f"{config.max_minutes:g} minutes are used up"
    if len(agents) > 1:
        reached = sum(agent.records.reached for agent in agents)
        print(f"{reason}; {reached} of {len(agents)} agents have found what is wanted:\n")
        print(f"{table(agents)}\n")
    else:
        for each in agents[0].records.each:
            found = "no algorithm yet"
            if each.best is not None:
                found = f"the best so far has {each.best.rank} products ({each.folder}/best.txt)"
            print(f"{reason}; {each.target.name}, wanted with rank {each.wanted}: {found}")
    print("the same command goes on from here")
    return 128 + stopped_by if stopped_by else 1


def _report(agents: Sequence[Agent]) -> None:
    """Prints the best algorithms with their proofs and origins; of several agents a table."""
    if len(agents) > 1:
        print(table(agents))
        return
    for each in agents[0].records.each:
        found, origin = each.best, each.provenance
        print(f"{found.summary()}\n\n{found.equations()}\n\n{found.check()}")
        if each.distinct > 1:
            print(f"{each.distinct} different ones of this rank are in {each.folder}/algorithms")
        print(f"saved as {each.folder / 'best.npz'} and {each.folder / 'best.txt'}")
        if origin:
            print(
                f"found at step {origin['step']} after {origin['seconds']:.1f} s, "
                f"{origin['compile_seconds']:.1f} s of them for compilation"
            )


if __name__ == "__main__":
    sys.exit(main())
