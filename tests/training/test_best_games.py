"""The best games: which are kept, and how they are shown."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorgame.algorithms import formats
from tensorgame.symmetries import Basis, change_basis, from_canonical
from training.best_games import (
    NO_GAME,
    SolvedGame,
    describe,
    exchange,
    insert,
    merge,
    no_games,
    sample_best,
    seen_in,
)
from training.chains import sample_opening
from training.config import Config, GameConfig, LearnerConfig, SelfPlayConfig
from training.mesh import make_mesh
from training.replay import empty_replay, sample_batch, spread
from training.selfplay import Kept, new_episode, nothing_found, walk_by_flips
from training.step import make_init

SIZE, MOVES = 3, 2


def games(rows: list[tuple[int, int, int]]) -> SolvedGame:
    """Games by length (0 for an unsolved one), factors and what else tells them apart."""
    length, prints, moves = [], [], []
    for steps, factors, look in rows:
        length.append(steps or NO_GAME)
        prints.append([factors % 2, factors, look])
        moves.append(np.full((MOVES, 3, 1), 10 * factors + look, np.int8))
    return SolvedGame(
        jnp.asarray(length, jnp.int32).reshape(-1),
        jnp.asarray(prints, jnp.uint32).reshape(-1, 3),
        *2 * [jnp.asarray(np.array(moves, np.int8).reshape(-1, MOVES, 3, 1))],
    )


def listed(best: SolvedGame) -> list[tuple[int, int, int]]:
    """The games of a buffer, as `games` takes them."""
    rows = []
    for length, (parity, factors, look), moves in zip(
        best.length.tolist(), best.prints.tolist(), best.actions.tolist(), strict=True
    ):
        if length == NO_GAME:
            assert not np.any(moves)
            continue
        assert parity == factors % 2
        assert set(np.ravel(moves)) == {10 * factors + look}
        rows.append((length, factors, look))
    return rows


def best_of(rows: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """What a buffer has to hold: one of each (length, factors), shortest first."""
    solved = sorted({row for row in rows if row[0]}, key=lambda r: (r[0], r[1] % 2, r[1], r[2]))
    each = [next(same) for _, same in itertools.groupby(solved, key=lambda row: row[:2])]
    return each[:SIZE]


ROW = st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 2))
NOTHING = games([(0, 0, 0)] * SIZE)._replace(
    actions=jnp.zeros((SIZE, MOVES, 3, 1), jnp.int8),
    factors=jnp.zeros((SIZE, MOVES, 3, 1), jnp.int8),
)
merge_jitted = jax.jit(merge)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.lists(ROW, min_size=5, max_size=5), max_size=4), st.randoms())
def test_the_buffer_keeps_the_shortest_distinct_games_in_any_order(batches, random):
    best = NOTHING
    for batch in batches:
        best = merge_jitted(best, games(batch))
    assert listed(best) == best_of([row for batch in batches for row in batch])
    shuffled = NOTHING
    for batch in random.sample(batches * 2, 2 * len(batches)):
        shuffled = merge_jitted(shuffled, games(random.sample(batch, len(batch))))
    jax.tree.map(np.testing.assert_array_equal, shuffled, best)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(ROW, min_size=4, max_size=4), min_size=4, max_size=4))
def test_an_exchange_makes_the_buffers_of_all_devices_their_merge(batches):
    # Two targets and two devices, which `vmap` with a name for its axis stands for.
    buffers = [merge_jitted(NOTHING, games(batch)) for batch in batches]
    stacked = jax.tree.map(lambda *x: jnp.stack(x).reshape(2, 2, *x[0].shape), *buffers)
    everywhere = jax.vmap(lambda x: exchange(x, "devices"), axis_name="devices")(stacked)
    for device in range(2):
        for target in range(2):
            one = jax.tree.map(lambda x, at=(device, target): x[at], everywhere)
            assert listed(one) == best_of(batches[target] + batches[target + 2])


# Whole games -------------------------------------------------------------------------------------


def configured(ring: str, **fields) -> Config:
    game = GameConfig(targets=("matmul:1,1,2", "matmul:2,2,2"), ring=ring, history=2, **fields)
    learner = LearnerConfig(best_games_share=0.5, best_games=4)
    return Config(game=game, learner=learner, devices=1)


def strassen(config: Config) -> np.ndarray:
    """Strassen's algorithm as moves in the canonical basis, (R, 3, S)."""
    known = formats.load("alphatensor:2,2,2")
    factors = np.stack([known.u.T, known.v.T, known.w.T], axis=1)
    factors = np.asarray(config.ring.reduce(jnp.asarray(factors, jnp.int32)))
    rows = config.max_moves - len(factors)
    return np.pad(factors, ((0, rows), (0, 0), (0, 0))).astype(np.int8)


def played(config: Config, factors: np.ndarray, basis: Basis) -> SolvedGame:
    """A game on the second target that was solved with seven moves in ``basis``."""
    actions = from_canonical(jnp.asarray(factors), basis, config.ring).astype(jnp.int8)
    return jax.jit(describe, static_argnums=0)(
        config, actions, basis, jnp.int32(7), jnp.bool_(True)
    )


def a_basis(config: Config, seed: int) -> Basis:
    return config.bases(jax.random.key(seed), jnp.full(3, config.side))


@pytest.mark.parametrize("ring", ["z", "z5"])
def test_the_same_algorithm_in_another_basis_order_and_scale_is_the_same_game(ring):
    config = configured(ring, basis_density=0.5, canonical_probability=0.0)
    factors = strassen(config)
    first = played(config, factors, config.bases.identity())
    signs = np.where(np.arange(7) % 2, -1, 1)[:, None]
    other = np.concatenate([factors[6::-1], factors[7:]])
    scaled = config.ring.reduce(jnp.asarray(other[:7, :2] * signs[:, None], jnp.int32))
    other[:7, :2] = scaled
    again = played(config, other, a_basis(config, 1))
    assert first.length == again.length == 7
    assert (first.prints == again.prints).tolist() == [True, True, False]
    assert not np.array_equal(first.actions, again.actions)
    # The games of a transposed product are others.
    different = played(config, factors[:, [1, 0, 2]], config.bases.identity())
    assert (first.prints != different.prints).all()

    both = jax.tree.map(lambda *x: jnp.stack(x), first, again, different)
    best = jax.jit(insert)(no_games(config, 4), both, jnp.ones(3, jnp.int32))
    assert (best.length == 7).sum(axis=1).tolist() == [0, 2]


def test_games_that_are_not_solved_or_do_not_fit_are_not_kept():
    config = configured("z")
    factors, basis = jnp.asarray(strassen(config)), config.bases.identity()
    give = jax.jit(describe, static_argnums=0)
    assert give(config, factors, basis, jnp.int32(7), jnp.bool_(False)).length == NO_GAME
    huge = basis._replace(inverses=64 * basis.inverses)
    assert give(config, factors, huge, jnp.int32(7), jnp.bool_(True)).length == 7
    huge = basis._replace(inverses=128 * basis.inverses)
    assert give(config, factors, huge, jnp.int32(7), jnp.bool_(True)).length == NO_GAME


@pytest.mark.parametrize("ring", ["z", pytest.param("z2", marks=pytest.mark.slow)])
def test_best_games_are_shown_as_positions_in_random_order(ring):
    config = configured(ring, basis_density=0.2, target_weights=(1.0, 3.0))
    # In a basis of signs, an algorithm over Z keeps its coefficients.
    signs = jnp.diag(jnp.array([1, -1, -1, 1], jnp.int32))
    own = Basis(*2 * [jnp.broadcast_to(config.ring.reduce(signs), (3, 4, 4))])
    game = jax.tree.map(lambda x: x[None], played(config, strassen(config), own))
    best = jax.jit(insert)(no_games(config, 4), game, jnp.ones(1, jnp.int32))
    draw = jax.jit(jax.vmap(lambda key: sample_best(config, best, key)))
    keys = jax.random.split(jax.random.key(0), 900)
    shown, available = jax.device_get(draw(keys))
    assert 0.65 < available.mean() < 0.85, "the first target has no games"

    starts = set()
    for residual, moves, history, actions, count in zip(
        *(x[available] for x in (*shown.state, shown.actions, shown.count)), strict=True
    ):
        assert moves + count == 7
        assert actions[:count].any(axis=2).all()
        assert not actions[count:].any()
        assert np.isin(actions, config.ring.coefficients).all()
        np.testing.assert_array_equal(residual, total(config, actions))
        space = config.action_space
        np.testing.assert_array_equal(
            space.decode(space.encode(jnp.asarray(actions[:count]))), actions[:count]
        )
        assert history[:moves].any(axis=(1, 2)).all()
        assert not history[moves:].any()
        if moves <= 2:  # none of which the history has forgotten
            starts.add(total(config, np.concatenate([actions, history])).tobytes())
    assert len(starts) > 1
    assert len({actions.tobytes() for actions in shown.actions}) > 150


@pytest.mark.parametrize(
    ("ring", "coefficients", "least"),
    [("z", (-1, 0, 1), 0.05), ("z", (-2, -1, 0, 1, 2), 0.5), ("z5", (-1, 0, 1), 1.0)],
)
def test_a_game_seen_in_a_basis_solves_the_target_in_it_or_stays_as_it_was(
    ring, coefficients, least
):
    config = configured(ring, basis_density=0.2, coefficients=coefficients)
    own = jax.jit(lambda: a_basis(config, 3))()
    game = played(config, strassen(config), own)
    target = jnp.asarray(config.targets[1].padded(config.side))

    @jax.jit
    @jax.vmap
    def look(seed: jax.Array):
        basis = a_basis(config, seed)
        return seen_in(config, game, basis), change_basis(target, basis, config.ring)

    (actions, fits), starts = jax.device_get(look(jnp.arange(200)))
    totals = [total(config, each) for each in actions]
    right = np.array([np.array_equal(*x) for x in zip(totals, starts, strict=True)])
    assert right.mean() >= least
    assert np.isin(actions[right], config.ring.coefficients).all()
    assert (actions[~right] == game.actions).all()
    np.testing.assert_array_equal(fits, right)


@pytest.mark.parametrize("ring", ["z", "z2"])
def test_games_go_on_from_the_middle_of_the_best_ones(ring):
    config = configured(ring, target_weights=(1.0, 3.0), coefficients=(-2, -1, 0, 1, 2))
    selfplay = dataclasses.replace(config.selfplay, continued_share=0.5)
    config = dataclasses.replace(config, selfplay=selfplay)
    game = played(config, strassen(config), config.bases.identity())
    game = jax.tree.map(lambda x: x[None], game)
    best = jax.jit(insert)(no_games(config, 4), game, jnp.ones(1, jnp.int32))
    begin = jax.jit(jax.vmap(lambda key, best: new_episode(config, key, best), (0, None)))
    keys = jax.random.split(jax.random.key(0), 300)
    assert not begin(keys, no_games(config, 4)).is_continued.any()
    episodes = jax.device_get(begin(keys, best))
    is_continued = episodes.is_continued
    assert not is_continued[episodes.target == 0].any(), "the first target has no games"
    share = is_continued[episodes.target == 1].mean()
    assert share > 0.4 if ring == "z2" else share > 0.1
    assert set(episodes.state.moves[is_continued]) == set(range(7))
    short = dataclasses.replace(config, selfplay=dataclasses.replace(selfplay, continued_moves=3))
    begin = jax.jit(jax.vmap(lambda key: new_episode(short, key, best)))
    others = jax.device_get(begin(keys))
    assert set(others.state.moves[others.is_continued]) == {4, 5, 6}

    target = jnp.asarray(config.targets[1].padded(config.side))
    starts = jax.vmap(change_basis, (None, 0, None))(target, episodes.basis, config.ring)
    space = config.action_space
    for i in np.flatnonzero(is_continued):
        record, state = jax.tree.map(lambda x, i=i: x[i], (episodes.played, episodes.state))
        count = record.length
        np.testing.assert_array_equal(record.start, starts[i])
        left = config.ring.reduce(starts[i] - total(config, record.actions))
        np.testing.assert_array_equal(state.residual, left)
        assert state.moves == count
        assert record.actions[:count].any(axis=2).all()
        assert not record.actions[count:].any()
        first = space.decode(jnp.asarray(record.tokens[:count, 0], jnp.int32))
        np.testing.assert_array_equal(first, record.actions[:count])
        assert record.weights[:count, 0].all()
        assert record.weights.sum() == count
    assert not episodes.state.moves[~is_continued].any()


def test_what_is_left_of_a_best_game_to_play_again_are_products_that_share_factors():
    game = GameConfig(targets=("matmul:2,2,3",), ring="z2")
    learner = LearnerConfig(best_games_share=0.5, best_games=4)
    config = Config(game=game, learner=learner, devices=1)
    schoolbook = as_moves(config, config.targets[0].padded(config.side))
    known = describe_game(config, schoolbook, 12)
    best = jax.jit(insert)(no_games(config, 4), known, jnp.zeros(1, jnp.int32))
    draw = jax.jit(jax.vmap(lambda key: sample_opening(config, best, key)))
    openings, possible = jax.device_get(draw(jax.random.split(jax.random.key(0), 2000)))
    assert possible.all()
    np.testing.assert_array_equal(np.bincount(openings.moves, minlength=12) > 100, True)
    is_block = []
    for actions, moves in zip(openings.actions, openings.moves, strict=True):
        assert actions[:12].any(axis=2).all()
        left = actions[moves:12]
        if len(left) == 8:
            # 2 x 2 matrices have eight products of four factors of each kind.
            kinds = [len(np.unique(left[:, mode], axis=0)) for mode in range(3)]
            is_block.append(kinds == [4, 4, 4])
    assert np.mean(is_block) > 0.4, "in a random order it is 3 in 495"


@pytest.mark.parametrize(("lengths", "share"), [([12, 13, 13, 13], 0.625), ([12] * 4, 0.25)])
def test_half_of_the_best_games_shown_are_of_the_shortest_length(lengths, share):
    game = GameConfig(targets=("matmul:2,2,3",), ring="z2", canonical_probability=1.0)
    learner = LearnerConfig(best_games_share=0.5, best_games=6)
    config = Config(game=game, learner=learner, devices=1)
    schoolbook = as_moves(config, config.targets[0].padded(config.side))
    known = jax.tree.map(lambda x: jnp.repeat(x, 4, axis=0), describe_game(config, schoolbook, 12))
    # Told apart by their hashes, as if the last three were other games.
    known = known._replace(
        length=jnp.array(lengths), prints=known.prints + jnp.arange(4, dtype=jnp.uint32)[:, None]
    )
    best = jax.jit(insert)(no_games(config, 4), known, jnp.zeros(4, jnp.int32))
    draw = jax.jit(jax.vmap(lambda key: sample_opening(config, best, key)))
    openings, _ = jax.device_get(draw(jax.random.split(jax.random.key(0), 1000)))
    is_first = openings.length == 12
    expected = share if 13 in lengths else 1.0
    assert abs(is_first.mean() - expected) < 0.05


@pytest.mark.parametrize("ring", ["z", "z2"])
def test_walks_from_the_best_games_solve_the_target_too(ring):
    config = configured(ring, target_weights=(1.0, 3.0))
    config = dataclasses.replace(config, learner=dataclasses.replace(config.learner, flips=20))
    actions = as_moves(config, config.targets[1].padded(config.side))
    game = describe_game(config, actions, 8)
    best = jax.jit(insert)(no_games(config, 4), game, jnp.ones(1, jnp.int32))
    step = jax.jit(jax.vmap(lambda key: walk_from_best(config, best, key)))
    targets, found = jax.device_get(step(jax.random.split(jax.random.key(0), 100)))
    is_game = found.length != NO_GAME
    np.testing.assert_array_equal(is_game, targets == 1)
    assert (found.length[is_game] <= 8).all()
    assert len(np.unique(found.prints[is_game, :2], axis=0)) > 10
    for factors in found.factors[is_game]:
        np.testing.assert_array_equal(total(config, factors), total(config, actions))

    nothing = jax.tree.map(jnp.zeros_like, found)._replace(length=jnp.full(100, NO_GAME))
    kept = Kept(None, nothing_found(config), jax.jit(insert)(best, nothing, targets))
    keys = jax.random.split(jax.random.key(0), 100)
    kept = jax.jit(lambda best: walk_by_flips(config, keys, best, kept))(best)
    assert kept.found.moves[0] > config.max_moves
    assert kept.found.moves[1] == found.length.min()
    np.testing.assert_array_equal(total(config, kept.found.actions[1]), total(config, actions))
    assert (kept.best.length[1] != NO_GAME).all()


def as_moves(config: Config, target: np.ndarray) -> np.ndarray:
    """The schoolbook's products of a matrix product, one for each entry: (R, 3, S)."""
    places = np.argwhere(target)
    actions = np.zeros((config.max_moves, 3, config.side), np.int8)
    actions[: len(places)] = np.eye(config.side, dtype=np.int8)[places]
    return actions


def describe_game(config: Config, actions: np.ndarray, length: int) -> SolvedGame:
    """A batch of one solved game, played in the canonical basis."""
    own = config.bases.identity()
    give = jax.jit(lambda x: describe(config, x, own, jnp.int32(length), jnp.bool_(True)))
    return jax.tree.map(lambda x: x[None], give(actions))


def total(config: Config, actions: np.ndarray) -> np.ndarray:
    """The sum of the products of actions (N, 3, S), by NumPy."""
    total = np.einsum("ri,rj,rk->ijk", *actions.astype(int).transpose(1, 0, 2))
    return total % config.ring.modulus if config.ring.modulus else total


SCHOOLBOOK = [[[1, 0], [1, 0], [1, 0]], [[1, 0], [0, 1], [0, 1]]]


def test_best_games_take_their_share_of_the_demonstrations_and_nothing_else(tiny):
    learner = dataclasses.replace(tiny.learner, best_games_share=0.25, best_games=4)
    config = dataclasses.replace(tiny, learner=learner)
    keys = jax.random.split(jax.random.key(1), 16)
    replay_keys, others = keys[:8], keys[8:]
    one = jax.eval_shape(lambda: new_episode(config, keys[0]).played)
    replay = jax.vmap(lambda _: empty_replay(one, 2))(jnp.arange(8))
    replay = replay._replace(count=jnp.array([1, 1, 1, 1, 0, 0, 0, 0]))
    empty = no_games(config, 4)
    moves = jnp.zeros((1, config.max_moves, 3, config.side), jnp.int8)
    moves = moves.at[0, :2].set(jnp.array(SCHOOLBOOK, jnp.int8))
    game = SolvedGame(jnp.array([2]), jnp.zeros((1, 3), jnp.uint32), moves, moves)
    full = jax.jit(insert)(empty, game, jnp.zeros(1, jnp.int32))

    draw = jax.jit(lambda best: sample_batch(config, replay_keys, others, replay, best))
    plain, is_played = draw(empty)
    batch, still_played = draw(full)
    np.testing.assert_array_equal(still_played, is_played)
    places = 8 + spread(8, 0.25)
    assert len(places) == 2
    rest = np.delete(np.arange(16), places)
    for one, other in zip(jax.tree.leaves(batch), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(one[rest], other[rest])
    assert (batch.state.moves[places] - batch.value[places] == 2).all()
    assert (batch.step == 0).all()


@pytest.mark.parametrize(("share", "leaves"), [(0.0, 0), (0.5, 4)])
def test_without_a_share_nothing_is_allocated(tiny, share, leaves):
    learner = dataclasses.replace(tiny.learner, best_games_share=share)
    config = dataclasses.replace(tiny, learner=learner)
    state = jax.eval_shape(make_init(config, make_mesh(config)), config.seed)
    assert len(jax.tree.leaves(state.best)) == leaves


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"best_games_share": 0.3}, r"best_games_share is 0.3, which makes 19.2 of the demonstra"),
        ({"best_games_share": 1.5}, r"best_games_share is 1.5; it must be at most 1"),
        ({"best_games_share": 0.5, "demonstration_batch": 0}, r"no demonstrations in a batch"),
        ({"best_games": 0}, r"best_games is 0; it must be positive"),
        ({"flips": 10}, r"flips is 10, but learner.best_games_share is 0"),
        ({"flips": -1}, r"flips is -1; it must not be negative"),
    ],
)
def test_shares_that_cannot_be_are_refused(fields, says):
    config = Config(devices=1)
    learner = dataclasses.replace(config.learner, **fields)
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(config, learner=learner).validate()


def test_games_do_not_go_on_from_games_that_are_not_kept():
    config = Config(selfplay=SelfPlayConfig(continued_share=0.5), devices=1)
    says = r"selfplay.continued_share is 0.5, but learner.best_games_share is 0"
    with pytest.raises(ValueError, match=says):
        config.validate()
