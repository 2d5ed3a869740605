"""What a run counts and measures on the host: a line of numbers for every step."""

import collections
import math
import sys
from collections.abc import Sequence

import jax
import numpy as np

from training.config import Config
from training.flops import Costs

# What the host counts since the run began, over all its sessions; checkpoints keep it.
COUNTERS = {
    "step": 0,
    "seconds": 0.0,
    "compile_seconds": 0.0,
    "total_games": 0,
    "total_solved": 0,
    "total_moves": 0,
    "total_evaluations": 0,
    "total_flops": 0.0,
}
_COUNTED = ("games", "solved", "moves", "evaluations", "flops")
_WINDOW_SECONDS = 10.0
# Numbers of a line that add up over agents, as do totals and rates.
_ADD_UP = (*_COUNTED, "share_of_peak")


class Meter:
    """Makes the line of each step.

    Attributes:
        counters: the numbers of COUNTERS after the steps so far.
    """

    def __init__(self, config: Config, counters: dict[str, float], costs: Costs):
        """Goes on from ``counters``, which may lack new ones."""
        self.counters = {**COUNTERS, **counters}
        self._seed = config.seed
        self._names = [target.name for target in config.targets]
        self._costs = costs
        # (games, solved games) of each target in this session.
        self._by_target = np.zeros((2, len(self._names)))
        self._window: collections.deque[tuple[dict[str, float], np.ndarray]] = collections.deque()

    def measure(
        self,
        metrics: dict[str, np.ndarray],
        best_ranks: dict[str, int | None],
        seconds: float,
    ) -> dict:
        """Counts one step.

        Args:
            metrics: of `StepOutput`, on the host.
            best_ranks: products of the best algorithm so far for each target, by name.
            seconds: wall time since the run began.

        Returns:
            What can be written as JSON: numbers, None where one is not finite or not known, and
            dictionaries by target.
        """
        scalars = {name: float(value) for name, value in metrics.items() if np.ndim(value) == 0}
        counted = {**scalars, "flops": self._costs.of_step(scalars["moves"])}
        self.counters["step"] += 1
        self.counters["seconds"] = round(seconds, 3)
        for name in _COUNTED:
            self.counters[f"total_{name}"] += int(counted[name])
        games, solved = metrics["target_games"], metrics["target_solved"]
        self._by_target = self._by_target + np.stack([games, solved.sum(axis=1)])
        return {
            "seed": self._seed,
            **self.counters,
            **self._recent(),
            # JSON knows no infinity, and a float32 no more digits.
            **{k: float(f"{v:.7g}") if math.isfinite(v) else None for k, v in scalars.items()},
            "peak_memory_bytes": peak_memory(),
            "best_ranks": best_ranks,
            "target_games": dict(zip(self._names, games.astype(int).tolist(), strict=True)),
            "target_ranks": {
                name: [[int(rank), int(row[rank])] for rank in np.flatnonzero(row)]
                for name, row in zip(self._names, solved, strict=True)
            },
        }

    def _recent(self) -> dict[str, object]:
        """Rates and shares over the last seconds."""
        now, window = dict(self.counters), self._window
        window.append((now, self._by_target))
        while len(window) > 2 and now["seconds"] - window[0][0]["seconds"] > _WINDOW_SECONDS:
            window.popleft()
        then, by_target = window[0]
        change = {name: now[name] - then[name] for name in now}
        rates = {
            f"{name}_per_second": _ratio(change[f"total_{name}"], change["seconds"])
            for name in ("games", "moves", "evaluations", "flops")
        }
        flops, peak = rates["flops_per_second"], self._costs.peak
        games, solved = self._by_target - by_target
        return {
            **rates,
            "share_of_peak": flops / peak if flops and peak else None,
            "solved_share": _ratio(change["total_solved"], change["total_games"]),
            "solved_shares": {
                name: _ratio(part, whole)
                for name, part, whole in zip(self._names, solved, games, strict=True)
            },
        }


def summed(lines: Sequence[dict]) -> dict:
    """One line of several agents: sums of what they count, means of what else differs."""
    if len(lines) == 1:
        return lines[0]
    line = {}
    for name in lines[0]:
        numbers = [x for each in lines if isinstance(x := each.get(name), int | float)]
        adds_up = name in _ADD_UP or name.startswith("total_") or name.endswith("_per_second")
        if numbers:
            line[name] = sum(numbers) if adds_up else sum(numbers) / len(numbers)
    return line


def peak_memory() -> int | None:
    """Most bytes ever in use on a device of this process, or by the process itself on a CPU."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [each["peak_bytes_in_use"] for each in stats if "peak_bytes_in_use" in each]
    if peaks or sys.platform == "win32":
        return max(peaks, default=None)
    # Windows does not have the module.
    import resource

    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _ratio(part: float, whole: float) -> float | None:
    return round(float(part / whole), 4) if whole else None
