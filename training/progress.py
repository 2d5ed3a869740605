"""What a run shows of every step: a live table in a terminal, plain lines elsewhere."""

import contextlib
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
from training.metrics import Meter
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
    """Tells of every step, between entering and leaving it as a context.

    Attributes:
        latest: the line of the newest step, before the first the counters alone.
    """

    def __init__(
        self,
        config: Config,
        counters: dict[str, float],
        limit: float,
        costs: Costs,
        writers: Sequence[Writer],
    ):
        """Goes on from ``counters``, in a run that stops at ``limit`` seconds.

        Args:
            config: the run's.
            counters: the numbers of `training.metrics.COUNTERS`.
            limit: seconds since the run began.
            costs: model FLOPs of the run.
            writers: they take a line for every step.
        """
        self._meter = Meter(config, counters, costs)
        self._config = config
        self._limit = limit
        self._writers = writers
        self._next_line = 0.0
        self.latest: dict = {**self.counters, "best_ranks": {}}

    @property
    def counters(self) -> dict[str, float]:
        """The numbers of `training.metrics.COUNTERS` after the steps so far."""
        return self._meter.counters

    def __enter__(self) -> "Progress":
        with contextlib.ExitStack() as stack:
            for writer in self._writers:
                writer.begin(self.counters["step"])
                stack.callback(writer.close)
            self._is_live = stack.enter_context(_live(self._table, transient=False))
            self._close = stack.pop_all().close
        return self

    def __exit__(self, *_exception: object) -> None:
        self._close()

    def flush(self) -> None:
        """Leaves on disk what the writers have taken."""
        for writer in self._writers:
            writer.flush()

    def update(
        self, metrics: dict[str, np.ndarray], best_ranks: dict[str, int | None], seconds: float
    ) -> None:
        """Counts and tells one step; for the arguments see `Meter.measure`."""
        self.latest = self._meter.measure(metrics, best_ranks, seconds)
        for writer in self._writers:
            writer.write(self.latest)
        if not self._is_live and seconds >= self._next_line:
            self._next_line = seconds + _SECONDS_PER_LINE
            rows = self._essentials() + self._losses()
            print(", ".join(f"{name} {value}" for name, value in rows), flush=True)

    def _show(self, name: str, form: str, scale: float = 1.0) -> str:
        value = self.latest.get(name)
        return "-" if value is None else format(value if scale == 1 else value / scale, form)

    def _essentials(self) -> list[tuple[str, str]]:
        """Names and values of what a run is about."""
        show = self._show
        best = list(zip(self.latest["best_ranks"].items(), self._config.ranks_wanted, strict=False))
        rows = [
            (f"best {name}", f"{rank or '-'} (wanted {wanted})")
            for (name, rank), wanted in best[:_TARGETS_SHOWN]
        ]
        if len(best) > _TARGETS_SHOWN:
            there = sum(rank is not None and rank <= wanted for (_, rank), wanted in best)
            rows.append(("targets", f"{there} of {len(best)} have the rank wanted"))
        peak = self.latest.get("share_of_peak")
        return [
            ("time", f"{_clock(self.latest['seconds'])} of {_clock(self._limit)}"),
            ("step", show("step", ",")),
            ("games", f"{show('total_games', ',')} ({show('games_per_second', ',.3g')}/s)"),
            ("solved", f"{show('total_solved', ',')} (lately {show('solved_share', '.1%')})"),
            *rows,
            ("evaluations/s", show("evaluations_per_second", ",.0f")),
            (
                "TFLOP/s",
                show("flops_per_second", ".3g", 1e12)
                + ("" if peak is None else f" ({peak:.1%} of peak)"),
            ),
        ]

    def _losses(self) -> list[tuple[str, str]]:
        names = [name for name in self.latest if name.endswith("_loss")]
        return [(name.replace("_", " "), self._show(name, ".3g")) for name in names]

    def _details(self) -> list[tuple[str, str]]:
        """What tells how well it goes; what the run does not measure is left out."""
        rows = {
            "value error": self._show("value_error", ".3g"),
            "root entropy": self._show("root_entropy", ".3g"),
            "tree depth": self._show("tree_depth", ".3g"),
            "gradient norm": self._show("gradient_norm", ".3g"),
            "replay age": self._show("replay_age", ",.3g"),
            "memory": self._show("peak_memory_bytes", ",.1f", 2**30) + " GiB at most",
        }
        return [(name, value) for name, value in rows.items() if not value.startswith("-")]

    def _table(self) -> Panel:
        table = Table.grid(padding=(0, 2))
        for row in self._essentials() + self._losses() + self._details():
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
