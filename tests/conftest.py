"""One small configuration, its compiled training step, and what several tests need."""

import dataclasses
import functools
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable

# The tests compile much and compute little.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true"
)
# Programs that tests start keep what they compile for each other, and for nobody else.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import install_import_hook

# Shapes and dtypes are checked against the annotations. Modules that check their inputs themselves,
# to say what would be right, are left out.
_CHECKED = {
    "tensorgame": ("demonstrations", "factors", "flips", "game", "rings", "symmetries"),
    "networks": ("attention", "network", "policy_head", "torso", "value_head"),
    "search": (
        "growth",
        "gumbel",
        "policy_loss",
        "sampled_alphazero",
        "sampling",
        "search",
        "tree",
    ),
    "training": (
        "best_games",
        "learning",
        "losses",
        "mesh",
        "reanalyse",
        "replay",
        "selfplay",
        "step",
    ),
}
_MODULES = [f"{package}.{name}" for package, names in _CHECKED.items() for name in names]
with install_import_hook(_MODULES, "beartype.beartype"):
    from networks.network import AgentNetwork, NetworkConfig
    from search.config import SearchConfig
    from tensorgame.factors import ActionSpace
    from tensorgame.game import State
    from training.config import Config, GameConfig, LearnerConfig, SelfPlayConfig
    from training.mesh import make_mesh
    from training.step import StepOutput, TrainState, make_init, make_step


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["XDG_CACHE_HOME"])


@dataclasses.dataclass(frozen=True)
class Trainer:
    """A compiled training step and the state before the first."""

    config: Config
    step: Callable[[TrainState], tuple[TrainState, StepOutput]]
    initial: TrainState

    def run(self, steps: int) -> tuple[TrainState, list[StepOutput]]:
        """Makes the first steps: the state after them, and the output of each."""
        # A step takes its state over.
        state, outputs = jax.tree.map(jnp.copy, self.initial), []
        for _ in range(steps):
            state, output = self.step(state)
            outputs.append(jax.device_get(output))
        return state, outputs


@pytest.fixture(scope="session")
def tiny_network() -> NetworkConfig:
    return NetworkConfig(
        width=8,
        layers=1,
        heads=2,
        head_dim=4,
        policy_width=8,
        policy_layers=1,
        policy_heads=2,
        policy_head_dim=4,
        value_width=8,
        token_size=1,
    )


@pytest.fixture(scope="session")
def tiny(tiny_network) -> Config:
    """Small enough for games to be solved by chance, with a padded mode, signs and a history."""
    config = Config(
        game=GameConfig(
            targets=("matmul:1,1,2",), ring="z", max_moves=4, history=1, basis_density=0.5
        ),
        network=tiny_network,
        search=SearchConfig(num_actions=8, num_simulations=8),
        selfplay=SelfPlayConfig(num_games=8, moves_per_step=2, kept_games=2),
        learner=LearnerConfig(
            demonstration_steps=1,
            updates_per_step=8,
            replay_batch=8,
            demonstration_batch=8,
            learning_rate=1e-2,
            warmup_updates=10,
        ),
        devices=1,
    )
    config.validate()
    return config


@pytest.fixture(scope="session")
def trainer(tiny) -> Trainer:
    mesh = make_mesh(tiny)
    return Trainer(tiny, make_step(tiny, mesh), make_init(tiny, mesh)(tiny.seed))


@pytest.fixture(scope="session")
def trained(trainer) -> tuple[TrainState, list[StepOutput]]:
    """After enough steps for many games to be played and some to be solved."""
    return trainer.run(80)


@pytest.fixture(scope="session")
def random_params() -> Callable[[AgentNetwork, State], dict]:
    """``random_params(network, state)`` is quick, and no bias of it is zero as at the start."""

    def draw(network: AgentNetwork, state: State) -> dict:
        tokens = jnp.zeros((1, network.space.num_tokens), jnp.int32)
        init = functools.partial(network.init, method="score")
        shapes = jax.eval_shape(init, jax.random.key(0), state, tokens)
        rng = np.random.default_rng(0)
        return jax.tree.map(lambda x: jnp.asarray(0.5 * rng.normal(size=x.shape), x.dtype), shapes)

    return draw


@pytest.fixture(scope="session")
def every_action() -> Callable[[ActionSpace], np.ndarray]:
    """``every_action(space)`` lists all actions (N, 3, S) of a small space, by their definition."""

    def is_canonical(factor: tuple[int, ...], modulus: int) -> bool:
        leading = next(entry for entry in factor if entry)
        return leading == 1 if modulus else leading > 0

    def enumerate_actions(space: ActionSpace) -> np.ndarray:
        ring = space.ring
        factors = [
            [
                factor + (0,) * (space.side - side)
                for factor in itertools.product(ring.coefficients, repeat=side)
                if any(factor) and (mode == 2 or is_canonical(factor, ring.modulus))
            ]
            for mode, side in enumerate(space.sides)
        ]
        return np.array(list(itertools.product(*factors)), np.int8)

    return enumerate_actions
