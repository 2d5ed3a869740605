"""What exact algebra costs: moves of the game on the accelerator, and proofs on one CPU core.

    python benchmarks/algebra.py --only moves proofs

Moves: `Game.step` on many games of <4,4,4> at once, in turn with a copy of as many bytes on the
same device and with the same move in plain NumPy. Proofs: `Factorization.check` of the largest
released algorithm, and loading and checking all of them. One JSON line a measurement.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator

# The proofs are to run on one core. The library that multiplies matrices reads this when it loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import numpy as np
from reporting import command_line, commit, cpu_name, report

from tensorgame import rings, targets
from tensorgame.algorithms import released
from tensorgame.game import Game, State

_RINGS = {"z2": rings.Z2, "z": rings.integers()}
_TARGET = "matmul:4,4,4"
_LARGEST = "alphatensor:11,12,12"
# Out of reach of the games that are timed.
_MAX_MOVES = 30_000
_HISTORY = 2
# Games at once; fewer on a CPU, for a move to take milliseconds.
_GAMES, _GAMES_ON_CPU = 65_536, 8192
# Calls in a row that are timed together, so that the start of a call hardly counts.
_CALLS = 10


def main() -> None:
    """Runs the command line."""
    parser = command_line(__doc__)
    only = ("moves", "proofs")
    parser.add_argument("--only", choices=only, nargs="+", default=only, help="what to measure")
    parser.add_argument("--ring", choices=tuple(_RINGS), nargs="+", default=tuple(_RINGS))
    parser.add_argument("--games", type=int, help="games at once (8192 on a CPU, else 65536)")
    parser.add_argument("--repetitions", type=int, default=30, help="of the moves (30)")
    parser.add_argument("--numpy-repetitions", type=int, default=5, help="in plain NumPy (5)")
    arguments = parser.parse_args()
    origin = {"jax": jax.__version__, "commit": arguments.commit or commit()}
    for line in _lines(arguments):
        report(line | origin, arguments.output)


def _lines(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """The measurements that are asked for."""
    games = arguments.games or (_GAMES_ON_CPU if jax.default_backend() == "cpu" else _GAMES)
    if "moves" in arguments.only:
        for name in arguments.ring:
            yield _moves(name, games, arguments.repetitions, arguments.numpy_repetitions)
    if "proofs" in arguments.only:
        yield _largest_proof()
        yield _all_proofs()


def _moves(
    ring_name: str, games: int, repetitions: int, numpy_repetitions: int
) -> dict[str, object]:
    """The line of one ring."""
    game = Game(_RINGS[ring_name], max_moves=_MAX_MOVES, history=_HISTORY)
    states, actions = _positions(game, games)
    step, plain = _Chain(jax.vmap(game.step), states, actions), _PlainGames(states, actions)
    _require_equal_moves(step, plain)
    residual = states.residual
    at_limit = states._replace(moves=states.moves.at[0].set(_MAX_MOVES - 1))
    step_at_limit = jax.jit(jax.vmap(game.step))
    negate = jax.jit(jnp.negative)

    def copy() -> None:
        for _ in range(_CALLS):
            result = negate(residual)
        result.block_until_ready()

    runs = {
        "step": (step.run, repetitions),
        "copy": (copy, repetitions),
        "copy_in_place": (_Chain(lambda x: (-x, None), residual).run, repetitions),
        "numpy": (plain.step, numpy_repetitions),
        "step_at_limit": (lambda: jax.block_until_ready(step_at_limit(at_limit, actions)), 3),
    }
    seconds = _in_turn(runs)
    for name in ("step", "copy", "copy_in_place"):
        seconds[name] /= _CALLS
    # The state is read and written, the actions are read and the rewards are written.
    state_bytes = sum(x.nbytes for x in states)
    moved = 2 * state_bytes + actions.nbytes + 4 * games
    bandwidth = 2 * residual.nbytes / min(seconds["copy"], seconds["copy_in_place"])
    device = jax.devices()[0]
    return {
        "measurement": "moves",
        "target": _TARGET,
        "ring": ring_name,
        "games": games,
        **{f"{name}_milliseconds": round(1e3 * x, 3) for name, x in seconds.items()},
        "bytes_moved": moved,
        "step_gigabytes_per_second": round(moved / seconds["step"] / 1e9, 2),
        "copy_gigabytes_per_second": round(bandwidth / 1e9, 2),
        "times_ideal": round(seconds["step"] * bandwidth / moved, 2),
        "times_faster_than_numpy": round(seconds["numpy"] / seconds["step"], 1),
        "repetitions": repetitions,
        "device": cpu_name() if device.platform == "cpu" else device.device_kind,
        "cores": _cores() if device.platform == "cpu" else None,
    }


def _positions(game: Game, games: int) -> tuple[State, jax.Array]:
    """That many new games, and a random action (3, S) for each."""
    target = targets.parse(_TARGET)
    state = game.init(jnp.asarray(target.tensor))
    states = jax.tree.map(lambda x: jnp.repeat(x[None], games, axis=0), state)
    rng = np.random.default_rng(0)
    actions = rng.choice(game.ring.coefficients, (games, 3, target.side))
    # No factor is zero.
    actions[..., 0] = 1
    return states, jnp.asarray(actions, jnp.int8)


class _Chain:
    """Calls of a compiled function ``(state, *rest) -> (state, output)`` that take over the state.

    Attributes:
        state: of the last call, at first a copy of the one given.
    """

    def __init__(self, function: Callable, state: object, *rest: jax.Array) -> None:
        self.state = jax.tree.map(jnp.copy, state)
        self._call, self._rest = jax.jit(function, donate_argnums=0), rest

    def run(self, calls: int = _CALLS) -> None:
        for _ in range(calls):
            self.state, output = self._call(self.state, *self._rest)
        jax.block_until_ready((self.state, output))


class _PlainGames:
    """The same games in NumPy, as one would write them without an accelerator."""

    def __init__(self, states: State, actions: jax.Array) -> None:
        self.residual, self.moves, self.history = (np.array(x) for x in states)
        self._actions = np.array(actions)
        self._modulus = 2 if self.residual.dtype == np.int8 else 0

    def step(self) -> np.ndarray:
        """Moves in all games; the rewards."""
        ended = ~self.residual.any(axis=(1, 2, 3)) | (self.moves >= _MAX_MOVES)
        actions = np.where(ended[:, None, None], 0, self._actions).astype(self.residual.dtype)
        u, v, w = np.moveaxis(actions, 1, 0)
        self.residual -= (u[:, :, None] * v[:, None, :])[..., None] * w[:, None, None, :]
        if self._modulus:
            self.residual &= 1
        moved = np.concatenate([self._actions[:, None], self.history[:, :-1]], axis=1)
        self.history = np.where(ended[:, None, None, None], self.history, moved)
        self.moves += ~ended
        return np.where(ended, np.float32(0), np.float32(-1))


def _require_equal_moves(chain: _Chain, plain: _PlainGames) -> None:
    """Makes a few moves with both, and compares.

    Raises:
        RuntimeError: the games differ, so that their times could not be compared.
    """
    chain.run(3)
    for _ in range(3):
        plain.step()
    mine = (plain.residual, plain.moves, plain.history)
    if not all(np.array_equal(x, y) for x, y in zip(chain.state, mine, strict=True)):
        raise RuntimeError("Game.step and the same moves in NumPy lead to different games")


def _in_turn(runs: dict[str, tuple[Callable[[], object], int]]) -> dict[str, float]:
    """Median seconds of each function, called in turn that many times after one to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(1 + max(repetitions for _, repetitions in runs.values())):
        for name, (run, repetitions) in runs.items():
            if turn > repetitions:
                continue
            began = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in seconds.items()}


def _largest_proof() -> dict[str, object]:
    """The line of `Factorization.check` alone; the target's tensor, which is kept, counts."""
    seconds = []
    for _ in range(5):
        factorization = released.load(_LARGEST)
        began = time.perf_counter()
        proof = factorization.check()
        seconds.append(time.perf_counter() - began)
    return {
        "measurement": "largest proof",
        "algorithm": _LARGEST,
        "products": factorization.rank,
        "seconds": round(statistics.median(seconds), 3),
        "repetitions": len(seconds),
        "proof": proof,
        "device": f"1 x core of {cpu_name()}",
    }


def _all_proofs() -> dict[str, object]:
    """The line of loading and checking everything that was released."""
    loading = checking = 0.0
    names = released.names()
    for name in names:
        began = time.perf_counter()
        factorization = released.load(name)
        loaded = time.perf_counter()
        # Raises if the algorithm is wrong.
        factorization.check()
        loading += loaded - began
        checking += time.perf_counter() - loaded
    return {
        "measurement": "all proofs",
        "algorithms": len(names),
        "load_seconds": round(loading, 2),
        "check_seconds": round(checking, 2),
        "seconds": round(loading + checking, 2),
        "device": f"1 x core of {cpu_name()}",
    }


def _cores() -> int:
    """How many cores this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


if __name__ == "__main__":
    main()
