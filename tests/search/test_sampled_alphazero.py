"""Sampled AlphaZero: PUCT, the temperature and the rule of acting, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from search.config import SearchConfig
from search.sampled_alphazero import _add_noise, visit_policy, worth_playing

GAMES = 4
LIMIT = 4


def scores(prior, visits, values, node_value, raw: bool) -> np.ndarray:
    """Of a node's slots by PUCT, before one is tried."""
    alive = prior > -1e8
    weights = np.exp(np.where(alive, prior, -np.inf))
    weights /= weights.sum()
    total = visits.sum() + 1.0
    if raw:
        q = np.where(visits > 0, values, node_value)
    else:
        known = np.append(values[visits > 0], node_value)
        q = np.where(visits > 0, values, known.min()) - known.min()
        q = q / max(known.max() - known.min(), 1e-8)
    exploration = 1.25 + np.log((19652.0 + 1.0 + total) / 19652.0)
    score = q + exploration * weights * np.sqrt(total) / (1.0 + visits)
    return np.where(alive, score, -np.inf)


def replay(tree, game: int, raw: bool) -> np.ndarray:
    """Repeats the simulations of one game, checks every choice, and returns the root's Q."""
    tree = jax.tree.map(lambda x: np.asarray(x[game]), tree.replace(embeddings=None))
    shape = tree.children_visits.shape
    visits, sums = np.zeros(shape), np.zeros(shape)
    node_sums = tree.raw_values.astype(float)
    for leaf in range(1, shape[0]):
        path, node = [], leaf
        while node:
            path.append((tree.parents[node], tree.action_from_parent[node]))
            node = tree.parents[node]
        for node, action in reversed(path):
            values = sums[node] / np.maximum(visits[node], 1.0)
            value = node_sums[node] / (1.0 + visits[node].sum())
            score = scores(tree.children_prior_logits[node], visits[node], values, value, raw)
            assert score[action] > score.max() - 1e-4
        value = float(tree.raw_values[leaf])
        for node, action in path:
            # No discount but the end of the game.
            assert tree.children_discounts[node, action] in (0.0, 1.0)
            value = tree.children_rewards[node, action] + (
                tree.children_discounts[node, action] * value
            )
            visits[node, action] += 1
            sums[node, action] += value
            node_sums[node] += value
    np.testing.assert_array_equal(visits, tree.children_visits)
    return sums[0] / np.maximum(visits[0], 1.0)


def test_every_simulation_follows_puct(bits, variants, keys):
    config = variants["sampled alphazero"]
    residuals = np.random.default_rng(1).integers(0, 2, (GAMES, 2, 2, 2))
    states = bits.positions(residuals, moves=1)
    result, tree = bits.run(config, bits.params(value=-3.0, slope=-0.1), keys(1), states)
    for i in range(GAMES):
        qvalues = replay(tree, i, raw=False)
        np.testing.assert_allclose(result.value[i], (result.weights[i] * qvalues).sum(), rtol=1e-4)
        visits = tree.children_visits[i, 0].astype(float)
        # 40 visits, with 20 as the threshold.
        expected = visits ** (np.log(20.0) / np.log(40.0))
        np.testing.assert_allclose(result.weights[i], expected / expected.sum(), rtol=1e-4)
        # The action is one whose value is that of the most visited at least.
        made = np.asarray(bits.network.space.encode(jnp.asarray(result.action[i])))
        mine = (result.tokens[i] == made).all(axis=1) & (visits > 0)
        assert qvalues[mine] >= qvalues[visits == visits.max()].max() - 1e-5


def test_every_simulation_follows_puct_with_values_in_moves_and_beams(scalars, keys):
    """The search that `test_a_game_of_two_moves_is_solved` compiles.

    The values promise so much that a node is worth more than its actions: a slot without an action
    must not win by that.
    """
    config = SearchConfig(
        algorithm="sampled_alphazero", num_actions=4, num_simulations=24, rescale_values=False
    )
    states = scalars.positions(np.arange(1, GAMES + 1).reshape(-1, 1, 1, 1), moves=LIMIT - 2)
    _, tree = scalars.run(config, scalars.params(value=20.0, slope=0.3), keys(1), states)
    for i in range(GAMES):
        replay(tree, i, raw=True)


def test_the_prior_is_the_share_of_the_samples(bits, variants, keys):
    residuals = np.random.default_rng(2).integers(0, 2, (GAMES, 2, 2, 2))
    states = bits.positions(residuals, moves=1)
    result, tree = bits.run(variants["sampled alphazero"], bits.params(), keys(2), states)
    tokens, logits = tree.embeddings.tokens, tree.children_prior_logits
    np.testing.assert_array_equal(tokens[:, 0], result.tokens)
    for i in range(GAMES):
        for node in range(tree.node_visits.shape[1]):
            prior = np.exp(logits[i, node], dtype=float)
            _, counts = np.unique(tokens[i, node], axis=0, return_counts=True)
            np.testing.assert_allclose(np.sort(prior[prior > 0] * 16), np.sort(counts), rtol=1e-5)


@pytest.mark.parametrize(
    ("visits", "threshold", "expected"),
    [
        # At most the threshold: the shares.
        ([6.0, 3.0, 1.0, 0.0], 10.0, [0.6, 0.3, 0.1, 0.0]),
        # 10,000 visits and 100: tau is 2, and the square roots are 90, 30 and 30 (and a 0).
        ([8100.0, 900.0, 900.0, 0.0], 9900.0**0.5, [0.6, 0.2, 0.2, 0.0]),
        # 16 visits and 4: the roots of 9, 4, 1, 1, 1.
        ([9.0, 4.0, 1.0, 1.0, 1.0], 4.0, [3 / 8, 2 / 8, 1 / 8, 1 / 8, 1 / 8]),
        # One visit has no logarithm to speak of.
        ([1.0, 0.0], 2.0, [1.0, 0.0]),
    ],
)
def test_the_temperature_flattens_many_visits(visits, threshold, expected):
    weights = visit_policy(jnp.array(visits), threshold)
    np.testing.assert_allclose(weights, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("visits", "values", "expected"),
    [
        # The most visited is the best, or not, or has an equal.
        ([5.0, 3.0, 2.0], [-7.0, -8.0, -9.0], [1, 0, 0]),
        ([5.0, 3.0, 2.0], [-7.0, -8.0, -6.0], [1, 0, 1]),
        ([5.0, 3.0, 2.0], [-7.0, -7.0, -7.5], [1, 1, 0]),
        # Of two with the most visits the better one counts.
        ([4.0, 4.0, 2.0], [-7.0, -6.0, -6.5], [0, 1, 0]),
        # The 0 of an action that was not visited is no value.
        ([5.0, 3.0, 0.0], [-7.0, -6.0, 0.0], [1, 1, 0]),
    ],
)
def test_actions_worse_than_the_most_visited_are_not_played(visits, values, expected):
    worth = worth_playing(jnp.array(visits), jnp.array(values))
    np.testing.assert_array_equal(worth, np.array(expected, bool))


def test_noise_is_a_dirichlet_variable_over_the_live_slots():
    config = SearchConfig(noise_fraction=0.25, noise_alpha=0.5)
    prior = jnp.append(jnp.log(jnp.array([0.5, 0.3, 0.2])), -1e9)
    keys = jax.random.split(jax.random.key(0), 4000)
    noisy = jax.jit(jax.vmap(lambda key: _add_noise(config, key, prior)))(keys)
    assert (noisy[:, 3] == -1e9).all()
    probabilities = np.exp(np.asarray(noisy[:, :3], float))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-4)
    noise = (probabilities - 0.75 * np.array([0.5, 0.3, 0.2])) / 0.25
    assert noise.min() > -1e-5
    # Mean 1 / 3 and variance (1 / 3) (2 / 3) / (3 alpha + 1).
    np.testing.assert_allclose(noise.mean(axis=0), 1 / 3, atol=0.02)
    np.testing.assert_allclose(noise.var(axis=0), 2 / 9 / 2.5, atol=0.005)
