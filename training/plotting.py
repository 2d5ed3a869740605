"""The learning curve of a run, from its metrics.jsonl."""

import pathlib

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from training.progress import read_metrics, title
from training.workdir import read_config

_BINS = 120


def plot(workdir: pathlib.Path) -> pathlib.Path | None:
    """Draws learning_curve.png from metrics.jsonl; None while there are no steps."""
    config, lines = read_config(workdir), read_metrics(workdir)
    if not lines:
        return None
    figure = Figure(figsize=(8, 9), layout="constrained")
    figure.suptitle(title(config))
    rank_axes, solved_axes, loss_axes = figure.subplots(3, sharex=True)
    names = {name for line in lines for name in line} - {"best_ranks"}
    column = {name: np.array([line.get(name) for line in lines], float) for name in names}
    unit, scale = ("minutes", 60) if column["seconds"][-1] > 300 else ("seconds", 1)
    times = column["seconds"] / scale
    loss_axes.set_xlabel(f"wall time in {unit}, compilation included")
    cost = -column["return"] * column["games"]
    _draw_mean(rank_axes, times, cost, column["games"], color="tab:gray", label="mean of all games")
    for index, target in enumerate(config.targets):
        best = np.array([line["best_ranks"][target.name] for line in lines], float)
        _draw_rank(rank_axes, times, best, target.name, config.ranks_wanted[index], f"C{index}")
    rank_axes.set_ylabel("moves (plus penalty if unsolved)")
    rank_axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    rank_axes.legend()
    _draw_mean(solved_axes, times, column["solved"], column["games"], color="tab:green")
    solved_axes.set_ylabel("games solved")
    solved_axes.yaxis.set_major_formatter(PercentFormatter(1))
    for name in sorted(name for name in names if name.endswith("_loss")):
        # Zero before the first games are finished.
        known = (column[name] > 0).astype(float)
        _draw_mean(loss_axes, times, column[name], known, label=name.replace("_", " "))
    loss_axes.set_ylabel("loss")
    loss_axes.set_yscale("log", nonpositive="mask")
    loss_axes.legend()
    loss_axes.set_xlim(left=0)
    for axes in (rank_axes, solved_axes, loss_axes):
        axes.grid(alpha=0.3)
    path = workdir / "learning_curve.png"
    figure.savefig(path, dpi=120)
    return path


def _draw_rank(
    axes: Axes, times: np.ndarray, best: np.ndarray, name: str, wanted: int, color: str
) -> None:
    """The best rank of a target, which steps down to the one wanted."""
    axes.step(times, best, where="post", color=color, label=f"{name} (wanted: {wanted})")
    axes.axhline(wanted, color=color, linestyle="--", linewidth=1)


def _draw_mean(
    axes: Axes, times: np.ndarray, total: np.ndarray, count: np.ndarray, **style: str
) -> None:
    """The mean ``total / count`` over equal stretches of time."""
    edges = np.linspace(0, times[-1], min(_BINS, len(times)) + 1)
    counts, _ = np.histogram(times, edges, weights=count)
    totals, _ = np.histogram(times, edges, weights=np.nan_to_num(total))
    some = counts > 0
    axes.plot(((edges[:-1] + edges[1:]) / 2)[some], totals[some] / counts[some], **style)
