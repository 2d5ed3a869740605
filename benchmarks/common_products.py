"""How far apart the games are that the places of a run have come to (`training.chains`).

    python benchmarks/common_products.py runs/matmul-2-4-4

Reads the newest checkpoint of a work folder. One JSON line for each agent and target: how many
places have a game of each length, how many products nearly all of the shortest games have in
common, and how many different ones these have between them. Many in common mean that all descend
from one game and that few ways lead away from it.
"""

import collections
import pathlib
from collections.abc import Iterator

import jax
import numpy as np
import orbax.checkpoint as ocp
from reporting import command_line, origin, report

from training.best_games import NO_GAME

# Share of the shortest games that "nearly all" are.
_NEARLY_ALL = 0.9


def main() -> None:
    """Runs the command line."""
    parser = command_line(__doc__)
    parser.add_argument("workdirs", nargs="+", type=pathlib.Path)
    options = parser.parse_args()
    for workdir in options.workdirs:
        steps = [int(path.name) for path in workdir.glob("checkpoints/*") if path.name.isdigit()]
        games = _games(workdir / "checkpoints" / str(max(steps)) / "state") if steps else None
        if games is None:
            parser.error(
                f"{workdir} has no checkpoint with chains; name the work folder of such a run"
            )
        for line in _lines(games):
            line = {"workdir": workdir.name, "step": max(steps), **line}
            report({**line, **origin(options.commit)}, options.output)


def _lines(games: dict[str, np.ndarray]) -> Iterator[dict[str, object]]:
    lengths, factors = games["length"], games["factors"]
    # Without several agents there is no axis for them.
    if lengths.ndim == 2:
        lengths, factors = lengths[None], factors[None]
    for agent, target in np.ndindex(lengths.shape[0], lengths.shape[2]):
        described = _describe(lengths[agent, :, target], factors[agent, :, target])
        yield {"agent": agent, "target": target, **described}


def _games(folder: pathlib.Path) -> dict[str, np.ndarray] | None:
    """Those of the chains, if any: lengths (..., B, N) and factors (..., B, N, R, 3, S)."""
    reader = ocp.PyTreeCheckpointer()
    tree = reader.metadata(folder.resolve()).item_metadata.tree
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    return reader.restore(folder.resolve(), restore_args=as_numpy)["chains"]


def _describe(lengths: np.ndarray, factors: np.ndarray) -> dict[str, object]:
    """Of B places: lengths (B,) and factors (B, R, 3, S)."""
    found, counts = np.unique(lengths, return_counts=True)
    places = {int(n): int(count) for n, count in zip(found, counts, strict=True) if n != NO_GAME}
    shortest = factors[lengths == lengths.min()]
    products = [{term.tobytes() for term in game if term.any()} for game in shortest]
    occur = collections.Counter(product for game in products for product in game)
    common = sum(count >= _NEARLY_ALL * len(products) for count in occur.values())
    return {"places": places, "common_products": common, "different_products": len(occur)}


if __name__ == "__main__":
    main()
