"""The best games of each target, which join the demonstrations.

In the paper, games of the agent with large scores are added to the buffer of demonstrations
(Methods). Here a buffer holds, for each target, the M shortest distinct solved games of the whole
run. A demonstration made of one of them shows its factors in a new random basis and in a new order,
so that a single game gives new positions without end.

The buffer is one for all games in progress, not a few places for each: a game in progress has no
reason to learn less from what another one found, a place for each target and each game would cost
most where there are many targets, and the same algorithm found twice would fill several places. All
devices hold a copy of it, which is small beside the rings of finished games: it keeps no searches.

What it holds is a function of the SET of the games seen. Games are ordered by their length and then
by a hash of what they are, and the first M different ones are kept. Such buffers can be merged in
any order and as often as one likes, so that each device collects its own games, and one exchange a
step makes all buffers the same, on any number of devices. Among games of the same length the hash
keeps a uniform random sample of those that are different.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int8, Int32, Integer, Key, UInt32

from tensorgame.demonstrations import Demonstration
from tensorgame.factors import canonicalize, outer_sum
from tensorgame.hashing import mix
from tensorgame.symmetries import Basis, BasisSampler, from_canonical, to_canonical
from training.config import Config

# Longer than any game: the length of what is no solved game.
NO_GAME = np.iinfo(np.int32).max
_INT8_MAX = np.iinfo(np.int8).max


class SolvedGame(NamedTuple):
    """A solved game of at most R moves, or a batch of games.

    Attributes:
        length: number of moves; NO_GAME for what is no solved game. int32.
        prints: three words of hashes, uint32. The first two are the same for games with the same
            factors in the canonical basis, whatever their order and the basis they were played in.
            The third tells these apart too.
        actions: the moves in the basis of the game, (R, 3, S), int8; zeros after the last.
        factors: the moves in the canonical basis, (R, 3, S), int8. They may lie outside the ring's
            coefficients.
    """

    length: Int32[Array, "*batch"]
    prints: UInt32[Array, "*batch 3"]
    actions: Int8[Array, "*batch R 3 S"]
    factors: Int8[Array, "*batch R 3 S"]


def no_games(config: Config, size: int) -> SolvedGame:
    """A buffer for the ``size`` best games of each of N targets, (N, size), without any."""
    batch = (len(config.targets), size)
    actions = jnp.zeros((*batch, config.max_moves, 3, config.side), jnp.int8)
    return SolvedGame(
        length=jnp.full(batch, NO_GAME, jnp.int32),
        prints=jnp.zeros((*batch, 3), jnp.uint32),
        actions=actions,
        factors=actions,
    )


def describe(
    config: Config,
    actions: Int8[Array, "R 3 S"],
    basis: Basis,
    length: Int32[Array, ""],
    solved: Bool[Array, ""],
) -> SolvedGame:
    """ONE game as the buffer keeps it, with its length if it is ``solved`` and NO_GAME otherwise.

    Over Z also if a factor in the canonical basis does not fit int8: no other basis would bring it
    back to useful coefficients.
    """
    factors = to_canonical(actions, basis, config.ring)
    factors = jax.vmap(canonicalize, in_axes=(0, None))(factors, config.ring)
    fits = jnp.abs(factors).max() <= _INT8_MAX
    factors = factors.astype(jnp.int8)
    # The sum of the hashes of the factors does not know their order. Padding adds the same to all
    # games of the same length.
    rows = factors.reshape(len(factors), -1)
    whole = jnp.concatenate([actions.ravel(), factors.ravel()])
    prints = [_hash(rows, 0).sum(), _hash(rows, 1).sum(), _hash(whole, 2)]
    length = jnp.where(solved & fits, length, NO_GAME)
    return SolvedGame(length, jnp.stack(prints), actions, factors)


def insert(best: SolvedGame, games: SolvedGame, targets: Int32[Array, "B"]) -> SolvedGame:
    """The buffer (N, M) with B games, each of one of the N targets."""

    def insert_one(index: jax.Array, best: SolvedGame) -> SolvedGame:
        length = jnp.where(targets == index, games.length, NO_GAME)
        return merge(best, games._replace(length=length))

    return jax.vmap(insert_one)(jnp.arange(len(best.length)), best)


def merge(best: SolvedGame, others: SolvedGame) -> SolvedGame:
    """The shortest distinct games of M and C games of ONE target: M, shortest first.

    Games with the same factors are the same; of these the one with the smallest hash is kept.
    """
    size = len(best.length)
    length = jnp.concatenate([best.length, others.length])
    places = _shortest(length, jnp.concatenate([best.prints, others.prints]), size)

    def take(mine: jax.Array, other: jax.Array) -> jax.Array:
        rows = jnp.where(_like(places < size, mine), mine[places], other[places - size])
        return jnp.where(_like(places >= 0, rows), rows, 0)

    taken = jax.tree.map(take, best, others)
    return taken._replace(length=jnp.where(places >= 0, taken.length, NO_GAME))


def exchange(best: SolvedGame, axis: str) -> SolvedGame:
    """`merge` of the buffers (N, M) of all devices along a mesh axis, the same on each.

    Lengths and hashes are gathered; games are sent once, by the device that has them.
    """
    size = best.length.shape[1]
    # The devices follow each other in the second axis, (N, D M).
    length, prints = jax.lax.all_gather((best.length, best.prints), axis, axis=1, tiled=True)
    places = jax.vmap(_shortest, in_axes=(0, 0, None))(length, prints, size)
    is_mine = (places >= 0) & (places // size == jax.lax.axis_index(axis))

    def send(games: jax.Array) -> jax.Array:
        rows = jax.vmap(lambda x, place: x[place % size])(games, places)
        return jnp.where(_like(is_mine, rows), rows, 0)

    sent = jax.lax.psum(jax.tree.map(send, best), axis)
    return sent._replace(length=jnp.where(places >= 0, sent.length, NO_GAME))


def sample_best(
    config: Config, best: SolvedGame, key: Key[Array, ""]
) -> tuple[Demonstration, Bool[Array, ""]]:
    """A position of a random game of the buffer (N, M), and whether there was one.

    The target is drawn as in play. The game is shown in a random basis, drawn as in play, and in a
    random order; all that is left to play solves it. The key is consumed.
    """
    target_key, game_key, look_key, order_key, move_key = jax.random.split(key, 5)
    target = draw_target(config, target_key)
    game = draw_game(best, target, game_key)
    actions = shown_in(config, game, draw_basis(config, config.bases, target, look_key))
    exists = game.length != NO_GAME
    length = jnp.where(exists, game.length, 1)
    places = jnp.arange(len(actions))
    order = jnp.where(places < length, jax.random.uniform(order_key, places.shape), 1.0)
    actions = actions[jnp.argsort(order)]
    moves = jax.random.randint(move_key, (), 0, length)
    left = jnp.roll(jnp.where((places >= moves)[:, None, None], actions, 0), -moves, axis=0)
    state = config.rules.after(outer_sum(actions), actions, moves)
    return Demonstration(state, left, length - moves), exists


def draw_target(config: Config, key: Key[Array, ""]) -> Int32[Array, ""]:
    """The index of a target, drawn as often as it is played. The key is consumed."""
    shares = jnp.asarray(config.target_shares)
    return jax.random.choice(key, len(shares), p=shares).astype(jnp.int32)


def draw_game(best: SolvedGame, target: Int32[Array, ""], key: Key[Array, ""]) -> SolvedGame:
    """A random game of a target in the buffer (N, M); no solved game if there is none.

    Half of the games are of the shortest length there is, so that the first few of a new length
    count as much as all others. The key is consumed.
    """
    place_key, shortest_key = jax.random.split(key)
    length = best.length[target]
    is_shortest = jax.random.bernoulli(shortest_key)
    among = jnp.where(is_shortest, length == length[0], length != NO_GAME)
    # They are sorted.
    place = jax.random.randint(place_key, (), 0, jnp.maximum(among.sum(), 1))
    return jax.tree.map(lambda x: x[target, place], best)


def draw_basis(
    config: Config, bases: BasisSampler, target: Int32[Array, ""], key: Key[Array, ""]
) -> Basis:
    """A random basis of those for a target. The key is consumed."""
    shapes = jnp.asarray([target.shape for target in config.targets], jnp.int32)
    return bases(key, shapes[target])


def shown_in(config: Config, game: SolvedGame, basis: Basis) -> Int8[Array, "R 3 S"]:
    """The moves of ``game`` in ``basis``, canonical actions; in its own where they do not fit."""
    actions, fits, has_room = seen_in(config, game, basis)
    return jnp.where(fits.all() & has_room, actions, game.actions).astype(jnp.int8)


def seen_in(
    config: Config, game: SolvedGame, basis: Basis
) -> tuple[Int32[Array, "R 3 S"], Bool[Array, "R 3"], Bool[Array, ""]]:
    """The moves of ``game`` in ``basis``, which factors fit there, and whether there is room.

    Over Z moves may leave the ring's coefficients, -1, 0 and 1 mostly, and the tensor's entries
    might overflow. The moves are canonical and in any case solve the target in that basis.
    """
    ring = config.ring
    actions = from_canonical(game.factors, basis, ring)
    actions = jax.vmap(canonicalize, in_axes=(0, None))(actions, ring)
    fits = ring.allows(actions).all(axis=-1)
    start = ring.reduce(outer_sum(actions))
    has_room = jnp.abs(start).max() <= config.rules.largest_start
    return actions, fits, has_room & (jnp.abs(actions).max() <= _INT8_MAX)


def _shortest(
    length: Int32[Array, "C"], prints: UInt32[Array, "C 3"], size: int
) -> Int32[Array, "size"]:
    """Places of the first ``size`` distinct games of C; -1 where there are no more."""
    *keys, places = jax.lax.sort(
        (length, *prints.T, jnp.arange(len(length), dtype=jnp.int32)), num_keys=4
    )
    # Not the third word: it tells games with the same factors apart.
    length, first, second, _ = keys
    differs = [x[1:] != x[:-1] for x in (length, first, second)]
    is_new = jnp.pad(differs[0] | differs[1] | differs[2], (1, 0), constant_values=True)
    (kept,) = jnp.nonzero(is_new & (length != NO_GAME), size=size, fill_value=-1)
    return jnp.where(kept >= 0, places[kept], -1)


def _hash(values: Integer[Array, "*rows n"], seed: int) -> UInt32[Array, "*rows"]:
    """A hash of each row of n small integers: a random linear form, mixed."""
    count = values.shape[-1]
    weights = mix(jnp.arange(1, count + 1, dtype=jnp.uint32) + np.uint32(seed * 2**20))
    words = jax.lax.bitcast_convert_type(values.astype(jnp.int32), jnp.uint32)
    return mix((words * weights).sum(axis=-1) + np.uint32(seed))


def _like(mask: Bool[Array, "*batch"], rows: Array) -> Bool[Array, "..."]:
    """``mask`` with axes of size one added, to go with ``rows``."""
    return mask.reshape(*mask.shape, *[1] * (rows.ndim - mask.ndim))
