"""Draws what discover.py found, rank and solved games over time, and prints the table in Markdown.

    python benchmarks/plot_discovery.py benchmarks/results/discover_ladder_h200.jsonl --output a.png

A row of the table and two panels for each target, ring and number of flips. Of several lines of an
agent, which went on with its work folder, the last counts.
"""

import math
import pathlib
import statistics
from collections import defaultdict

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from reporting import lines_to_draw

# Lines by target, ring and flips, then by seed.
Settings = dict[tuple[str, str, int], dict[int, dict]]

# Settings side by side.
_ACROSS = 4

_HEAD = (
    "| target | played over | flips | best known | ranks of the seeds | reached | seconds to it "
    "(median, worst) | seconds in all | games of a seed |"
)


def main() -> None:
    """Runs the command line."""
    lines, output = lines_to_draw(__doc__)
    settings: Settings = defaultdict(dict)
    for line in lines:
        settings[line["target"], line["ring"], line.get("flips", 0)][line["seed"]] = line
    print(_HEAD)
    print("|---" * (_HEAD.count("|") - 1) + "|")
    for setting, agents in settings.items():
        print(_row(setting, list(agents.values())))
    if output:
        _draw(settings, output)


def _row(setting: tuple, agents: list[dict]) -> str:
    target, ring, flips = setting
    reached = [_seconds_to_best(line) for line in agents if line["reached"]]
    times = f"{statistics.median(reached):.0f}, {max(reached):.0f}" if reached else ""
    cells = (
        target,
        ring,
        flips or "",
        agents[0]["wanted"],
        ", ".join(str(line["rank"] or "none") for line in agents),
        f"{len(reached)} of {len(agents)}",
        times,
        f"{max(line['run_seconds'] - line['compile_seconds'] for line in agents):.0f}",
        f"{statistics.median(line['games'] for line in agents):,.0f}",
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def _draw(settings: Settings, path: pathlib.Path) -> None:
    """Two panels a setting, a line a seed: the best rank, and the share of games solved."""
    across = min(_ACROSS, len(settings))
    bands = math.ceil(len(settings) / across)
    figure = Figure(figsize=(4 * across, 6 * bands), layout="constrained")
    panels = figure.subplots(2 * bands, across, squeeze=False)
    pairs = panels.reshape(bands, 2, across).swapaxes(1, 2).reshape(-1, 2)
    for spare in pairs[len(settings) :].ravel():
        spare.remove()
    pairs = pairs[: len(settings)]
    for (ranks, shares), (setting, agents) in zip(pairs, settings.items(), strict=True):
        target, ring, flips = setting
        ranks.set_title(f"{target} over {ring}" + (", with flips" if flips else ""))
        highest = next(iter(agents.values()))["wanted"]
        for seed, line in sorted(agents.items()):
            best = _best_over_time(line)
            ranks.step(*zip(*best, strict=True), where="post", label=f"seed {seed}")
            highest = max([highest, *(rank for _, rank in best if not math.isnan(rank))])
            solved = line.get("solved_shares", [])
            times = [(i + 0.5) / len(solved) * line["run_seconds"] for i in range(len(solved))]
            known = [pair for pair in zip(times, solved, strict=True) if pair[1] is not None]
            shares.plot(*(zip(*known, strict=True) if known else ((), ())))
        ranks.axhline(line["wanted"], color="black", linewidth=1, linestyle="--")
        ranks.set_ylim(line["wanted"] - 0.5, highest + 0.5)
        ranks.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        shares.yaxis.set_major_formatter(PercentFormatter(1))
        shares.sharex(ranks)
        # From shortly before the first solved game on.
        began = min(_best_over_time(line)[0][0] for line in agents.values())
        shares.set_xlim(left=0.95 * began)
        shares.set_ylim(0, 1)
        shares.set_xlabel("seconds, compilation included")
        for axes in (ranks, shares):
            axes.grid(alpha=0.3)
    for ranks, shares in pairs[::across]:
        ranks.set_ylabel("best rank so far")
        shares.set_ylabel("games solved")
    seeds = [len(agents) for agents in settings.values()]
    pairs[seeds.index(max(seeds)), 0].legend(fontsize="small")
    figure.savefig(path, dpi=110)


def _best_over_time(line: dict) -> list[tuple[float, float]]:
    """Seconds and the best rank from then on, over any ring; nothing before the first."""
    found = sorted((s, int(name.split()[0])) for name, s in line["seconds_to_rank"].items())
    best = [(s, min(rank for _, rank in found[: i + 1])) for i, (s, _) in enumerate(found)]
    return [*best, (line["run_seconds"], best[-1][1] if best else math.nan)]


def _seconds_to_best(line: dict) -> float:
    """Until the best algorithm was there, without the compilation of the first start."""
    seconds = [
        s for name, s in line["seconds_to_rank"].items() if name.split()[0] == str(line["rank"])
    ]
    return max(seconds) - line["compile_seconds"]


if __name__ == "__main__":
    main()
