"""What holds for the searches alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from search.config import ALGORITHMS, SAMPLINGS, SearchConfig, check
from search.search import search

NAMES = ("gumbel", "gumbel with others", "gumbel of samples", "sampled alphazero")
every_variant = pytest.mark.parametrize("name", NAMES)
GAMES = 4
LIMIT = 4
ALIVE = -1e8


def residuals(seed: int) -> np.ndarray:
    found = np.random.default_rng(seed).integers(0, 2, (GAMES, 2, 2, 2))
    found[:, 0, 0, 0] = 1
    return found


def slice_ranks(residual: np.ndarray) -> int:
    """The rank bound over Z_2 for 2 x 2 slices."""
    determinants = residual[0, 0] * residual[1, 1] - residual[0, 1] * residual[1, 0]
    return int((residual.any(axis=(0, 1)).astype(int) + determinants % 2).sum())


def root_values(tree) -> np.ndarray:
    """Q of the root's slots, (B, slots)."""
    return tree.children_rewards[:, 0] + tree.children_discounts[:, 0] * tree.children_values[:, 0]


@pytest.fixture(scope="module")
def middle(bits, variants, keys):
    """``middle(name)`` is what each variant makes of the middle of some games, and their params."""
    params = bits.params(value=-3.0, slope=-0.1)

    def run(name: str, seed: int = 0, moves: int = 1):
        return *bits.run(
            variants[name], params, keys(seed), bits.positions(residuals(seed), moves)
        ), params

    return run


@every_variant
def test_the_result_is_finite_and_its_action_has_weight(bits, middle, name):
    result, tree, _ = middle(name)
    for leaf in [*jax.tree.leaves(result), *jax.tree.leaves(tree)]:
        assert np.isfinite(np.asarray(leaf, float)).all()
    legal = {action.tobytes() for action in bits.actions}
    for i in range(GAMES):
        actions = np.asarray(bits.network.space.decode(jnp.asarray(result.tokens[i])))
        chosen = (actions == result.action[i]).all(axis=(1, 2)) & (result.weights[i] > 0)
        assert chosen.sum() == 1
        weighted = [a.tobytes() for a in actions[result.weights[i] > 0]]
        assert len(set(weighted)) == len(weighted)
        assert set(weighted) <= legal


@every_variant
def test_weights_sum_to_one_unless_others_have_a_share(middle, variants, name):
    result, _, _ = middle(name)
    total = result.weights.sum(axis=1)
    if variants[name].unsampled_mass:
        assert (total > 0.01).all()
        assert (total < 0.99).all()
    else:
        np.testing.assert_allclose(total, 1.0, rtol=1e-5)


@every_variant
def test_no_dead_slot_is_tried_at_any_depth(middle, variants, name):
    result, tree, _ = middle(name)
    tried = tree.children_visits > 0
    assert (tree.children_prior_logits[tried] > ALIVE).all()
    count = variants[name].num_actions
    assert not tried[:, :, count:].any()
    np.testing.assert_array_equal(tree.children_visits[:, 0].sum(axis=1), tree.num_simulations)
    assert tried[:, 1:].any(), "the tree has more than one level"
    dead = tree.children_prior_logits[:, 0, :count] <= ALIVE
    assert dead.any() == (variants[name].sampling == "independent")
    assert (result.weights[dead] == 0).all()


@pytest.mark.parametrize("name", NAMES[1:])
def test_all_nodes_draw_different_actions(bits, keys, variants, name):
    """The policy is the same everywhere, so that chance alone distinguishes nodes."""
    states = bits.positions(residuals(6), moves=0)
    _, tree = bits.run(variants[name], bits.params(value=-3.0), keys(6), states)
    for tokens in tree.embeddings.tokens:
        assert len(np.unique(tokens.reshape(len(tokens), -1), axis=0)) == len(tokens)


@every_variant
def test_the_entropy_is_that_of_the_prior_of_the_samples(middle, variants, name):
    result, tree, _ = middle(name)
    prior = np.exp(tree.children_prior_logits[:, 0, : variants[name].num_actions], dtype=float)
    prior /= prior.sum(axis=1, keepdims=True)
    terms = -prior * np.log(prior, out=np.zeros_like(prior), where=prior > 0)
    np.testing.assert_allclose(result.entropy, terms.sum(axis=1), rtol=1e-3)


def node_depths(tree, game: int) -> list[int]:
    """Moves from the root to each node below it; an ended game has no moves."""
    depths, ended = [0], [False]
    for parent, slot in zip(tree.parents[game, 1:], tree.action_from_parent[game, 1:], strict=True):
        depths.append(depths[parent] + (not ended[parent]))
        ended.append(tree.children_discounts[game, parent, slot] == 0)
    return depths[1:]


@every_variant
def test_the_depth_is_that_of_the_nodes(middle, name):
    for moves in (1, LIMIT - 1):
        result, tree, _ = middle(name, moves=moves)
        expected = [np.mean(node_depths(tree, game)) for game in range(GAMES)]
        np.testing.assert_allclose(result.depth, expected, rtol=1e-6)
        assert (result.depth > 1).any() == (moves < LIMIT - 1), "the last move ends the game"


@every_variant
def test_the_value_is_the_mean_of_the_visited_actions_under_the_weights(middle, variants, name):
    result, tree, _ = middle(name)
    count = variants[name].num_actions
    weights = result.weights * (tree.children_visits[:, 0, :count] > 0)
    expected = (weights * root_values(tree)[:, :count]).sum(axis=1) / weights.sum(axis=1)
    np.testing.assert_allclose(result.value, expected, rtol=1e-4)


@every_variant
@pytest.mark.parametrize("value", [0.0, 1000.0])
def test_the_last_move_is_worth_its_reward_alone(bits, variants, keys, name, value):
    """Were values of ended games looked at, 1000 would be seen."""
    given = residuals(1)
    states = bits.positions(given, moves=LIMIT - 1)
    result, tree = bits.run(variants[name], bits.params(value=value), keys(1), states)
    visited = tree.children_visits[:, 0] > 0
    differ = 0
    for i in range(GAMES):
        left = bits.after(given[i], result.tokens[i])
        expected = np.array([-1.0 - slice_ranks(x) for x in left])
        slots = np.flatnonzero(visited[i])
        np.testing.assert_array_equal(root_values(tree)[i, slots], expected[slots])
        np.testing.assert_array_equal(tree.children_discounts[i, 0, slots], 0.0)
        np.testing.assert_array_equal(tree.raw_values[i, tree.children_index[i, 0, slots]], 0.0)
        differ += len(set(expected[slots])) > 1
    assert differ


@every_variant
def test_a_solved_game_is_worth_its_reward_alone_also_before_the_limit(bits, variants, keys, name):
    solvable = np.einsum("ni,nj,nk->nijk", *bits.actions[[0, 7, 13, 26]].transpose(1, 0, 2))
    seen = 0
    for value in (-20.0, 20.0):
        params = bits.params(value=value)
        states = bits.positions(solvable, moves=0)
        result, tree = bits.run(variants[name], params, keys(2), states)
        for i in range(GAMES):
            solves = ~bits.after(solvable[i], result.tokens[i]).any(axis=(1, 2, 3))
            for slot in np.flatnonzero(solves):
                if tree.children_visits[i, 0, slot]:
                    assert root_values(tree)[i, slot] == -1.0
                    best = np.argmax(result.weights[i]) == slot
                    assert best == (value < 0)
                    seen += 1
    assert seen


@every_variant
def test_a_games_result_depends_on_its_own_key_and_state_alone(bits, variants, keys, name):
    params = bits.params(value=-3.0, slope=-0.1)
    given, others = residuals(3), residuals(4)
    first, _ = bits.run(variants[name], params, keys(0), bits.positions(given, 1))
    # The same game 2 in another place among other games with other keys.
    others[0] = given[2]
    other_keys = keys(1).at[0].set(keys(0)[2])
    second, _ = bits.run(variants[name], params, other_keys, bits.positions(others, 1))
    np.testing.assert_array_equal(first.tokens[2], second.tokens[0])
    np.testing.assert_array_equal(first.action[2], second.action[0])
    np.testing.assert_allclose(first.weights[2], second.weights[0], rtol=1e-5)
    np.testing.assert_allclose(first.value[2], second.value[0], rtol=1e-5)
    third, _ = bits.run(variants[name], params, keys(1), bits.positions(given, 1))
    assert np.any(first.tokens[2] != third.tokens[2])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_game_of_two_moves_is_solved(scalars, keys, algorithm):
    """2 = 1 + 1, the other orders cost a third unit; there are fewer actions than slots."""
    config = SearchConfig(
        algorithm=algorithm, num_actions=4, num_simulations=24, rescale_values=False
    )
    states = scalars.positions(np.full((GAMES, 1, 1, 1), 2), moves=LIMIT - 2)
    # The first visits promise more than there is to be had.
    result, tree = scalars.run(config, scalars.params(value=5.0), keys(0), states)
    alive = tree.children_prior_logits[:, 0] > ALIVE
    assert (alive.sum(axis=1) == 2).all()
    assert (result.action == 1).all()
    for i in range(GAMES):
        left = scalars.after(states.residual[i], result.tokens[i]).ravel()
        right, wrong = (
            np.flatnonzero(alive[i] & (left == 1)),
            np.flatnonzero(alive[i] & (left == 3)),
        )
        (right,), (wrong,) = right, wrong
        assert result.weights[i, right] > result.weights[i, wrong]
        # One visit saw 4 = -1 + 5, the others the true -3.
        visits = tree.children_visits[i, 0, wrong]
        mean = (4.0 - 3.0 * (visits - 1)) / visits
        np.testing.assert_allclose(root_values(tree)[i, wrong], mean, rtol=1e-5)
        # One saw 4, and the others -2 at best.
        visits = tree.children_visits[i, 0, right]
        assert root_values(tree)[i, right] <= (4.0 - 2.0 * (visits - 1)) / visits + 1e-5
    assert np.isfinite(result.entropy).all()
    assert (result.weights[~alive] == 0).all()


def test_a_bandit_ends_with_its_best_arm(bits, variants, keys):
    """Each action is worth -1 and the entries that it leaves."""
    given = residuals(5)
    params = bits.params(slope=-1.0)
    states = bits.positions(given, moves=LIMIT - 2)
    result, tree = bits.run(variants["gumbel"], params, keys(5), states)
    for i in range(GAMES):
        left = bits.after(given[i], result.tokens[i]).sum(axis=(1, 2, 3))
        first = tree.raw_values[i, tree.children_index[i, 0]]
        np.testing.assert_allclose(first, -left, atol=1e-4)
        made = bits.after(given[i], result.tokens[i])[np.argmax(result.weights[i])].sum()
        assert made <= np.sort(left)[3]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"algorithm": "mcts"}, "search.algorithm is 'mcts'; use one of gumbel, sampled_alphazero"),
        ({"sampling": "greedy"}, "search.sampling is 'greedy'; use one of beam, independent"),
        (
            {"unsampled_mass": True, "sampling": "independent"},
            "search.sampling independent; it needs gumbel and beam",
        ),
        (
            {"considered_actions": 9},
            "considered_actions is 9, more than the 8 of search.num_actions",
        ),
        ({"temperature_visits": 1.0}, "search.temperature_visits is 1.0; it must be above 1"),
    ],
)
def test_what_does_not_exist_or_go_together_is_refused(bits, keys, fields, message):
    states = bits.positions(residuals(0), moves=0)
    with pytest.raises(ValueError, match=message):
        search(bits.network, SearchConfig(**fields), bits.params(), keys(0), states)


def test_every_name_is_accepted():
    for algorithm in ALGORITHMS:
        for sampling in SAMPLINGS:
            check(SearchConfig(algorithm=algorithm, sampling=sampling))
