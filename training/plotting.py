"""The learning curve of a run, from its metrics.jsonl."""

import io

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from training.config import Config
from training.progress import title
from training.storage import Path, write
from training.writers import read_metrics

_BINS = 120
# Of several targets each has fewer games, whose mean is less certain.
_BINS_PER_TARGET = 40


def plot(config: Config, folder: Path) -> Path | None:
    """Draws learning_curve.png of an agent from its metrics; None while there are no steps."""
    lines = read_metrics(folder)
    if not lines:
        return None
    figure = Figure(figsize=(8, 9), layout="constrained")
    figure.suptitle(title(config))
    rank_axes, solved_axes, loss_axes = figure.subplots(3, sharex=True)
    names = {name for line in lines for name, value in line.items() if not isinstance(value, dict)}
    column = {name: np.array([line.get(name) for line in lines], float) for name in sorted(names)}
    unit, scale = ("minutes", 60) if column["seconds"][-1] > 300 else ("seconds", 1)
    times = column["seconds"] / scale
    loss_axes.set_xlabel(f"wall time in {unit}, compilation included")
    if len(config.targets) == 1:
        _draw_target(rank_axes, solved_axes, times, column, config, lines)
    else:
        _draw_targets(rank_axes, solved_axes, times, config, lines)
        figure.legend(
            *rank_axes.get_legend_handles_labels(),
            loc="outside lower center",
            ncols=3,
            fontsize="small",
        )
    rank_axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    solved_axes.set_ylabel("games solved")
    solved_axes.yaxis.set_major_formatter(PercentFormatter(1))
    _draw_losses(loss_axes, times, column)
    loss_axes.set_xlim(left=0)
    for axes in (rank_axes, solved_axes, loss_axes):
        axes.grid(alpha=0.3)
    path, picture = folder / "learning_curve.png", io.BytesIO()
    figure.savefig(picture, dpi=120)
    write(path, picture.getvalue())
    return path


def _draw_target(
    rank_axes: Axes,
    solved_axes: Axes,
    times: np.ndarray,
    column: dict[str, np.ndarray],
    config: Config,
    lines: list[dict],
) -> None:
    """The only target: its best rank, the mean cost of its games, and how many are solved."""
    (target,), (wanted,) = config.targets, config.ranks_wanted
    cost, games = -column["return"] * column["games"], column["games"]
    _draw_mean(rank_axes, times, cost, games, color="tab:gray", label="mean of all games")
    best = _of_target(lines, "best_ranks", target.name)
    rank_axes.step(times, best, where="post", label=f"{target.name} (wanted: {wanted})")
    rank_axes.axhline(wanted, linestyle="--", linewidth=1)
    rank_axes.set_ylabel("moves (plus penalty if unsolved)")
    rank_axes.legend()
    _draw_mean(solved_axes, times, column["solved"], games, color="tab:green")


def _draw_targets(
    rank_axes: Axes, solved_axes: Axes, times: np.ndarray, config: Config, lines: list[dict]
) -> None:
    """Several targets: how far each is from the rank wanted, and how many of its games are solved.

    Their ranks may be 2 and 100: differences stay on one scale.
    """
    count = len(config.targets)
    colormap = colormaps["tab10" if count <= 10 else "turbo"]
    for index, (target, wanted) in enumerate(zip(config.targets, config.ranks_wanted, strict=True)):
        color = colormap(index if count <= 10 else index / count)
        best = _of_target(lines, "best_ranks", target.name)
        label = f"{target.name} (wanted: {wanted})"
        rank_axes.step(times, best - wanted, where="post", color=color, label=label)
        games = _of_target(lines, "target_games", target.name)
        ranks = [line.get("target_ranks", {}).get(target.name, []) for line in lines]
        solved = np.array([sum(count for _, count in pairs) for pairs in ranks], float)
        _draw_mean(solved_axes, times, solved, np.nan_to_num(games), _BINS_PER_TARGET, color=color)
    rank_axes.axhline(0, color="black", linestyle="--", linewidth=1)
    rank_axes.set_ylabel("best rank above the one wanted")


def _draw_losses(axes: Axes, times: np.ndarray, column: dict[str, np.ndarray]) -> None:
    for name in (name for name in column if name.endswith("_loss")):
        # Zero before the first games are finished.
        known = (column[name] > 0).astype(float)
        _draw_mean(axes, times, column[name], known, label=name.replace("_", " "))
    axes.set_ylabel("loss")
    axes.set_yscale("log", nonpositive="mask")
    axes.legend()


def _of_target(lines: list[dict], name: str, target: str) -> np.ndarray:
    """The numbers of one target in a dictionary of the lines, NaN where there is none."""
    return np.array([line.get(name, {}).get(target) for line in lines], float)


def _draw_mean(
    axes: Axes,
    times: np.ndarray,
    total: np.ndarray,
    count: np.ndarray,
    bins: int = _BINS,
    **style: object,
) -> None:
    """The mean ``total / count`` over equal stretches of time."""
    edges = np.linspace(0, times[-1], min(bins, len(times)) + 1)
    counts, _ = np.histogram(times, edges, weights=count)
    totals, _ = np.histogram(times, edges, weights=np.nan_to_num(total))
    some = counts > 0
    axes.plot(((edges[:-1] + edges[1:]) / 2)[some], totals[some] / counts[some], **style)
