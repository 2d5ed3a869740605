"""What ``python train.py`` finds from nothing, how often and how fast: a ladder of targets.

    python benchmarks/discover.py --ring z --seeds 0 1 2 3 -- --search.num-simulations 4
    python benchmarks/discover.py --config tpu_configs/h200_1_ladder.py --together --seeds 0 1 2

Each target and seed is a process of its own in an empty work folder, or each target one process
that trains an agent for every seed. Work folders that are kept are gone on with. What follows
``--`` goes to train.py. One JSON line a target and seed, then a summary. Told to stop (SIGTERM,
Ctrl-C), it stops the runs and tells what they have. Exit status: 0 if all reached the rank wanted,
1 otherwise.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import queue
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from types import FrameType
from typing import NamedTuple

from reporting import ROOT, command_line, commit, cpu_name, report

from training.agents import Agent, open_agents
from training.workdir import read_config, slug

# train.py keeps to its own limit; past this one it hangs.
_GRACE_SECONDS = 300.0
# Points of a curve.
_POINTS = 60
_DEVICES = "import jax; d = jax.devices(); print(len(d), d[0].platform, d[0].device_kind, sep=';')"


class _Run(NamedTuple):
    """One process of train.py. ``target`` is None for those of the configuration."""

    target: str | None
    ring: str
    seeds: tuple[int, ...]

    @property
    def name(self) -> str:
        """Of its work folder."""
        return "-".join([slug(self.target or "default"), self.ring, *map(str, self.seeds)])


class _Processes:
    """Processes of train.py, which a signal to this one asks to stop."""

    def __init__(self):
        self.told_to_stop = False
        self._running: set[subprocess.Popen] = set()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def run(self, command: list[str], log: pathlib.Path, limit: float, cache: str) -> int | None:
        """The exit status of a process, or None if it had to be killed.

        Args:
            command: its command line.
            log: where it writes.
            limit: seconds until it is killed.
            cache: folder of compiled programs.
        """
        environment = {**os.environ, "XDG_CACHE_HOME": cache}
        with log.open("w") as file:
            # A session of its own: signals to a whole group would reach it twice, and at the second
            # it stops without a checkpoint.
            process = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
            self._running.add(process)
            try:
                return process.wait(limit)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                return None
            finally:
                self._running.discard(process)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.told_to_stop = True
        for process in tuple(self._running):
            process.send_signal(signal.SIGTERM)


def main() -> int:
    """Runs the command line; returns the exit status."""
    options = _parse()
    origin = {
        "device": _device(options.cores_each),
        "jax": importlib.metadata.version("jax"),
        "commit": options.commit or commit(),
    }
    groups = [tuple(options.seeds)] if options.together else [(seed,) for seed in options.seeds]
    targets = options.targets or [None]
    runs = [_Run(target, options.ring, group) for target in targets for group in groups]
    lines = []
    processes = _Processes()
    with ThreadPoolExecutor(options.jobs, initializer=_pinning(options)) as pool:
        pending = [pool.submit(_measure, options, run, processes) for run in runs]
        for run in as_completed(pending):
            for line in run.result():
                lines.append({**line, **origin})
                report(lines[-1], options.output)
    reached = sum(line["reached"] for line in lines)
    print(f"{reached} of {len(lines)} agents reached the ranks wanted")
    return 0 if reached == len(lines) else 1


def _parse() -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--ring", default="z2", help="as game.ring of train.py (z2)")
    parser.add_argument("--config", help="configuration file for train.py; the main job's")
    parser.add_argument("--targets", nargs="+", help="one after the other; the configuration's")
    parser.add_argument(
        "--together", action="store_true", help="one program trains the agents of all seeds"
    )
    parser.add_argument(
        "--folder", type=pathlib.Path, help="keeps the work folders, to go on from another time"
    )
    parser.add_argument(
        "--algorithms", type=pathlib.Path, help="folder that the best algorithms are copied to"
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="limit of one run (30)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, for CPUs (1)")
    parser.add_argument(
        "--cores-each", type=int, default=0, help="cores that each run is pinned to (0: not pinned)"
    )
    parser.add_argument("overrides", nargs="*", help="flags for train.py, after --")
    options = parser.parse_args()
    first, count = options.seeds[0], len(options.seeds)
    if options.together and options.seeds != list(range(first, first + count)):
        parser.error("--together needs --seeds that follow each other")
    if options.cores_each:
        wanted, available = options.jobs * options.cores_each, len(_cores())
        if wanted > available:
            parser.error(f"{wanted} cores are wanted, but {available} are available")
    return options


def _device(cores_each: int) -> str:
    """What the runs compute on; asked in a process of its own, so that no device is held here."""
    result = subprocess.run(
        [sys.executable, "-c", _DEVICES], stdout=subprocess.PIPE, text=True, check=True
    )
    count, platform, kind = result.stdout.splitlines()[-1].split(";")
    if platform != "cpu":
        return f"{count} x {kind}"
    return f"{cores_each or len(_cores())} x core of {cpu_name()}"


def _cores() -> list[int]:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _pinning(options: argparse.Namespace):
    """Gives each thread, and with it the processes it starts, cores of its own."""
    if not options.cores_each:
        return None
    cores = _cores()
    groups: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
    for job in range(options.jobs):
        groups.put(cores[job * options.cores_each :][: options.cores_each])
    # 0 is the calling thread. Only Linux has this call.
    return lambda: os.sched_setaffinity(0, groups.get())


def _measure(
    options: argparse.Namespace, run: _Run, processes: _Processes
) -> list[dict[str, object]]:
    """The lines of a run of train.py; none if it has not begun before the signal to stop."""
    if processes.told_to_stop:
        return []
    flags = ["--config", options.config] if options.config else []
    flags += ["--game.targets", run.target] if run.target else []
    flags += ["--game.ring", run.ring, "--seed", str(run.seeds[0])]
    flags += ["--num-seeds", str(len(run.seeds))] if options.together else []
    flags += ["--max-minutes", f"{options.minutes:g}", *options.overrides]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or pathlib.Path(temporary)
        workdir, log = folder / run.name, folder / f"{run.name}.log"
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(ROOT / "train.py"), *flags, "--workdir", str(workdir)]
        limit = 60 * options.minutes + _GRACE_SECONDS
        # Nothing that an earlier run compiled.
        cache = str(folder.absolute() / f"{run.name}-xla")
        began = time.monotonic()
        exit_code = processes.run(command, log, limit, cache)
        seconds = round(time.monotonic() - began, 1)
        if exit_code != 0:
            print(f"{run.name}:", *log.read_text().splitlines()[-5:], sep="\n", file=sys.stderr)
        has_begun = (workdir / "config.json").exists()
        if processes.told_to_stop and not has_begun:
            return []
        # What it refused may be another run's folder, whose results are not to be told as its own.
        if exit_code == 2 or not has_begun:
            raise SystemExit(f"{shlex.join(command)} did not start")
        config = read_config(workdir)
        command = shlex.join(["python", "train.py", *flags])
        about = {"exit_code": exit_code, "seconds": seconds, "command": command}
        return [
            {**outcome, **about}
            for agent in open_agents(config, workdir)
            for outcome in _outcomes(agent, options.algorithms)
        ]


def _outcomes(agent: Agent, copies: pathlib.Path | None) -> Iterator[dict[str, object]]:
    """What an agent has found of each of its targets; the best goes to the folder of copies."""
    metrics = _lines(agent.folder / "metrics.jsonl")
    last = (metrics or [{}])[-1]
    ring, seed = agent.config.game.ring, agent.config.seed
    for name, records in zip(agent.config.game.targets, agent.records.each, strict=True):
        found = records.best
        saved = _lines(records.folder / "records.jsonl")
        if found and copies:
            copies.mkdir(parents=True, exist_ok=True)
            copy = f"{slug(name)}-{ring}-seed{seed}-rank{found.rank}.npz"
            shutil.copyfile(records.folder / "best.npz", copies / copy)
        yield {
            "target": name,
            "ring": ring,
            "seed": seed,
            # 0 for pure self-play.
            "flips": agent.config.learner.flips,
            "reached": records.reached,
            "rank": found and found.rank,
            "wanted": records.wanted,
            "distinct": records.distinct,
            # Of the run's clock, which compilation belongs to, by rank and ring.
            "seconds_to_rank": {f"{r['rank']} {r['ring']}": r["seconds"] for r in saved},
            "steps_to_rank": {f"{r['rank']} {r['ring']}": r["step"] for r in saved},
            "solved_shares": _solved_shares(metrics, name),
            # Of all processes that the run has been.
            "compile_seconds": last.get("compile_seconds"),
            "run_seconds": last.get("seconds"),
            "steps": last.get("step"),
            "games": last.get("total_games"),
            "evaluations": last.get("total_evaluations"),
            # Raises if the algorithm is wrong.
            "proof": found and found.check(),
        }


def _solved_shares(metrics: list[dict], target: str) -> list[float | None]:
    """Of the games of a target in equal stretches of the run's time, the share that was solved."""
    games, solved = [0.0] * _POINTS, [0.0] * _POINTS
    for line in metrics:
        stretch = min(_POINTS - 1, int(line["seconds"] / metrics[-1]["seconds"] * _POINTS))
        games[stretch] += line["target_games"][target]
        solved[stretch] += sum(count for _, count in line["target_ranks"][target])
    return [round(s / g, 4) if g else None for s, g in zip(solved, games, strict=True)]


def _lines(path: pathlib.Path) -> list[dict]:
    """The complete lines of a file; a run that was killed may leave a torn one."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


if __name__ == "__main__":
    sys.exit(main())
