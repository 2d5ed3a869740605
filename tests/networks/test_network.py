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


def score(network: AgentNetwork):
    """The compiled function of (params, state, tokens)."""
    return jax.jit(functools.partial(network.apply, method="score"))


@pytest.fixture(scope="module")
def standard(deep, random_params):
    """A network over Z with two tokens a factor, its parameters, a state and its `score`."""
    network, state = make(deep, "z", 4, 2)
    return network, random_params(network, state), state, score(network)


@pytest.fixture(scope="module")
def deep(tiny_network) -> NetworkConfig:
    """Two layers of everything, as one layer hides what goes wrong between layers."""
    return dataclasses.replace(tiny_network, layers=2, policy_layers=2)


@pytest.mark.parametrize(("ring", "token_size"), [("z2", 2), ("z", 1)])
def test_probabilities_of_all_actions_sum_to_one(
    tiny_network, random_params, every_action, ring, token_size
):
    network, state = make(tiny_network, ring, 2, token_size)
    params = random_params(network, state)
    tokens = network.space.encode(jnp.asarray(every_action(network.space)))
    log_probs, quantiles = score(network)(params, state, tokens)
    assert log_probs.shape == (network.space.size,)
    assert quantiles.shape == (network.config.quantiles,)
    np.testing.assert_allclose(jnp.exp(log_probs).sum(), 1.0, rtol=1e-4)
    assert log_probs.max() - log_probs.min() > 0.1


@pytest.mark.parametrize("token_size", [4, 2])
def test_sampling_and_teacher_forcing_agree(deep, random_params, token_size):
    network, state = make(deep, "z", 4, token_size)
    params = random_params(network, state)

    @jax.jit
    def both(params, key, state):
        sampled, quantiles = sample_actions(network, params, key, state, num_actions=5)
        scored = network.apply(params, state, sampled.tokens, method="score")
        return sampled, quantiles, *scored

    sampled, quantiles, log_probs, scored_quantiles = both(params, jax.random.key(2), state)
    np.testing.assert_allclose(sampled.log_probs, log_probs, rtol=1e-4)
    np.testing.assert_allclose(quantiles, scored_quantiles, rtol=1e-4)
    assert log_probs.min() > -100
    actions = np.asarray(network.space.decode(sampled.tokens))
    assert actions.any(axis=2).all(), "no factor is zero"


def next_tokens(network: AgentNetwork, state: State, tokens: jax.Array) -> jax.Array:
    """Log-probabilities (A, k, V) of each token after those before it, with the same masks."""
    memory = network.encode(state)
    first, _, cache = network.start(memory)
    cache = jax.tree.map(lambda x: jnp.repeat(x, len(tokens), axis=1), cache)
    started = jnp.ones((len(tokens), tokens.shape[1] - 1), bool)
    rest, _ = network.extend(memory, cache, tokens[:, :-1], jnp.ones((), jnp.int32), started)
    return jnp.concatenate([jnp.broadcast_to(first, (len(tokens), 1, len(first))), rest], axis=1)


def test_a_token_is_seen_by_all_later_ones_and_no_earlier_one(standard):
    network, params, state, _ = standard
    count = network.space.num_tokens
    tokens = jax.random.randint(jax.random.key(3), (count,), 0, network.space.vocabulary)
    # Row j differs in token j; the last row is the original.
    changed = jnp.tile(tokens, (count + 1, 1))
    changed = changed.at[jnp.arange(count), jnp.arange(count)].add(1) % network.space.vocabulary
    run = jax.jit(functools.partial(network.apply, method=next_tokens))
    log_probs = run(params, state, changed)
    difference = np.abs(log_probs - log_probs[-1]).max(axis=-1)[:-1]
    sees = np.arange(count)[:, None] < np.arange(count)
    assert difference[~sees].max() < 1e-5
    assert difference[sees].min() > 1e-3


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
