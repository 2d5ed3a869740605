"""Draws the learning curves that ablations.py wrote, and prints their table in Markdown.

python benchmarks/plot_ablations.py benchmarks/results/ablations.jsonl --output ablations.png
"""

import math
import pathlib
import statistics
from collections import defaultdict

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from reporting import lines_to_draw

Lines = list[dict]

# Stretches on either side that a point of a curve takes in.
_AROUND = 3


def main() -> None:
    """Runs the command line."""
    lines, output = lines_to_draw(__doc__)
    by_target: dict[str, dict[str, Lines]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        by_target[f"{line['target']} over {line['ring']}"][line["variant"]].append(line)
    for title, variants in by_target.items():
        print(_table(title, variants))
    if output:
        _draw(by_target, output)


def _table(title: str, variants: dict[str, Lines]) -> str:
    """A row a variant: medians over its seeds."""
    rows = [
        f"{title}, medians over the seeds:\n",
        "| variant | seeds | mean rank at the end | solved | best ranks | steps | games |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, lines in variants.items():
        last = [_last(line, "mean_rank") for line in lines]
        solved = [_last(line, "solved_share") for line in lines]
        ranks = ", ".join(str(line["best_rank"] or "-") for line in lines)
        steps, games = (
            int(statistics.median(line[key] for line in lines)) for key in ("steps", "games")
        )
        rows.append(
            f"| {name} | {len(lines)} | {statistics.median(last):.2f} | "
            f"{statistics.median(solved):.0%} | {ranks} | {steps:,} | {games:,} |"
        )
    return "\n".join(rows) + "\n"


def _last(line: dict, name: str) -> float:
    """The mean over the games of the last quarter of a curve; infinite if none ended there."""
    mean = _mean(line, name, range(3 * len(line[name]) // 4, len(line[name])))
    return math.inf if mean is None else mean


def _smooth(line: dict) -> list[float]:
    """The mean rank around each stretch of a curve; NaN before the first game."""
    count = len(line["mean_rank"])
    around = [range(max(0, i - _AROUND), min(count, i + _AROUND + 1)) for i in range(count)]
    first = next((i for i, x in enumerate(line["mean_rank"]) if x is not None), count)
    means = [_mean(line, "mean_rank", each) for each in around]
    return [math.nan if x is None or i < first else x for i, x in enumerate(means)]


def _mean(line: dict, name: str, places: range) -> float | None:
    """The mean over the games of some stretches, None if there were none.

    Games that began together and are solved end before the others, so that a single stretch tells
    of few of them. Lines of earlier versions do not have the numbers of games.
    """
    weights = line.get("games_of_stretches", [1] * len(line[name]))
    known = [(line[name][i], weights[i]) for i in places if line[name][i] is not None]
    total = sum(weight for _, weight in known)
    return sum(x * weight for x, weight in known) / total if total else None


def _draw(by_target: dict[str, dict[str, Lines]], path: pathlib.Path) -> None:
    """A panel a target: the median over seeds of what a game costs, and all seeds faintly."""
    figure = Figure(figsize=(10 * len(by_target), 6), layout="constrained")
    panels = figure.subplots(1, len(by_target), squeeze=False)[0]
    for axes, (title, variants) in zip(panels, by_target.items(), strict=True):
        for index, (name, lines) in enumerate(variants.items()):
            curves = np.array([_smooth(line) for line in lines])
            times = (np.arange(curves.shape[1]) + 0.5) / curves.shape[1] * lines[0]["seconds"]
            style = {"color": f"C{index % 10}", "linestyle": ("-", "--", ":")[index // 10]}
            # Before the first game is finished there is nothing to take the median of.
            some = ~np.isnan(curves).all(axis=0)
            axes.plot(times[some], np.nanmedian(curves[:, some], axis=0), label=name, **style)
            axes.plot(times, curves.T, alpha=0.15, linewidth=1, **style)
        axes.set_title(f"{title}, {next(iter(variants.values()))[0]['device']}")
        axes.set_xlabel("device seconds, compilation not included")
        axes.set_ylabel("mean moves of a game (plus penalty if unsolved)")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(ScalarFormatter())
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
