"""Chains: the solved game that each place of the batch goes on from.

Each of the B games in progress has a place, and each place remembers one solved game of each
target. New games of the place go on from the middle of it, and walks by flips begin at it; where
one ends with no more moves than it had, the place goes on from that one. So every place is a chain
of a random walk among solved games: a step that only keeps the length is taken too, since many of
them may lie between a game and one that can be shortened.

There may also be no way at all: the algorithms of one length fall into parts that no such step
connects. So some places go on from games that are one move longer than the shortest of the run. And
those that are behind give up their own game for a shorter one, more or less soon
(`SelfPlayConfig.continued_migration`): at once they all come from the same game and are shut in
with it, never and each has the whole way to go alone.

The best games of the run (`training.best_games`) cannot do this. They are a sample of all that were
ever seen, which changes the less the more there were, so that nothing gets far from where it began.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int8, Int32, Key

from tensorgame.flips import common_factors, walk
from tensorgame.rings import Ring
from tensorgame.symmetries import Basis
from training.best_games import (
    NO_GAME,
    SolvedGame,
    describe,
    draw_basis,
    draw_game,
    draw_target,
    no_games,
    seen_in,
)
from training.config import Config

# Share of the times that a place with one of the shortest games follows a game that is one longer.
_LONGER = 1 / 8
# Matrices over Z that are drawn for a mode of an end, of which the first that fits is taken.
_TRIES = 8
# Against a factor in common, which counts one.
_RELATED_NOISE = 0.75


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


def no_chains(config: Config) -> SolvedGame:
    """What ONE place goes on from before anything is solved: a game of each of N targets, (N,)."""
    return jax.tree.map(lambda x: x[:, 0], no_games(config, 1))


def follow(
    config: Config,
    best: SolvedGame,
    chains: SolvedGame,
    key: Key[Array, ""],
    game: SolvedGame,
    target: Int32[Array, ""],
    is_step: Bool[Array, ""],
) -> tuple[SolvedGame, Bool[Array, ""]]:
    """Where ONE place goes on from, (N,), after a game on a target, and whether that is elsewhere.

    A game that is a step from the one it went on from is followed if it is not longer, and
    sometimes if it is one longer than the shortest; any other game only if it is shorter. Those
    with fewer entries are followed more seldom (`SelfPlayConfig.continued_sparser`). Over Z
    the canonical factors have to keep to the ring's coefficients, as they would only ever grow.

    Args:
        config: the run's.
        best: the best games of the run, (N, M).
        chains: the games of the place, (N,).
        key: consumed.
        game: solved or not.
        target: index of its target.
        is_step: whether it went on from the game of the place.
    """
    before = jax.tree.map(lambda x: x[target], chains)
    is_shortest = before.length <= best.length[target, 0]
    longer_key, sparser_key = jax.random.split(key)
    longer = is_step & is_shortest & jax.random.bernoulli(longer_key, _LONGER)
    # Against the agent's taste, which is for few entries.
    is_sparser = (game.length == before.length) & (_entries(game) < _entries(before))
    welcome = ~is_sparser | jax.random.bernoulli(sparser_key, config.selfplay.continued_sparser)
    differs = (game.prints[:2] != before.prints[:2]).any() | (game.length < before.length)
    # Of no game and no game none is shorter.
    is_near = (game.length < before.length) | (is_step & (game.length <= before.length + longer))
    allowed = config.ring.allows(game.factors).all() & (game.length != NO_GAME)
    follows = is_near & differs & welcome & allowed
    place = jnp.where(follows, target, len(chains.length))
    chains = jax.tree.map(lambda old, new: old.at[place].set(new, mode="drop"), chains, game)
    return chains, follows


def _entries(game: SolvedGame) -> Int32[Array, ""]:
    """How many entries of its factors in the canonical basis are not zero."""
    return (game.factors != 0).sum()


def sample_opening(
    config: Config, best: SolvedGame, chains: SolvedGame, key: Key[Array, ""]
) -> tuple[Opening, Bool[Array, ""]]:
    """A position for ONE place to play on from, and whether there is one.

    The target is drawn as in play. The game of the place is shown in a random basis of
    `Config.continued_bases`, with a random number of moves left: at least 2, where it has as many,
    and at most `SelfPlayConfig.continued_moves`. These are moves that have factors in common with
    each other, as far as there are such: what they add up to is the likeliest to be a sum of other
    products, or of fewer. Over Z they have to fit into the basis; the other moves need not, as
    nobody plays them. There is no position without a game.

    Args:
        config: the run's.
        best: the best games of the run, (N, M).
        chains: the games of the place, (N,).
        key: consumed.
    """
    target_key, game_key, look_key, order_key, move_key = jax.random.split(key, 5)
    target = draw_target(config, target_key)
    game = _game_of(config, best, chains, target, game_key)
    exists = game.length != NO_GAME
    length = jnp.where(exists, game.length, 1)
    most = jnp.minimum(length, config.selfplay.continued_moves)
    left = jax.random.randint(move_key, (), jnp.minimum(2, most), most + 1)
    # The same in any basis, but factors are compared by the ring's symbols.
    order = jnp.roll(
        related_last(order_key, game.factors, config.ring, config.selfplay.continued_moves), length
    )
    is_left = jnp.zeros(len(order), bool).at[order].set(jnp.arange(len(order)) >= length - left)
    basis = _basis_for(config, game, target, look_key, is_left)
    actions, fits, has_room = seen_in(config, game, basis)
    is_shown = has_room & (fits.all(axis=1) | ~is_left).all()
    basis, actions = jax.tree.map(
        lambda new, old: jnp.where(is_shown, new, old),
        (basis, actions),
        (config.bases.identity(), game.factors.astype(jnp.int32)),
    )
    opening = Opening(target, basis, actions[order].astype(jnp.int8), length - left, length)
    return opening, exists & (is_shown | config.ring.allows(game.factors).all())


def _basis_for(
    config: Config,
    game: SolvedGame,
    target: Int32[Array, ""],
    key: Key[Array, ""],
    is_left: Bool[Array, "R"],
) -> Basis:
    """A random basis of `Config.continued_bases`; over Z one into which the moves left may fit.

    Modes have a matrix each then: the first of a few that fits, the identity if none does.
    """
    if config.ring.modulus:
        return draw_basis(config, config.continued_bases, target, key)

    def look(key: Key[Array, ""]) -> tuple[Basis, Bool[Array, "3"]]:
        drawn = draw_basis(config, config.continued_bases, target, key)
        _, fits, _ = seen_in(config, game, drawn)
        return drawn, (fits | ~is_left[:, None]).all(axis=0)

    drawn, fits = jax.vmap(look)(jax.random.split(key, _TRIES))
    first, modes = jnp.argmax(fits, axis=0), jnp.arange(3)
    return jax.tree.map(
        lambda new, old: jnp.where(fits.any(axis=0)[:, None, None], new[first, modes], old),
        drawn,
        config.bases.identity(),
    )


def walk_on(
    config: Config, best: SolvedGame, chains: SolvedGame, key: Key[Array, ""]
) -> tuple[Int32[Array, ""], SolvedGame]:
    """What a random walk by flips makes of the game of ONE place: its target and the new game.

    It is no solved game if the place had none, or if its factors in the canonical basis lie outside
    the ring's coefficients.

    Args:
        config: the run's.
        best: the best games of the run, (N, M).
        chains: the games of the place, (N,).
        key: consumed.
    """
    target_key, game_key, walk_key = jax.random.split(key, 3)
    target = draw_target(config, target_key)
    game = _game_of(config, best, chains, target, game_key)
    allowed = (game.length != NO_GAME) & config.ring.allows(game.factors).all()
    factors, length = walk(walk_key, game.factors, config.ring, config.learner.flips)
    return target, describe(config, factors, config.bases.identity(), length, allowed)


def _game_of(
    config: Config,
    best: SolvedGame,
    chains: SolvedGame,
    target: Int32[Array, ""],
    key: Key[Array, ""],
) -> SolvedGame:
    """The game of ONE place on a target; now and then one of the best, if they are shorter."""
    share = config.selfplay.continued_migration
    own_key, best_key = jax.random.split(key)
    own = jax.tree.map(lambda x: x[target], chains)
    is_behind = own.length > best.length[target, 0]
    moves = is_behind & ((own.length == NO_GAME) | jax.random.bernoulli(own_key, share))
    other = draw_game(best, target, best_key)
    return jax.tree.map(lambda x, y: jnp.where(moves, y, x), own, other)


def related_last(
    key: Key[Array, ""], actions: Int8[Array, "R 3 S"], ring: Ring, count: int
) -> Int32[Array, "R"]:
    """An order of the actions in which the last ``count`` share their factors; zeros come first.

    From the end on each of these is the one that has most of its three factors in common with those
    after it, give or take some noise. The others keep their order.
    """
    size = len(actions)
    common = common_factors(actions, ring)
    exists = actions.any(axis=(1, 2))
    noise = jax.random.uniform(key, (count, size), maxval=_RELATED_NOISE)
    shared = jnp.zeros((3, size), bool)
    # Later in the order the larger it is.
    rank = exists.astype(jnp.int32)
    for step in range(count):
        worth = jnp.where(exists, shared.sum(axis=0) + noise[step], -1.0)
        place = jnp.argmax(jnp.where(rank < 2, worth, -jnp.inf))
        shared |= common[:, place]
        rank = rank.at[place].set(1 + count - step)
    return jnp.argsort(rank, stable=True).astype(jnp.int32)
