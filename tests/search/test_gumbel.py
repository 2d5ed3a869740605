"""Gumbel AlphaZero: its improved policy, by hand."""

import dataclasses
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from search import gumbel, tree
from search.config import SearchConfig
from search.search import search
from tensorgame.symmetries import signed_permutations

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


def results(bits, config: SearchConfig, *args):
    """Of a search, by the value of the leaves alone and by mctx's tree."""
    for is_one_ply in (True, False):
        with mock.patch.object(SearchConfig, "is_one_ply", is_one_ply):
            # A function of its own each time, which is traced anew.
            yield jax.jit(lambda *args: search(bits.network, config, *args))(*args)


@pytest.mark.parametrize(
    "config",
    [
        SearchConfig(num_actions=27, num_simulations=27, value_scale=0.2, rescale_values=False),
        SearchConfig(num_actions=8, num_simulations=4, value_scale=0.02),
        SearchConfig(num_actions=6, num_simulations=3, considered_actions=5, unsampled_mass=True),
    ],
    ids=["all", "half", "few"],
)
@pytest.mark.parametrize("moves", [1, LIMIT - 1])
def test_one_ply_is_what_the_tree_would_be(bits, keys, config, moves, monkeypatch):
    assert config.is_one_ply
    if config.unsampled_mass:
        monkeypatch.setattr(tree, "_FEATURES", 1)
    params, states = bits.params(value=-3.0, slope=-0.1), bits.positions(residuals(6), moves)
    by = signed_permutations(jax.random.key(6), 5, 2, bits.network.game.ring)
    symmetries = by if config.num_actions == 8 else None
    one_ply, tree_of_mctx = results(bits, config, params, keys(6), states, symmetries)
    for mine, expected in zip(one_ply, tree_of_mctx, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=2e-5)


def test_a_search_is_of_one_ply_if_no_move_is_tried_twice():
    config = SearchConfig(num_actions=8, num_simulations=4, considered_actions=4)
    assert config.is_one_ply
    for change in (
        {"considered_actions": 3},
        {"num_simulations": 5},
        {"sampling": "independent"},
        {"algorithm": "sampled_alphazero"},
    ):
        assert not dataclasses.replace(config, **change).is_one_ply


def test_one_ply_leaves_slots_without_an_action_out(scalars, keys):
    """2 = 1 + 1, and of four slots two hold an action."""
    config = SearchConfig(num_actions=4, num_simulations=4)
    states = scalars.positions(np.full((GAMES, 1, 1, 1), 2), moves=1)
    params = scalars.params(slope=-1.0)
    result = jax.jit(lambda *args: search(scalars.network, config, *args))(params, keys(7), states)
    left = np.ravel([scalars.after(states.residual[i], result.tokens[i]) for i in range(GAMES)])
    weights = np.asarray(result.weights).ravel()
    alive = weights > 0
    assert alive.reshape(GAMES, 4).sum(axis=1).tolist() == [2] * GAMES
    assert weights[alive & (left == 1)].min() > weights[alive & (left == 3)].max()
    values = np.where(alive, weights * (-1.0 - left), 0.0).reshape(GAMES, 4).sum(axis=1)
    np.testing.assert_allclose(result.value, values, rtol=1e-5)


@pytest.mark.slow
def test_one_slot_is_enough(bits, keys):
    config = SearchConfig(num_actions=1, num_simulations=3)
    states = bits.positions(residuals(5), moves=1)
    for each in (config, dataclasses.replace(config, unsampled_mass=True)):
        result, tree = bits.run(each, bits.params(), keys(5), states)
        assert np.isfinite(jax.tree.leaves(result.value)).all()
        assert (tree.children_visits[:, 0, 0] == 3).all()
