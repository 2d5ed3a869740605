"""The training step: self-play, replay, losses and update as ONE compiled SPMD program.

`jit(shard_map(step))` over a one-dimensional mesh is what `pmap` has become. Games and their rings
are sharded, parameters are replicated, and the only communication is one mean of gradients an
update and one sum of statistics a step; and, where the best games are learned from, one exchange of
them a step.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from training.best_games import SolvedGame, exchange, no_games
from training.config import Config
from training.losses import Losses, example_losses
from training.reanalyse import reanalyse
from training.replay import Example, Replay, empty_replay, sample_batch, seen_through
from training.selfplay import (
    Episode,
    Found,
    Kept,
    PlayStatistics,
    new_episode,
    no_statistics,
    nothing_found,
    play_move,
)

AXIS = "devices"


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
    """

    params: dict
    optimizer: optax.OptState
    key: jax.Array
    step: jax.Array
    episodes: Episode
    replay: Replay
    best: SolvedGame | None


class StepOutput(NamedTuple):
    """What a step reports; with several agents, arrays begin with an axis of them.

    Attributes:
        metrics: float32, over all devices: scalars, but for the games of each target,
            ``target_games`` (N,) and ``target_solved`` by their number of moves (N, R + 1).
        found: the shortest solved game of each of N targets on each of D devices, (D, N, ...).
    """

    metrics: dict[str, jax.Array]
    found: Found


# Agents of one program share the count of steps, so that the branch it decides stays a branch.
_AGENTS = TrainState(params=0, optimizer=0, key=0, step=None, episodes=0, replay=0, best=0)


def _specs(config: Config) -> tuple[TrainState, StepOutput]:
    """How the state and the output of a step lie on the mesh."""
    everywhere = PartitionSpec()
    split = PartitionSpec(None, AXIS) if config.num_seeds > 1 else PartitionSpec(AXIS)
    state = TrainState(
        params=everywhere,
        optimizer=everywhere,
        key=everywhere,
        step=everywhere,
        episodes=split,
        replay=split,
        best=everywhere,
    )
    return state, StepOutput(everywhere, split)


def make_mesh(config: Config) -> Mesh:
    """The mesh of the configured devices."""
    devices = jax.devices()[: config.num_devices]
    return jax.make_mesh((len(devices),), (AXIS,), (AxisType.Auto,), devices=devices)


def make_optimizer(config: Config) -> optax.GradientTransformation:
    """AdamW after a clip of the gradient (the clip comes first: after Adam it would do nothing)."""
    c = config.learner

    def rate(updates: jax.Array) -> jax.Array:
        rising = jnp.minimum(updates / c.warmup_updates, 1.0) if c.warmup_updates else 1.0
        falling = 0.1 ** (updates // c.decay_updates) if c.decay_updates else 1.0
        return jnp.asarray(c.learning_rate * rising * falling)

    return optax.chain(
        optax.clip_by_global_norm(c.max_gradient_norm),
        optax.adamw(rate, weight_decay=c.weight_decay),
    )


def make_init(config: Config, mesh: Mesh) -> Callable[[int], TrainState]:
    """The compiled function of a seed that makes the state before the first step, born sharded.

    Several agents have the seeds that follow it.
    """

    def init_one(seed: jax.Array) -> TrainState:
        key, params_key, games_key = jax.random.split(jax.random.key(seed), 3)
        ids = _global_ids(config.selfplay.num_games // mesh.size)
        episodes = jax.vmap(lambda i: new_episode(config, jax.random.fold_in(games_key, i)))(ids)
        one = jax.tree.map(lambda x: x[0], episodes)
        tokens = jnp.zeros((1, config.action_space.num_tokens), jnp.int32)
        params = config.agent.init(params_key, one.state, tokens, method="score")
        ring = empty_replay(one.played, config.selfplay.kept_games)
        return TrainState(
            params=params,
            optimizer=make_optimizer(config).init(params),
            key=key,
            step=jnp.zeros((), jnp.int32),
            episodes=episodes,
            replay=jax.tree.map(lambda x: jnp.broadcast_to(x, (len(ids), *x.shape)), ring),
            best=no_games(config) if config.learner.best_games_share else None,
        )

    def init(seed: jax.Array) -> TrainState:
        if config.num_seeds == 1:
            return init_one(seed)
        return jax.vmap(init_one, out_axes=_AGENTS)(seed + jnp.arange(config.num_seeds))

    specs, _ = _specs(config)
    replicated = (PartitionSpec(),)
    mapped = jax.shard_map(init, mesh=mesh, in_specs=replicated, out_specs=specs, check_vma=False)
    return jax.jit(mapped, out_shardings=_shardings(mesh, specs))


def make_step(config: Config, mesh: Mesh) -> Callable[[TrainState], tuple[TrainState, StepOutput]]:
    """The compiled training step; it takes the state over (its buffers are donated)."""

    def step(state: TrainState) -> tuple[TrainState, StepOutput]:
        play_key, learn_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        kept = Kept(state.replay, nothing_found(config), state.best)
        episodes, kept, played = jax.lax.cond(
            state.step < config.learner.demonstration_steps,
            lambda: (state.episodes, kept, no_statistics(config)),
            lambda: _play(config, play_key, state, kept),
        )
        replay, found, best = kept
        if best is not None:
            best = exchange(best, AXIS)
        params, optimizer, learned = _learn(config, learn_key, state, replay, best)
        new = TrainState(params, optimizer, state.key, state.step + 1, episodes, replay, best)
        metrics = {**_play_metrics(config, played), **learned}
        return new, StepOutput(metrics, jax.tree.map(lambda x: x[None], found))

    if config.num_seeds > 1:
        step = jax.vmap(step, in_axes=(_AGENTS,), out_axes=(_AGENTS, 0))
    specs, output_specs = _specs(config)
    shardings = _shardings(mesh, specs)
    # mctx does not trace with varying-axis checks, and with them pmean would scale gradients.
    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=(specs,), out_specs=(specs, output_specs), check_vma=False
    )
    return jax.jit(
        mapped,
        donate_argnums=0,
        in_shardings=(shardings,),
        out_shardings=(shardings, None),
        compiler_options=compiler_options(mesh.devices.flat[0].platform),
    )


def compiler_options(platform: str) -> dict[str, str]:
    """XLA's options for the step on a platform (benchmarks/compiler_options.py).

    On a CPU small fusions go to YNNPACK by default, which makes a step of a laptop's size more than
    twice as slow; the empty value turns that off.
    """
    return {"xla_cpu_experimental_ynn_fusion_type": ""} if platform == "cpu" else {}


def _shardings(mesh: Mesh, specs: TrainState) -> TrainState:
    """Shardings of the state. Left to the compiler, arrays of size zero come out replicated."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)


def _global_ids(count: int) -> jax.Array:
    """The places of this device's ``count`` items among those of all devices."""
    return jax.lax.axis_index(AXIS) * count + jnp.arange(count)


def _keys(key: jax.Array, count: int) -> jax.Array:
    """Keys of this device's ``count`` items, the same for any number of devices."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(_global_ids(count))


def _play(config: Config, key: jax.Array, state: TrainState, kept: Kept):
    """Some moves of each game: the games, what is kept of them, and summed statistics."""

    def move(carry, move_key: jax.Array):
        episodes, kept = carry
        keys = _keys(move_key, len(kept.replay.count))
        *carry, played = play_move(config, state.params, keys, state.step, episodes, kept)
        return tuple(carry), played

    carry = (state.episodes, kept)
    keys = jax.random.split(key, config.selfplay.moves_per_step)
    carry, played = jax.lax.scan(move, carry, keys)
    return *carry, jax.tree.map(lambda x: x.sum(axis=0), played)


def _play_metrics(config: Config, played: PlayStatistics) -> dict[str, jax.Array]:
    total: PlayStatistics = jax.lax.psum(played, AXIS)
    games, moves = total.games.sum(), total.moves
    return {
        "games": games,
        "solved": total.solved.sum(),
        "target_games": total.games,
        "target_solved": total.solved,
        "moves": moves,
        "evaluations": moves * (config.search.num_simulations + 1),
        "return": total.returns / jnp.maximum(games, 1.0),
        "root_entropy": total.entropy / jnp.maximum(moves, 1.0),
        "tree_depth": total.depth / jnp.maximum(moves, 1.0),
    }


def _learn(
    config: Config, key: jax.Array, state: TrainState, replay: Replay, best: SolvedGame | None
):
    """Some updates: the parameters, the optimizer's state, and metrics."""
    transform = make_optimizer(config)
    devices = jax.lax.axis_size(AXIS)
    replay_batch = config.learner.replay_batch // devices
    demonstration_batch = config.learner.demonstration_batch // devices

    def objective(
        params: dict, batch: tuple[Example, jax.Array, jax.Array]
    ) -> tuple[jax.Array, Losses]:
        examples, keys, is_real = batch
        losses = example_losses(config, params, examples, keys)
        total = config.learner.policy_weight * losses.policy
        total += config.learner.value_weight * losses.value
        return jnp.where(is_real, total, 0.0).mean(), losses

    def update(carry, update_key: jax.Array):
        params, optimizer = carry
        replay_key, demonstration_key = jax.random.split(update_key)
        replay_keys = _keys(replay_key, replay_batch)
        demonstration_keys = _keys(demonstration_key, demonstration_batch)
        examples, played = sample_batch(config, replay_keys, demonstration_keys, replay, best)
        keys = jnp.concatenate([replay_keys, demonstration_keys])
        if config.permutations is not None:
            examples = seen_through(config, keys, examples)
        if config.learner.reanalysed_share:
            examples = reanalyse(config, params, replay_keys, examples, played)
        # Without demonstrations, places whose ring is empty have nothing to learn from.
        is_real = played | bool(config.learner.demonstration_batch)
        gradients, losses = accumulate(
            jax.grad(objective, has_aux=True),
            params,
            (examples, keys, is_real),
            config.learner.microbatches,
        )
        sums = [
            (mask.mean(), jax.tree.map(lambda x, m=mask: (x * m).mean(), losses))
            for mask in (played, ~played & is_real)
        ]
        age = (played * (state.step - examples.step)).mean()
        gradients, sums, age = jax.lax.pmean((gradients, sums, age), AXIS)
        updates, optimizer = transform.update(gradients, optimizer, params)
        params = optax.apply_updates(params, updates)
        norms = {
            "gradient_norm": optax.tree.norm(gradients),
            "update_norm": optax.tree.norm(updates),
        }
        return (params, optimizer), (sums, age, norms)

    keys = jax.random.split(key, config.learner.updates_per_step)
    carry, (sums, age, norms) = jax.lax.scan(update, (state.params, state.optimizer), keys)
    metrics = {name: norm.mean() for name, norm in norms.items()}
    metrics["replay_age"] = age.sum() / jnp.maximum(sums[0][0].sum(), 1e-6)
    for prefix, (share, losses) in zip(("", "demonstration_"), sums, strict=True):
        for name, loss in zip(("policy_loss", "value_loss", "value_error"), losses, strict=True):
            metrics[prefix + name] = loss.sum() / jnp.maximum(share.sum(), 1e-6)
    return *carry, metrics


def accumulate(
    gradient: Callable[[dict, tuple], tuple[dict, Losses]], params: dict, batch: tuple, parts: int
) -> tuple[dict, Losses]:
    """The mean gradient over a batch of N and its losses, (N,), a part of it at a time."""
    if parts == 1:
        return gradient(params, batch)

    def add(total: dict, part: tuple) -> tuple[dict, Losses]:
        gradients, losses = gradient(params, part)
        return jax.tree.map(lambda x, y: x + y / parts, total, gradients), losses

    split = jax.tree.map(lambda x: x.reshape(parts, len(x) // parts, *x.shape[1:]), batch)
    total, losses = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), split)
    return total, jax.tree.map(lambda x: x.reshape(-1), losses)
