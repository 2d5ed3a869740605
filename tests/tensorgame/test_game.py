"""The rules on games whose course is known."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tensorgame import targets
from tensorgame.factors import canonicalize
from tensorgame.game import Game, rank_bound
from tensorgame.rings import Z2, integers, modular

# Strassen's products: factors of A, of B and of C transposed, entries in the order 11 12 21 22.
STRASSEN = [
    "+00+ +00+ +00+",
    "00++ +000 0+0-",
    "+000 0+0- 00++",
    "000+ -0+0 ++00",
    "++00 000+ -0+0",
    "-0+0 ++00 000+",
    "0+0- 00++ +000",
]
Z = integers()
all_rings = pytest.mark.parametrize("ring", [Z2, modular(3), modular(17), Z], ids=lambda r: r.name)


def strassen(ring) -> np.ndarray:
    """Canonical actions (7, 3, 4)."""
    rows = [["-0+".index(symbol) - 1 for symbol in row.replace(" ", "")] for row in STRASSEN]
    products = ring.reduce(jnp.array(rows, jnp.int8).reshape(7, 3, 4))
    return np.asarray(jax.jit(jax.vmap(lambda product: canonicalize(product, ring)))(products))


def schoolbook() -> np.ndarray:
    """Actions (8, 3, 4) of the algorithm by definition."""
    one = np.eye(4, dtype=np.int8)
    indices = itertools.product(range(2), repeat=3)
    return np.array([[one[2 * i + j], one[2 * j + k], one[2 * k + i]] for i, j, k in indices])


def matmul() -> np.ndarray:
    return targets.parse("matmul:2,2,2").tensor


@functools.partial(jax.jit, static_argnums=0)
def run(game: Game, actions: jax.Array):
    def move(state, action):
        state, reward = game.step(state, action)
        return state, (state, reward, game.solved(state))

    return jax.lax.scan(move, game.init(jnp.asarray(matmul())), actions)[1]


def play(game: Game, actions: np.ndarray):
    """All states after the start, stacked, the rewards, and where the game is solved."""
    return jax.device_get(run(game, np.asarray(actions, np.int8)))


@all_rings
def test_strassens_algorithm_solves_the_game_in_seven_moves(ring):
    game = Game(ring, max_moves=9, history=2)
    states, rewards, solved = play(game, strassen(ring))
    assert solved.tolist() == [False] * 6 + [True]
    assert rewards.sum() == -7
    assert states.moves[-1] == 7


@all_rings
def test_the_schoolbook_algorithm_solves_the_game_in_eight_moves_in_any_order(ring):
    game = Game(ring, max_moves=8, history=0)
    for order in (slice(None), slice(None, None, -1)):
        _, rewards, solved = play(game, schoolbook()[order])
        assert solved.tolist() == [False] * 7 + [True]
        assert rewards.sum() == -8


@all_rings
def test_a_move_after_the_end_changes_nothing_and_earns_nothing(ring):
    game = Game(ring, max_moves=9, history=2)
    actions = strassen(ring)
    states, rewards, _ = play(game, np.concatenate([actions, actions[:1]]))
    assert rewards[7] == 0
    for x in states:
        np.testing.assert_array_equal(x[7], x[6])


@all_rings
def test_out_of_moves_the_reward_is_minus_one_minus_the_rank_bound(ring):
    game = Game(ring, max_moves=3, history=0)
    states, rewards, _ = play(game, schoolbook())
    # Entry k of C transposed needs two products; the four slices of the target have rank two each.
    assert rewards[:3].tolist() == [-1, -1, -1 - (4 * 2 - 3)]
    assert not rewards[3:].any()
    assert states.moves.tolist() == [1, 2, 3, 3, 3, 3, 3, 3]
    np.testing.assert_array_equal(states.residual[-1], states.residual[2])


@all_rings
def test_a_game_solved_by_its_last_move_has_no_penalty(ring):
    _, rewards, _ = play(Game(ring, max_moves=7, history=0), strassen(ring))
    assert rewards.tolist() == [-1] * 7


@all_rings
def test_each_move_subtracts_its_rank_one_tensor(ring):
    actions = np.random.default_rng(1).choice(ring.coefficients, (7, 3, 4))
    states, _, _ = play(Game(ring, max_moves=9, history=2), actions)
    moved = np.einsum("ri,rj,rk->rijk", *actions.transpose(1, 0, 2)).cumsum(axis=0)
    expected = matmul() - moved
    expected = expected % ring.modulus if ring.modulus else expected
    np.testing.assert_array_equal(states.residual, expected)
    assert states.residual.dtype == ring.dtype


def test_the_history_has_the_newest_action_first():
    actions = strassen(Z)
    states, _, _ = play(Game(Z, max_moves=9, history=2), actions)
    np.testing.assert_array_equal(states.history[0], [actions[0], 0 * actions[0]])
    np.testing.assert_array_equal(states.history[4], actions[[4, 3]])


def test_states_keep_their_types():
    game = Game(Z, max_moves=9, history=1)
    before = jax.eval_shape(game.init, jnp.asarray(matmul()))
    after, reward = jax.eval_shape(game.step, before, jnp.zeros((3, 4), jnp.int8))
    assert after == before
    assert reward.dtype == jnp.float32


def test_the_largest_start_cannot_overflow():
    for ring in (Z2, Z, integers(range(-2, 3))):
        game = Game(ring, max_moves=5, history=0)
        growth = 0 if ring.modulus else 5 * ring.largest**3
        assert game.largest_start + growth == np.iinfo(ring.dtype).max


# Rank bound --------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=1)
def bounds(tensors: jax.Array, ring) -> jax.Array:
    return jax.vmap(lambda tensor: rank_bound(tensor, ring))(tensors)


def random_tensors(low: int, high: int) -> np.ndarray:
    """Full and deficient ones: (400, 4, 4, 4)."""
    rng = np.random.default_rng(2)
    full = rng.integers(low, high + 1, (100, 4, 4, 4))
    factors = rng.integers(low, high + 1, (3, 300, 4, 4))
    factors[:, :100, 1:] = 0
    factors[:, 100:200, 2:] = 0
    return np.concatenate([full, np.einsum("nri,nrj,nrk->nijk", *factors)])


def rank_modulo_two(matrix: np.ndarray) -> int:
    """From the number of different sums of rows."""
    choices = np.array(list(itertools.product((0, 1), repeat=len(matrix))))
    return int(np.log2(len(np.unique(choices @ matrix % 2, axis=0))))


def test_over_z_the_bound_is_the_sum_of_the_ranks_of_the_slices():
    tensors = random_tensors(-3, 3)
    ranks = np.linalg.matrix_rank(np.moveaxis(tensors, -1, 1)).sum(axis=1)
    assert len(np.unique(ranks)) > 4
    np.testing.assert_array_equal(bounds(tensors, Z), ranks)


def test_over_z2_the_bound_is_the_sum_of_the_ranks_modulo_two():
    tensors = random_tensors(0, 1) % 2
    ranks = [sum(rank_modulo_two(t[:, :, k]) for k in range(4)) for t in tensors]
    assert len(np.unique(ranks)) > 4
    np.testing.assert_array_equal(bounds(tensors, Z2), ranks)


def test_over_z2_sides_of_the_largest_target_have_their_ranks():
    rng = np.random.default_rng(4)
    slices = np.zeros((26, 25, 25), int)
    for rank in range(26):
        left, right = np.tril(rng.integers(0, 2, (2, 25, 25)), -1) + np.eye(25, dtype=int)
        slices[rank] = left @ np.diag(np.arange(25) < rank) @ right.T % 2
    tensors = np.stack([slices[:25], slices[1:]]).transpose(0, 2, 3, 1)
    assert bounds(tensors, Z2).tolist() == [sum(range(25)), sum(range(1, 26))]
    single = np.zeros_like(slices[..., None] + np.zeros(25, int))
    single[..., 7] = slices
    np.testing.assert_array_equal(bounds(single, Z2), np.arange(26))


def test_the_bound_depends_on_the_field():
    tensor = np.zeros((1, 2, 2, 2), int)
    tensor[0, :, :, 0] = [[1, 1], [1, -1]]
    assert bounds(tensor, Z) == 2
    assert bounds(tensor % 2, Z2) == 1


def test_slices_are_those_of_the_last_mode():
    tensor = np.zeros((4, 4, 4), int)
    tensor[:, :, 0] = np.eye(4)
    tensor[0, 0, 1:] = 1
    turned = np.stack([tensor, tensor.transpose(2, 1, 0), tensor.transpose(0, 2, 1)])
    assert bounds(turned, Z).tolist() == [4 + 3, 4, 4]


def test_a_multiple_of_one_prime_is_not_taken_for_zero():
    for prime in (65521, 65519):
        assert bounds(np.full((1, 1, 1, 1), prime), Z) == 1


@all_rings
def test_only_the_zero_tensor_has_the_bound_zero(ring):
    entries = itertools.product(ring.coefficients[:3], repeat=8)
    tensors = np.array(list(entries)).reshape(-1, 2, 2, 2)
    np.testing.assert_array_equal(bounds(tensors, ring) == 0, ~tensors.any(axis=(1, 2, 3)))
