"""The agent's network: a normalised, causal policy and a value of the state alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from networks.network import AgentNetwork, NetworkConfig
from search.sampling import sample_actions
from tensorgame.factors import ActionSpace
from tensorgame.game import Game, State
from tensorgame.rings import Z2, integers, modular

RINGS = {"z2": Z2, "z": integers(), "z3": modular(3)}


def random_state(game: Game, side: int, seed: int = 0) -> State:
    rng = np.random.default_rng(seed)
    some = game.ring.coefficients
    return State(
        residual=jnp.asarray(rng.choice(some, (side,) * 3), game.ring.dtype),
        moves=jnp.array(2, jnp.int32),
        history=jnp.asarray(rng.choice(some, (game.history, 3, side)), jnp.int8),
    )


def make(config: NetworkConfig, ring: str, side: int, token_size: int):
    """A network and a state."""
    game = Game(RINGS[ring], max_moves=6, history=1)
    network = AgentNetwork(config, game, ActionSpace(game.ring, side, token_size))
    return network, random_state(game, side)


def score_of(network: AgentNetwork):
    """The compiled function of (params, state, tokens)."""
    return jax.jit(functools.partial(network.apply, method="score"))


@pytest.fixture(scope="module")
def standard(deep, random_params):
    """A network over Z with two tokens a factor, its parameters, a state and its `score`."""
    network, state = make(deep, "z", 4, 2)
    return network, random_params(network, state), state, score_of(network)


@pytest.fixture(scope="module")
def deep(tiny_network) -> NetworkConfig:
    """Two layers of everything, as one layer hides what goes wrong between layers."""
    return dataclasses.replace(tiny_network, layers=2, policy_layers=2)


# All that may be chosen besides sizes.
OPTIONS = {"separate_stages": True, "remat": True, "dtype": "bfloat16", "dropout": 0.5}


@pytest.mark.parametrize(
    ("ring", "token_size", "options"), [("z2", 2, {}), ("z", 1, {}), ("z2", 2, OPTIONS)]
)
def test_probabilities_of_all_actions_sum_to_one(
    tiny_network, random_params, every_action, ring, token_size, options
):
    network, state = make(dataclasses.replace(tiny_network, **options), ring, 2, token_size)
    params = random_params(network, state)
    tokens = network.space.encode(jnp.asarray(every_action(network.space)))
    log_probs, quantiles = score_of(network)(params, state, tokens)
    assert log_probs.shape == (network.space.size,)
    assert quantiles.shape == (network.config.quantiles,)
    assert log_probs.dtype == quantiles.dtype == jnp.float32
    np.testing.assert_allclose(jnp.exp(log_probs).sum(), 1.0, rtol=1e-4)
    assert log_probs.max() - log_probs.min() > 0.1


@pytest.mark.parametrize(
    ("options", "tolerance"),
    # In bfloat16, products of other shapes are rounded in another order.
    [({}, 1e-4), (OPTIONS, 0.03)],
)
def test_sampling_and_teacher_forcing_agree(deep, random_params, options, tolerance):
    network, state = make(dataclasses.replace(deep, **options), "z", 4, 2)
    params = random_params(network, state)

    @jax.jit
    def both(params, key, state):
        sampled, quantiles = sample_actions(network, params, key, state, num_actions=5)
        scored = network.apply(params, state, sampled.tokens, method="score")
        return sampled, quantiles, *scored

    sampled, quantiles, log_probs, scored_quantiles = both(params, jax.random.key(2), state)
    np.testing.assert_allclose(sampled.log_probs, log_probs, rtol=tolerance)
    np.testing.assert_allclose(quantiles, scored_quantiles, rtol=tolerance)
    assert log_probs.min() > -100
    actions = np.asarray(network.space.decode(sampled.tokens))
    assert actions.any(axis=2).all(), "no factor is zero"


def test_the_value_depends_on_the_start_symbol_but_on_no_token(standard):
    network, params, state, score = standard
    tokens = network.space.encode(jnp.ones((1, 3, 4), jnp.int8))
    log_probs, quantiles = score(params, state, tokens)

    def with_embedding(change):
        policy = dict(params["params"]["policy"])
        policy["token_embedding"] = {"embedding": change(policy["token_embedding"]["embedding"])}
        changed = {"params": {**params["params"], "policy": policy}}
        return score(changed, state, tokens)

    # START has the last row.
    other_log_probs, other_quantiles = with_embedding(lambda rows: rows.at[:-1].multiply(-1))
    np.testing.assert_array_equal(other_quantiles, quantiles)
    assert abs(other_log_probs - log_probs).max() > 1e-3
    _, other_quantiles = with_embedding(lambda rows: rows.at[-1].multiply(-1))
    assert abs(other_quantiles - quantiles).max() > 1e-3


def test_the_network_sees_the_residual_the_moves_and_the_history(standard):
    network, params, state, score = standard
    tokens = network.space.encode(jnp.ones((1, 3, 4), jnp.int8))
    before = score(params, state, tokens)
    for changed in (
        state._replace(residual=state.residual.at[1, 2, 3].add(1)),
        state._replace(moves=state.moves + 1),
        state._replace(history=state.history.at[0, 2].multiply(-1)),
    ):
        after = score(params, changed, tokens)
        assert abs(after[0] - before[0]).max() > 1e-4
        assert abs(after[1] - before[1]).max() > 1e-4


def test_gradients_at_the_start_are_finite_and_moderate_even_for_an_empty_tensor():
    network, state = make(NetworkConfig(layers=3), "z2", 4, 2)
    empty = jax.tree.map(jnp.zeros_like, state)

    def start(network: AgentNetwork, state: State):
        return network.start(network.encode(state))

    def loss(params, state):
        log_probs, quantiles, _ = network.apply(params, state, method=start)
        return (quantiles**2).mean() - log_probs[-1]

    @jax.jit
    def norm(state):
        params = network.init(jax.random.key(0), state, method=start)
        return optax.tree.norm(jax.grad(loss)(params, state))

    for given in (state, empty):
        assert 0.01 < norm(given) < 1e3


@pytest.fixture(scope="module")
def actions(standard) -> jax.Array:
    network, *_ = standard
    drawn = np.random.default_rng(4).choice([-1, 1], (5, 3, 4))
    drawn[:, :2, 0] = 1  # canonical
    return network.space.encode(jnp.asarray(drawn, jnp.int8))


def with_options(network: AgentNetwork, **options) -> AgentNetwork:
    return network.clone(config=dataclasses.replace(network.config, **options))


def total(network: AgentNetwork, params, state, actions):
    log_probs, quantiles = network.apply(params, state, actions, method="score")
    return (quantiles**2).mean() - log_probs.sum()


@pytest.mark.slow
def test_recomputation_changes_no_gradient(standard, actions):
    network, params, state, _ = standard
    found, expected = (
        jax.jit(jax.grad(functools.partial(total, each)))(params, state, actions)
        for each in (with_options(network, remat=True), network)
    )
    for each, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(each, other, rtol=1e-4, atol=1e-5 * abs(other).max())


def test_recomputation_stores_less(standard, actions):
    network, params, state, _ = standard

    def stored(network: AgentNetwork) -> int:
        _, backward = jax.eval_shape(
            lambda params: jax.vjp(lambda x: total(network, x, state, actions), params), params
        )
        return sum(x.size for x in jax.tree.leaves(backward))

    assert stored(with_options(network, remat=True)) < 0.6 * stored(network)


def test_a_position_alone_has_the_value_that_it_has_beside_its_actions(standard, actions):
    network, params, state, score = standard
    _, expected = score(params, state, actions)
    alone = jax.jit(functools.partial(network.apply, method="evaluate"))(params, state)
    np.testing.assert_allclose(alone, expected, rtol=1e-4, atol=1e-4)
    assert np.ptp(expected) > 0.1, "not all the same"


def test_dropout_acts_where_a_key_is_given_and_only_there(standard, actions):
    network, params, state, score = standard
    dropping = with_options(network, dropout=0.3)
    expected = score(params, state, actions)
    without = score_of(dropping)(params, state, actions)
    jax.tree.map(np.testing.assert_array_equal, without, expected)

    @jax.jit
    def run(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return dropping.apply(params, state, actions, method="score", rngs=rngs)

    once, again, other = (run(seed) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, once, again)
    for each, kept in ((once, expected), (other, expected), (other, once)):
        assert abs(each[0] - kept[0]).min() > 1e-4
        assert abs(each[1] - kept[1]).max() > 1e-4


def test_bfloat16_is_close_to_float32(standard, actions):
    network, params, state, score = standard
    # Of about the size that they have at the start.
    params = jax.tree.map(lambda x: 0.6 * x, params)
    log_probs, quantiles = score_of(with_options(network, dtype="bfloat16"))(params, state, actions)
    expected_log_probs, expected_quantiles = score(params, state, actions)
    assert abs(log_probs - expected_log_probs).max() > 0, "it computes in another type"
    np.testing.assert_allclose(log_probs, expected_log_probs, atol=0.1)
    np.testing.assert_allclose(quantiles, expected_quantiles, atol=0.1)


def test_parameters_are_float32_whatever_it_computes_in(standard, actions):
    network, _, state, _ = standard
    init = functools.partial(with_options(network, **OPTIONS).init, method="score")
    shapes = jax.eval_shape(init, jax.random.key(0), state, actions)
    assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}


def test_rounded_parameters_say_the_same(tiny_network, random_params, actions):
    network, state = make(dataclasses.replace(tiny_network, dtype="bfloat16"), "z", 4, 2)
    params = random_params(network, state)
    rounded = network.rounded(params)
    dtypes = {x.dtype for x in jax.tree.leaves(rounded["params"]["policy"]) if x.ndim > 1}
    assert dtypes == {jnp.dtype(jnp.bfloat16)}
    # Or XLA leaves out roundings on the way from one sum to the next.
    exact = {"xla_allow_excess_precision": False}
    score = jax.jit(functools.partial(network.apply, method="score"), compiler_options=exact)
    said = [score(x, state, actions) for x in (params, rounded)]
    for one, other in zip(*map(jax.tree.leaves, said), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_network_in_float32_rounds_nothing(standard):
    network, params, *_ = standard
    for one, other in zip(*map(jax.tree.leaves, (params, network.rounded(params))), strict=True):
        assert one is other
