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
    draw_game,
    exchange,
    insert,
    merge,
    no_games,
    sample_best,
    seen_in,
    shown_in,
)
from training.config import Config, GameConfig, LearnerConfig
from training.mesh import make_mesh
from training.replay import empty_replay, sample_batch, spread
from training.selfplay import new_episode
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


@pytest.mark.parametrize(("lengths", "share"), [([1, 2, 2], 2 / 3), ([2, 2, 2], 1 / 3)])
def test_half_of_the_games_drawn_are_of_the_shortest_length(lengths, share):
    best = merge_jitted(NOTHING, games([(length, i, 0) for i, length in enumerate(lengths)]))
    both = jax.tree.map(lambda *x: jnp.stack(x), NOTHING, best)
    draw = jax.jit(jax.vmap(lambda target, key: draw_game(both, target, key), (None, 0)))
    keys = jax.random.split(jax.random.key(0), 2000)
    assert (draw(0, keys).length == NO_GAME).all()
    drawn = draw(1, keys)
    is_first = (drawn.prints == best.prints[0]).all(axis=1)
    assert abs(is_first.mean() - share) < 0.05


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

    space, starts = config.action_space, set()
    recoded = jax.device_get(jax.jit(lambda x: space.decode(space.encode(x)))(shown.actions))
    for residual, moves, history, actions, again, count in zip(
        *(x[available] for x in (*shown.state, shown.actions, recoded, shown.count)), strict=True
    ):
        assert moves + count == 7
        assert actions[:count].any(axis=2).all()
        assert not actions[count:].any()
        assert np.isin(actions, config.ring.coefficients).all()
        np.testing.assert_array_equal(residual, total(config, actions))
        np.testing.assert_array_equal(again[:count], actions[:count])
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
        start = change_basis(target, basis, config.ring)
        return shown_in(config, game, basis), seen_in(config, game, basis), start

    actions, (seen, fits, has_room), starts = jax.device_get(look(jnp.arange(200)))
    totals = [total(config, each) for each in actions]
    right = np.array([np.array_equal(*x) for x in zip(totals, starts, strict=True)])
    assert right.mean() >= least
    assert np.isin(actions[right], config.ring.coefficients).all()
    assert (actions[~right] == game.actions).all()
    assert has_room.all()
    np.testing.assert_array_equal(fits.all(axis=(1, 2)), right)
    for each, start in zip(seen, starts, strict=True):
        np.testing.assert_array_equal(total(config, each), start)


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
