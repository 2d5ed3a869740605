"""How many moves chains of continued games need if their ends are played at random but well.

    python benchmarks/chains.py --targets matmul:2,3,3 matmul:3,3,3 --seeds 0 1 2

Chains begin at the schoolbook. In each round some moves of each are taken back as in play
(`training.chains`), and random flips among these alone, which may shorten them, stand for an agent
that plays them again. A chain that is longer than the shortest goes on from one of the shortest now
and then. This is no agent: it says what one that sees short ends would reach. One JSON line a
target and seed, with the moves of all chains together until each rank is there.

With `--left 0` nothing is taken back and the flips are among all moves, as with
`--learner.flips`; the lines count flips then.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
from reporting import command_line, origin, report

from tensorgame import rings, targets
from tensorgame.flips import walk
from tensorgame.rings import Ring
from training.chains import related_last


def main() -> None:
    """Runs the command line."""
    parser = command_line(__doc__)
    parser.add_argument("--targets", nargs="+", default=["matmul:2,3,3"])
    parser.add_argument("--ring", default="z2", help="as game.ring of train.py (z2)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--chains", type=int, default=256, help="chains (256)")
    parser.add_argument(
        "--left", type=int, default=8, help="most moves taken back, 2 or more, or 0 for none (8)"
    )
    parser.add_argument("--flips", type=int, default=30, help="flips of a chain in a round (30)")
    parser.add_argument(
        "--migration",
        type=float,
        default=1 / 16,
        help="of the chains that are longer than the shortest, those that go on from one of these, "
        "in a round (1/16)",
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of a target and seed (60)")
    options = parser.parse_args()
    if options.left == 1:
        parser.error("--left is 1; take back up to 2 or more moves, or 0 to walk in whole chains")
    try:
        ring = rings.parse(options.ring, (-1, 0, 1))
    except ValueError as error:
        parser.error(str(error))
    for name in options.targets:
        for seed in options.seeds:
            counted = "moves" if options.left else "flips"
            made, speed = _simulate(targets.parse(name), ring, seed, options)
            line = {
                "target": name,
                "ring": options.ring,
                "seed": seed,
                f"{counted}_to_rank": made,
                f"{counted}_per_second": speed and round(speed),
            }
            settings = {
                key: getattr(options, key) for key in ("chains", "left", "flips", "migration")
            }
            report({**line, **settings, **origin(options.commit)}, options.output)


def _simulate(
    target: targets.Target, ring: Ring, seed: int, options: argparse.Namespace
) -> tuple[dict[int, int], float | None]:
    """The moves, or flips, that all chains had made when the first of them came to each rank.

    And how many they make in a second, once that is compiled; None if they made one round.
    """
    factors = schoolbooks(target, ring, options.chains)
    wanted = target.known(ring.name).rank

    @jax.jit
    def play(key: jax.Array, factors: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.vmap(lambda key, chain: _play(key, chain, ring, options))(
            jax.random.split(key, options.chains), factors
        )

    reached: dict[int, int] = {}
    moves, ends = 0, time.monotonic() + options.seconds
    first, began = 0, time.monotonic()
    random = np.random.default_rng(seed)
    while min(reached, default=wanted + 1) > wanted and time.monotonic() < ends:
        factors, made = play(jax.random.key(random.integers(2**32)), factors)
        moves += int(np.asarray(made, np.int64).sum())
        if not reached:
            first, began = moves, time.monotonic()
        lengths = np.asarray((factors != 0).any(axis=(2, 3)).sum(axis=1))
        shortest = lengths.min()
        reached.setdefault(int(shortest), moves)
        goes = (lengths > shortest) & (random.random(options.chains) < options.migration)
        others = random.choice(np.flatnonzero(lengths == shortest), options.chains)
        factors = factors[np.where(goes, others, np.arange(options.chains))]
    return reached, (moves - first) / (time.monotonic() - began) or None


def _play(
    key: jax.Array, factors: jax.Array, ring: Ring, options: argparse.Namespace
) -> tuple[jax.Array, jax.Array]:
    """Takes back some moves of ONE chain and plays them again: the chain, and their number.

    If none are taken back it is a walk in the whole chain, and the number is that of its flips.
    """
    if not options.left:
        return walk(key, factors, ring, options.flips)[0], jnp.asarray(options.flips)
    back_key, walk_key = jax.random.split(key)
    kept, end, left = take_back(back_key, factors, ring, options.left)
    again, _ = walk(walk_key, end, ring, options.flips)
    # Those that were played again come first.
    return kept + jnp.roll(again, -left, axis=0), left


def schoolbooks(target: targets.Target, ring: Ring, count: int) -> jax.Array:
    """The products of the definition of a target, so many times: (count, R, 3, S), int8."""
    tensor = target.padded(target.side)
    products = np.eye(target.side, dtype=np.int8)[np.argwhere(tensor)]
    products[:, 2] *= tensor[tensor != 0][:, None].astype(np.int8)
    products = ring.reduce(jnp.asarray(products))
    return jnp.broadcast_to(products, (count, *products.shape))


def take_back(
    key: jax.Array, factors: jax.Array, ring: Ring, most: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The moves of ONE solved game that stay, those that are taken back, and how many these are.

    Both are (R, 3, S) with zeros for the others; those taken back are last. Their number is at
    random from 2 to ``most``, and they are related as in play (`training.chains`).
    """
    left_key, order_key = jax.random.split(key)
    left = jax.random.randint(left_key, (), 2, most + 1)
    ordered = factors[related_last(order_key, factors, ring, most)]
    is_left = (jnp.arange(len(factors)) >= len(factors) - left)[:, None, None]
    return jnp.where(is_left, 0, ordered), jnp.where(is_left, ordered, 0), left


if __name__ == "__main__":
    main()
