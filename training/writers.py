"""Where the lines of metrics go: lines of JSON, TensorBoard, Weights & Biases.

All of them may be opened again by a later session of the run: a run that was killed reported steps
after its last checkpoint, which are made again.
"""

import dataclasses
import importlib.util
import json
import pathlib
import time
import uuid
from typing import IO, Protocol

from training.config import Config, ConfigError
from training.distributed import is_first
from training.storage import Path, is_bucket, read_lines, write

_METRICS = "metrics.jsonl"
_PARTS = "metrics"
_TENSORBOARD = "tensorboard"
# Seconds after which lines that wait in a buffer are on disk.
_FLUSH_SECONDS = 10
# Tags of one group stand together on the page.
_GROUPS = {
    "_loss": "loss",
    "_error": "loss",
    "_norm": "norm",
    "_per_second": "speed",
    "share_of_peak": "speed",
}


class Writer(Protocol):
    """Takes the lines of `training.metrics.Meter`."""

    def begin(self, step: int) -> None:
        """Goes on after ``step``; lines of later steps are void."""

    def write(self, line: dict) -> None:
        """Takes the line of a step."""

    def flush(self) -> None:
        """Leaves on disk what it has taken, of steps that a checkpoint will hold."""

    def close(self) -> None:
        """Leaves everything on disk, and ends."""


def make_writers(config: Config, workdir: Path, wandb: str | None = None) -> list[Writer]:
    """The writers of this process: those of process 0, as all processes know the same.

    Args:
        config: the run's.
        workdir: its work folder.
        wandb: the project at Weights & Biases, or None for not at all.

    Raises:
        ConfigError: ``wandb`` cannot be had.
    """
    if not is_first():
        return []
    in_bucket = is_bucket(workdir)
    writers: list[Writer] = [JsonParts(workdir) if in_bucket else JsonLines(workdir)]
    # TensorBoard's package appends to its files.
    if _is_installed("tensorboard") and not in_bucket:
        writers.append(TensorBoard(workdir))
    if wandb:
        writers.append(WeightsAndBiases(wandb, config, workdir))
    return writers


class JsonLines:
    """metrics.jsonl in the work folder, a line a step."""

    _file: IO[str]

    def __init__(self, workdir: pathlib.Path):
        self._workdir = workdir

    def begin(self, step: int) -> None:
        path = self._workdir / _METRICS
        kept = [line for line in read_metrics(self._workdir) if line["step"] <= step]
        write(path, _text(kept))
        self._file = path.open("a", buffering=1)

    def write(self, line: dict) -> None:
        self._file.write(json.dumps(line) + "\n")

    def flush(self) -> None:
        """Every line is on disk at once."""

    def close(self) -> None:
        self._file.close()


class JsonParts:
    """The same lines in a bucket, where nothing can be appended to: an object a flush.

    They are called metrics/<first step>.jsonl.
    """

    def __init__(self, workdir: Path):
        self._workdir = workdir
        self._waiting: list[dict] = []

    def begin(self, step: int) -> None:
        (self._workdir / _PARTS).mkdir(exist_ok=True)
        for path in _parts(self._workdir):
            lines = [json.loads(line) for line in read_lines(path)]
            kept = [line for line in lines if line["step"] <= step]
            if not kept:
                path.unlink()
            elif len(kept) < len(lines):
                write(path, _text(kept))

    def write(self, line: dict) -> None:
        self._waiting.append(line)

    def flush(self) -> None:
        if self._waiting:
            name = f"{self._waiting[0]['step']:012}.jsonl"
            write(self._workdir / _PARTS / name, _text(self._waiting))
            self._waiting = []

    def close(self) -> None:
        self.flush()


class TensorBoard:
    """Event files in the folder ``tensorboard`` of the work folder.

    They are written by TensorBoard's own package, which needs no TensorFlow.
    """

    def __init__(self, workdir: pathlib.Path):
        self._folder = workdir / _TENSORBOARD

    def begin(self, step: int) -> None:
        # Imported where it is used: it may not be installed.
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._file = EventFileWriter(str(self._folder), flush_secs=_FLUSH_SECONDS)
        # TensorBoard drops what it knows of the steps from a START on.
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._add(step + 1, session_log=start)

    def write(self, line: dict) -> None:
        values = [
            self._summary.Value(tag=tag, simple_value=value) for tag, value in scalars(line).items()
        ]
        self._add(line["step"], summary=self._summary(value=values))

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _add(self, step: int, **what: object) -> None:
        self._file.add_event(self._event(wall_time=time.time(), step=step, **what))


class WeightsAndBiases:
    """A run of a project at Weights & Biases; a later session goes on with the same one."""

    def __init__(self, project: str, config: Config, workdir: Path):
        """Opens it at once, so that what is wrong with it is known before anything is compiled.

        Raises:
            ConfigError: it is not installed, or refuses.
        """
        if not _is_installed("wandb"):
            raise ConfigError(
                f"--wandb is {project}, but wandb is not installed; install it with "
                "pip install 'tensorgame[wandb]', or leave the flag out"
            )
        import wandb

        path = workdir / "wandb_id"
        if not path.exists():
            write(path, uuid.uuid4().hex[:12].encode())
        try:
            self._run = wandb.init(
                project=project,
                id=path.read_text(),
                resume="allow",
                name=f"{workdir.parent.name}/{workdir.name}",
                # Several agents have a run each.
                reinit="create_new",
                # Its own files are of use here only until they are sent.
                dir=None if is_bucket(workdir) else str(workdir),
                config=dataclasses.asdict(config),
            )
        except wandb.errors.Error as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"--wandb is {project}, which cannot be used ({reason}); log in with wandb login, "
                "set WANDB_MODE=offline, or leave the flag out"
            ) from None

    def begin(self, step: int) -> None:
        """Steps it has seen already are ignored by Weights & Biases, with a warning of its own."""

    def write(self, line: dict) -> None:
        self._run.log(scalars(line), step=line["step"])

    def flush(self) -> None:
        """A process of its own sends what it is given."""

    def close(self) -> None:
        self._run.finish()


def _is_installed(package: str) -> bool:
    """Whether it can be imported; a folder of that name, as both leave behind, does not count."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None


def scalars(line: dict) -> dict[str, float]:
    """The numbers of a line by tag: loss/policy_loss, best_ranks/matmul:2,2,2."""
    tags = {}
    for name, value in line.items():
        if isinstance(value, dict):
            tags |= {f"{name}/{key}": number for key, number in value.items()}
        else:
            groups = [group for ending, group in _GROUPS.items() if name.endswith(ending)]
            tags[f"{groups[0] if groups else 'run'}/{name}"] = value
    return {tag: value for tag, value in tags.items() if isinstance(value, int | float)}


def read_metrics(workdir: Path) -> list[dict]:
    """The complete lines that were written, none if there is no such file."""
    paths = [workdir / _METRICS, *_parts(workdir)]
    return [json.loads(line) for path in paths for line in read_lines(path)]


def _parts(workdir: Path) -> list[Path]:
    folder = workdir / _PARTS
    return sorted(folder.iterdir()) if folder.exists() else []


def _text(lines: list[dict]) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode()
