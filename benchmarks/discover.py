"""How long ``python train.py`` takes to find the best known rank, from nothing, for several seeds.

    python benchmarks/discover.py --ring z --seeds 0 1 2 3 -- --search.num-simulations 4

Each run is a process of its own in an empty work folder; what follows ``--`` goes to train.py. One
JSON line a run, then a summary. Exit status: 0 if all runs reached the rank wanted, 1 otherwise.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import queue
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

from reporting import ROOT, commit, cpu_name, report

from tensorgame.algorithms import formats

# train.py keeps to its own limit; past this one it hangs.
_GRACE_SECONDS = 300.0
_DEVICES = "import jax; d = jax.devices(); print(len(d), d[0].platform, d[0].device_kind, sep=';')"


def main() -> int:
    """Runs the command line; returns the exit status."""
    options = _parse()
    origin = {
        "device": _device(options.cores_each),
        "jax": importlib.metadata.version("jax"),
        "commit": options.commit or commit(),
    }
    lines = []
    with ThreadPoolExecutor(options.jobs, initializer=_pinning(options)) as pool:
        runs = [pool.submit(_measure, options, seed, origin) for seed in options.seeds]
        for run in as_completed(runs):
            lines.append(run.result())
            report(lines[-1], options.output)
    reached = sum(line["exit_code"] == 0 for line in lines)
    seconds = [line["seconds"] for line in lines]
    print(
        f"{reached} of {len(lines)} runs reached the rank wanted; seconds of all runs: "
        f"median {statistics.median(seconds):.1f}, max {max(seconds):.1f}"
    )
    return 0 if reached == len(lines) else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--ring", choices=("z2", "z"), default="z2")
    parser.add_argument("--minutes", type=float, default=30.0, help="limit of one run (30)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, for CPUs (1)")
    parser.add_argument(
        "--cores-each", type=int, default=0, help="cores that each run is pinned to (0: not pinned)"
    )
    parser.add_argument("--output", type=pathlib.Path, help="file that the lines are appended to")
    parser.add_argument("--commit", help="name of this version, where there is no git checkout")
    parser.add_argument("overrides", nargs="*", help="flags for train.py, after --")
    options = parser.parse_args()
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


def _measure(options: argparse.Namespace, seed: int, origin: dict[str, str]) -> dict[str, object]:
    """One run of train.py: its line."""
    flags = ["--game.ring", options.ring, "--seed", str(seed)]
    flags += ["--max-minutes", f"{options.minutes:g}", *options.overrides]
    with tempfile.TemporaryDirectory() as folder:
        workdir, log = pathlib.Path(folder, "work"), pathlib.Path(folder, "log")
        command = [sys.executable, str(ROOT / "train.py"), *flags, "--workdir", str(workdir)]
        limit = 60 * options.minutes + _GRACE_SECONDS
        # Nothing that an earlier run compiled.
        first_start = {**os.environ, "XDG_CACHE_HOME": folder}
        began = time.monotonic()
        with log.open("w") as file:
            try:
                exit_code = subprocess.run(
                    command, stdout=file, stderr=subprocess.STDOUT, timeout=limit, env=first_start
                ).returncode
            except subprocess.TimeoutExpired:
                exit_code = None
        seconds = round(time.monotonic() - began, 1)
        if exit_code != 0:
            print(f"seed {seed}:", *log.read_text().splitlines()[-5:], sep="\n", file=sys.stderr)
        return {
            **_setting(workdir),
            "seed": seed,
            "exit_code": exit_code,
            "seconds": seconds,
            **_outcome(workdir, reached=exit_code == 0),
            **origin,
            "command": shlex.join(["python", "train.py", *flags]),
        }


def _setting(workdir: pathlib.Path) -> dict[str, object]:
    """What was played."""
    path = workdir / "config.json"
    game = json.loads(path.read_text())["game"] if path.exists() else {}
    return {"targets": game.get("targets"), "ring": game.get("ring")}


def _outcome(workdir: pathlib.Path, *, reached: bool) -> dict[str, object]:
    """What a run left in its work folder."""
    last = (_lines(workdir / "metrics.jsonl") or [{}])[-1]
    best = workdir / "best.npz"
    found = formats.load(best) if best.exists() else None
    saved = _lines(workdir / "records.jsonl")
    times = [line["seconds"] for line in saved if found and line["rank"] == found.rank]
    return {
        "rank": found and found.rank,
        "seconds_to_rank": max(times) if reached and times else None,
        "compile_seconds": last.get("compile_seconds"),
        "steps": last.get("step"),
        "games": last.get("total_games"),
        "evaluations": last.get("total_evaluations"),
        # Raises if the algorithm is wrong.
        "proof": found and found.check(),
    }


def _lines(path: pathlib.Path) -> list[dict]:
    """The complete lines of a file; a run that was killed may leave a torn one."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


if __name__ == "__main__":
    sys.exit(main())
