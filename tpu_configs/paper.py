"""python train.py --config tpu_configs/paper.py

Hardware: what it needs as it stands has not been tried. The paper trained on 64 TPU v3 cores and
played on 1600 TPU v4 of their own; here the same devices do both. On fewer of them
learner.microbatches makes a batch fit into memory.
Expected time: not measured; the paper's agent took "a week to converge".
Result: not trained. The network has 202 million parameters. One step with 16 games in progress and
learner.microbatches 32 has been made on one H200: 38.5 s, 12.6 s of them for the update of 2048
positions, 36 GB at its peak, 185 s to compile (commit ba30d67, docs/roofline.md).

The agent of the AlphaTensor paper (Fawzi et al., 2022) over the integers: all n, m, p from 2 to 5
in one network. Numbers that the paper does not give are marked so.
"""

from itertools import combinations_with_replacement

from networks.network import NetworkConfig
from search.config import SearchConfig
from training.config import (
    Config,
    DemonstrationConfig,
    GameConfig,
    LearnerConfig,
    SelfPlayConfig,
)

config = Config(
    game=GameConfig(
        # The twenty of its Fig. 3; it may have played all orders of n, m, p.
        targets=tuple(
            f"matmul:{n},{m},{p}" for n, m, p in combinations_with_replacement(range(2, 6), 3)
        ),
        ring="z",
        coefficients=(-2, -1, 0, 1, 2),
        max_moves=125,  # not given
        history=7,
        basis_density=0.015,
        signed_permutations=100,
    ),
    demonstrations=DemonstrationConfig(max_factors=125, density=0.2, large=0.01, padded=True),
    network=NetworkConfig(
        width=512,
        layers=8,
        heads=16,
        head_dim=32,
        mlp_factor=4,
        policy_width=2048,
        policy_layers=2,
        policy_heads=32,
        policy_head_dim=32,
        token_size=5,
        value_width=512,
        quantiles=8,
        dropout=0.1,  # not given
        dtype="bfloat16",  # not given
        remat=True,
    ),
    search=SearchConfig(
        algorithm="sampled_alphazero",
        sampling="independent",
        num_actions=32,
        num_simulations=800,
    ),
    selfplay=SelfPlayConfig(
        num_games=2048,
        # Play and learning run apart in the paper; one update a move is not its figure.
        moves_per_step=1,
        kept_games=4,
    ),
    learner=LearnerConfig(
        # The paper mixes demonstrations and games from the start; their ratio is not given.
        demonstration_steps=0,
        updates_per_step=1,
        replay_batch=1024,
        demonstration_batch=1024,
        swapped_share=0.5,
        learning_rate=1e-4,
        warmup_updates=0,
        decay_updates=500_000,
        weight_decay=1e-5,
        max_gradient_norm=4.0,
    ),
    max_minutes=7 * 24 * 60.0,
)
