"""Positions that are searched again."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import training.reanalyse
from search.tree import SearchResult
from training.config import Config
from training.reanalyse import reanalyse
from training.replay import sample_batch

REPLAYED, DEMONSTRATIONS = 8, 4


@pytest.fixture
def searched_again(tiny, trained, monkeypatch):
    """A configuration, and a batch before and after half of its positions are searched again."""

    def search(agent, config, params, keys, states, symmetries) -> SearchResult:
        """Each action of the result is the number of moves made."""
        count, actions = len(keys), config.num_actions
        tokens = jnp.broadcast_to(
            states.moves[:, None, None], (count, actions, agent.space.num_tokens)
        )
        weights = jnp.full((count, actions), 1 / actions)
        nothing = jnp.zeros(count)
        return SearchResult(jnp.zeros((count, 3, 2), jnp.int8), tokens, weights, *[nothing] * 3)

    monkeypatch.setattr(training.reanalyse, "search", search)
    learner = dataclasses.replace(tiny.learner, reanalysed_share=0.5)
    config = dataclasses.replace(tiny, learner=learner)
    # The rings of half the slots are empty.
    state = trained[0]
    count = state.replay.count.at[REPLAYED // 2 :].set(0)
    replay = state.replay._replace(count=count)
    keys = jax.random.split(jax.random.key(0), REPLAYED + DEMONSTRATIONS)

    @jax.jit
    def batches(params, replay):
        replay_keys = keys[:REPLAYED]
        before, played = sample_batch(config, replay_keys, keys[REPLAYED:], replay)
        return before, reanalyse(config, params, replay_keys, before, played), played

    return config, *jax.device_get(batches(state.params, replay))


def test_some_played_positions_get_the_policy_of_a_new_search_and_all_else_stays(searched_again):
    config, before, after, played = searched_again
    assert played[: REPLAYED // 2].all()
    assert not played[REPLAYED // 2 :].any()
    # Every second one, of those that were played.
    chosen = np.array(
        ([False, True] * (REPLAYED // 4)) + [False] * (REPLAYED // 2 + DEMONSTRATIONS)
    )
    assert (after.weights[chosen] == 1 / config.search.num_actions).all()
    moves = after.state.moves[chosen, None, None]
    assert (after.tokens[chosen] == moves).all()
    jax.tree.map(np.testing.assert_array_equal, after.state, before.state)
    np.testing.assert_array_equal(after.value, before.value)
    np.testing.assert_array_equal(after.tokens[~chosen], before.tokens[~chosen])
    np.testing.assert_array_equal(after.weights[~chosen], before.weights[~chosen])


@pytest.mark.parametrize(("share", "fits"), [(0.5, True), (0.3, False), (0.0, True), (1.0, True)])
def test_a_share_makes_a_whole_number_of_positions(share, fits):
    config = Config(devices=1)
    config = dataclasses.replace(
        config, learner=dataclasses.replace(config.learner, reanalysed_share=share)
    )
    if fits:
        config.validate()
    else:
        with pytest.raises(ValueError, match=r"reanalysed_share is 0.3, which makes 19.2"):
            config.validate()
