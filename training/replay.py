"""What is learned from: positions of finished games, and demonstrations.

Every game in progress owns a small ring of its own finished games. Nothing of it is shared between
games, so what is learned does not depend on how the games are spread over devices. Demonstrations
are random, or some of them the best games (`training.best_games`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int, Int8, Int16, Int32, Integer, Key

from tensorgame.demonstrations import Demonstration
from tensorgame.game import State
from tensorgame.symmetries import choose, permute_state, permute_tokens, swap_with_last
from training.best_games import SolvedGame, sample_best
from training.config import Config


class PlayedGame(NamedTuple):
    """What the learner needs of a game, R being R_limit.

    Attributes:
        start: the tensor at the start, (S, S, S), the ring's storage type.
        actions: the moves made, (R, 3, S), int8; zeros after the last.
        tokens: the K actions searched before each move, (R, K, k), int16.
        weights: their improved policy, (R, K), float32.
        opening: how many of its first moves were taken over from another game, not searched. They
            are not learned from. int32 scalar.
        length: number of moves, int32 scalar.
        penalty: subtracted from the return at the end; 0 if solved. float32 scalar.
        step: the training step of the last move, int32 scalar.
    """

    start: Integer[Array, "S S S"]
    actions: Int8[Array, "R 3 S"]
    tokens: Int16[Array, "R K k"]
    weights: Float32[Array, "R K"]
    opening: Int32[Array, ""]
    length: Int32[Array, ""]
    penalty: Float32[Array, ""]
    step: Int32[Array, ""]


class Replay(NamedTuple):
    """The ring of one game in progress: its last M finished games (M, ...), and how many it saw."""

    games: PlayedGame
    count: Int32[Array, ""]


class Example(NamedTuple):
    """A position to learn from.

    Attributes:
        state: the position.
        tokens: A actions, (A, k), int32.
        weights: the policy target on them, (A,), float32.
        value: the return-to-go in moves, float32 scalar.
        step: the training step in which its game ended, int32 scalar; 0 for a demonstration.
    """

    state: State
    tokens: Int32[Array, "A k"]
    weights: Float32[Array, "A"]
    value: Float32[Array, ""]
    step: Int32[Array, ""]


def empty_replay(game: PlayedGame, kept_games: int) -> Replay:
    """A ring for games shaped like ``game``."""
    games = jax.tree.map(lambda x: jnp.zeros((kept_games, *x.shape), x.dtype), game)
    return Replay(games, jnp.zeros((), jnp.int32))


def keep(replay: Replay, game: PlayedGame, done: Bool[Array, ""]) -> Replay:
    """Puts ``game`` into the ring of ONE game in progress if it is ``done``."""
    size = len(replay.games.length)
    place = jnp.where(done, replay.count % size, size)
    games = jax.tree.map(lambda ring, x: ring.at[place].set(x, mode="drop"), replay.games, game)
    return Replay(games, replay.count + done)


def sample_replay(
    config: Config, keys: Key[Array, "N"], replay: Replay
) -> tuple[Example, Bool[Array, "N"]]:
    """Draws one position for each of N keys from the rings of B games in progress.

    N divides B or B divides N; slot i draws from the i-th share of the rings.

    Returns:
        The positions, and whether there was a game to draw from, bool (N,).
    """
    slots, games = len(keys), len(replay.count)
    share = max(1, games // slots)

    def draw(key: jax.Array, slot: jax.Array) -> tuple[Example, jax.Array]:
        ring_key, game_key, move_key, swap_key = jax.random.split(key, 4)
        ring = slot * games // slots + jax.random.randint(ring_key, (), 0, share)
        count = replay.count[ring]
        limit = jnp.clip(count, 1, replay.games.length.shape[1])
        place = jax.random.randint(game_key, (), 0, limit)
        game: PlayedGame = jax.tree.map(lambda x: x[ring, place], replay.games)
        first = game.opening
        move = jax.random.randint(move_key, (), first, jnp.maximum(game.length, first + 1))
        return _example(config, swap_key, game, move), count > 0

    return jax.vmap(draw)(keys, jnp.arange(slots))


def _example(
    config: Config, key: Key[Array, ""], game: PlayedGame, move: Int32[Array, ""]
) -> Example:
    """The position of ``game`` before ``move``, sometimes with two moves swapped.

    A game with a random move and the last one swapped ends where the other did. Its moves were
    not searched in the new order: the move itself is the target.
    """
    share, space = config.learner.swapped_share, config.action_space
    tokens, weights = game.tokens[move].astype(jnp.int32), game.weights[move]
    if share:
        swap_key, place_key = jax.random.split(key)
        place = jax.random.randint(place_key, (), 0, jnp.maximum(game.length, 1))
        is_swapped = jax.random.bernoulli(swap_key, share)
        swapped = swap_with_last(game.actions, place, game.length)
        game = game._replace(actions=jnp.where(is_swapped, swapped, game.actions))
        own = space.encode(game.actions[move])
        tokens = jnp.where(is_swapped, own, tokens)
        first = jnp.zeros_like(weights).at[0].set(1.0)
        weights = jnp.where(is_swapped, first, weights)
    return Example(
        state=config.rules.after(game.start, game.actions, move),
        tokens=tokens,
        weights=weights,
        value=(move - game.length) - game.penalty,
        step=game.step,
    )


def sample_demonstrations(config: Config, keys: Key[Array, "N"]) -> Example:
    """One random demonstration for each of N keys."""
    sampler = config.demonstrator
    return jax.vmap(lambda key: _shown(config, sampler(key)))(keys)


def _sample_best(
    config: Config, keys: Key[Array, "N"], best: SolvedGame
) -> tuple[Example, Bool[Array, "N"]]:
    """One position of the best games for each of N keys, and whether there was a game."""

    def draw(key: jax.Array) -> tuple[Example, jax.Array]:
        # Splitting a key and folding small numbers into it may give the same keys.
        game, available = sample_best(config, best, jax.random.fold_in(key, 2**31 + 3))
        return _shown(config, game), available

    return jax.vmap(draw)(keys)


def _shown(config: Config, demonstration: Demonstration) -> Example:
    """ONE demonstration to learn from, with up to K of its factors as targets.

    Any factor that is left is as good a next move as any other: the target is uniform.
    """
    actions = config.search.num_actions
    shown = demonstration.actions[:actions]
    shown = jnp.pad(shown, ((0, actions - len(shown)), (0, 0), (0, 0)))
    targets = jnp.minimum(demonstration.count, actions)
    return Example(
        state=demonstration.state,
        tokens=config.action_space.encode(shown),
        weights=jnp.where(jnp.arange(actions) < targets, 1.0 / targets, 0.0),
        value=-demonstration.count.astype(jnp.float32),
        step=jnp.zeros((), jnp.int32),
    )


def spread(count: int, share: float) -> Int[np.ndarray, "M"]:
    """The given share of the places 0..count - 1, spread evenly.

    So the same are chosen on any number of devices, if the share of each is a whole number.
    """
    steps = np.floor(np.arange(count + 1) * share + 1e-6)
    return np.flatnonzero(np.diff(steps))


def put(
    examples: Example, places: Int[np.ndarray, "M"], others: Example, mask: Bool[Array, "M"]
) -> Example:
    """N examples, at M places replaced by others where the mask says so."""

    def put_one(old: jax.Array, new: jax.Array) -> jax.Array:
        chosen = mask.reshape(-1, *[1] * (new.ndim - 1))
        return old.at[places].set(jnp.where(chosen, new, old[places]))

    return jax.tree.map(put_one, examples, others)


def sample_batch(
    config: Config,
    replay_keys: Key[Array, "N_replay"],
    demonstration_keys: Key[Array, "N_demonstrations"],
    replay: Replay,
    best: SolvedGame | None = None,
) -> tuple[Example, Bool[Array, "N"]]:
    """A batch: a position of a finished game for each replay key, and demonstrations.

    With the best games (targets, M), these make ``learner.best_games_share`` of the demonstrations
    that have a key; a random one takes the place of a game of which there is none yet.

    A place whose ring is still empty learns from a demonstration instead, so that no work is lost
    while nothing has been played; but not if there are no demonstrations at all.

    Returns:
        N examples, and which of them come from the replay, bool (N,).
    """
    played, available = sample_replay(config, replay_keys, replay)
    if not len(demonstration_keys):
        return played, available
    keys = jnp.concatenate([replay_keys, demonstration_keys])
    demonstrations = sample_demonstrations(config, keys)
    if best is not None:
        chosen = spread(len(demonstration_keys), config.learner.best_games_share)
        games, known = _sample_best(config, demonstration_keys[chosen], best)
        demonstrations = put(demonstrations, len(replay_keys) + chosen, games, known)

    def select(own: jax.Array, other: jax.Array) -> jax.Array:
        mask = available.reshape(-1, *[1] * (own.ndim - 1))
        return jnp.concatenate([jnp.where(mask, own, other[: len(own)]), other[len(own) :]])

    is_played = jnp.pad(available, (0, len(demonstration_keys)))
    return jax.tree.map(select, played, demonstrations), is_played


def seen_through(config: Config, keys: Key[Array, "N"], examples: Example) -> Example:
    """Each of N examples as it looks through a random one of the run's signed permutations.

    The keys may be those that sampled the examples.
    """
    symmetries, space = config.permutations, config.action_space

    def see(key: jax.Array, example: Example) -> Example:
        # Splitting a key and folding small numbers into it may give the same keys.
        by = choose(jax.random.fold_in(key, 2**31), symmetries)
        return example._replace(
            state=permute_state(example.state, by, space.ring),
            tokens=permute_tokens(example.tokens, by, space),
        )

    return jax.vmap(see)(keys, examples)
