"""Draws how speed grows with devices by the lines of scaling.py, and prints a table in Markdown.

    python benchmarks/plot_scaling.py benchmarks/results/scaling_h200.jsonl --output scaling.png

A point of a setting's curve is the commit that was measured last on so many devices and on one.
"""

import pathlib
from collections import defaultdict
from collections.abc import Iterable

from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, PercentFormatter
from reporting import efficiency, lines_to_draw

# What is asked for in weak scaling, by devices.
_AIMS = {2: 0.97, 4: 0.95, 8: 0.92}
_TITLES = {
    "weak": "Weak scaling: as much work for each device",
    "strong": "Strong scaling: as much work in all",
}

# By setting, by devices: the line, and that of one device at the same commit.
Curves = dict[str, dict[int, tuple[dict, dict]]]


def main() -> None:
    """Runs the command line."""
    lines, output = lines_to_draw(__doc__)
    modes = {mode: _curves(line for line in lines if line["mode"] == mode) for mode in _TITLES}
    for mode, curves in modes.items():
        print(f"{_TITLES[mode]}\n")
        print("| setting | commit | devices | games | step | evaluations/s | efficiency |")
        print("|---|---|---|---|---|---|---|")
        for setting, curve in curves.items():
            for devices, (line, one) in sorted(curve.items()):
                print(
                    f"| {setting} | {line['commit']} | {devices} | {line['games']} | "
                    f"{line['step_milliseconds']:.1f} ms | {line['evaluations_per_second']:,} | "
                    f"{efficiency(one, line):.1%} |"
                )
        print()
    if output:
        _draw(modes, output)


def _curves(lines: Iterable[dict]) -> Curves:
    by_commit: dict[tuple[str, str], dict[int, dict]] = defaultdict(dict)
    for line in lines:
        by_commit[line["setting"], line["commit"]][line["devices"]] = line
    curves: Curves = defaultdict(dict)
    for (setting, _), lines_of_commit in by_commit.items():
        if len(lines_of_commit) > 1 and 1 in lines_of_commit:
            one = lines_of_commit[1]
            curves[setting].update({n: (line, one) for n, line in lines_of_commit.items()})
    return curves


def _draw(modes: dict[str, Curves], output: pathlib.Path) -> None:
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    panels = figure.subplots(1, len(modes))
    for panel, (mode, curves) in zip(panels, modes.items(), strict=True):
        for setting, curve in curves.items():
            counts = sorted(curve)
            shares = [efficiency(one, line) for line, one in (curve[count] for count in counts)]
            panel.plot(counts, shares, marker="o", label=setting)
        if mode == "weak":
            panel.plot(*zip(*_AIMS.items(), strict=True), "k_", markersize=24, label="aim")
        panel.axhline(1.0, color="grey", linewidth=0.8)
        panel.set_xscale("log", base=2)
        panel.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
        panel.yaxis.set_major_locator(MultipleLocator(0.05))
        panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        panel.set(title=_TITLES[mode], xlabel="devices", ylabel="efficiency")
        panel.set_ylim(min(0.8, panel.get_ylim()[0]), 1.02)
        panel.legend(fontsize="small", loc="lower left")
    figure.savefig(output, dpi=120)


if __name__ == "__main__":
    main()
