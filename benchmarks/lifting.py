"""Which algorithms modulo 2 lift to the integers, and how long that takes.

    python benchmarks/lifting.py

Lifts the algorithms modulo 2 that were released with the AlphaTensor paper, each in a process of
its own. One JSON line for each.
"""

import argparse
import multiprocessing
import os
import resource
import sys
import time

import numpy as np
from reporting import command_line, commit, cpu_name, report

from tensorgame.algorithms import released
from tensorgame.algorithms.lifting import try_lift


def main() -> None:
    """Runs the command line."""
    arguments = _parse()
    origin = {
        "device": f"{os.cpu_count()} x core of {cpu_name()}",
        "numpy": np.__version__,
        "commit": arguments.commit or commit(),
    }
    processes = multiprocessing.get_context("spawn")
    for name in arguments.names:
        # The peak of memory is that of a process.
        with processes.Pool(1) as pool:
            line = pool.apply(_measure, (name, arguments.attempts, arguments.seed))
        report({**line, **origin}, arguments.output)


def _parse() -> argparse.Namespace:
    parser = command_line(__doc__)
    every = [name for name in released.names() if name.endswith(":mod2")]
    parser.add_argument("--names", nargs="+", default=every, help="released names (all modulo 2)")
    parser.add_argument("--attempts", type=int, default=20, help="random choices of pivots (20)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _measure(name: str, attempts: int, seed: int) -> dict[str, object]:
    """The line of one algorithm."""
    found = released.load(name)
    began = time.perf_counter()
    outcome = try_lift(found, attempts=attempts, seed=seed)
    seconds = time.perf_counter() - began
    lifted = outcome.factorization
    # Kilobytes, but bytes on macOS.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {
        "name": name,
        "target": found.target.name,
        "rank": found.rank,
        "lifted": lifted is not None,
        "proved_impossible": outcome.proved_impossible,
        "reason": outcome.reason,
        "denominator": lifted and lifted.denominator,
        "largest_coefficient": lifted and max(map(abs, lifted.coefficients())),
        "seconds": round(seconds, 2),
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit,
        "attempts": attempts,
        "seed": seed,
    }


if __name__ == "__main__":
    main()
