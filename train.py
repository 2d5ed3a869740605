"""Discovers matrix multiplication algorithms: ``python train.py``.

The same command again goes on from the last checkpoint of its work folder, with a new time budget.
Exit status: 0, an algorithm of the wanted rank is there; 1, the run ended without one; 2, bad
input; 130 (143), stopped by Ctrl-C (SIGTERM) after a checkpoint.
"""

import argparse
import dataclasses
import pathlib
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import jax
import tyro

from training.checkpoint import Checkpoints
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
from training.loop import DivergenceError, Loop
from training.plotting import plot
from training.progress import COUNTERS, Progress, waiting
from training.records import Records
from training.step import make_init, make_mesh, make_step
from training.workdir import claim, default_workdir


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Discover matrix multiplication algorithms by playing TensorGame.

    Exit status: 0 for an algorithm of the wanted rank, 1 without one, 2 for bad input.
    """

    config: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A Python file that defines config = Config(...); the flags below change single fields."""
    workdir: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Where results are kept and the same run goes on; by default a folder of its own in runs/."""
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
        config = arguments.run
        config.validate()
        workdir = arguments.workdir or default_workdir(config)
        with voice(workdir) as books:
            return _main(config, workdir, books, began)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _main(config: Config, workdir: pathlib.Path, books: pathlib.Path, began: float) -> int:
    """Opens the ``books`` of this process and runs; returns the exit status."""
    if is_first():
        for warning in config.warnings():
            print(f"warning: {warning}", file=sys.stderr)
    together(lambda: claim(books, config))
    together(lambda: check_shared(workdir))
    records = together(lambda: Records(config, books))
    if from_first(records.reached):
        print("All that is wanted was found earlier.\n")
        if is_first():
            _report(records)
        return 0
    return from_first(_run(config, workdir, books, records, began))


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


def _run(
    config: Config, workdir: pathlib.Path, books: pathlib.Path, records: Records, began: float
) -> int:
    """Trains until the rank is found or the budget used; returns the exit status.

    Checkpoints, which all processes write, are in ``workdir``; the rest is in ``books``.
    """
    checkpoints, counters = Checkpoints(workdir), COUNTERS
    compiling = time.monotonic()
    with waiting("compiling the training step"):
        mesh = make_mesh(config)
        init = make_init(config, mesh)
        # XLA compiles outside of Python's lock, so the small program costs no time of its own.
        with ThreadPoolExecutor(max_workers=1) as pool:
            compiled = pool.submit(
                make_step(config, mesh).lower(jax.eval_shape(init, config.seed)).compile
            )
            state = init(config.seed)
            restored = checkpoints.restore(state)
            step = compiled.result()
        if restored is not None:
            state, counters = restored.state, restored.counters
    compiling = round(time.monotonic() - compiling, 3)
    print(f"compiled in {compiling:.1f} s; at step {counters['step']} in {workdir}", flush=True)
    began -= counters["seconds"]
    limit = counters["seconds"] + 60 * config.max_minutes
    counters = {**counters, "compile_seconds": counters["compile_seconds"] + compiling}
    loop = Loop(
        config=config,
        step=step,
        records=records,
        progress=Progress(config, books, counters, limit),
        checkpoints=checkpoints,
        clock=lambda: time.monotonic() - began,
        limit=limit,
    )
    try:
        status = _conclude(config, records, loop.run(state))
    except DivergenceError as error:
        print(
            f"error: {error}; the last checkpoint is of step {checkpoints.latest} in "
            f"{checkpoints.folder}, a lower learner.learning_rate may help",
            file=sys.stderr,
        )
        status = 1
    if curve := plot(books):
        print(f"learning curve: {curve}")
    return status


def _conclude(config: Config, records: Records, stopped_by: int) -> int:
    """Says how the run ended; returns the exit status."""
    if records.reached:
        print()
        _report(records)
        return 0
    reason = "stopped by a signal" if stopped_by else f"{config.max_minutes:g} minutes are used up"
    for each in records.each:
        found = "no algorithm yet"
        if each.best is not None:
            found = f"the best so far has {each.best.rank} products ({each.folder}/best.txt)"
        print(f"{reason}; {each.target.name}, wanted with rank {each.wanted}: {found}")
    print("the same command goes on from here")
    return 128 + stopped_by if stopped_by else 1


def _report(records: Records) -> None:
    """Prints the best algorithms with their proofs and origins."""
    for each in records.each:
        found, origin = each.best, each.provenance
        print(f"{found.summary()}\n\n{found.equations()}\n\n{found.check()}")
        print(f"saved as {each.folder / 'best.npz'} and {each.folder / 'best.txt'}")
        if origin:
            print(
                f"found at step {origin['step']} after {origin['seconds']:.1f} s, "
                f"{origin['compile_seconds']:.1f} s of them for compilation"
            )


if __name__ == "__main__":
    sys.exit(main())
