"""Chains: what places go on from, and where they go."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tensorgame.rings import Z2
from tensorgame.symmetries import change_basis
from training.best_games import NO_GAME, SolvedGame, describe, insert, no_games
from training.chains import follow, no_chains, related_last, sample_opening, walk_on
from training.config import Config, GameConfig, LearnerConfig, SelfPlayConfig
from training.replay import empty_replay
from training.selfplay import Kept, new_episode, nothing_found, play_move, walk_by_flips


def configured(ring: str, **fields) -> Config:
    game = GameConfig(targets=("matmul:1,1,2", "matmul:2,2,2"), ring=ring, history=2, **fields)
    learner = LearnerConfig(best_games_share=0.5, best_games=4)
    return Config(game=game, learner=learner, devices=1)


def schoolbook(config: Config) -> np.ndarray:
    """The schoolbook's products of the last target, one for each entry: (R, 3, S)."""
    places = np.argwhere(config.targets[-1].padded(config.side))
    actions = np.zeros((config.max_moves, 3, config.side), np.int8)
    actions[: len(places)] = np.eye(config.side, dtype=np.int8)[places]
    return actions


def known(config: Config, length: int) -> SolvedGame:
    """A buffer with the schoolbook of the last target, which has so many products."""
    own, count = config.bases.identity(), len(config.targets)
    give = jax.jit(lambda x: describe(config, x, own, jnp.int32(length), jnp.bool_(True)))
    game = jax.tree.map(lambda x: x[None], give(schoolbook(config)))
    return jax.jit(insert)(no_games(config, 4), game, jnp.full(1, count - 1))


def total(config: Config, actions: np.ndarray) -> np.ndarray:
    """The sum of the products of actions (N, 3, S), by NumPy."""
    total = np.einsum("ri,rj,rk->ijk", *actions.astype(int).transpose(1, 0, 2))
    return total % config.ring.modulus if config.ring.modulus else total


def a_game(length: int, print_: int) -> SolvedGame:
    """A game of no moves that says it has so many."""
    moves = jnp.full((2, 3, 2), print_, jnp.int8).at[..., print_:].set(0)
    return SolvedGame(jnp.int32(length), jnp.array([print_, 0, 0], jnp.uint32), moves, moves)


def followed(
    before: int,
    shortest: int,
    after: int,
    *,
    is_step: bool,
    same: bool = False,
    coefficients: tuple[int, ...] = (-2, -1, 0, 1, 2),
    sparser: float = 1.0,
    sparse: bool = False,
) -> float:
    """How often a place with a game of a length follows one of another length.

    That has twice as many entries, or half of them.
    """
    config = Config(
        game=GameConfig(ring="z", coefficients=coefficients),
        selfplay=SelfPlayConfig(continued_sparser=sparser),
        devices=1,
    )
    own, other = (2, 1) if sparse else (1, 2)
    of_two = jax.tree.map(lambda *x: jnp.stack(x), a_game(NO_GAME, 0), a_game(before, own))
    best = jax.tree.map(lambda x: x[:, None], of_two)
    best = best._replace(length=jnp.array([[NO_GAME], [shortest]]))
    game = a_game(after, own if same else other)
    go = jax.jit(
        jax.vmap(
            lambda key: follow(config, best, of_two, key, game, jnp.int32(1), jnp.bool_(is_step))
        )
    )
    chains, moved = go(jax.random.split(jax.random.key(0), 1000))
    assert (chains.length[:, 0] == NO_GAME).all()
    np.testing.assert_array_equal(chains.length[:, 1], jnp.where(moved, after, before))
    np.testing.assert_array_equal(chains.factors[:, 1].max(axis=(1, 2, 3)) == other, moved)
    return moved.mean().item()


def test_a_place_follows_games_that_are_not_longer():
    assert followed(8, 7, 7, is_step=True) == 1
    assert followed(8, 7, 8, is_step=True) == 1
    assert followed(8, 7, 8, is_step=True, same=True) == 0
    assert followed(8, 7, 9, is_step=True) == 0, "it is longer than the shortest already"
    assert followed(8, 8, NO_GAME, is_step=True) == 0
    assert followed(NO_GAME, NO_GAME, NO_GAME, is_step=False) == 0


def test_a_place_does_not_follow_games_outside_of_the_ring_s_coefficients():
    for is_step in (True, False):
        assert followed(8, 8, 7, is_step=is_step, coefficients=(-1, 0, 1)) == 0
        assert followed(8, 8, 7, is_step=is_step) == 1


def test_a_place_follows_games_with_fewer_entries_as_often_as_is_said():
    assert followed(8, 8, 8, is_step=True, sparse=True) == 1
    assert 0.2 < followed(8, 8, 8, is_step=True, sparse=True, sparser=0.25) < 0.3
    assert followed(8, 8, 7, is_step=True, sparse=True, sparser=0.25) == 1
    assert followed(8, 8, 8, is_step=True, sparser=0.25) == 1


def test_a_place_with_a_shortest_game_sometimes_follows_one_that_is_one_longer():
    assert 0.08 < followed(8, 8, 9, is_step=True) < 0.18
    assert followed(8, 8, 10, is_step=True) == 0


def test_games_from_the_start_are_followed_only_if_they_are_shorter():
    assert followed(8, 7, 7, is_step=False) == 1
    assert followed(8, 8, 8, is_step=False) == 0
    assert followed(8, 8, 9, is_step=False) == 0
    assert followed(NO_GAME, 8, 9, is_step=False) == 1


@pytest.mark.parametrize(
    ("length", "migration", "low", "high"),
    [(7, 1 / 32, 0.0, 0.0), (9, 1 / 32, 0.01, 0.06), (9, 0.5, 0.46, 0.54), (9, 0.0, 0.0, 0.0)],
)
def test_places_go_on_from_their_own_game_and_now_and_then_from_a_shorter_one(
    length, migration, low, high
):
    config = Config(
        game=GameConfig(ring="z2", canonical_probability=1.0),
        selfplay=SelfPlayConfig(continued_migration=migration),
        learner=LearnerConfig(best_games_share=0.5, best_games=4),
        devices=1,
    )
    best = known(config, 8)
    own = jax.tree.map(lambda x: x[:, 0], best)._replace(length=jnp.full(1, length))
    draw = jax.jit(jax.vmap(lambda key: sample_opening(config, best, own, key)))
    openings, possible = draw(jax.random.split(jax.random.key(0), 2000))
    assert possible.all()
    assert low <= (openings.length == 8).mean() <= high


@pytest.mark.parametrize("ring", ["z", "z2"])
def test_games_go_on_from_the_middle_of_the_best_ones(ring):
    config = configured(ring, target_weights=(1.0, 3.0), coefficients=(-2, -1, 0, 1, 2))
    selfplay = dataclasses.replace(config.selfplay, continued_share=0.5, continued_moves=8)
    config = dataclasses.replace(config, selfplay=selfplay)
    best, chains = known(config, 8), no_chains(config)
    begin = jax.jit(jax.vmap(lambda key, best: new_episode(config, key, best, chains), (0, None)))
    keys = jax.random.split(jax.random.key(0), 300)
    assert not begin(keys, no_games(config, 4)).is_continued.any()
    episodes = jax.device_get(begin(keys, best))
    is_continued = episodes.is_continued
    assert not is_continued[episodes.target == 0].any(), "the first target has no games"
    share = is_continued[episodes.target == 1].mean()
    assert share > 0.4 if ring == "z2" else share > 0.1
    assert set(episodes.state.moves[is_continued]) == set(range(7)), "two moves are left at least"
    short = dataclasses.replace(config, selfplay=dataclasses.replace(selfplay, continued_moves=3))
    begin = jax.jit(jax.vmap(lambda key: new_episode(short, key, best, chains)))
    others = jax.device_get(begin(keys))
    assert set(others.state.moves[others.is_continued]) == {5, 6}

    target = jnp.asarray(config.targets[1].padded(config.side))
    starts = jax.vmap(change_basis, (None, 0, None))(target, episodes.basis, config.ring)
    for i in np.flatnonzero(is_continued):
        record, state = jax.tree.map(lambda x, i=i: x[i], (episodes.played, episodes.state))
        count = record.length
        np.testing.assert_array_equal(record.start, starts[i])
        left = config.ring.reduce(starts[i] - total(config, record.actions))
        np.testing.assert_array_equal(state.residual, left)
        assert state.moves == count
        assert record.actions[:count].any(axis=2).all()
        assert not record.actions[count:].any()
        assert record.opening == count, "moves that nothing searched"
    assert not episodes.state.moves[~is_continued].any()


def test_what_is_left_of_a_best_game_to_play_again_are_products_that_share_factors():
    game = GameConfig(targets=("matmul:2,2,3",), ring="z2")
    learner = LearnerConfig(best_games_share=0.5, best_games=4)
    selfplay = SelfPlayConfig(continued_moves=12)
    config = Config(game=game, learner=learner, selfplay=selfplay, devices=1)
    best, chains = known(config, 12), no_chains(config)
    draw = jax.jit(jax.vmap(lambda key: sample_opening(config, best, chains, key)))
    openings, possible = jax.device_get(draw(jax.random.split(jax.random.key(0), 2000)))
    assert possible.all()
    assert (np.bincount(openings.moves, minlength=11) > 100).all()
    assert openings.moves.max() == 10, "one move left is the move that was made"
    is_block = []
    for actions, moves in zip(openings.actions, openings.moves, strict=True):
        assert actions[:12].any(axis=2).all()
        left = actions[moves:12]
        if len(left) == 8:
            # 2 x 2 matrices have eight products of four factors of each kind.
            kinds = [len(np.unique(left[:, mode], axis=0)) for mode in range(3)]
            is_block.append(kinds == [4, 4, 4])
    assert np.mean(is_block) > 0.4, "in a random order it is 3 in 495"


def test_only_what_is_left_to_play_has_to_fit_into_a_basis():
    selfplay = SelfPlayConfig(continued_share=1.0, continued_moves=2, continued_basis_density=0.7)
    config = dataclasses.replace(configured("z"), selfplay=selfplay)
    best, chains = known(config, 8), no_chains(config)
    draw = jax.jit(jax.vmap(lambda key: sample_opening(config, best, chains, key)))
    openings, possible = jax.device_get(draw(jax.random.split(jax.random.key(0), 1000)))
    np.testing.assert_array_equal(possible, openings.target == 1)
    target = jnp.asarray(config.targets[1].padded(config.side))
    starts = jax.vmap(change_basis, (None, 0, None))(target, openings.basis, config.ring)
    whole = np.isin(openings.actions, config.ring.coefficients).all(axis=(1, 2, 3))
    assert (possible & ~whole).any()
    # Where no matrix drawn for a mode fits the identity is there, which no other draw gives.
    is_identity = (openings.basis.matrices == np.eye(config.side)).all(axis=(2, 3))
    assert is_identity[possible].mean() < 0.1, "with a single draw it is 52 %"
    for i in np.flatnonzero(possible):
        actions = openings.actions[i]
        np.testing.assert_array_equal(total(config, actions), starts[i])
        assert np.isin(actions[openings.moves[i] :], config.ring.coefficients).all()


def test_where_the_rest_of_a_game_cancels_out_it_is_solved_as_it_is(tiny, random_params):
    config = dataclasses.replace(
        tiny,
        selfplay=dataclasses.replace(tiny.selfplay, continued_share=1.0, continued_moves=2),
        learner=dataclasses.replace(tiny.learner, best_games_share=0.5, best_games=4),
    )
    # Two products that the target needs, and one of them once more and taken away again.
    actions = schoolbook(config)
    actions[2] = actions[3] = actions[0]
    actions[3, 2] *= -1
    own = config.bases.identity()
    game = jax.jit(lambda x: describe(config, x, own, jnp.int32(4), jnp.bool_(True)))(actions)
    chains = jax.tree.map(lambda x: x[None], game)
    best = jax.jit(insert)(no_games(config, 4), chains, jnp.zeros(1, jnp.int32))
    keys = jax.random.split(jax.random.key(0), 8)
    episodes = jax.jit(jax.vmap(lambda key: new_episode(config, key, best, chains)))(keys)
    ended = ~np.asarray(episodes.state.residual).any(axis=(1, 2, 3))
    assert 0 < ended.sum() < 8

    one = jax.tree.map(lambda x: x[0], (episodes.played, episodes.state))
    kept = Kept(
        replay=jax.vmap(lambda _: empty_replay(one[0], 2))(keys),
        found=nothing_found(config),
        best=best,
        chains=jax.tree.map(lambda x: jnp.broadcast_to(x, (8, *x.shape)), chains),
    )
    params = random_params(config.agent, one[1])
    step = jnp.int32(1)
    play = jax.jit(lambda kept: play_move(config, params, keys, step, episodes, kept, best))
    _, kept, _ = jax.device_get(play(kept))
    games = jax.tree.map(lambda x: x[ended, 0], kept.replay.games)
    assert (games.length == 2).all()
    assert (games.penalty == 0).all()
    assert not games.actions[:, 2:].any()
    for shorter in (kept.chains.factors[ended, 0], kept.best.factors[:, 0]):
        for factors in shorter:
            np.testing.assert_array_equal(total(config, factors), total(config, actions))
    assert (kept.chains.length[ended] == 2).all()
    assert kept.best.length[0, 0] == kept.found.moves[0] == 2


@pytest.mark.parametrize("density", [0.0, 0.5])
def test_in_dense_bases_no_algorithm_looks_sparse(density):
    selfplay = SelfPlayConfig(continued_share=1.0, continued_basis_density=density)
    game = GameConfig(targets=("matmul:3,3,3",), ring="z2", varied_density=True)
    learner = LearnerConfig(best_games_share=0.5, best_games=4)
    config = Config(game=game, learner=learner, selfplay=selfplay, devices=1)
    config.validate()
    best, chains = known(config, 27), no_chains(config)
    begin = jax.jit(jax.vmap(lambda key, best: new_episode(config, key, best, chains), (0, None)))
    keys = jax.random.split(jax.random.key(0), 500)
    episodes = jax.device_get(begin(keys, best))
    assert episodes.is_continued.all()
    # The schoolbook's factors, which have one entry in the canonical basis.
    shown = (episodes.played.actions != 0).sum(axis=-1)
    entries = shown[shown > 0].mean()
    is_canonical = (episodes.basis.matrices == np.eye(9)).all(axis=(1, 2, 3))
    if density:
        assert 3.8 < entries < 5, "half of the nine"
        assert not is_canonical.any()
    else:
        assert 1.2 < entries < 2.4
        assert 0.06 < is_canonical.mean() < 0.25
    others = begin(keys, no_games(config, 4))
    first = jax.device_get(others.basis.matrices)
    assert 0.06 < (first == np.eye(9)).all(axis=(1, 2, 3)).mean() < 0.25, "as in other games"


@pytest.mark.parametrize("ring", ["z", "z2"])
def test_walks_from_the_best_games_solve_the_target_too(ring):
    config = configured(ring, target_weights=(1.0, 3.0))
    config = dataclasses.replace(config, learner=dataclasses.replace(config.learner, flips=20))
    actions = schoolbook(config)
    best, nothing = known(config, 8), no_chains(config)
    step = jax.jit(jax.vmap(lambda key: walk_on(config, best, nothing, key)))
    targets, found = jax.device_get(step(jax.random.split(jax.random.key(0), 100)))
    is_game = found.length != NO_GAME
    np.testing.assert_array_equal(is_game, targets == 1)
    assert (found.length[is_game] <= 8).all()
    assert len(np.unique(found.prints[is_game, :2], axis=0)) > 10
    for factors in found.factors[is_game]:
        np.testing.assert_array_equal(total(config, factors), total(config, actions))

    everywhere = jax.tree.map(lambda x: jnp.broadcast_to(x, (100, *x.shape)), nothing)
    kept = Kept(None, nothing_found(config), best, everywhere)
    keys = jax.random.split(jax.random.key(0), 100)
    kept = jax.jit(lambda best: walk_by_flips(config, keys, best, kept))(best)
    assert kept.found.moves[0] > config.max_moves
    np.testing.assert_array_equal(total(config, kept.found.actions[1]), total(config, actions))
    assert (kept.best.length[1] != NO_GAME).all()
    lengths = kept.chains.length
    assert (lengths[:, 0] == NO_GAME).all()
    assert kept.found.moves[1] == lengths[:, 1].min() <= 8
    assert 0.65 < (lengths[:, 1] != NO_GAME).mean() < 0.85, "each place walks for one target"


def test_walks_wait_for_the_first_solved_game():
    """A billion of them would not end."""
    config = configured("z2", target_weights=(1.0, 3.0))
    config = dataclasses.replace(config, learner=dataclasses.replace(config.learner, flips=10**9))
    nothing = no_chains(config)
    everywhere = jax.tree.map(lambda x: jnp.broadcast_to(x, (4, *x.shape)), nothing)
    kept = Kept(None, nothing_found(config), no_games(config, 8), everywhere)
    keys = jax.random.split(jax.random.key(0), 4)
    kept = jax.jit(lambda best: walk_by_flips(config, keys, best, kept))(kept.best)
    assert (kept.found.moves > config.max_moves).all()
    assert (kept.chains.length == NO_GAME).all()


def test_games_do_not_go_on_from_games_that_are_not_kept():
    config = Config(selfplay=SelfPlayConfig(continued_share=0.5), devices=1)
    says = r"selfplay.continued_share is 0.5, but learner.best_games_share is 0"
    with pytest.raises(ValueError, match=says):
        config.validate()


def test_moves_that_are_taken_back_share_factors():
    # Of six moves three share u and v, the others nothing; two rows are no moves.
    actions = np.zeros((8, 3, 6), np.int8)
    for move, (u, v, w) in enumerate([(0, 0, 0), (1, 1, 1), (2, 2, 2), (1, 1, 3), (4, 4, 4)]):
        actions[move + 1, range(3), (u, v, w)] = 1
    actions[7, range(3), (1, 1, 5)] = 1
    keys = jax.random.split(jax.random.key(0), 200)
    orders = jax.vmap(lambda key: related_last(key, jnp.asarray(actions), Z2, 3))(keys)
    assert (np.sort(orders, axis=1) == np.arange(8)).all()
    assert (np.asarray(orders[:, :2]) == [0, 6]).all(), "rows without a move come first"
    last = np.asarray(orders[:, -1])
    assert set(last) == {1, 2, 3, 4, 5, 7}, "the last is any move"
    together = np.isin(orders[:, -3:], (2, 4, 7)).all(axis=1)
    assert (together == np.isin(last, (2, 4, 7))).all()
