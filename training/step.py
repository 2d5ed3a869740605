"""The training step: self-play, replay, losses and update as ONE compiled SPMD program.

`jit(shard_map(step))` over a one-dimensional mesh is what `pmap` has become. Games and their rings
are sharded, parameters are replicated, and the devices, of one host or of many, communicate by one
all-reduce an update and one more a step. That of an update sums gradients, losses and what all have
to know of play: its statistics, and how short the best game of each device is. The one more fetches
the moves of the shortest, whose place is known only then. So everything that a step reports is the
same on all hosts, and for any number of devices.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from training.config import Config
from training.losses import Losses, example_losses
from training.reanalyse import reanalyse
from training.replay import Example, Replay, empty_replay, sample_batch, seen_through
from training.selfplay import (
    Episode,
    Found,
    PlayStatistics,
    new_episode,
    no_statistics,
    nothing_found,
    play_move,
)

AXIS = "devices"


class TrainState(NamedTuple):
    """Everything that decides the future of a run.

    Attributes:
        params: of the network.
        optimizer: optax state.
        key: a typed key, folded with the step to make all randomness.
        step: steps made, int32 scalar.
        episodes: B games in progress.
        replay: B rings of finished games.
    """

    params: dict
    optimizer: optax.OptState
    key: jax.Array
    step: jax.Array
    episodes: Episode
    replay: Replay


class StepOutput(NamedTuple):
    """What a step reports.

    Attributes:
        metrics: float32 scalars, over all devices.
        found: the shortest solved game of each of N targets, over all devices, (1, N, ...): one
            row of candidates.
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


_SPECS = TrainState(
    params=PartitionSpec(),
    optimizer=PartitionSpec(),
    key=PartitionSpec(),
    step=PartitionSpec(),
    episodes=PartitionSpec(AXIS),
    replay=PartitionSpec(AXIS),
)


def make_mesh(config: Config) -> Mesh:
    """The mesh of the configured devices, those of all processes."""
    devices = jax.devices()[: config.num_devices]
    return jax.make_mesh((len(devices),), (AXIS,), (AxisType.Auto,), devices=devices)


def make_abstract_mesh(devices: int) -> AbstractMesh:
    """A mesh of so many devices that need not be here, to trace with but not to run on."""
    return AbstractMesh((devices,), (AXIS,), (AxisType.Auto,))


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


def make_init(config: Config, mesh: Mesh | AbstractMesh) -> Callable[[int], TrainState]:
    """The compiled function of a seed that makes the state before the first step, born sharded."""

    def init(seed: jax.Array) -> TrainState:
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
        )

    replicated = (PartitionSpec(),)
    mapped = jax.shard_map(init, mesh=mesh, in_specs=replicated, out_specs=_SPECS, check_vma=False)
    return jax.jit(mapped, out_shardings=_shardings(mesh))


def make_step(
    config: Config, mesh: Mesh | AbstractMesh
) -> Callable[[TrainState], tuple[TrainState, StepOutput]]:
    """The compiled training step; it takes the state over (its buffers are donated)."""

    def step(state: TrainState) -> tuple[TrainState, StepOutput]:
        play_key, learn_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        episodes, replay, found, played = jax.lax.cond(
            state.step < config.learner.demonstration_steps,
            lambda: (state.episodes, state.replay, nothing_found(config), no_statistics()),
            lambda: _play(config, play_key, state),
        )
        told = Told(played, _own_row(found.moves))
        params, optimizer, told, learned = _learn(config, learn_key, state, replay, told)
        new = TrainState(params, optimizer, state.key, state.step + 1, episodes, replay)
        metrics = {**_play_metrics(config, told.played), **learned}
        shortest = _shortest(found, told.lengths)
        return new, StepOutput(metrics, jax.tree.map(lambda x: x[None], shortest))

    # mctx does not trace with varying-axis checks, and with them pmean would scale gradients.
    mapped = jax.shard_map(
        step,
        mesh=mesh,
        in_specs=(_SPECS,),
        out_specs=(_SPECS, PartitionSpec()),
        check_vma=False,
    )
    return jax.jit(
        mapped,
        donate_argnums=0,
        in_shardings=(_shardings(mesh),),
        out_shardings=(_shardings(mesh), None),
        compiler_options=compiler_options(_platform(mesh)),
    )


def compiler_options(platform: str) -> dict[str, str]:
    """XLA's options for the step on a platform (benchmarks/compiler_options.py).

    On a CPU small fusions go to YNNPACK by default, which makes a step of a laptop's size more than
    twice as slow; the empty value turns that off.
    """
    return {"xla_cpu_experimental_ynn_fusion_type": ""} if platform == "cpu" else {}


def _platform(mesh: Mesh | AbstractMesh) -> str:
    """cpu, gpu or tpu; without devices, that of this process."""
    return mesh.devices.flat[0].platform if isinstance(mesh, Mesh) else jax.default_backend()


def _shardings(mesh: Mesh | AbstractMesh) -> TrainState:
    """Shardings of the state. Left to the compiler, arrays of size zero come out replicated."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), _SPECS)


def _global_ids(count: int) -> jax.Array:
    """The places of this device's ``count`` items among those of all devices."""
    return jax.lax.axis_index(AXIS) * count + jnp.arange(count)


def _keys(key: jax.Array, count: int) -> jax.Array:
    """Keys of this device's ``count`` items, the same for any number of devices."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(_global_ids(count))


def _play(config: Config, key: jax.Array, state: TrainState):
    """Some moves of each game: the games, their rings, what was found, and summed statistics."""

    def move(carry, move_key: jax.Array):
        episodes, replay, found = carry
        keys = _keys(move_key, len(replay.count))
        *carry, played = play_move(config, state.params, keys, episodes, replay, found)
        return tuple(carry), played

    carry = (state.episodes, state.replay, nothing_found(config))
    keys = jax.random.split(key, config.selfplay.moves_per_step)
    carry, played = jax.lax.scan(move, carry, keys)
    return *carry, jax.tree.map(lambda x: x.sum(), played)


def _own_row(x: jax.Array) -> jax.Array:
    """``x`` (N,) in the row of this device of zeros (D, N); their sum is a gather."""
    rows = jnp.zeros((jax.lax.axis_size(AXIS), *x.shape), jnp.float32)
    return rows.at[jax.lax.axis_index(AXIS)].set(x.astype(jnp.float32))


def _shortest(found: Found, lengths: jax.Array) -> Found:
    """Of what the devices found, the shortest, the first of equals; their ``lengths`` are (D, N).

    Devices hold games in their global order, so the choice is that of a single device.
    """
    is_mine = lengths.argmin(axis=0) == jax.lax.axis_index(AXIS)
    actions = jnp.where(is_mine[:, None, None, None], found.actions, 0)
    return Found(lengths.min(axis=0).astype(jnp.int32), jax.lax.psum(actions, AXIS))


def _play_metrics(config: Config, total: PlayStatistics) -> dict[str, jax.Array]:
    """Over all devices."""
    return {
        "games": total.games,
        "solved": total.solved,
        "evaluations": total.moves * (config.search.num_simulations + 1),
        "return": total.returns / jnp.maximum(total.games, 1.0),
        "root_entropy": total.entropy / jnp.maximum(total.moves, 1.0),
    }


def _learn(config: Config, key: jax.Array, state: TrainState, replay: Replay, told: Told):
    """Some updates: the parameters, the optimizer's state, ``told`` summed, and metrics."""
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
        examples, played = sample_batch(config, replay_keys, demonstration_keys, replay)
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
        # Without a barrier the compiler takes the sums of what no update changes out of the loop,
        # as an all-reduce of their own.
        mine = jax.lax.optimization_barrier((gradients, sums, told))
        gradients, sums, everywhere = jax.lax.psum(mine, AXIS)
        gradients = jax.tree.map(lambda x: x / devices, gradients)
        updates, optimizer = transform.update(gradients, optimizer, params)
        params = optax.apply_updates(params, updates)
        return (params, optimizer), (sums, everywhere, optax.tree.norm(gradients))

    keys = jax.random.split(key, config.learner.updates_per_step)
    carry, (sums, told, norm) = jax.lax.scan(update, (state.params, state.optimizer), keys)
    metrics = {"gradient_norm": norm.mean()}
    for prefix, (share, losses) in zip(("", "demonstration_"), sums, strict=True):
        for name, loss in losses._asdict().items():
            metrics[f"{prefix}{name}_loss"] = loss.sum() / jnp.maximum(share.sum(), 1e-6)
    return *carry, jax.tree.map(lambda x: x[0], told), metrics


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
