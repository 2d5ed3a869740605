"""python train.py --config tpu_configs/h200_1_ladder.py --game.targets matmul:2,3,3 --num-seeds 3

Hardware: one NVIDIA H200 (141 GB).
Expected time: 2 to 12 minutes for a target, 80 s of them to compile.
Result: the best known ranks of small targets over Z_2, lifted to the integers: 11 products for
2,2,3, 15 for 2,3,3, 26 for 2,4,4, 23 for 3,3,3. docs/discovery.md has all of them, and
the flags with which 3,4,4 and 4,4,4 are solved.
"""

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
    game=GameConfig(targets=("matmul:2,2,3",), varied_density=True),
    demonstrations=DemonstrationConfig(varied_density=True),
    network=NetworkConfig(
        width=64,
        layers=2,
        heads=4,
        policy_width=128,
        policy_layers=2,
        policy_head_dim=32,
        value_width=128,
        dtype="bfloat16",
    ),
    search=SearchConfig(num_actions=8, num_simulations=4),
    # Long chains in few places, most of whose moves are made after few updates.
    selfplay=SelfPlayConfig(
        num_games=512,
        moves_per_step=16,
        continued_share=0.99,
        continued_moves=4,
        continued_migration=3e-4,
        continued_basis_density=0.5,
    ),
    learner=LearnerConfig(
        demonstration_steps=400,
        updates_per_step=4,
        replay_batch=256,
        demonstration_batch=256,
        best_games_share=0.5,
        learning_rate=2e-3,
        warmup_updates=200,
    ),
)
