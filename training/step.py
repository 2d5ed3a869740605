"""The training step: self-play, replay, losses and update as ONE compiled SPMD program.

`jit(shard_map(step))` over a one-dimensional mesh is what `pmap` has become. Games and their rings
are sharded, parameters are replicated, and the devices, of one host or of many, communicate by one
all-reduce an update and one more a step. That of an update sums gradients, losses and what all have
to know of play: its statistics, and how short the best game of each device is. The one more fetches
the moves of the shortest, whose place is known only then. Where the best games of the run are
learned from, they are exchanged before the updates. So everything that a step reports is the same
on all hosts, and for any number of devices.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from training.best_games import SolvedGame, exchange, no_games
from training.chains import no_chains
from training.config import Config
from training.learning import Experience, learn, make_optimizer
from training.mesh import AXIS, global_ids, item_keys, own_row, platform
from training.replay import Replay, empty_replay
from training.selfplay import (
    Episode,
    Found,
    Kept,
    PlayStatistics,
    new_episode,
    no_statistics,
    nothing_found,
    play_move,
    walk_by_flips,
)


class TrainState(NamedTuple):
    """Everything that decides the future of a run.

    With several agents (`Config.num_seeds`) all arrays but the step begin with an axis of them.

    Attributes:
        params: of the network.
        optimizer: optax state.
        key: a typed key, folded with the step to make all randomness.
        step: steps made, int32 scalar.
        episodes: B games in progress.
        replay: B rings of finished games.
        best: the M best games of each of N targets, (N, M), the same on all devices; None if
            nothing is learned from them.
        chains: the games that each of B places goes on from, (B, N); None if none does.
    """

    params: dict
    optimizer: optax.OptState
    key: jax.Array
    step: jax.Array
    episodes: Episode
    replay: Replay
    best: SolvedGame | None
    chains: SolvedGame | None


class StepOutput(NamedTuple):
    """What a step reports; with several agents, arrays begin with an axis of them.

    Attributes:
        metrics: float32, over all devices: scalars, but for the games of each target,
            ``target_games`` (N,) and ``target_solved`` by their number of moves (N, R + 1).
        found: the shortest solved game of each of N targets, over all devices, (N, ...).
    """

    metrics: dict[str, jax.Array]
    found: Found


class Told(NamedTuple):
    """What devices tell each other of play, as summands.

    Attributes:
        played: statistics of this device's games.
        lengths: of the shortest game of each of N targets in this device's row, (D, N), float32.
    """

    played: PlayStatistics
    lengths: jax.Array


# Features of a torso cell from which on cuBLAS makes all matrix products.
_WIDE = 256

# Agents of one program share the count of steps, so that the branch it decides stays a branch.
_AGENTS = TrainState(0, 0, 0, step=None, episodes=0, replay=0, best=0, chains=0)


def _specs(config: Config) -> TrainState:
    """How the state lies on the mesh."""
    everywhere = PartitionSpec()
    split = PartitionSpec(None, AXIS) if config.num_seeds > 1 else PartitionSpec(AXIS)
    return TrainState(
        params=everywhere,
        optimizer=everywhere,
        key=everywhere,
        step=everywhere,
        episodes=split,
        replay=split,
        best=everywhere,
        chains=split,
    )


def _shardings(mesh: Mesh | AbstractMesh, specs: TrainState) -> TrainState:
    """How the state lies on the devices of the mesh."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)


def make_init(config: Config, mesh: Mesh | AbstractMesh) -> Callable[[int], TrainState]:
    """The compiled function of a seed that makes the state before the first step, born sharded.

    Several agents have the seeds that follow it.
    """

    def init_one(seed: jax.Array) -> TrainState:
        key, params_key, games_key = jax.random.split(jax.random.key(seed), 3)
        ids = global_ids(config.selfplay.num_games // mesh.size)
        episodes = jax.vmap(lambda i: new_episode(config, jax.random.fold_in(games_key, i)))(ids)
        one = jax.tree.map(lambda x: x[0], episodes)
        tokens = jnp.zeros((1, config.action_space.num_tokens), jnp.int32)
        params = config.agent.init(params_key, one.state, tokens, method="score")

        def of_each(x: jax.Array) -> jax.Array:
            return jnp.broadcast_to(x, (len(ids), *x.shape))

        ring = empty_replay(one.played, config.selfplay.kept_games)
        learner = config.learner
        return TrainState(
            params=params,
            optimizer=make_optimizer(config).init(params),
            key=key,
            step=jnp.zeros((), jnp.int32),
            episodes=episodes,
            replay=jax.tree.map(of_each, ring),
            best=no_games(config, learner.best_games) if learner.best_games_share else None,
            chains=jax.tree.map(of_each, no_chains(config)) if config.has_chains else None,
        )

    def init(seed: jax.Array) -> TrainState:
        if config.num_seeds == 1:
            return init_one(seed)
        return jax.vmap(init_one, out_axes=_AGENTS)(seed + jnp.arange(config.num_seeds))

    specs = _specs(config)
    replicated = (PartitionSpec(),)
    mapped = jax.shard_map(init, mesh=mesh, in_specs=replicated, out_specs=specs, check_vma=False)
    return jax.jit(mapped, out_shardings=_shardings(mesh, specs))


def make_step(
    config: Config, mesh: Mesh | AbstractMesh
) -> Callable[[TrainState], tuple[TrainState, StepOutput]]:
    """The compiled training step; it takes the state over (its buffers are donated)."""

    def step(state: TrainState) -> tuple[TrainState, StepOutput]:
        play_key, learn_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        kept = Kept(state.replay, nothing_found(config), state.best, state.chains)
        episodes, kept, played = jax.lax.cond(
            state.step < config.learner.demonstration_steps,
            lambda: (state.episodes, kept, no_statistics(config)),
            lambda: _play(config, play_key, state, kept),
        )
        replay, found, best, chains = kept
        if best is not None:
            best = exchange(best, AXIS)
        params, optimizer, told, learned = learn(
            config,
            learn_key,
            state.params,
            state.optimizer,
            Experience(state.step, replay, best),
            Told(played, own_row(found.moves)),
        )
        new = TrainState(
            params, optimizer, state.key, state.step + 1, episodes, replay, best, chains
        )
        metrics = {**_play_metrics(config, told.played), **learned}
        return new, StepOutput(metrics, _shortest(found, told.lengths))

    if config.num_seeds > 1:
        step = jax.vmap(step, in_axes=(_AGENTS,), out_axes=(_AGENTS, 0))
    specs = _specs(config)
    # mctx does not trace with varying-axis checks, and with them psum would scale gradients.
    mapped = jax.shard_map(
        step,
        mesh=mesh,
        in_specs=(specs,),
        out_specs=(specs, PartitionSpec()),
        check_vma=False,
    )
    shardings = _shardings(mesh, specs)
    return jax.jit(
        mapped,
        donate_argnums=0,
        in_shardings=(shardings,),
        out_shardings=(shardings, None),
        compiler_options=compiler_options(config, platform(mesh)),
    )


def compiler_options(config: Config, platform: str) -> dict[str, str | bool]:
    """XLA's options for the programs of a configuration on a platform.

    On a CPU small fusions go to YNNPACK by default, which makes a step of a laptop's size more than
    twice as slow; the empty value turns that off (benchmarks/compiler_options.py). On a GPU XLA's
    own matrix products leave the bias, GELU and skip connection that follow to other kernels, where
    cuBLAS makes them along with the product: where layers are wide evaluations take a fifth less
    time (docs/roofline.md).
    """
    if platform == "cpu":
        return {"xla_cpu_experimental_ynn_fusion_type": ""}
    if platform == "gpu" and config.network.width >= _WIDE:
        return {"xla_gpu_enable_triton_gemm": False}
    return {}


def _play(
    config: Config, key: jax.Array, state: TrainState, kept: Kept
) -> tuple[Episode, Kept, PlayStatistics]:
    """Some moves of each game: the games, what is kept of them, and summed statistics."""
    params = config.agent.rounded(state.params)

    def move(carry: tuple, move_key: jax.Array) -> tuple[tuple, PlayStatistics]:
        episodes, kept = carry
        keys = item_keys(move_key, len(kept.replay.count))
        # Of the best games those that all devices know, so that it does not matter how many there
        # are.
        *carry, played = play_move(config, params, keys, state.step, episodes, kept, state.best)
        return tuple(carry), played

    keys = jax.random.split(key, config.selfplay.moves_per_step)
    (episodes, kept), played = jax.lax.scan(move, (state.episodes, kept), keys)
    if config.learner.flips:
        # From those too.
        walk_key = jax.random.fold_in(key, config.selfplay.moves_per_step)
        keys = item_keys(walk_key, len(kept.replay.count))
        kept = walk_by_flips(config, keys, state.best, kept)
    return episodes, kept, jax.tree.map(lambda x: x.sum(axis=0), played)


def _shortest(found: Found, lengths: jax.Array) -> Found:
    """Of what the devices found, the shortest, the first of equals; their ``lengths`` are (D, N).

    Devices hold games in their global order, so the choice is that of a single device.
    """
    is_mine = lengths.argmin(axis=0) == jax.lax.axis_index(AXIS)
    actions = jnp.where(is_mine[:, None, None, None], found.actions, 0)
    return Found(lengths.min(axis=0).astype(jnp.int32), jax.lax.psum(actions, AXIS))


def _play_metrics(config: Config, total: PlayStatistics) -> dict[str, jax.Array]:
    """Over all devices."""
    games, moves = total.games.sum(), total.moves
    return {
        "games": games,
        "solved": total.solved.sum(),
        "target_games": total.games,
        "target_solved": total.solved,
        "continued": total.continued,
        "rewritten": total.rewritten,
        "moves": moves,
        "evaluations": moves * (config.search.num_simulations + 1),
        "return": total.returns / jnp.maximum(games, 1.0),
        "root_entropy": total.entropy / jnp.maximum(moves, 1.0),
        "tree_depth": total.depth / jnp.maximum(moves, 1.0),
    }
