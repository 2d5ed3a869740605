"""Learning: updates from replayed games and demonstrations, each with one all-reduce."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax

from training.best_games import SolvedGame
from training.config import Config
from training.losses import Losses, example_losses
from training.mesh import AXIS, item_keys
from training.reanalyse import reanalyse
from training.replay import Example, Replay, sample_batch, seen_through

T = TypeVar("T")

# Of `Losses`.
_NAMES = ("policy_loss", "value_loss", "value_error")


class Experience(NamedTuple):
    """What there is to learn from.

    Attributes:
        step: the number of the training step, int32 scalar.
        replay: rings of finished games.
        best: the best games of the run, or None.
    """

    step: jax.Array
    replay: Replay
    best: SolvedGame | None


class _Batch(NamedTuple):
    """What a device learns from in an update.

    Attributes:
        examples: N positions.
        keys: of their dropout, (N,).
        played: whether they come from finished games, (N,).
        is_real: whether there is anything to learn from them, (N,).
    """

    examples: Example
    keys: jax.Array
    played: jax.Array
    is_real: jax.Array


class _Means(NamedTuple):
    """Means over the batch of a device, to be added up over the devices.

    Attributes:
        shares: of the examples that come from games, and that are demonstrations.
        losses: of both, 0 for all other examples.
        age: of the replayed games in steps, 0 for all other examples.
    """

    shares: tuple[jax.Array, jax.Array]
    losses: tuple[Losses, Losses]
    age: jax.Array


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


def learn(
    config: Config,
    key: jax.Array,
    params: dict,
    optimizer: optax.OptState,
    experience: Experience,
    told: T,
) -> tuple[dict, optax.OptState, T, dict[str, jax.Array]]:
    """Makes the updates of a step, inside of `jax.shard_map`.

    Args:
        config: the run's.
        key: consumed; the same on all devices.
        params: of the network.
        optimizer: optax state.
        experience: of this device's games.
        told: arrays of this device to be summed over the devices: they ride in the all-reduce.

    Returns:
        The parameters, the optimizer's state, ``told`` summed, and metrics.
    """
    transform = make_optimizer(config)

    def update(carry: tuple, update_key: jax.Array) -> tuple[tuple, tuple]:
        params, optimizer = carry
        batch = _draw(config, params, update_key, experience)
        gradients, losses = accumulate(
            jax.grad(lambda params, part: _objective(config, params, part), has_aux=True),
            params,
            batch,
            config.learner.microbatches,
        )
        # Without a barrier the compiler takes the sums of what no update changes out of the loop,
        # as an all-reduce of their own.
        mine = (gradients, _means(batch, losses, experience.step), told)
        gradients, means, everywhere = jax.lax.psum(jax.lax.optimization_barrier(mine), AXIS)
        gradients = jax.tree.map(lambda x: x / jax.lax.axis_size(AXIS), gradients)
        updates, optimizer = transform.update(gradients, optimizer, params)
        params = optax.apply_updates(params, updates)
        norms = (optax.tree.norm(gradients), optax.tree.norm(updates))
        return (params, optimizer), (means, norms, everywhere)

    keys = jax.random.split(key, config.learner.updates_per_step)
    (params, optimizer), reports = jax.lax.scan(update, (params, optimizer), keys)
    means, norms, everywhere = reports
    metrics = {**_norms(*norms), **_read(means)}
    return params, optimizer, jax.tree.map(lambda x: x[0], everywhere), metrics


def _draw(config: Config, params: dict, key: jax.Array, experience: Experience) -> _Batch:
    """The batch of this device."""
    learner, devices = config.learner, jax.lax.axis_size(AXIS)
    replay_key, demonstration_key = jax.random.split(key)
    replay_keys = item_keys(replay_key, learner.replay_batch // devices)
    demonstration_keys = item_keys(demonstration_key, learner.demonstration_batch // devices)
    examples, played = sample_batch(
        config, replay_keys, demonstration_keys, experience.replay, experience.best
    )
    keys = jnp.concatenate([replay_keys, demonstration_keys])
    if config.permutations is not None:
        examples = seen_through(config, keys, examples)
    if learner.reanalysed_share:
        examples = reanalyse(config, params, replay_keys, examples, played)
    # Without demonstrations, places whose ring is empty have nothing to learn from.
    return _Batch(examples, keys, played, played | bool(learner.demonstration_batch))


def _objective(config: Config, params: dict, batch: _Batch) -> tuple[jax.Array, Losses]:
    """What is minimised, and the losses of each example."""
    losses = example_losses(config, params, batch.examples, batch.keys)
    total = config.learner.policy_weight * losses.policy
    total += config.learner.value_weight * losses.value
    return jnp.where(batch.is_real, total, 0.0).mean(), losses


def _means(batch: _Batch, losses: Losses, step: jax.Array) -> _Means:
    masks = (batch.played, ~batch.played & batch.is_real)
    return _Means(
        shares=tuple(mask.mean() for mask in masks),
        losses=tuple(jax.tree.map(lambda x, m=mask: (x * m).mean(), losses) for mask in masks),
        age=(batch.played * (step - batch.examples.step)).mean(),
    )


def _norms(gradients: jax.Array, updates: jax.Array) -> dict[str, jax.Array]:
    return {"gradient_norm": gradients.mean(), "update_norm": updates.mean()}


def _read(means: _Means) -> dict[str, jax.Array]:
    """Metrics over the updates of a step, whose ``means`` have an axis of them."""
    shares = [jnp.maximum(share.sum(), 1e-6) for share in means.shares]
    metrics = {"replay_age": means.age.sum() / shares[0]}
    for prefix, share, losses in zip(("", "demonstration_"), shares, means.losses, strict=True):
        for name, loss in zip(_NAMES, losses, strict=True):
            metrics[prefix + name] = loss.sum() / share
    return metrics


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
