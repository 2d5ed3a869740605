"""The table of what was discovered, from the lines of discover.py.

    python benchmarks/discovery_table.py benchmarks/results/discover_ladder_h200.jsonl

Markdown, a row for each target, ring and number of flips. Of several lines of an agent, which went
on with its work folder, the last counts.
"""

import argparse
import json
import pathlib
import statistics
from collections import defaultdict

_HEAD = (
    "| target | played over | flips | best known | ranks of the seeds | reached | seconds to it "
    "(median, worst) | seconds in all | games of a seed |"
)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    lines = [json.loads(x) for file in parser.parse_args().files for x in file.open()]
    settings: dict[tuple, dict[int, dict]] = defaultdict(dict)
    for line in lines:
        settings[line["target"], line["ring"], line.get("flips", 0)][line["seed"]] = line
    print(_HEAD)
    print("|---" * (_HEAD.count("|") - 1) + "|")
    for setting, agents in settings.items():
        print(_row(setting, list(agents.values())))


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


def _seconds_to_best(line: dict) -> float:
    """Until the best algorithm was there, without the compilation of the first start."""
    seconds = [
        s for name, s in line["seconds_to_rank"].items() if name.split()[0] == str(line["rank"])
    ]
    return max(seconds) - line["compile_seconds"]


if __name__ == "__main__":
    main()
