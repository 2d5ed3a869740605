"""Self-play: B games a device move together, finished ones are kept and begin anew."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int8, Int32, Key

from search.search import search
from search.tree import SearchResult
from tensorgame.factors import outer_sum
from tensorgame.game import State
from tensorgame.symmetries import Basis, change_basis, to_canonical
from training.best_games import NO_GAME, SolvedGame, describe, draw_target, insert
from training.chains import Opening, follow, sample_opening, walk_on
from training.config import Config
from training.replay import PlayedGame, Replay, keep


class Episode(NamedTuple):
    """A game in progress.

    Attributes:
        state: the position.
        target: the index of the target it is played on, int32 scalar.
        basis: the basis it is played in.
        played: the game so far, for the learner.
        is_continued: whether it began in the middle of an earlier game, bool scalar.
    """

    state: State
    target: Int32[Array, ""]
    basis: Basis
    played: PlayedGame
    is_continued: Bool[Array, ""]


class Found(NamedTuple):
    """The shortest solved game seen of each of N targets.

    Attributes:
        moves: its length; R_limit + 1 if there was none. (N,), int32.
        actions: its factors in the canonical basis, zeros after the last: (N, R, 3, S), int32.
    """

    moves: Int32[Array, "*batch"]
    actions: Int32[Array, "*batch R 3 S"]


class Kept(NamedTuple):
    """What is kept of finished games.

    Attributes:
        replay: a ring of them for each of B games in progress.
        found: the shortest of each of N targets in this step.
        best: the shortest of each in the run, (N, M); None if nothing is learned from them.
        chains: those that each place goes on from, (B, N); None if none does.
    """

    replay: Replay
    found: Found
    best: SolvedGame | None
    chains: SolvedGame | None


class PlayStatistics(NamedTuple):
    """Sums over the games that finished and the moves made; float32.

    Attributes:
        games: finished games of each of N targets, (N,), those that were continued not counted.
        solved: those of them that were solved with each number of moves, 0 to R_limit: (N, R + 1).
        returns: of them, a scalar.
        continued: finished games that began in the middle of an earlier one, a scalar.
        rewritten: those of them from which their place goes on now (`training.chains`), a scalar.
        entropy: of the roots' priors in nats, a scalar.
        depth: of the search trees in moves, a scalar.
        moves: moves made, a scalar.
    """

    games: Float32[Array, "*batch N"]
    solved: Float32[Array, "*batch N lengths"]
    returns: Float32[Array, "*batch"]
    continued: Float32[Array, "*batch"]
    rewritten: Float32[Array, "*batch"]
    entropy: Float32[Array, "*batch"]
    depth: Float32[Array, "*batch"]
    moves: Float32[Array, "*batch"]


def new_episode(
    config: Config,
    key: Key[Array, ""],
    best: SolvedGame | None = None,
    chains: SolvedGame | None = None,
) -> Episode:
    """A new game of ONE place on a random target in a random basis.

    With `SelfPlayConfig.continued_share` some go on from the middle of the game that the place has
    come to in its ``chains`` (N,), or of one of the ``best`` of the run (N, M), if there is any.
    The key is consumed.
    """
    share = config.selfplay.continued_share
    if not share or best is None or chains is None:
        return _from_the_start(config, key)
    start_key, opening_key, share_key = jax.random.split(key, 3)
    opening, is_possible = sample_opening(config, best, chains, opening_key)
    is_continued = is_possible & jax.random.bernoulli(share_key, share)
    return jax.tree.map(
        lambda middle, start: jnp.where(is_continued, middle, start),
        _from_the_middle(config, opening),
        _from_the_start(config, start_key),
    )


def _from_the_start(config: Config, key: Key[Array, ""]) -> Episode:
    """A new game; its basis is the canonical one if entries might overflow in the other."""
    ring, rules, space = config.ring, config.rules, config.action_space
    target_key, basis_key = jax.random.split(key)
    tensors = np.stack([target.padded(space.side) for target in config.targets])
    shapes = np.array([target.shape for target in config.targets], np.int32)
    index = draw_target(config, target_key)
    target = jnp.asarray(tensors, jnp.int32)[index]
    basis = config.bases(basis_key, jnp.asarray(shapes)[index])
    fits = jnp.abs(change_basis(target, basis, ring)).max() <= rules.largest_start
    basis = jax.tree.map(
        lambda new, canonical: jnp.where(fits, new, canonical), basis, config.bases.identity()
    )
    start = rules.init(change_basis(target, basis, ring))
    return Episode(start, index, basis, _unplayed(config, start), jnp.array(False))


def _from_the_middle(config: Config, opening: Opening) -> Episode:
    """A game whose first moves are those of an opening."""
    start = config.rules.init(outer_sum(opening.actions))
    made = jnp.arange(config.max_moves) < opening.moves
    actions = jnp.where(made[:, None, None], opening.actions, 0)
    played = _unplayed(config, start)._replace(
        actions=actions, opening=opening.moves, length=opening.moves
    )
    state = config.rules.after(start.residual, actions, opening.moves)
    return Episode(state, opening.target, opening.basis, played, jnp.array(True))


def _unplayed(config: Config, start: State) -> PlayedGame:
    """The record of a game without moves."""
    space, moves, actions = config.action_space, config.max_moves, config.search.num_actions
    return PlayedGame(
        start=start.residual,
        actions=jnp.zeros((moves, 3, space.side), jnp.int8),
        tokens=jnp.zeros((moves, actions, space.num_tokens), jnp.int16),
        weights=jnp.zeros((moves, actions), jnp.float32),
        opening=jnp.zeros((), jnp.int32),
        length=jnp.zeros((), jnp.int32),
        penalty=jnp.zeros((), jnp.float32),
        step=jnp.zeros((), jnp.int32),
    )


def nothing_found(config: Config) -> Found:
    """The `Found` of no game."""
    count, moves = len(config.targets), config.max_moves
    actions = jnp.zeros((count, moves, 3, config.side), jnp.int32)
    return Found(jnp.full(count, moves + 1, jnp.int32), actions)


def no_statistics(config: Config) -> PlayStatistics:
    """The `PlayStatistics` of no move."""
    count, zero = len(config.targets), jnp.zeros(())
    return PlayStatistics(
        games=jnp.zeros(count),
        solved=jnp.zeros((count, config.max_moves + 1)),
        returns=zero,
        continued=zero,
        rewritten=zero,
        entropy=zero,
        depth=zero,
        moves=zero,
    )


def play_move(
    config: Config,
    params: dict,
    keys: Key[Array, "B"],
    step: Int32[Array, ""],
    episodes: Episode,
    kept: Kept,
    best: SolvedGame | None,
) -> tuple[Episode, Kept, PlayStatistics]:
    """Makes one move in each of B games.

    Args:
        config: the run's.
        params: of the network that plays.
        keys: one typed key a game, (B,), consumed.
        step: the number of the training step.
        episodes: B games.
        kept: where the finished ones go.
        best: the best games before this step, the same on all devices, or None.

    Returns:
        The games after the move, finished ones having been begun anew, and the rest updated.
    """
    search_keys, reset_keys, chain_keys = jax.vmap(
        lambda key: jax.random.split(key, 3), out_axes=1
    )(keys)
    result = search(
        config.agent, config.search, params, search_keys, episodes.state, config.permutations
    )
    advance = jax.vmap(_advance, in_axes=(None, None, 0, 0))
    episodes = advance(config, step, episodes, result)
    done = jax.vmap(config.rules.done)(episodes.state)
    solved = jax.vmap(config.rules.solved)(episodes.state)
    kept, moved = _keep(config, kept, episodes, done, solved, best, chain_keys)
    statistics = _statistics(config, episodes, result, done, solved, moved)
    fresh = jax.vmap(new_episode, in_axes=(None, 0, None, 0))(config, reset_keys, best, kept.chains)
    episodes = jax.tree.map(
        lambda new, old: jnp.where(done.reshape(-1, *[1] * (old.ndim - 1)), new, old),
        fresh,
        episodes,
    )
    return episodes, kept, statistics


def _statistics(
    config: Config,
    episodes: Episode,
    result: SearchResult,
    done: Bool[Array, "B"],
    solved: Bool[Array, "B"],
    moved: Bool[Array, "B"],
) -> PlayStatistics:
    """Of the move that B games have just made, and of whether their chains moved."""
    none, target, played = no_statistics(config), episodes.target, episodes.played
    continued = episodes.is_continued
    counted = done & ~continued
    return PlayStatistics(
        games=none.games.at[target].add(counted),
        solved=none.solved.at[target, played.length].add(solved & counted),
        returns=jnp.where(counted, -played.length - played.penalty, 0.0).sum(),
        continued=(done & continued).sum(dtype=jnp.float32),
        rewritten=(moved & continued).sum(dtype=jnp.float32),
        entropy=result.entropy.sum(),
        depth=result.depth.sum(),
        moves=jnp.array(len(done), jnp.float32),
    )


def _advance(
    config: Config, step: Int32[Array, ""], episode: Episode, result: SearchResult
) -> Episode:
    """Makes the chosen move of ONE game and writes it down, unless there is nothing left to play.

    So it is where a game goes on after moves whose rest cancels out: it is solved as it is.
    """
    state, reward = config.rules.step(episode.state, result.action)
    ended, played = config.rules.done(episode.state), episode.played
    # Past the last move, where nothing is written.
    move = jnp.where(ended, config.max_moves, episode.state.moves)
    played = PlayedGame(
        start=played.start,
        actions=played.actions.at[move].set(result.action, mode="drop"),
        tokens=played.tokens.at[move].set(result.tokens.astype(jnp.int16), mode="drop"),
        weights=played.weights.at[move].set(result.weights, mode="drop"),
        opening=played.opening,
        length=state.moves,
        penalty=jnp.where(ended, 0.0, -1.0 - reward),
        step=step,
    )
    return episode._replace(state=state, played=played)


def _keep(
    config: Config,
    kept: Kept,
    episodes: Episode,
    done: Bool[Array, "B"],
    solved: Bool[Array, "B"],
    best_before: SolvedGame | None,
    chain_keys: Key[Array, "B"],
) -> tuple[Kept, Bool[Array, "B"]]:
    """What is kept, with those of B games that have just been finished, and which chains moved."""
    played, best, chains = episodes.played, kept.best, kept.chains
    moved = jnp.zeros_like(done)
    if best is not None:
        games = jax.vmap(describe, in_axes=(None, 0, 0, 0, 0))(
            config, played.actions, episodes.basis, played.length, solved
        )
        best = insert(best, games, episodes.target)
        if chains is not None:
            chains, moved = jax.vmap(follow, in_axes=(None, None, 0, 0, 0, 0, 0))(
                config,
                best_before,
                chains,
                chain_keys,
                games,
                episodes.target,
                episodes.is_continued,
            )
    lengths = jnp.where(solved, played.length, config.max_moves + 1)
    kept = Kept(
        replay=jax.vmap(keep)(kept.replay, played, done),
        found=_shorter(
            config, kept.found, episodes.target, lengths, played.actions, episodes.basis
        ),
        best=best,
        chains=chains,
    )
    return kept, moved


def walk_by_flips(config: Config, keys: Key[Array, "B"], best: SolvedGame, kept: Kept) -> Kept:
    """Walks on in the chains of B places by flips; what they find is kept too.

    Before a game is solved there is nothing to walk from, and play goes on without waiting.

    Args:
        config: the run's.
        keys: consumed.
        best: the best games before this step, (N, M), the same on all devices.
        kept: where the games go.
    """
    # A number of flips that is known only now would make a loop that asks the host in each of them.
    return jax.lax.cond(
        (best.length != NO_GAME).any(),
        lambda: _walk_by_flips(config, keys, best, kept),
        lambda: kept,
    )


def _walk_by_flips(config: Config, keys: Key[Array, "B"], best: SolvedGame, kept: Kept) -> Kept:
    walk_keys, follow_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    targets, games = jax.vmap(walk_on, in_axes=(None, None, 0, 0))(
        config, best, kept.chains, walk_keys
    )
    bases = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (len(keys), *jnp.shape(x))), config.bases.identity()
    )
    chains, _ = jax.vmap(follow, in_axes=(None, None, 0, 0, 0, 0, 0))(
        config, best, kept.chains, follow_keys, games, targets, jnp.ones(len(keys), bool)
    )
    return kept._replace(
        found=_shorter(config, kept.found, targets, games.length, games.factors, bases),
        best=insert(kept.best, games, targets),
        chains=chains,
    )


def _shorter(
    config: Config,
    found: Found,
    targets: Int32[Array, "B"],
    lengths: Int32[Array, "B"],
    actions: Int8[Array, "B R 3 S"],
    bases: Basis,
) -> Found:
    """For each target, the shortest of ``found`` and of B games.

    Args:
        config: the run's.
        found: of each of N targets.
        targets: of the games.
        lengths: their lengths, more than R_limit where they are not solved.
        actions: their moves.
        bases: what these are in, B of them.
    """

    def shortest(index: jax.Array, found: Found) -> Found:
        length = jnp.where(targets == index, lengths, config.max_moves + 1)
        place = jnp.argmin(length)
        moves, basis = jax.tree.map(lambda x: x[place], (actions, bases))
        candidate = Found(length[place], to_canonical(moves, basis, config.ring))
        is_shorter = candidate.moves < found.moves
        return jax.tree.map(lambda new, old: jnp.where(is_shorter, new, old), candidate, found)

    return jax.vmap(shortest)(jnp.arange(len(config.targets)), found)
