"""The memory that a run needs, and what is said of too much."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from search.tree import Simulator, grow_tree, try_first
from training.config import Config, ConfigError
from training.memory import Budget, budget, check_memory, memory_limit
from training.mesh import make_mesh
from training.step import make_init


def needed(config: Config, devices: int = 1) -> Budget:
    state = jax.eval_shape(make_init(config, make_mesh(config)), config.seed)
    return budget(config, state, devices)


def changed(config: Config, section: str, **fields) -> Config:
    values = dataclasses.replace(getattr(config, section), **fields)
    return dataclasses.replace(config, **{section: values})


def test_the_budget_counts_the_bytes_of_the_state(tiny):
    whole = needed(changed(tiny, "learner", best_games_share=0.5, best_games=3))
    # R = 4, S = 2, K = 8, k = 5, B = 8, and two games in a ring; entries of the start have 16 bits.
    game = 2**3 * 2 + 4 * 3 * 2 + 4 * 8 * (5 * 2 + 4) + 4 * 4
    assert whole.rings == 8 * (2 * game + 4)
    # The position with one past action, the target's index, two sets of three matrices, and a flag.
    assert whole.games == 8 * (game + (16 + 4 + 6) + 4 + 2 * 3 * 4 * 4 + 1)
    assert whole.best == 3 * (4 + 3 * 4 + 2 * 4 * 3 * 2)
    one = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), eval_states(tiny))
    tokens = jnp.zeros((1, 5), jnp.int32)
    params = jax.eval_shape(lambda k: tiny.agent.init(k, one, tokens, method="score"), key())
    count = sum(x.size for x in jax.tree.leaves(params))
    # Parameters and two moments, and a few counters of updates.
    assert 0 <= whole.network - 3 * 4 * count < 32
    assert whole.total == sum(whole)
    assert needed(tiny).best == 0


def key() -> jax.Array:
    return jax.random.key(0)


def eval_states(config: Config):
    start = jnp.zeros((config.side,) * 3, jnp.int32)
    one = config.rules.init(start)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (config.selfplay.num_games, *x.shape)), one)


@pytest.mark.parametrize("is_one_ply", [True, False])
def test_the_tree_is_the_one_that_the_search_grows(tiny, random_params, is_one_ply):
    tiny = changed(tiny, "search", num_simulations=8 if is_one_ply else 9)
    assert tiny.search.is_one_ply == is_one_ply
    states = eval_states(tiny)
    params = random_params(tiny.agent, jax.tree.map(lambda x: x[0], states))

    def first(*_):
        return jnp.int32(0)

    def grow(keys):
        simulator = Simulator(tiny.agent, tiny.search, params, None)
        root = simulator.evaluate(keys, states)
        if is_one_ply:
            return try_first(simulator, root, root.sampled.prior_logits)
        return grow_tree(simulator, root, root.sampled.prior_logits, first, first)

    tree = jax.eval_shape(grow, jax.random.split(key(), tiny.selfplay.num_games))
    found = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
    masks = tree.root_invalid_actions
    # Depths of nodes are kept beside the tree, as int32.
    found += 4 * tree.node_visits.size - masks.size * masks.dtype.itemsize
    assert needed(tiny).tree == found


def test_several_agents_need_as_much_each(tiny):
    one, three = needed(tiny), needed(dataclasses.replace(tiny, num_seeds=3))
    assert three == tuple(3 * part for part in one)


def test_what_is_shared_out_shrinks_with_the_devices(tiny):
    one, four = needed(tiny), needed(tiny, devices=4)
    assert (four.network, four.best) == (one.network, one.best)
    parts = (one.games, one.rings, one.tree)
    np.testing.assert_allclose((four.games, four.rings, four.tree), np.array(parts) / 4)


def test_the_number_of_games_that_is_offered_fits_and_the_next_does_not(tiny):
    config = changed(tiny, "selfplay", num_games=64)
    limit = needed(changed(tiny, "selfplay", num_games=16)).total + 100
    check_memory(config, needed(config), None, 1)
    check_memory(config, needed(config), needed(config).total, 1)
    with pytest.raises(ConfigError, match=r"num_games is 64, for which a .*; at most 16 fit$"):
        check_memory(config, needed(config), limit, 1)
    few = needed(changed(tiny, "selfplay", num_games=1))
    with pytest.raises(ConfigError, match=r"; not even the fewest would fit, so use a smaller"):
        check_memory(config, needed(config), few.total - 1, 1)
    with pytest.raises(ConfigError, match=r"; not even the fewest would fit"):
        check_memory(config, needed(config, devices=16), few.total - 100, 16)


def test_fewer_kept_games_are_offered_where_they_suffice(tiny):
    config = changed(tiny, "selfplay", kept_games=50)
    limit = needed(changed(tiny, "selfplay", kept_games=20)).total
    says = r"at most 2 fit, or all fit with a selfplay.kept_games of 20 instead of 50"
    with pytest.raises(ConfigError, match=says):
        check_memory(config, needed(config), limit, 2)


def test_the_limit_is_what_the_device_reports():
    def device(platform="gpu", stats=None):
        return types.SimpleNamespace(
            process_index=jax.process_index(), platform=platform, memory_stats=lambda: stats
        )

    other = types.SimpleNamespace(process_index=jax.process_index() + 1)
    assert memory_limit([other, device(stats={"bytes_limit": 9}), device()]) is None
    both = [device(stats={"bytes_limit": 9}), device(stats={"bytes_limit": 8})]
    assert memory_limit([*both, other]) == 8
    one, two = memory_limit([device("cpu")]), memory_limit([device("cpu"), device("cpu")])
    assert one is None or (one > 2**28 and two == one // 2)
