"""The best games of each target, which join the demonstrations.

In the paper, games of the agent with large scores are added to the buffer of demonstrations
(Methods). Here a buffer holds, for each target, the M shortest distinct solved games of the whole
run. A demonstration made of one of them shows its factors in a new random basis and in a new order,
so that a single game gives new positions without end. New games may go on from such positions, and
random walks by flips begin at these games.

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
from tensorgame.flips import common_factors, walk
from tensorgame.rings import Ring
from tensorgame.symmetries import Basis, from_canonical, to_canonical
from training.config import Config

# Longer than any game: the length of what is no solved game.
NO_GAME = np.iinfo(np.int32).max
_INT8_MAX = np.iinfo(np.int8).max
# Against a factor in common, which counts one.
_RELATED_NOISE = 1.5


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


def no_games(config: Config) -> SolvedGame:
    """The empty buffer: (N, M) for N targets and ``learner.best_games`` M."""
    batch = (len(config.targets), config.learner.best_games)
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


class Opening(NamedTuple):
    """A position of a solved game, and how it was reached.

    Attributes:
        target: index of the game's target, int32 scalar.
        basis: the basis it is shown in.
        actions: all moves of the game in that basis, in the order it is shown in, canonical
            actions (R, 3, S), int8.
        moves: how many of them lead to the position, int32 scalar.
        length: how many there are, int32 scalar.
    """

    target: Int32[Array, ""]
    basis: Basis
    actions: Int8[Array, "R 3 S"]
    moves: Int32[Array, ""]
    length: Int32[Array, ""]


def sample_best(
    config: Config, best: SolvedGame, key: Key[Array, ""]
) -> tuple[Demonstration, Bool[Array, ""]]:
    """A position of a random game of the buffer (N, M), and whether there was one.

    The target is drawn as in play. The game is shown in a random basis, drawn as in play, and in a
    random order; all that is left to play solves it. The key is consumed.
    """
    look_key, order_key, move_key = jax.random.split(key, 3)
    shown, exists, _ = _show(config, best, look_key)
    places = jnp.arange(len(shown.actions))
    order = jnp.where(places < shown.length, jax.random.uniform(order_key, places.shape), 1.0)
    actions = shown.actions[jnp.argsort(order)]
    moves = jax.random.randint(move_key, (), 0, shown.length)
    left = jnp.roll(jnp.where((places >= moves)[:, None, None], actions, 0), -moves, axis=0)
    state = config.rules.after(outer_sum(actions), actions, moves)
    return Demonstration(state, left, shown.length - moves), exists


def sample_opening(
    config: Config, best: SolvedGame, key: Key[Array, ""]
) -> tuple[Opening, Bool[Array, ""]]:
    """A position of a random game of the buffer (N, M) to be played on from, and whether it can be.

    It is shown as in `sample_best`, with a random number of moves left, but for 0 at most
    `SelfPlayConfig.continued_moves`. These are moves that have factors in common with each other,
    as far as there are such: what they add up to is the likeliest to be a sum of other products,
    or of fewer. It cannot be played on from if there was no game, or if the game does not fit into
    the basis drawn: then nobody knows the basis that it is shown in. The key is consumed.
    """
    look_key, order_key, move_key = jax.random.split(key, 3)
    shown, exists, fits = _show(config, best, look_key)
    most = jnp.minimum(shown.length, config.selfplay.continued_moves or len(shown.actions))
    left = jax.random.randint(move_key, (), 1, most + 1)
    order = _related_last(order_key, shown.actions, config.ring)
    actions = jnp.roll(shown.actions[order], shown.length, axis=0)
    return shown._replace(actions=actions, moves=shown.length - left), exists & fits


def _related_last(
    key: Key[Array, ""], actions: Int8[Array, "R 3 S"], ring: Ring
) -> Int32[Array, "R"]:
    """An order of the actions in which the last share their factors; rows of zeros come first.

    From the end on each is the one that has most of its three factors in common with those after
    it, give or take some noise.
    """
    size = len(actions)
    common = common_factors(actions, ring)
    exists = actions.any(axis=(1, 2))
    noise = jax.random.uniform(key, (size, size), maxval=_RELATED_NOISE)

    def choose(step: jax.Array, carry: tuple) -> tuple:
        order, shared, free = carry
        worth = jnp.where(exists, shared.sum(axis=0) + noise[step], -1.0)
        place = jnp.argmax(jnp.where(free, worth, -jnp.inf)).astype(jnp.int32)
        order = order.at[size - 1 - step].set(place)
        return order, shared | common[:, place], free.at[place].set(False)

    carry = (jnp.zeros(size, jnp.int32), jnp.zeros((3, size), bool), jnp.ones(size, bool))
    return jax.lax.fori_loop(0, size, choose, carry)[0]


def _show(
    config: Config, best: SolvedGame, key: Key[Array, ""]
) -> tuple[Opening, Bool[Array, ""], Bool[Array, ""]]:
    """A random game at its start, whether there was one, and whether it fits into its basis."""
    target_key, game_key, basis_key = jax.random.split(key, 3)
    shapes = jnp.asarray([target.shape for target in config.targets], jnp.int32)
    target, game = _draw(config, best, target_key, game_key)
    exists = game.length != NO_GAME
    basis = config.bases(basis_key, shapes[target])
    actions, fits = seen_in(config, game, basis)
    length = jnp.where(exists, game.length, 1)
    return Opening(target, basis, actions, jnp.zeros((), jnp.int32), length), exists, fits


def walk_from_best(
    config: Config, best: SolvedGame, key: Key[Array, ""]
) -> tuple[Int32[Array, ""], SolvedGame]:
    """What a random walk of flips makes of a random game of the buffer (N, M): target and game.

    It is no solved game if there was none in the buffer, or if its factors in the canonical basis
    lie outside the ring's coefficients. The key is consumed.
    """
    target_key, game_key, walk_key = jax.random.split(key, 3)
    target, game = _draw(config, best, target_key, game_key)
    allowed = (game.length != NO_GAME) & jnp.isin(
        game.factors, jnp.asarray(config.ring.coefficients)
    ).all()
    factors, length = walk(walk_key, game.factors, config.ring, config.learner.flips)
    return target, describe(config, factors, config.bases.identity(), length, allowed)


def _draw(
    config: Config, best: SolvedGame, target_key: Key[Array, ""], game_key: Key[Array, ""]
) -> tuple[Int32[Array, ""], SolvedGame]:
    """A target, drawn as in play, and a random game of it in the buffer; none if it is empty.

    Half of the games are of the shortest length there is, so that the first few of a new length
    count as much as all others.
    """
    shares = jnp.asarray(config.target_shares)
    target = jax.random.choice(target_key, len(shares), p=shares).astype(jnp.int32)
    place_key, shortest_key = jax.random.split(game_key)
    length = best.length[target]
    is_shortest = jax.random.bernoulli(shortest_key)
    among = jnp.where(is_shortest, length == length[0], length != NO_GAME)
    # They are sorted.
    place = jax.random.randint(place_key, (), 0, jnp.maximum(among.sum(), 1))
    return target, jax.tree.map(lambda x: x[target, place], best)


def seen_in(
    config: Config, game: SolvedGame, basis: Basis
) -> tuple[Int8[Array, "R 3 S"], Bool[Array, ""]]:
    """The moves of ``game`` in ``basis``, canonical actions (R, 3, S), and whether they fit there.

    They do not if they leave the ring's coefficients or the tensor's entries might overflow, which
    happens over Z alone: with coefficients -1, 0 and 1 mostly. Then the moves are shown in the
    basis of the game.
    """
    ring = config.ring
    actions = from_canonical(game.factors, basis, ring)
    actions = jax.vmap(canonicalize, in_axes=(0, None))(actions, ring)
    fits = jnp.isin(actions, jnp.asarray(ring.coefficients)).all()
    start = ring.reduce(outer_sum(actions))
    fits &= jnp.abs(start).max() <= config.rules.largest_start
    return jnp.where(fits, actions, game.actions).astype(jnp.int8), fits


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
    weights = _mix(jnp.arange(1, count + 1, dtype=jnp.uint32) + np.uint32(seed * 2**20))
    words = jax.lax.bitcast_convert_type(values.astype(jnp.int32), jnp.uint32)
    return _mix((words * weights).sum(axis=-1) + np.uint32(seed))


def _mix(x: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """The finalizer of MurmurHash3 (Appleby), a permutation of the 32-bit words."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def _like(mask: Bool[Array, "*batch"], rows: Array) -> Bool[Array, "..."]:
    """``mask`` with axes of size one added, to go with ``rows``."""
    return mask.reshape(*mask.shape, *[1] * (rows.ndim - mask.ndim))
