"""What a run tells of every step: a line of metrics.jsonl, and a live table or plain lines."""

import collections
import contextlib
import json
import math
import pathlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tensorgame.algorithms.formats.files import write_atomically
from training.config import Config

# What the host counts since the run began, over all its sessions; checkpoints keep it.
COUNTERS = {
    "step": 0,
    "seconds": 0.0,
    "compile_seconds": 0.0,
    "total_games": 0,
    "total_solved": 0,
    "total_evaluations": 0,
}
_METRICS = "metrics.jsonl"
_WINDOW_SECONDS = 10.0
_SECONDS_PER_LINE = 10.0


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Shows that something goes on, in a terminal with the seconds it has taken."""
    began = time.monotonic()
    with _live(lambda: Text(f"{what}: {time.monotonic() - began:.0f} s"), transient=True) as live:
        if not live:
            print(f"{what} ...", flush=True)
        yield


class Progress:
    """Tells of every step, between entering and leaving it as a context.

    Attributes:
        counters: the numbers of COUNTERS after the steps so far.
    """

    def __init__(
        self, config: Config, workdir: pathlib.Path, counters: dict[str, float], limit: float
    ):
        """Goes on from ``counters``, in a run that stops at ``limit`` seconds."""
        self.counters = dict(counters)
        self._config = config
        self._limit = limit
        self._workdir = workdir
        self._latest: dict[str, float | None] = dict(counters)
        self._best_ranks: dict[str, int | None] = {}
        self._window: collections.deque[dict[str, float]] = collections.deque()
        self._next_line = 0.0

    def __enter__(self) -> "Progress":
        # A run that was killed wrote of steps after its last checkpoint, which are made again.
        path, lines = self._workdir / _METRICS, read_metrics(self._workdir)
        kept = [line for line in lines if line["step"] <= self.counters["step"]]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_atomically(path, text.encode())
        with contextlib.ExitStack() as stack:
            self._file = stack.enter_context(path.open("a", buffering=1))
            self._is_live = stack.enter_context(_live(self._table, transient=False))
            self._close = stack.pop_all().close
        return self

    def __exit__(self, *_exception: object) -> None:
        self._close()

    def update(
        self, metrics: dict[str, float], best_ranks: dict[str, int | None], seconds: float
    ) -> None:
        """Counts and tells one step.

        Args:
            metrics: of the step; games, solved and evaluations also add to the totals.
            best_ranks: products of the best algorithm so far for each target, by name.
            seconds: wall time since the run began.
        """
        self.counters["step"] += 1
        self.counters["seconds"] = round(seconds, 3)
        for name in ("games", "solved", "evaluations"):
            self.counters[f"total_{name}"] += int(metrics[name])
        # JSON knows no infinity, and a float32 no more digits.
        numbers = {k: float(f"{v:.7g}") if math.isfinite(v) else None for k, v in metrics.items()}
        self._latest = {**self.counters, **self._recent(), **numbers}
        self._best_ranks = best_ranks
        line = {**self._latest, "best_ranks": best_ranks}
        self._file.write(json.dumps(line) + "\n")
        if not self._is_live and seconds >= self._next_line:
            self._next_line = seconds + _SECONDS_PER_LINE
            print(", ".join(f"{name} {value}" for name, value in self._rows()), flush=True)

    def _recent(self) -> dict[str, float | None]:
        """Rates over the last seconds."""
        now = dict(self.counters)
        self._window.append(now)
        while (
            len(self._window) > 2 and now["seconds"] - self._window[0]["seconds"] > _WINDOW_SECONDS
        ):
            self._window.popleft()
        change = {name: now[name] - value for name, value in self._window[0].items()}
        return {
            "evaluations_per_second": _ratio(change["total_evaluations"], change["seconds"]),
            "solved_share": _ratio(change["total_solved"], change["total_games"]),
        }

    def _rows(self) -> list[tuple[str, str]]:
        """Names and values of what is shown."""

        def show(name: str, form: str) -> str:
            value = self._latest.get(name)
            return "-" if value is None else format(value, form)

        losses = [name for name in self._latest if name.endswith("_loss")]
        return [
            ("time", f"{_clock(self._latest['seconds'])} of {_clock(self._limit)}"),
            ("step", show("step", ",")),
            ("games", show("total_games", ",")),
            ("solved", f"{show('total_solved', ',')} (lately {show('solved_share', '.1%')})"),
            *(
                (f"best {name}", f"{rank or '-'} (wanted {wanted})")
                for (name, rank), wanted in zip(
                    self._best_ranks.items(), self._config.ranks_wanted, strict=False
                )
            ),
            ("evaluations/s", show("evaluations_per_second", ",.0f")),
            *((name.replace("_", " "), show(name, ".3g")) for name in losses),
        ]

    def _table(self) -> Panel:
        table = Table.grid(padding=(0, 2))
        for row in self._rows():
            table.add_row(*row)
        return Panel(table, title=title(self._config), subtitle="Ctrl-C saves and stops", width=64)


@contextlib.contextmanager
def _live(render: Callable[[], RenderableType], *, transient: bool) -> Iterator[bool]:
    """Shows what ``render`` returns, and whether there is a terminal to show it in."""
    console = Console()
    if not console.is_interactive:
        yield False
        return
    with Live(get_renderable=render, console=console, transient=transient):
        yield True


def read_metrics(workdir: pathlib.Path) -> list[dict]:
    """The complete lines of metrics.jsonl, none if there is no such file."""
    path = workdir / _METRICS
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _ratio(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None


def title(config: Config) -> str:
    """Names a run."""
    first, *others = config.game.targets
    targets = f"{first} and {len(others)} more" if others else first
    return f"{targets} over {config.ring.name}, seed {config.seed}"


def _clock(seconds: float) -> str:
    """Hours only if there are some: 1:23:45 or 3:45."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
