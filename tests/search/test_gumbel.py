"""The search on positions whose best move is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from networks.network import AgentNetwork
from search.gumbel import SearchConfig, search
from tensorgame.factors import ActionSpace
from tensorgame.game import Game, State
from tensorgame.rings import Z2

GAME = Game(Z2, max_moves=4, history=1)
SPACE = ActionSpace(Z2, side=2, token_size=1)
# 27 actions and 40 simulations: each action is visited once, and the best half of them twice.
CONFIG = SearchConfig(
    num_actions=SPACE.size, num_simulations=40, value_scale=0.2, rescale_values=False
)
WEIGHT_OF_VALUES = CONFIG.value_scale * (CONFIG.maxvisit_init + 2)
GAMES = 4


@pytest.fixture(scope="module")
def agent(tiny_network, random_params):
    """The network, its parameters, and ``run(params, keys, states)``, the compiled search."""
    network = AgentNetwork(tiny_network, GAME, SPACE)
    params = random_params(network, GAME.init(jnp.zeros((2, 2, 2), jnp.int8)))
    return network, params, jax.jit(functools.partial(search, network, CONFIG))


@pytest.fixture(scope="module")
def rank_one(every_action) -> np.ndarray:
    """The tensors of all actions, in the order of their list."""
    return np.einsum("ni,nj,nk->nijk", *every_action(SPACE).transpose(1, 0, 2))


def constant_value(params: dict, value: float) -> dict:
    """Parameters whose value is ``value`` moves everywhere."""
    last = params["params"]["value"]["Dense_3"]
    last = {
        "kernel": jnp.zeros_like(last["kernel"]),
        "bias": jnp.full_like(last["bias"], value / GAME.max_moves),
    }
    inner = {**params["params"], "value": {**params["params"]["value"], "Dense_3": last}}
    return {"params": inner}


def positions(residuals: np.ndarray, moves: int) -> State:
    count = len(residuals)
    return State(
        residual=jnp.asarray(residuals, GAME.ring.dtype),
        moves=jnp.full(count, moves, jnp.int32),
        history=jnp.zeros((count, 1, 3, 2), jnp.int8),
    )


def keys(seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), GAMES)


def slice_ranks(residual: np.ndarray) -> int:
    """The rank bound over Z_2 for 2 x 2 slices."""
    determinants = residual[0, 0] * residual[1, 1] - residual[0, 1] * residual[1, 0]
    return int((residual.any(axis=(0, 1)).astype(int) + determinants % 2).sum())


def after(residual: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """The residuals after each of the actions (K, 3, S)."""
    return (residual - np.einsum("ki,kj,kl->kijl", *actions.transpose(1, 0, 2))) % 2


def test_the_move_that_solves_the_game_is_found_and_dominates(agent, rank_one):
    _, params, run = agent
    chosen = rank_one[[0, 7, 13, 26]]
    result = run(params, keys(), positions(chosen, moves=GAME.max_moves - 1))
    for i, residual in enumerate(chosen):
        assert not after(residual, np.asarray(result.action[i])[None]).any()
        solves = ~after(residual, np.asarray(SPACE.decode(result.tokens[i]))).any(axis=(1, 2, 3))
        assert solves.sum() == 1
        assert result.weights[i][solves] > 0.99


def test_the_end_of_a_game_is_worth_its_reward_alone(agent):
    """The improved policy by hand, for children that are solved or out of moves."""
    network, params, run = agent
    residuals = np.random.default_rng(1).integers(0, 2, (GAMES, 2, 2, 2))
    residuals[0] = 1
    states = positions(residuals, moves=GAME.max_moves - 1)
    score = jax.jit(jax.vmap(functools.partial(network.apply, method="score"), (None, 0, 0)))
    # Were values of ended games looked at, these would be seen.
    for value in (0.0, 1000.0):
        given = constant_value(params, value)
        result = run(given, keys(), states)
        log_probs, _ = score(given, states, result.tokens)
        for i, residual in enumerate(residuals):
            left = after(residual, np.asarray(SPACE.decode(result.tokens[i])))
            returns = np.array([-1 - slice_ranks(x) for x in left])
            improved = log_probs[i] + WEIGHT_OF_VALUES * returns
            expected = jax.nn.log_softmax(improved)
            np.testing.assert_allclose(jnp.log(result.weights[i]), expected, atol=2e-3)
            assert returns.max() > returns.min()


def test_a_solved_game_is_worth_its_reward_alone_also_before_the_limit(agent, rank_one):
    _, params, run = agent
    states = positions(rank_one[[0, 7, 13, 26]], moves=0)
    for value, dominates in ((-20.0, True), (20.0, False)):
        result = run(constant_value(params, value), keys(), states)
        for i, residual in enumerate(np.asarray(states.residual)):
            left = after(residual, np.asarray(SPACE.decode(result.tokens[i])))
            weight = result.weights[i][~left.any(axis=(1, 2, 3))]
            assert weight > 0.99 if dominates else weight < 0.01


def test_the_second_visit_of_a_move_looks_one_move_further(agent):
    """Two moves before the limit the first visit earns -1, the second -1 and the bound."""
    network, params, run = agent
    residuals = np.random.default_rng(1).integers(0, 2, (GAMES, 2, 2, 2))
    states = positions(residuals, moves=GAME.max_moves - 2)
    given = constant_value(params, 0.0)
    result = run(given, keys(), states)
    score = jax.jit(jax.vmap(functools.partial(network.apply, method="score"), (None, 0, 0)))
    log_probs, _ = score(given, states, result.tokens)
    values = np.array(jnp.log(result.weights) - log_probs) / WEIGHT_OF_VALUES
    values -= values.max(axis=1, keepdims=True)
    # The mean of what the two visits found below the move.
    assert ((values < -0.1).sum(axis=1) == SPACE.size // 2).all()
    np.testing.assert_allclose(2 * values, (2 * values).round(), atol=1e-2)
    assert values.min() >= -(1 + 4) / 2 - 0.01


def test_weights_are_a_distribution_over_distinct_legal_actions(agent, every_action):
    _, params, run = agent
    residuals = np.random.default_rng(2).integers(0, 2, (GAMES, 2, 2, 2))
    result = run(params, keys(), positions(residuals, moves=0))
    np.testing.assert_allclose(result.weights.sum(axis=1), 1.0, rtol=1e-5)
    legal = {action.tobytes() for action in every_action(SPACE)}
    for tokens, action in zip(result.tokens, np.asarray(result.action), strict=True):
        assert {a.tobytes() for a in np.asarray(SPACE.decode(tokens))} == legal
        assert action.tobytes() in legal
    assert (result.entropy > 0).all()
    assert (result.entropy < np.log(SPACE.size) + 1e-4).all()


def test_a_games_result_depends_on_its_own_key_and_state_alone(agent):
    network, params, _ = agent
    # With few actions it is chance which of them are looked at, at all depths.
    run = jax.jit(functools.partial(search, network, SearchConfig(num_actions=3)))
    residuals = np.random.default_rng(3).integers(0, 2, (GAMES, 2, 2, 2))
    first = run(params, keys(), positions(residuals, moves=1))
    # The same game 2 in another place among other games with other keys.
    others = np.random.default_rng(4).integers(0, 2, (GAMES, 2, 2, 2))
    others[0] = residuals[2]
    other_keys = keys(1).at[0].set(keys()[2])
    second = run(params, other_keys, positions(others, moves=1))
    np.testing.assert_array_equal(first.tokens[2], second.tokens[0])
    np.testing.assert_array_equal(first.action[2], second.action[0])
    np.testing.assert_allclose(first.weights[2], second.weights[0], rtol=1e-4)
    # Another key alone gives other Gumbels.
    third = run(params, keys(1), positions(residuals, moves=1))
    assert np.any(first.tokens[2] != third.tokens[2])
