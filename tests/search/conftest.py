"""A policy that is a table, and the searches compiled with it, each once a session."""

import dataclasses
import functools
from collections.abc import Callable
from types import ModuleType
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import mctx
import numpy as np
import pytest

from networks.network import AgentNetwork
from networks.policy_head import Cache, Memory
from search import gumbel, sampled_alphazero, tree
from search.config import SearchConfig
from search.search import search
from search.tree import SearchResult
from tensorgame.factors import ActionSpace
from tensorgame.game import Game, State
from tensorgame.rings import Z2, integers

GAMES = 4
_MODULES: dict[str, ModuleType] = {"gumbel": gumbel, "sampled_alphazero": sampled_alphazero}


class TableNetwork(AgentNetwork):
    """The logits of a token depend on its place alone, the value on the entries left."""

    def setup(self) -> None:
        shape = (self.space.num_tokens, self.space.vocabulary)
        self.logits = self.param("logits", nn.initializers.zeros, shape)
        self.constant = self.param("constant", nn.initializers.zeros, ())
        self.slope = self.param("slope", nn.initializers.zeros, ())

    def encode(self, state: State) -> Memory:
        entries = jnp.abs(state.residual).sum().astype(jnp.float32)
        return (jnp.broadcast_to(entries, (1, 2, 1, 1)),)

    def start(self, memory: Memory) -> tuple[jax.Array, jax.Array, Cache]:
        quantiles = self.constant + self.slope * memory[0][0, 0, 0]
        cache = ()
        return self._legal(jnp.zeros((), jnp.int32), jnp.zeros((), bool)), quantiles, cache

    def evaluate(self, state: State) -> jax.Array:
        return self.start(self.encode(state))[1]

    def extend(self, memory, cache, tokens, position, started) -> tuple[jax.Array, Cache]:
        return self._legal(position + jnp.arange(tokens.shape[1]), started), cache

    def _legal(self, places: jax.Array, started: jax.Array) -> jax.Array:
        legal = jnp.asarray(self.space.legal)[places, started.astype(jnp.int32)]
        return jax.nn.log_softmax(jnp.where(legal, self.logits[places], -1e9))


@dataclasses.dataclass(frozen=True)
class Laboratory:
    """A game, the table's parameters, and the searches."""

    network: TableNetwork
    actions: np.ndarray

    def params(self, seed: int = 0, value: float = 0.0, slope: float = 0.0) -> dict:
        shape = (self.network.space.num_tokens, self.network.space.vocabulary)
        logits = np.random.default_rng(seed).normal(size=shape)
        table = {"logits": logits, "constant": value, "slope": slope}
        return {"params": jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), table)}

    def positions(self, residuals: np.ndarray, moves: int) -> State:
        count, side = len(residuals), self.network.space.side
        return State(
            residual=jnp.asarray(residuals, self.network.game.ring.dtype),
            moves=jnp.full(count, moves, jnp.int32),
            history=jnp.zeros((count, self.network.game.history, 3, side), jnp.int8),
        )

    def log_probs(self, params: dict, tokens: np.ndarray) -> np.ndarray:
        """Of actions (..., k), by the definition of the table."""
        space = self.network.space
        started = np.asarray(space.started(jnp.asarray(tokens))).astype(int)
        total = np.zeros(tokens.shape[:-1])
        for place in range(space.num_tokens):
            logits = np.asarray(params["params"]["logits"][place], np.float64)
            weights = np.exp(logits) * space.legal[place, started[..., place]]
            chosen = np.take_along_axis(weights, tokens[..., place, None], axis=-1)[..., 0]
            with np.errstate(divide="ignore"):
                total += np.log(chosen / weights.sum(axis=-1))
        return total

    def after(self, residual: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """The residuals (N, S, S, S) after each of the actions (N, k)."""
        actions = np.asarray(self.network.space.decode(jnp.asarray(tokens)), int)
        left = residual - np.einsum("ni,nj,nk->nijk", *actions.transpose(1, 0, 2))
        return left % self.network.game.ring.modulus if self.network.game.ring.modulus else left

    def run(
        self, config: SearchConfig, params: dict, keys: jax.Array, states: State
    ) -> tuple[SearchResult, mctx.Tree]:
        """The result of the search and the tree behind it, in NumPy."""
        return jax.device_get(_compiled(self.network, config)(params, keys, states))


@functools.cache
def _compiled(network: TableNetwork, config: SearchConfig) -> Callable:
    def with_tree(params: dict, keys: jax.Array, states: State):
        trees = []

        def grow_and_keep(*args, **kwargs) -> mctx.Tree:
            trees.append(tree.grow_tree(*args, **kwargs))
            return trees[-1]

        with mock.patch.object(_MODULES[config.algorithm], "grow_tree", grow_and_keep):
            result = search(network, config, params, keys, states)
        # Tree holds constants that are no arrays of the tree.
        return result, trees[0].replace(extra_data=None)

    # Much is compiled and little computed.
    return jax.jit(with_tree, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(scope="session")
def bits(tiny_network, every_action) -> Laboratory:
    """2 x 2 x 2 tensors modulo 2: 27 actions."""
    game, space = Game(Z2, max_moves=4, history=1), ActionSpace(Z2, side=2, token_size=1)
    return Laboratory(TableNetwork(tiny_network, game, space), every_action(space))


@pytest.fixture(scope="session")
def scalars(tiny_network, every_action) -> Laboratory:
    """One integer, to be brought to 0 by the two actions -1 and +1."""
    ring = integers()
    game, space = Game(ring, max_moves=4, history=0), ActionSpace(ring, side=1, token_size=1)
    return Laboratory(TableNetwork(tiny_network, game, space), every_action(space))


@pytest.fixture(scope="session")
def keys() -> Callable[[int], jax.Array]:
    """``keys(seed)`` are those of the games."""
    return lambda seed: jax.random.split(jax.random.key(seed), GAMES)


@pytest.fixture(scope="session")
def variants() -> dict[str, SearchConfig]:
    """Each is compiled once, for the game of `bits`."""
    puct = {"algorithm": "sampled_alphazero", "sampling": "independent"}
    return {
        # 27 actions and 40 simulations: each is visited once, and the best half of them twice.
        "gumbel": SearchConfig(
            num_actions=27, num_simulations=40, value_scale=0.2, rescale_values=False
        ),
        "gumbel with others": SearchConfig(
            num_actions=4, num_simulations=12, value_scale=0.02, unsampled_mass=True
        ),
        "gumbel of samples": SearchConfig(
            num_actions=16, num_simulations=16, sampling="independent"
        ),
        "sampled alphazero": SearchConfig(
            num_actions=16, num_simulations=40, temperature_visits=20.0, **puct
        ),
    }
