"""Positions that are searched again."""

import dataclasses

import jax
import numpy as np
import pytest

from training.config import Config
from training.reanalyse import reanalyse
from training.replay import sample_batch

REPLAYED, DEMONSTRATIONS = 8, 4


@pytest.fixture(scope="module")
def searched_again(tiny, trained):
    """A configuration, and a batch before and after half of its positions are searched again."""
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


def test_some_played_positions_get_the_policy_of_a_new_search(searched_again):
    config, before, after, played = searched_again
    changed = (before.weights != after.weights).any(axis=1)
    assert played[: REPLAYED // 2].all()
    assert not played[REPLAYED // 2 :].any()
    # Every second one, of those that were played.
    assert changed.tolist() == [False, True] * (REPLAYED // 4) + [False] * (
        REPLAYED // 2 + DEMONSTRATIONS
    )
    np.testing.assert_allclose(after.weights[changed].sum(axis=1), 1.0, rtol=1e-5)
    actions = np.asarray(config.action_space.decode(after.tokens[changed]))
    assert actions.any(axis=-1).all()
    for few in actions.reshape(len(actions), actions.shape[1], -1):
        assert len(np.unique(few, axis=0)) == config.search.num_actions


def test_all_else_stays(searched_again):
    _, before, after, _ = searched_again
    jax.tree.map(np.testing.assert_array_equal, after.state, before.state)
    np.testing.assert_array_equal(after.value, before.value)
    same = (before.weights == after.weights).all(axis=1)
    np.testing.assert_array_equal(after.tokens[same], before.tokens[same])


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
