"""Draws the learning curves that ablations.py wrote, and prints their table in Markdown.

python benchmarks/plot_ablations.py benchmarks/results/ablations.jsonl --output ablations.png
"""

import pathlib
import statistics
from collections import defaultdict

import numpy as np
from matplotlib.figure import Figure
from reporting import lines_to_draw

Lines = list[dict]


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
    """The mean over the games of the last quarter of a curve; infinite if none was finished there.

    Games that began together and are solved end before the others, so that a short stretch tells
    of few of them. Lines of earlier versions do not have the numbers of games.
    """
    values = line[name][-len(line[name]) // 4 :]
    weights = line.get("games_of_stretches", [1] * len(line[name]))[-len(values) :]
    known = [(x, count) for x, count in zip(values, weights, strict=True) if x is not None]
    total = sum(count for _, count in known)
    return sum(x * count for x, count in known) / total if total else float("inf")


def _draw(by_target: dict[str, dict[str, Lines]], path: pathlib.Path) -> None:
    """A panel a target: the median over seeds of what a game costs, and all seeds faintly."""
    figure = Figure(figsize=(7 * len(by_target), 6), layout="constrained")
    panels = figure.subplots(1, len(by_target), squeeze=False)[0]
    for axes, (title, variants) in zip(panels, by_target.items(), strict=True):
        for index, (name, lines) in enumerate(variants.items()):
            curves = np.array([line["mean_rank"] for line in lines], float)
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
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
