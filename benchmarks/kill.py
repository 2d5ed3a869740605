"""Kills a short run with SIGKILL at random moments and goes on with the same command, many times.

    python benchmarks/kill.py --kills 200

After each kill it checks that every file can be read and every algorithm proved, that nothing that
was found is gone or changed, also what was only announced on the terminal, and that the run goes on
from the newest complete checkpoint with counters that never fall. Then the run is ended by SIGTERM,
and everything is checked again. One JSON line. Exit status: 0 if all was well, 1 otherwise.
"""

import argparse
import collections
import hashlib
import importlib.metadata
import itertools
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time

from reporting import ROOT, command_line, commit, cpu_name, report

from tensorgame.algorithms import formats

# Two targets with several ranks each, and ranks wanted that do not exist, so that it never ends.
_FLAGS = (
    "--game.targets matmul:1,1,2 complex --game.ring z --target-ranks 1 2 --game.max-moves 5 "
    "--selfplay.num-games 8 --search.num-actions 4 --search.num-simulations 4 --network.layers 1 "
    "--learner.replay-batch 8 --learner.demonstration-batch 8 --learner.demonstration-steps 1 "
    "--max-minutes 100000 --checkpoint-minutes 0.02"
)
_ANNOUNCED = re.compile(r"^(\S+) with (\d+) products over (\S+) .* after", re.MULTILINE)
_RESUMED = re.compile(r"at step (\d+) in ")
_EACH_COUNTED = ("step", "seconds", "total_games", "total_solved", "total_evaluations")
_START_SECONDS = 600.0


class KillError(Exception):
    """Something that must not happen to a run that is killed."""


class Witness:
    """What was seen in the work folder, to be compared with what is there later.

    Attributes:
        files: digests of the algorithms, by path.
        checkpoint: the step of the newest complete checkpoint.
    """

    def __init__(self, workdir: pathlib.Path):
        self.workdir = workdir
        self.files: dict[pathlib.Path, bytes] = {}
        self.checkpoint = 0

    def look(self, log: str) -> None:
        """Checks all files, and what the terminal has shown so far.

        Raises:
            KillError: one is unreadable, lost or changed.
        """
        if not (self.workdir / "config.json").exists():
            return
        json.loads((self.workdir / "config.json").read_text())
        found = {path: path.read_bytes() for path in self.workdir.glob("*/algorithms/**/*.npz")}
        for path, content in found.items():
            (algorithm,) = formats.decode(content, str(path)).values()
            algorithm.check()
        digests = {path: hashlib.sha256(content).digest() for path, content in found.items()}
        for path, digest in self.files.items():
            if digests.get(path) != digest:
                raise KillError(f"{path} is {'changed' if path in digests else 'lost'}")
        self.files = digests
        for path in self.workdir.glob("*/best.npz"):
            formats.load(path).check()
        for target, rank, ring in _ANNOUNCED.findall(log):
            folder = self.workdir / re.sub(r"[:,]", "-", target) / "algorithms"
            if not (folder / f"rank{rank}-{ring.lower()}.npz").exists():
                raise KillError(f"{target} with {rank} products was announced, but is not there")
        self._look_at_lines()
        steps = [int(p.name) for p in self.workdir.glob("checkpoints/*") if p.name.isdigit()]
        if max(steps, default=0) < self.checkpoint:
            raise KillError(f"the checkpoint of step {self.checkpoint} is gone")
        self.checkpoint = max(steps, default=0)

    def _look_at_lines(self) -> None:
        for path in self.workdir.glob("*/records.jsonl"):
            kept = {json.loads(line)["file"] for line in path.read_text().splitlines()}
            firsts = {p.name for p in (path.parent / "algorithms").glob("*.npz")}
            if not firsts <= kept:
                raise KillError(f"{path} does not say where {firsts - kept} come from")
        path = self.workdir / "metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        metrics = [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]
        for number, (one, other) in enumerate(itertools.pairwise(metrics), 2):
            if other["step"] != number or any(other[name] < one[name] for name in _EACH_COUNTED):
                raise KillError(f"the counters of {path} fall or jump at line {number}")


def main() -> int:
    """Runs the command line; returns the exit status."""
    options = _parse()
    rng = random.Random(options.seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        workdir, cache = pathlib.Path(folder, "work"), options.cache or pathlib.Path(folder, "xla")
        witness, phases = Witness(workdir), collections.Counter()
        run = _Run(workdir, cache, pathlib.Path(folder, "log"))
        try:
            # The first start compiles and says how long the following ones can take.
            run.start()
            run.wait_for_step(_START_SECONDS)
            run.end(signal.SIGKILL)
            witness.look(run.log())
            for number in range(options.kills):
                phases[_one_kill(run, witness, rng.random(), options.seconds)] += 1
                print(f"kill {number + 1} of {options.kills}: {dict(phases)}", file=sys.stderr)
            final = _last_start(run, witness)
        except KillError as failure:
            print(f"failed after {sum(phases.values())} kills: {failure}", file=sys.stderr)
            print(run.log()[-3000:], file=sys.stderr)
            return 1
        finally:
            run.end(signal.SIGKILL)
    line = {
        "kills": sum(phases.values()),
        **{f"killed_{phase.replace(' ', '_')}": count for phase, count in sorted(phases.items())},
        **final,
        "seconds": round(time.monotonic() - began, 1),
        "seed": options.seed,
        "device": f"{len(os.sched_getaffinity(0))} x core of {cpu_name()}",
        "jax": importlib.metadata.version("jax"),
        "commit": options.commit or commit(),
    }
    report(line, options.output)
    return 0


def _parse() -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("--kills", type=int, default=200, help="how often it is killed (200)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    parser.add_argument(
        "--seconds", type=float, default=6.0, help="longest time between first step and kill (6)"
    )
    parser.add_argument("--cache", type=pathlib.Path, help="folder of compiled programs to use")
    return parser.parse_args()


def _one_kill(run: "_Run", witness: Witness, moment: float, seconds: float) -> str:
    """Starts the run, kills it at a random moment and checks; says what it was doing."""
    # One kill in four comes before the first step: while modules are imported, files are claimed
    # and proved, the checkpoint is restored.
    run.start()
    if moment < 0.25:
        time.sleep(4 * moment * run.start_seconds)
    else:
        run.wait_for_step(_START_SECONDS)
        time.sleep((moment - 0.25) / 0.75 * seconds)
    if run.process.poll() is not None:
        raise KillError(f"the run has ended by itself with exit status {run.process.returncode}")
    run.end(signal.SIGKILL)
    is_saving = any(
        "tmp" in path.name or not path.name.isdigit()
        for path in witness.workdir.glob("checkpoints/*")
    )
    resumed = _RESUMED.search(run.log())
    if resumed and int(resumed[1]) < witness.checkpoint:
        raise KillError(f"went on at step {resumed[1]}, not {witness.checkpoint}")
    witness.look(run.log())
    if not resumed:
        return "before the first step"
    return "while a checkpoint was written" if is_saving else "between checkpoints"


def _last_start(run: "_Run", witness: Witness) -> dict[str, object]:
    """Goes on once more, ends the run by SIGTERM, and says what is there."""
    run.start()
    run.wait_for_step(_START_SECONDS)
    status = run.end(signal.SIGTERM)
    if status != 128 + signal.SIGTERM:
        raise KillError(f"SIGTERM led to exit status {status}")
    witness.look(run.log())
    left = [path for path in witness.workdir.rglob("*") if "tmp" in path.name]
    if left:
        raise KillError(f"{left[0]} was left behind")
    (line,) = (witness.workdir / "metrics.jsonl").read_text().splitlines()[-1:]
    return {"algorithms": len(witness.files), "steps": json.loads(line)["step"]}


class _Run:
    """train.py in a process of its own, with a log of each start.

    Attributes:
        process: of the last start.
        start_seconds: from the last start that came to a first step, to that step.
    """

    def __init__(self, workdir: pathlib.Path, cache: pathlib.Path, log: pathlib.Path):
        self.start_seconds = 0.0
        self.process: subprocess.Popen | None = None
        self._metrics = workdir / "metrics.jsonl"
        self._log = log
        self._command = [
            sys.executable,
            str(ROOT / "train.py"),
            *_FLAGS.split(),
            "--workdir",
            str(workdir),
        ]
        self._environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }

    def start(self) -> None:
        self._began = time.monotonic()
        with self._log.open("w") as file:
            self.process = subprocess.Popen(
                self._command, stdout=file, stderr=subprocess.STDOUT, env=self._environment
            )

    def wait_for_step(self, seconds: float) -> None:
        """Waits until the last start has made a step.

        Raises:
            KillError: it ended before, or it took longer.
        """
        while time.monotonic() - self._began < seconds:
            if self.process.poll() is not None:
                raise KillError(f"the run has ended with exit status {self.process.returncode}")
            # The line that says so names a step too, the one it goes on from.
            told = self.log().partition("compiled in")[2].partition("\n")[2]
            if "step " in told:
                self.start_seconds = time.monotonic() - self._began
                return
            time.sleep(0.02)
        raise KillError(f"no step within {seconds:.0f} seconds")

    def end(self, number: int) -> int | None:
        """Sends a signal and waits for the end; returns the exit status."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait()

    def log(self) -> str:
        """What the last start has written so far."""
        return self._log.read_text() if self._log.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
