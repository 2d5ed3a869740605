"""Self-play: what the games in progress and the finished ones hold is what was played."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tensorgame.symmetries import change_basis
from training.config import Config, GameConfig
from training.selfplay import new_episode


@pytest.fixture(scope="module")
def played(tiny, trained):
    """The configuration, the games in progress, and the rings, on the host."""
    state = trained[0]
    return tiny, jax.device_get(state.episodes), jax.device_get(state.replay)


def residual_after(start: np.ndarray, actions: np.ndarray) -> np.ndarray:
    return start - np.einsum("ri,rj,rk->ijk", *actions.astype(int).transpose(1, 0, 2))


def finished(replay):
    """All games that are kept."""
    for ring, count in enumerate(replay.count):
        for place in range(min(count, replay.games.length.shape[1])):
            yield jax.tree.map(lambda x, at=(ring, place): x[at], replay.games)


def test_games_in_progress_are_where_their_moves_lead(played):
    config, episodes, _ = played
    moves = episodes.state.moves
    assert (moves < config.max_moves).all()
    assert moves.any()
    for i, count in enumerate(moves):
        actions = episodes.played.actions[i]
        left = residual_after(episodes.played.start[i], actions[:count])
        np.testing.assert_array_equal(episodes.state.residual[i], left)
        assert left.any()
        assert not actions[count:].any()
        assert episodes.played.length[i] == count
        if count:
            np.testing.assert_array_equal(episodes.state.history[i][0], actions[count - 1])


def test_games_start_with_the_target_in_their_basis(played):
    config, episodes, _ = played
    target = jnp.asarray(config.targets[0].padded(config.side))
    start = jax.vmap(change_basis, (None, 0, None))(target, episodes.basis, config.ring)
    np.testing.assert_array_equal(episodes.played.start, start)


def test_finished_games_end_where_they_should(played):
    config, _, replay = played
    assert (replay.count > 10).all()
    games = list(finished(replay))
    assert len(games) == replay.games.length.size
    for game in games:
        lefts = [residual_after(game.start, game.actions[:n]) for n in range(game.length + 1)]
        assert all(left.any() for left in lefts[:-1])
        ranks = np.linalg.matrix_rank(np.moveaxis(lefts[-1], -1, 0)).sum()
        assert game.penalty == ranks
        assert ranks == 0 or game.length == config.max_moves
    assert {bool(game.penalty) for game in games} == {False, True}, "both ends were seen"


def test_the_move_made_is_one_of_those_searched(played):
    config, _, replay = played
    space = config.action_space
    for game in finished(replay):
        length = game.length
        searched = np.asarray(space.decode(jnp.asarray(game.tokens[:length], jnp.int32)))
        made = (searched == game.actions[:length, None]).all(axis=(2, 3))
        assert (made.sum(axis=1) == 1).all()
        np.testing.assert_allclose(game.weights[:length].sum(axis=1), 1.0, rtol=1e-5)
        assert not game.weights[length:].any()


def new_starts(config: Config, count: int) -> np.ndarray:
    new = jax.jit(jax.vmap(lambda key: new_episode(config, key).played.start))
    return np.asarray(new(jax.random.split(jax.random.key(0), count)))


def test_games_begin_in_the_canonical_basis_with_its_probability(tiny):
    game = dataclasses.replace(tiny.game, basis_density=0.9, canonical_probability=0.4)
    starts = new_starts(dataclasses.replace(tiny, game=game), 1000)
    canonical = (starts == tiny.targets[0].padded(tiny.side)).all(axis=(1, 2, 3))
    # A few random changes leave the target as it is.
    assert 0.35 < canonical.mean() < 0.5


def test_a_basis_in_which_entries_might_overflow_is_not_played():
    # This many moves leave room for entries up to one.
    config = Config(game=GameConfig(ring="z", max_moves=2**15 - 2, basis_density=0.9), devices=1)
    assert config.rules.largest_start == 1
    starts = new_starts(config, 20)
    assert np.abs(starts).max() == 1
    roomy = dataclasses.replace(config, game=dataclasses.replace(config.game, max_moves=9))
    assert np.abs(new_starts(roomy, 20)).max() > 1


def test_each_target_is_played_as_often_as_its_weight_says_and_in_its_corner():
    names = ("matmul:1,1,2", "polynomial:2,2", "matmul:1,2,2")
    game = GameConfig(targets=names, target_weights=(1.0, 2.0, 1.0), canonical_probability=1.0)
    config = Config(game=game, devices=1)
    new = jax.jit(jax.vmap(lambda key: new_episode(config, key)))
    episodes = jax.device_get(new(jax.random.split(jax.random.key(0), 1000)))
    shares = np.bincount(episodes.target, minlength=3) / 1000
    np.testing.assert_allclose(shares, [0.25, 0.5, 0.25], atol=0.05)
    starts = np.stack([target.padded(4) for target in config.targets])
    np.testing.assert_array_equal(episodes.played.start, starts[episodes.target])
