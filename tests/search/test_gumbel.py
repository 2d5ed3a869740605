"""Gumbel AlphaZero: its improved policy, by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from search import gumbel
from search.config import SearchConfig

GAMES = 4
LIMIT = 4


def residuals(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (GAMES, 2, 2, 2))


def completed_values(tree, game: int, slots: int) -> tuple[np.ndarray, float]:
    """Q of the root's slots, the mixed value in place of missing ones, and the mixed value."""
    visits = tree.children_visits[game, 0, :slots].astype(float)
    values = tree.children_rewards + tree.children_discounts * tree.children_values
    values = values[game, 0, :slots].astype(float)
    prior = np.exp(tree.children_prior_logits[game, 0, :slots], dtype=float) * (visits > 0)
    weighted = (prior * values).sum() / prior.sum()
    mixed = (tree.raw_values[game, 0] + visits.sum() * weighted) / (1.0 + visits.sum())
    return np.where(visits > 0, values, mixed), mixed


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def scale(config: SearchConfig, tree, game: int) -> float:
    return config.value_scale * (config.maxvisit_init + tree.children_visits[game, 0].max())


def test_the_move_that_solves_the_game_is_found_and_dominates(bits, variants, keys):
    chosen = np.einsum("ni,nj,nk->nijk", *bits.actions[[0, 7, 13, 26]].transpose(1, 0, 2))
    states = bits.positions(chosen, moves=LIMIT - 1)
    result, _ = bits.run(variants["gumbel"], bits.params(), keys(0), states)
    for i, residual in enumerate(chosen):
        solves = ~bits.after(residual, result.tokens[i]).any(axis=(1, 2, 3))
        assert solves.sum() == 1
        assert result.weights[i][solves] > 0.99
        made = np.asarray(bits.network.space.encode(jnp.asarray(result.action[i])))
        assert not bits.after(residual, made[None]).any()


def test_the_improved_policy_adds_the_completed_values_to_the_logits(bits, variants, keys):
    """In the middle of games, with actions that were visited once and twice."""
    config, params = variants["gumbel"], bits.params(value=-3.0, slope=-0.1)
    states = bits.positions(residuals(1), moves=1)
    result, tree = bits.run(config, params, keys(1), states)
    for i in range(GAMES):
        values, _ = completed_values(tree, i, config.num_actions)
        log_probs = bits.log_probs(params, result.tokens[i])
        expected = softmax(log_probs + scale(config, tree, i) * values)
        np.testing.assert_allclose(np.log(result.weights[i]), np.log(expected), atol=2e-3)
        assert set(tree.children_visits[i, 0]) == {1, 2}


def test_the_second_visit_of_a_move_looks_one_move_further(bits, variants, keys):
    """Two moves before the limit the first visit earns -1, the second -1 and the bound."""
    states = bits.positions(residuals(1), moves=LIMIT - 2)
    _, tree = bits.run(variants["gumbel"], bits.params(), keys(1), states)
    values = (
        tree.children_rewards[:, 0] + tree.children_discounts[:, 0] * tree.children_values[:, 0]
    )
    twice = tree.children_visits[:, 0] == 2
    unsolved = tree.children_discounts[:, 0] == 1
    assert (twice.sum(axis=1) == 27 // 2).all()
    np.testing.assert_array_equal(values[~twice], -1.0)
    # The mean of what the two visits found: -1 and -2 - bound, whose largest is 4.
    second = 2.0 * values[twice & unsolved] + 1.0
    assert (second <= -2.0).all()
    assert (second >= -6.0).all()
    np.testing.assert_array_equal(second, second.round())


def test_the_move_is_the_best_of_the_most_visited_by_gumbel_and_value(bits, variants, keys):
    for name in ("gumbel", "gumbel of samples"):
        config, params = variants[name], bits.params(value=-3.0, slope=-0.1)
        states = bits.positions(residuals(2), moves=1)
        result, tree = bits.run(config, params, keys(2), states)
        made = np.asarray(bits.network.space.encode(jnp.asarray(result.action)))
        visits = tree.children_visits[:, 0]
        for i in range(GAMES):
            mine = (result.tokens[i] == made[i]).all(axis=1) & (result.weights[i] > 0)
            assert visits[i][mine] == visits[i].max()


def test_only_the_first_moves_are_considered(bits, variants, keys):
    """The slots are sorted by the Gumbels and log-probabilities that they are chosen by."""
    config = dataclasses.replace(variants["gumbel"], considered_actions=2, num_simulations=8)
    _, tree = bits.run(config, bits.params(value=-2.0), keys(3), bits.positions(residuals(3), 0))
    visits = tree.children_visits[:, 0, : config.num_actions]
    assert (visits[:, :2] > 0).all()
    assert (visits[:, 2:] == 0).all()
    assert (visits.sum(axis=1) == 8).all()


def test_with_a_spare_slot_the_others_keep_their_share(bits, variants, keys):
    """P e^sigma(q) over the sum of these and (1 - sum p) e^sigma(mixed value)."""
    config, params = variants["gumbel with others"], bits.params(value=-3.0, slope=-0.1)
    count = config.num_actions
    states = bits.positions(residuals(3), moves=1)
    result, tree = bits.run(config, params, keys(3), states)
    for i in range(GAMES):
        values, mixed = completed_values(tree, i, count)
        values = np.append(values, mixed)
        values = (values - values.min()) / (values.max() - values.min())
        probabilities = np.exp(bits.log_probs(params, result.tokens[i]))
        logits = np.log(np.append(probabilities, 1.0 - probabilities.sum()))
        expected = softmax(logits + scale(config, tree, i) * values)
        np.testing.assert_allclose(result.weights[i], expected[:count], atol=1e-4)
        assert expected[count] > 0.05


def test_nothing_is_left_for_others_when_all_are_sampled():
    everything = np.log(np.full((1, 27), 1.0 / 27.0), dtype=np.float32)
    assert gumbel._log_of_rest(jnp.asarray(everything)) < -1e8
    np.testing.assert_allclose(
        gumbel._log_of_rest(jnp.asarray(everything[:, :9])), np.log(2.0 / 3.0), rtol=1e-5
    )
    # The slots that beam search had no actions for.
    dead = jnp.asarray(np.append(everything, [[-1e9]], axis=1))
    assert gumbel._log_of_rest(dead) < -1e8


def test_independent_samples_have_their_shares_as_the_prior(bits, variants, keys):
    config, params = variants["gumbel of samples"], bits.params(value=-3.0, slope=-0.1)
    states = bits.positions(residuals(4), moves=1)
    result, tree = bits.run(config, params, keys(4), states)
    for i in range(GAMES):
        prior = np.exp(tree.children_prior_logits[i, 0], dtype=float)
        _, counts = np.unique(result.tokens[i], axis=0, return_counts=True)
        np.testing.assert_allclose(np.sort(prior[prior > 0] * 16), np.sort(counts), rtol=1e-5)
        values, _ = completed_values(tree, i, config.num_actions)
        values = (values - values.min()) / (values.max() - values.min())
        with np.errstate(divide="ignore"):
            expected = softmax(np.log(prior) + scale(config, tree, i) * values)
        np.testing.assert_allclose(result.weights[i], expected, atol=1e-4)


@pytest.mark.slow
def test_one_slot_is_enough(bits, keys):
    config = SearchConfig(num_actions=1, num_simulations=3)
    states = bits.positions(residuals(5), moves=1)
    for each in (config, dataclasses.replace(config, unsampled_mass=True)):
        result, tree = bits.run(each, bits.params(), keys(5), states)
        assert np.isfinite(jax.tree.leaves(result.value)).all()
        assert (tree.children_visits[:, 0, 0] == 3).all()
