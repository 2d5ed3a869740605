"""Finished games come back as the positions that were played."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from training.config import Config, GameConfig
from training.replay import (
    Example,
    PlayedGame,
    Replay,
    empty_replay,
    keep,
    sample_batch,
    sample_demonstrations,
    sample_replay,
)

# The target is e0 e0 e0 + e0 e1 e1.
E0, E1, BOTH = [1, 0], [0, 1], [1, 1]
SOLVED = [[E0, BOTH, E1], [E0, BOTH, [0, -1]], [E0, E0, E0], [E0, E1, E1]]
SHORT = [[E0, E1, E1], [E0, E0, E0]]
FAILED = [[E0, E0, E0], [E1, E1, E1], [BOTH, E0, E0], [E1, E0, E1]]


@pytest.fixture(scope="module")
def config(tiny) -> Config:
    return dataclasses.replace(tiny, game=dataclasses.replace(tiny.game, history=2))


def play(config: Config, moves: list, opening: int = 0) -> tuple[PlayedGame, list]:
    """The game of the given moves, and the states before each of them."""
    limit, actions = config.max_moves, config.search.num_actions
    state, reward = config.rules.init(jnp.asarray(config.targets[0].padded(config.side))), 0.0
    states, step = [], jax.jit(config.rules.step)
    for move in moves:
        states.append(jax.device_get(state))
        state, reward = step(state, jnp.asarray(move, jnp.int8))
    assert config.rules.done(state)
    rng = np.random.default_rng(len(moves))
    game = PlayedGame(
        start=states[0].residual,
        actions=np.pad(np.array(moves, np.int8), ((0, limit - len(moves)), (0, 0), (0, 0))),
        tokens=rng.integers(0, 3, (limit, actions, config.action_space.num_tokens), np.int16),
        weights=rng.random((limit, actions), np.float32),
        opening=np.int32(opening),
        length=np.int32(len(moves)),
        penalty=np.float32(-1 - reward),
        step=np.int32(10 * len(moves)),
    )
    return game, states


def rings(config: Config, games: list[list[PlayedGame]], size: int = 2) -> Replay:
    """A ring of finished games for each list."""
    empty = empty_replay(jax.tree.map(jnp.asarray, play(config, SHORT)[0]), size)
    replays = []
    for finished in games:
        replay = empty
        for game in finished:
            replay = jax.jit(keep)(replay, game, True)
        replays.append(replay)
    return jax.tree.map(lambda *x: jnp.stack(x), *replays)


def keys(count: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


@pytest.mark.parametrize(
    ("moves", "penalty"), [(SOLVED, 0), (SHORT, 0), (FAILED, 3)], ids=["solved", "short", "failed"]
)
def test_positions_are_those_that_were_played(config, moves, penalty):
    game, states = play(config, moves)
    assert game.penalty == penalty
    examples, available = jax.jit(sample_replay, static_argnums=0)(
        config, keys(50), rings(config, [[game]])
    )
    assert available.all()
    assert set(np.asarray(examples.state.moves)) == set(range(len(moves)))
    for i, move in enumerate(np.asarray(examples.state.moves)):
        example = jax.tree.map(lambda x, i=i: np.asarray(x)[i], examples)
        jax.tree.map(np.testing.assert_array_equal, example.state, states[move])
        np.testing.assert_array_equal(example.tokens, game.tokens[move])
        np.testing.assert_array_equal(example.weights, game.weights[move])
        assert example.value == -(len(moves) - move) - penalty
        assert example.step == game.step


def test_the_opening_of_a_game_is_not_learned(config):
    game, _ = play(config, SOLVED, opening=len(SOLVED) - 2)
    examples, _ = jax.jit(sample_replay, static_argnums=0)(
        config, keys(50), rings(config, [[game]])
    )
    assert set(np.asarray(examples.state.moves)) == {len(SOLVED) - 2, len(SOLVED) - 1}


def test_the_ring_keeps_the_last_games(config):
    games = [play(config, moves)[0] for moves in (SOLVED, SHORT, FAILED)]
    replay = rings(config, [games])
    assert replay.count.tolist() == [3]
    assert replay.games.length.tolist() == [[4, 2]]
    assert replay.games.penalty.tolist() == [[3, 0]], "the third game took the place of the first"


def test_a_game_that_is_not_finished_is_not_kept(config):
    game = play(config, SHORT)[0]
    before = empty_replay(jax.tree.map(jnp.asarray, game), 2)
    after = jax.jit(keep)(before, game, False)
    jax.tree.map(np.testing.assert_array_equal, after, before)


def test_all_kept_games_and_rings_are_drawn_from_and_no_empty_place(config):
    short, failed = play(config, SHORT)[0], play(config, FAILED)[0]
    replay = rings(config, [[short], [failed, short], [], [failed]], size=3)
    draw = jax.jit(sample_replay, static_argnums=0)
    # The first slot draws from rings 0 and 1, the second from 2 and 3.
    drawn, available = jax.vmap(lambda k: draw(config, k, replay))(keys(400).reshape(200, 2))
    for slot, (has_short, share) in enumerate([(True, 1.0), (False, 0.5)]):
        assert abs(available[:, slot].mean() - share) < 0.15
        values = np.asarray(drawn.value[:, slot])[np.asarray(available[:, slot])]
        is_short = values > -3
        assert (abs(is_short.mean() - 0.75) < 0.15) if has_short else not is_short.any()


def assert_demonstrations(config: Config, examples: Example) -> None:
    """All factors are shown with equal weight, and they sum to the residual."""
    for weights, value in zip(examples.weights, examples.value, strict=True):
        count = int(-value)
        np.testing.assert_allclose(weights, np.where(np.arange(len(weights)) < count, 1 / count, 0))
    actions = config.action_space.decode(jnp.asarray(examples.tokens))
    actions = np.where((examples.weights > 0)[:, :, None, None], actions, 0).astype(int)
    residual = np.einsum("nri,nrj,nrk->nijk", *np.moveaxis(actions, 2, 0))
    np.testing.assert_array_equal(residual, examples.state.residual)


def test_empty_rings_fall_back_to_demonstrations(config):
    game, states = play(config, SOLVED)
    # Two places for each ring, and six for demonstrations.
    batch, is_played = jax.device_get(
        jax.jit(sample_batch, static_argnums=0)(
            config, keys(4), keys(6, seed=1), rings(config, [[game], []])
        )
    )
    assert is_played.tolist() == [True] * 2 + [False] * 8
    for i, move in enumerate(batch.state.moves[:2]):
        np.testing.assert_array_equal(batch.tokens[i], game.tokens[move])
        np.testing.assert_array_equal(batch.state.residual[i], states[move].residual)
    assert_demonstrations(config, jax.tree.map(lambda x: x[2:], batch))
    assert len({residual.tobytes() for residual in batch.state.residual[2:]}) > 4


def test_demonstrations_give_equal_weight_to_the_factors_shown(config):
    draw = jax.jit(sample_demonstrations, static_argnums=0)
    assert_demonstrations(config, jax.device_get(draw(config, keys(100))))


def test_with_fewer_places_than_factors_some_of_them_are_shown():
    config = Config(game=GameConfig(targets=("matmul:1,2,2",)), devices=1)
    config = dataclasses.replace(config, search=dataclasses.replace(config.search, num_actions=2))
    examples = jax.device_get(jax.jit(sample_demonstrations, static_argnums=0)(config, keys(50)))
    assert set(examples.value) == {-1, -2, -3, -4}
    for weights, value in zip(examples.weights, examples.value, strict=True):
        assert weights.tolist() == ([1.0, 0.0] if value == -1 else [0.5, 0.5])
