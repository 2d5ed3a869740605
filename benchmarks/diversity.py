"""How many of some algorithms are different, and how many classes of equivalent ones they are.

    python benchmarks/diversity.py benchmarks/results/algorithms/*.npz --output FILE

Files of the same target, ring and number of products are counted together. Two are different if
their products are, in any order; they are equivalent if a symmetry of the target takes one to the
other (`tensorgame.algorithms.equivalence`). One JSON line for each such group.
"""

import collections
import pathlib

from reporting import command_line, commit, report

from tensorgame.algorithms import formats
from tensorgame.algorithms.equivalence import compare
from tensorgame.algorithms.factorization import Factorization
from tensorgame.algorithms.symmetries import product_keys


def main() -> None:
    """Runs the command line."""
    parser = command_line(__doc__)
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    parser.add_argument("--budget", type=int, default=5_000, help="of a comparison (5000)")
    options = parser.parse_args()
    groups: dict[tuple, list[Factorization]] = collections.defaultdict(list)
    for path in options.files:
        found = formats.load(path)
        # Raises if it is wrong.
        found.check()
        groups[found.target.name, str(found.ring), found.rank].append(found)
    for (target, ring, rank), found in sorted(groups.items()):
        different = list({frozenset(product_keys(x)): x for x in found}.values())
        classes, undecided = _classes(different, options.budget)
        line = {
            "target": target,
            "ring": ring,
            "rank": rank,
            "files": len(found),
            "different": len(different),
            "classes": classes,
            "undecided": undecided,
            "commit": options.commit or commit(),
        }
        report(line, options.output)


def _classes(found: list[Factorization], budget: int) -> tuple[int, int]:
    """Of how many no other before is equivalent, and how many of these may be all the same."""
    firsts: list[Factorization] = []
    undecided = 0
    for one in found:
        verdicts = []
        for first in firsts:
            verdicts.append(compare(first, one, budget=budget).verdict)
            if verdicts[-1] == "equivalent":
                break
        else:
            firsts.append(one)
            undecided += "undecided" in verdicts
    return len(firsts), undecided


if __name__ == "__main__":
    main()
