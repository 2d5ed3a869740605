"""Configurations that run, and the sentences that refuse the others."""

import dataclasses

import jax
import pytest

from networks.network import NetworkConfig
from search.config import SearchConfig
from training.config import (
    MAX_VOCABULARY,
    Config,
    ConfigError,
    DemonstrationConfig,
    GameConfig,
    LearnerConfig,
    SelfPlayConfig,
)
from training.mesh import make_mesh
from training.step import make_init, make_step

RUNS = {
    "default": Config(),
    "integers, a padded target, a history, one basis for each mode": Config(
        game=GameConfig(
            targets=("matmul:1,2,3",),
            ring="z",
            coefficients=(-2, -1, 0, 1, 2),
            history=2,
            shared_basis=False,
        ),
        demonstrations=DemonstrationConfig(max_factors=3, large=0.1, padded=True),
        network=NetworkConfig(token_size=3, layers=2, policy_layers=2),
    ),
    "one entry a token, more actions than factors, batches of other sizes than the games": Config(
        network=NetworkConfig(token_size=1, quantiles=4),
        search=SearchConfig(num_actions=12, num_simulations=3, rescale_values=False),
        selfplay=SelfPlayConfig(num_games=8, moves_per_step=1, kept_games=1),
        learner=LearnerConfig(replay_batch=4, demonstration_batch=24, warmup_updates=0),
    ),
    "several targets, a prime modulus, symmetries, swapped moves, best games, two agents": Config(
        num_seeds=2,
        game=GameConfig(
            targets=("matmul:1,2,2", "complex", "cyclic-convolution:3"),
            target_weights=(1.0, 2.0, 1.0),
            ring="z7",
            signed_permutations=100,
            history=1,
        ),
        selfplay=SelfPlayConfig(continued_share=0.5),
        learner=LearnerConfig(swapped_share=0.5, best_games_share=0.25, best_games=8),
    ),
    "the search of the paper, part of what is learned being searched again": Config(
        search=SearchConfig(algorithm="sampled_alphazero", sampling="independent"),
        learner=LearnerConfig(reanalysed_share=0.5, microbatches=4, decay_updates=9),
    ),
    "a single action": Config(
        game=GameConfig(targets=("matmul:1,1,1",)), search=SearchConfig(num_actions=1)
    ),
}


# Tracing takes seconds for each; the others vary every part of these two.
_SLOW = ("default", "a single action")


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(config, id=name, marks=[pytest.mark.slow] if name in _SLOW else [])
        for name, config in RUNS.items()
    ],
)
def test_configurations_validate_and_trace(config):
    config = dataclasses.replace(config, devices=1)
    config.validate()
    mesh = make_mesh(config)
    before = jax.eval_shape(make_init(config, mesh), config.seed)
    after, output = jax.eval_shape(make_step(config, mesh), before)
    assert after == before, "a step returns what it takes"
    count, agents = len(config.targets), (config.num_seeds,) if config.num_seeds > 1 else ()
    assert output.found.actions.shape == (*agents, count, config.max_moves, 3, config.side)
    shapes = {"target_games": (count,), "target_solved": (count, config.max_moves + 1)}
    for name, metric in output.metrics.items():
        assert metric.shape == (*agents, *shapes.get(name, ()))


def test_the_network_keeps_to_the_corner_that_targets_fill():
    config = Config(game=GameConfig(targets=("matmul:2,4,4",)))
    assert config.corner == (8, 16, 8)
    assert config.action_space.num_tokens == 4
    several = dataclasses.replace(config.game, targets=("matmul:2,2,3", "matmul:3,2,2"))
    assert dataclasses.replace(config, game=several).corner == (6, 6, 6)
    permuted = dataclasses.replace(config.game, signed_permutations=10)
    padded = dataclasses.replace(config.demonstrations, padded=True)
    for whole in (
        dataclasses.replace(config, game=permuted),
        dataclasses.replace(config, demonstrations=padded),
    ):
        assert whole.corner == (16, 16, 16)
        assert whole.action_space.num_tokens == 6


def test_zeros_choose_what_fits_the_target():
    config = Config(game=GameConfig(targets=("matmul:2,3,4",)))
    assert config.max_moves == 24 + 2
    assert config.ranks_wanted == (20,)
    assert config.demonstrator.max_factors == (20,)
    assert config.demonstrator.shapes == ((6, 12, 8),)
    # The side is 12; over Z_2 six entries make a token, over Z with five values four do.
    assert config.action_space.token_size == 6
    game = GameConfig(targets=("matmul:2,3,4",), ring="z", coefficients=(-2, -1, 0, 1, 2))
    integers = dataclasses.replace(config, game=game)
    assert integers.action_space.token_size == 4
    assert integers.action_space.vocabulary <= MAX_VOCABULARY


def replaced(section: str, **fields) -> Config:
    config = Config(devices=1)
    return dataclasses.replace(
        config, **{section: dataclasses.replace(getattr(config, section), **fields)}
    )


@pytest.mark.parametrize(
    ("section", "fields", "says"),
    [
        ("game", {"history": -1}, "game.history is -1; it must not be negative"),
        ("game", {"basis_density": 0.0}, "game.basis_density is 0.0; it must be positive"),
        ("game", {"canonical_probability": 1.5}, "is 1.5; it must be at most 1.0"),
        ("game", {"max_moves": 6}, "demonstrations.max_factors is 7, more than game.max_moves = 6"),
        (
            "game",
            {"ring": "z", "coefficients": (-15, -1, 0, 1, 15)},
            "game.coefficients go up to 15",
        ),
        ("game", {"ring": "z", "coefficients": (0, 1)}, "game.coefficients: coefficients are 0 1"),
        ("game", {"ring": "z", "coefficients": [-1, 0, 1]}, "it must be a tuple of type int"),
        ("game", {"ring": "z6"}, "game.ring: the modulus is 6, which is not a prime"),
        ("game", {"targets": ()}, "game.targets is empty"),
        ("game", {"targets": ("matmul:2,2,2",) * 2}, "game.targets holds a target twice"),
        ("game", {"target_weights": (1.0, 2.0)}, "target_weights has 2 values for 1 targets"),
        ("game", {"target_weights": (0.0,)}, "game.target_weights is 0.0; it must be positive"),
        ("learner", {"swapped_share": 2.0}, "learner.swapped_share is 2.0; it must be at most"),
        ("demonstrations", {"density": 1.0}, "demonstrations.density is 1.0; it must be at most"),
        ("demonstrations", {"large": float("inf")}, "demonstrations.large is inf; it must be a"),
        ("network", {"dropout": 1.0}, "network.dropout is 1.0; it must be at most 0.9"),
        ("network", {"width": 0}, "network.width is 0; it must be positive"),
        ("network", {"token_size": -2}, "network.token_size is -2; it must not be negative"),
        ("search", {"num_actions": 3376}, "search.num_actions is 3376, more than the 3375"),
        ("search", {"algorithm": "uct"}, "search.algorithm is 'uct'; use one of gumbel, sampled"),
        ("search", {"noise_fraction": 1.5}, "search.noise_fraction is 1.5; it must be at most"),
        ("search", {"num_simulations": 0}, "search.num_simulations is 0; it must be positive"),
        ("game", {"history": 2.0}, "game.history is 2.0; it must be of type int"),
        ("game", {"shared_basis": 1}, "game.shared_basis is 1; it must be of type bool"),
        ("selfplay", {"kept_games": 0}, "selfplay.kept_games is 0; it must be positive"),
        ("learner", {"replay_batch": 48}, "learner.replay_batch is 48; it must be a multiple"),
        ("learner", {"demonstration_batch": 48}, "learner.demonstration_batch is 48; it must be"),
        ("learner", {"learning_rate": 0.0}, "learner.learning_rate is 0.0; it must be positive"),
        ("learner", {"policy_weight": -1.0}, "learner.policy_weight is -1.0; it must not be"),
        ("learner", {"updates_per_step": True}, "learner.updates_per_step is True; it must be"),
    ],
)
def test_what_cannot_run_is_refused_with_its_field_and_value(section, fields, says):
    with pytest.raises(ConfigError, match=r"^[^\n]*$") as refusal:
        replaced(section, **fields).validate()
    assert says in str(refusal.value)


def test_tokens_with_too_many_values_are_refused():
    config = Config(
        game=GameConfig(targets=("matmul:3,3,3",), ring="z"),
        network=NetworkConfig(token_size=9),
        devices=1,
    )
    with pytest.raises(ConfigError, match=f"token_size is 9, which makes {3**9} values a token"):
        config.validate()


def test_ranks_that_are_known_not_to_lift_are_warned_of():
    game = GameConfig(targets=("matmul:4,4,4", "matmul:2,2,2"))
    (warning,) = Config(game=game).warnings()
    assert "for matmul:4,4,4 47 products are known over Z_2 and more over Z" in warning
    assert Config(game=game, lift=False).warnings() == []


def test_a_rank_below_the_proved_bound_is_warned_of():
    assert Config(target_ranks=(7,)).warnings() == []
    (warning,) = Config(target_ranks=(6,)).warnings()
    assert "target_ranks wants 6 for matmul:2,2,2, below the proved lower bound 7" in warning
