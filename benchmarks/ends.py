"""How often an agent that knows demonstrations alone plays ends of games in the fewest moves.

    python benchmarks/ends.py --config tpu_configs/h200_1_ladder.py --target matmul:2,3,3 \
        --rank 16 --seconds 150 -- --demonstrations.density 0.3

Chains of games get shorter where some products can be replaced by fewer. To have such ends, random
flips make games of one length from the schoolbook, modulo 2, and then shorten the last moves of
some, those that have factors in common. These ends are played, never learned from: from random
weights the agent learns from random demonstrations, and now and then plays each of them from the
sum of its products in random bases, with two moves more than it had. Flags of train.py follow
``--``. One JSON line each time.
"""

import argparse
import dataclasses
import pathlib
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from chains import schoolbooks, take_back
from reporting import command_line, origin, report

from search.search import search
from tensorgame import targets
from tensorgame.factors import outer_sum
from tensorgame.flips import walk
from tensorgame.rings import Z2
from tensorgame.symmetries import from_canonical
from train import load_config
from training.config import Config
from training.mesh import make_mesh
from training.step import make_init, make_step

# Games that flips make at once, and how many they try.
_CHAINS = 128
_FLIPS = 400
_ROUNDS = 200
# Ends that are tried to be shortened at once, and the flips for that.
_TRIED = 2048
_END_FLIPS = 60
_MOST_LEFT = 8
# No end is played for longer.
_UNSOLVED = 99
# Steps between two looks at the clock.
_STEPS = 20


class _Ends(NamedTuple):
    """E different ends.

    Attributes:
        factors: their products, (E, R, 3, S).
        moves: how many these are, (E,).
        fewest: how many flips left of them, (E,).
    """

    factors: np.ndarray
    moves: np.ndarray
    fewest: np.ndarray


def main() -> None:
    """Runs the command line."""
    options = _parse()
    ends = _short_ends(targets.parse(options.target), options)
    config = _config(options)
    mesh = make_mesh(config)
    init = make_init(config, mesh)
    state = init(0)
    step = make_step(config, mesh).lower(jax.eval_shape(init, 0)).compile()
    play = jax.jit(lambda params, key: _play(config, ends, options.repeats, params, key))
    play = play.lower(state.params, jax.random.key(0)).compile()
    learned, looks, steps = 0.0, 0, 0
    while learned < options.seconds:
        began = time.monotonic()
        for _ in range(_STEPS):
            state, output = step(state)
        jax.block_until_ready(output)
        learned, steps = learned + time.monotonic() - began, steps + _STEPS
        if learned >= (looks + 1) / options.looks * options.seconds:
            looks += 1
            moves = np.asarray(play(state.params, jax.random.key(looks)))
            about = {"target": options.target, "rank": options.rank, "flags": options.overrides}
            measured = _read(ends, moves, steps, learned, output.metrics)
            report({**about, **measured, **origin(options.commit)}, options.output)


def _parse() -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("--config", type=pathlib.Path, help="configuration file; the main job's")
    parser.add_argument("--target", default="matmul:2,2,3", help="(matmul:2,2,3)")
    parser.add_argument("--rank", type=int, default=12, help="length of the games (12)")
    parser.add_argument("--ends", type=int, default=128, help="different ones, at most (128)")
    parser.add_argument(
        "--tries", type=int, default=100, help=f"times {_TRIED} ends that flips try (100)"
    )
    parser.add_argument("--repeats", type=int, default=8, help="times each end is played (8)")
    parser.add_argument("--seconds", type=float, default=120.0, help="of learning (120)")
    parser.add_argument("--looks", type=int, default=6, help="times that ends are played (6)")
    parser.add_argument("overrides", nargs="*", help="flags for train.py, after --")
    return parser.parse_args()


def _config(options: argparse.Namespace) -> Config:
    """What learns from demonstrations alone."""
    config = load_config(options.config) if options.config else Config()
    game = dataclasses.replace(config.game, targets=(options.target,))
    config = tyro.cli(
        Config, default=dataclasses.replace(config, game=game), args=options.overrides
    )
    forever = int(np.iinfo(np.int32).max)
    learner = dataclasses.replace(
        config.learner, demonstration_steps=forever, best_games_share=0.0, flips=0
    )
    selfplay = dataclasses.replace(config.selfplay, continued_share=0.0, kept_games=1)
    config = dataclasses.replace(config, devices=1, learner=learner, selfplay=selfplay)
    config.validate()
    return config


def _short_ends(target: targets.Target, options: argparse.Namespace) -> _Ends:
    """Ends of games of the wanted length that flips make shorter."""
    games = _games(target, options.rank)

    @jax.jit
    def shorten(key: jax.Array) -> tuple[jax.Array, ...]:
        def one(key: jax.Array) -> tuple[jax.Array, ...]:
            game_key, back_key, walk_key = jax.random.split(key, 3)
            _, end, left = take_back(back_key, jax.random.choice(game_key, games), Z2, _MOST_LEFT)
            return end, left, walk(walk_key, end, Z2, _END_FLIPS)[1]

        return jax.vmap(one)(jax.random.split(key, _TRIED))

    found: dict[bytes, tuple] = {}
    for number in range(options.tries):
        ends, moves, fewest = map(np.asarray, shorten(jax.random.key(number)))
        for place in np.flatnonzero(fewest < moves):
            terms = sorted(term.tobytes() for term in ends[place] if term.any())
            found.setdefault(b"".join(terms), (ends[place], moves[place], fewest[place]))
    if not found:
        raise SystemExit(f"flips shortened no end of {options.target} with {options.rank} products")
    return _Ends(*map(np.stack, zip(*list(found.values())[: options.ends], strict=True)))


def _games(target: targets.Target, rank: int) -> jax.Array:
    """Games of that length, (N, R, 3, S), by flips from the schoolbook."""
    start = schoolbooks(target, Z2, _CHAINS)
    go_on = jax.jit(jax.vmap(lambda key, factors: walk(key, factors, Z2, _FLIPS)))
    chains, games = start, []
    for number in range(_ROUNDS):
        chains, lengths = go_on(jax.random.split(jax.random.key(number), _CHAINS), chains)
        games.extend(np.asarray(chains)[np.asarray(lengths) == rank])
        chains = jnp.where((lengths < rank)[:, None, None, None], start, chains)
        if len(games) >= 2 * _CHAINS:
            break
    if not games:
        raise SystemExit(f"flips found no game of {target.name} with {rank} products")
    return jnp.asarray(np.stack(games))


def _play(config: Config, ends: _Ends, repeats: int, params: dict, key: jax.Array) -> jax.Array:
    """Moves of each end and time it is played, (E, repeats), `_UNSOLVED` if it is not solved."""
    rules, shape = config.rules, jnp.asarray(config.targets[0].shape)
    factors = jnp.repeat(jnp.asarray(ends.factors), repeats, axis=0)
    moves = np.repeat(ends.moves, repeats)
    basis_key, play_key = jax.random.split(key)

    def begin(key: jax.Array, end: jax.Array):
        basis = config.bases(key, shape)
        return rules.init(outer_sum(from_canonical(end, basis, config.ring)))

    states = jax.vmap(begin)(jax.random.split(basis_key, len(factors)), factors)
    states = states._replace(moves=jnp.asarray(rules.max_moves - moves - 2, jnp.int32))

    def move(states, key: jax.Array):
        keys = jax.random.split(key, len(factors))
        result = search(config.agent, config.search, params, keys, states, config.permutations)
        states, _ = jax.vmap(rules.step)(states, result.action)
        return states, jax.vmap(rules.solved)(states)

    _, solved = jax.lax.scan(move, states, jax.random.split(play_key, _MOST_LEFT + 2))
    lengths = jnp.where(solved.any(axis=0), solved.argmax(axis=0) + 1, _UNSOLVED)
    return lengths.reshape(-1, repeats)


def _read(
    ends: _Ends, moves: np.ndarray, steps: int, seconds: float, metrics: dict[str, jax.Array]
) -> dict[str, object]:
    """What is said of a look."""
    is_short = moves <= ends.fewest[:, None]
    is_longer = (moves > ends.fewest[:, None]) & (moves <= ends.moves[:, None])
    return {
        "ends": len(ends.moves),
        "steps": steps,
        "seconds": round(seconds, 1),
        "policy_loss": round(float(metrics["demonstration_policy_loss"]), 3),
        "value_loss": round(float(metrics["demonstration_value_loss"]), 3),
        "short": round(float(is_short.mean()), 4),
        "as_long": round(float(is_longer.mean()), 4),
        "short_by_moves": {
            int(k): round(float(is_short[ends.fewest == k].mean()), 4)
            for k in np.unique(ends.fewest)
        },
    }


if __name__ == "__main__":
    main()
