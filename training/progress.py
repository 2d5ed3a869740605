"""What a run shows of every step: a live table in a terminal, plain lines elsewhere."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from training.config import Config
from training.flops import Costs
from training.metrics import Meter, summed
from training.writers import Writer

_SECONDS_PER_LINE = 10.0
# More targets than these would fill the terminal.
_TARGETS_SHOWN = 8


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Shows that something goes on, in a terminal with the seconds it has taken."""
    began = time.monotonic()
    with _live(lambda: Text(f"{what}: {time.monotonic() - began:.0f} s"), transient=True) as live:
        if not live:
            print(f"{what} ...", flush=True)
        yield


class Progress:
    """Tells of every step, between entering and leaving it as a context."""

    def __init__(
        self,
        config: Config,
        counters: Sequence[dict[str, float]],
        limit: float,
        costs: Costs,
        writers: Sequence[Sequence[Writer]],
    ):
        """Goes on from ``counters``, in a run that stops at ``limit`` seconds.

        Args:
            config: the run's.
            counters: for each agent the numbers of `training.metrics.COUNTERS`.
            limit: seconds since the run began.
            costs: model FLOPs of an agent.
            writers: those of each agent, which take a line for every step.
        """
        self._config = config
        self._meters = [
            Meter(one, its, costs) for one, its in zip(config.agents, counters, strict=True)
        ]
        self._limit = limit
        self._writers = writers
        self._next_line = 0.0
        # The lines of the newest step, before the first the counters alone.
        self._latest: list[dict] = [{**its, "best_ranks": {}} for its in self.counters]

    @property
    def counters(self) -> list[dict[str, float]]:
        """For each agent the numbers of `training.metrics.COUNTERS` after the steps so far."""
        return [meter.counters for meter in self._meters]

    @property
    def step(self) -> int:
        """Steps so far."""
        return self._meters[0].counters["step"]

    @property
    def compile_seconds(self) -> float:
        """Of the run so far."""
        return self._meters[0].counters["compile_seconds"]

    def __enter__(self) -> "Progress":
        with contextlib.ExitStack() as stack:
            for writer in itertools.chain(*self._writers):
                writer.begin(self.step)
                stack.callback(writer.close)
            self._is_live = stack.enter_context(_live(self._table, transient=False))
            self._close = stack.pop_all().close
        return self

    def __exit__(self, *_exception: object) -> None:
        self._close()

    def flush(self) -> None:
        """Leaves on disk what the writers have taken."""
        for writer in itertools.chain(*self._writers):
            writer.flush()

    def update(
        self,
        metrics: Sequence[dict[str, np.ndarray]],
        best_ranks: Sequence[dict[str, int | None]],
        seconds: float,
    ) -> None:
        """Counts and tells one step of each agent; for the arguments see `Meter.measure`."""
        self._latest = [
            meter.measure(one, ranks, seconds)
            for meter, one, ranks in zip(self._meters, metrics, best_ranks, strict=True)
        ]
        for line, writers in zip(self._latest, self._writers, strict=True):
            for writer in writers:
                writer.write(line)
        if not self._is_live and seconds >= self._next_line:
            self._next_line = seconds + _SECONDS_PER_LINE
            line = summed(self._latest)
            rows = self._essentials(line) + _losses(line)
            print(", ".join(f"{name} {value}" for name, value in rows), flush=True)

    def _best(self) -> list[tuple[str, str]]:
        """The best rank of each target, of several agents side by side."""
        ranks = [line["best_ranks"] for line in self._latest]
        best = [
            (name, [each[name] for each in ranks], wanted)
            for name, wanted in zip(ranks[0], self._config.ranks_wanted, strict=False)
        ]
        rows = [
            (f"best {name}", f"{' '.join(str(x or '-') for x in found)} (wanted {wanted})")
            for name, found, wanted in best[:_TARGETS_SHOWN]
        ]
        if len(best) > _TARGETS_SHOWN:
            there = sum(all(x and x <= wanted for x in found) for _, found, wanted in best)
            rows.append(("targets", f"{there} of {len(best)} have the rank wanted"))
        return rows

    def _essentials(self, line: dict) -> list[tuple[str, str]]:
        """Names and values of what a run is about."""
        peak = line.get("share_of_peak")
        of_peak = "" if peak is None else f" ({peak:.1%} of peak)"
        games = f"{_form(line, 'total_games', ',')} ({_form(line, 'games_per_second', ',.3g')}/s)"
        lately = _form(line, "solved_share", ".1%")
        return [
            ("time", f"{_clock(line['seconds'])} of {_clock(self._limit)}"),
            ("step", _form(line, "step", ",")),
            ("games", games),
            ("solved", f"{_form(line, 'total_solved', ',')} (lately {lately})"),
            *self._best(),
            ("evaluations/s", _form(line, "evaluations_per_second", ",.0f")),
            ("TFLOP/s", _form(line, "flops_per_second", ".3g", 1e12) + of_peak),
        ]

    def _table(self) -> Panel:
        line = summed(self._latest)
        table = Table.grid(padding=(0, 2))
        for row in self._essentials(line) + _losses(line) + _details(line):
            table.add_row(*row)
        return Panel(table, title=title(self._config), subtitle="Ctrl-C saves and stops", width=64)


def _form(line: dict, name: str, form: str, scale: float = 1.0) -> str:
    value = line.get(name)
    return "-" if value is None else format(value if scale == 1 else value / scale, form)


def _losses(line: dict) -> list[tuple[str, str]]:
    names = [name for name in line if name.endswith("_loss")]
    return [(name.replace("_", " "), _form(line, name, ".3g")) for name in names]


def _details(line: dict) -> list[tuple[str, str]]:
    """What tells how well it goes; what the run does not measure is left out."""
    rows = {
        "value error": _form(line, "value_error", ".3g"),
        "root entropy": _form(line, "root_entropy", ".3g"),
        "tree depth": _form(line, "tree_depth", ".3g"),
        "gradient norm": _form(line, "gradient_norm", ".3g"),
        "replay age": _form(line, "replay_age", ",.3g"),
        "memory": _form(line, "peak_memory_bytes", ",.1f", 2**30) + " GiB at most",
    }
    return [(name, value) for name, value in rows.items() if not value.startswith("-")]


@contextlib.contextmanager
def _live(render: Callable[[], RenderableType], *, transient: bool) -> Iterator[bool]:
    """Shows what ``render`` returns, and whether there is a terminal to show it in."""
    console = Console()
    if not console.is_interactive:
        yield False
        return
    with Live(get_renderable=render, console=console, transient=transient):
        yield True


def title(config: Config) -> str:
    """Names a run."""
    first, *others = config.game.targets
    targets = f"{first} and {len(others)} more" if others else first
    last = config.seed + config.num_seeds - 1
    seeds = f"seed {config.seed}" if config.num_seeds == 1 else f"seeds {config.seed} to {last}"
    return f"{targets} over {config.ring.name}, {seeds}"


def _clock(seconds: float) -> str:
    """Hours only if there are some: 1:23:45 or 3:45."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
