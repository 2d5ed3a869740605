"""Stochastic beam search is exact sampling without replacement."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from networks.network import AgentNetwork
from search.sampling import sample_actions
from tensorgame.factors import ActionSpace
from tensorgame.game import Game
from tensorgame.rings import Z2

SPACE = ActionSpace(Z2, side=2, token_size=1)
# More beams than tokens in the vocabulary: at first most of them are dead.
FEW, MANY_KEYS = 4, 4000


@pytest.fixture(scope="module")
def agent(tiny_network, random_params, every_action):
    """``sample(count, keys)`` for one state, and the probability of each of the 27 actions."""
    game = Game(Z2, max_moves=4, history=0)
    network = AgentNetwork(tiny_network, game, SPACE)
    state = game.init(jnp.eye(2, dtype=jnp.int8)[:, :, None] * jnp.ones(2, jnp.int8))
    tokens = SPACE.encode(jnp.asarray(every_action(SPACE)))
    params = random_params(network, state)
    score = jax.jit(functools.partial(network.apply, method="score"))
    log_probs, quantiles = score(params, state, tokens)

    @functools.partial(jax.jit, static_argnums=0)
    def sample(count, keys):
        return jax.vmap(lambda key: sample_actions(network, params, key, state, count))(keys)

    codes = np.asarray(code(tokens))
    by_code = np.full(2**SPACE.num_tokens, -np.inf)
    by_code[codes] = log_probs
    return sample, by_code, np.asarray(quantiles)


def code(tokens):
    """One number for each action (..., k)."""
    return tokens @ (2 ** np.arange(SPACE.num_tokens))


@pytest.fixture(scope="module")
def few(agent):
    """Four actions for each of many keys."""
    return jax.device_get(agent[0](FEW, jax.random.split(jax.random.key(1), MANY_KEYS))[0])


@pytest.fixture(scope="module")
def all_of_them(agent):
    """All actions for each of some keys, and the values."""
    return jax.device_get(agent[0](SPACE.size, jax.random.split(jax.random.key(2), 500)))


def chi_square(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """The statistic over its degrees of freedom: about 1, and seldom above 2 for 27 cells."""
    expected = counts.sum() * probabilities[probabilities > 0]
    assert expected.min() > 5
    assert not counts[probabilities == 0].any()
    differences = counts[probabilities > 0] - expected
    return float((differences**2 / expected).sum() / (len(expected) - 1))


def test_actions_are_distinct_legal_and_sorted_by_their_perturbed_log_probability(agent, few):
    codes = np.sort(code(few.tokens), axis=1)
    assert (np.diff(codes, axis=1) > 0).all()
    assert np.isfinite(agent[1][codes]).all()
    assert (np.diff(few.log_probs + few.gumbels, axis=1) < 0).all()


def test_log_probabilities_are_those_of_the_policy(agent, few, all_of_them):
    for sampled in (few, all_of_them[0]):
        np.testing.assert_allclose(sampled.log_probs, agent[1][code(sampled.tokens)], atol=1e-4)


def test_nothing_is_lost_to_dead_beams(few, all_of_them):
    for sampled in (few, all_of_them[0]):
        assert np.isfinite(sampled.gumbels).all()
        assert np.abs(sampled.gumbels).max() < 50
        assert sampled.log_probs.min() > -50


def test_the_first_action_is_drawn_from_the_policy(agent, few):
    counts = np.bincount(code(few.tokens[:, 0]), minlength=2**SPACE.num_tokens)
    assert chi_square(counts, np.exp(agent[1])) < 1.8


def test_the_second_action_is_drawn_from_what_the_first_one_leaves(agent, few):
    probabilities = np.exp(agent[1])
    pairs = probabilities[:, None] * probabilities / (1 - probabilities[:, None])
    np.fill_diagonal(pairs, 0.0)
    counts = np.bincount(code(few.tokens[:, 1]), minlength=2**SPACE.num_tokens)
    assert chi_square(counts, pairs.sum(axis=0)) < 1.8


def test_with_as_many_actions_as_there_are_each_comes_once(agent, all_of_them):
    expected = np.flatnonzero(np.isfinite(agent[1]))
    codes = np.sort(code(all_of_them[0].tokens), axis=1)
    np.testing.assert_array_equal(codes, np.broadcast_to(expected, codes.shape))


def assert_standard_gumbel(samples: np.ndarray) -> None:
    """The test of Kolmogorov and Smirnov, whose limit is exceeded once in a thousand times."""
    samples = np.sort(samples, axis=None)
    places = (np.arange(samples.size) + 0.5) / samples.size
    distance = np.abs(np.exp(-np.exp(-samples)) - places).max()
    assert distance * np.sqrt(samples.size) < 1.95


def test_the_gumbels_are_standard_ones(few, all_of_them):
    assert_standard_gumbel(all_of_them[0].gumbels)
    # So is the largest of the perturbed log-probabilities of a distribution.
    for sampled in (few, all_of_them[0]):
        assert_standard_gumbel(sampled.log_probs[:, 0] + sampled.gumbels[:, 0])


def test_the_value_is_that_of_the_state(agent, all_of_them):
    expected = np.broadcast_to(agent[2], all_of_them[1].shape)
    np.testing.assert_allclose(all_of_them[1], expected, rtol=1e-4)
