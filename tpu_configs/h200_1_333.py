"""python train.py --config tpu_configs/h200_1_333.py

Hardware: one NVIDIA H200 (141 GB).
Expected time: hours; not measured.
Result: not yet run. Wanted: <3,3,3> with 23 products over Z_2, lifted to the integers.
Memory, by the shapes: replay 51 MB, trees 54 MB, network (2.8 million parameters) and optimizer
34 MB. What the learner keeps for the backward pass is more, and is divided by learner.microbatches.
"""

from networks.network import NetworkConfig
from search.config import SearchConfig
from training.config import Config, DemonstrationConfig, GameConfig, LearnerConfig, SelfPlayConfig

config = Config(
    game=GameConfig(targets=("matmul:3,3,3",), varied_density=True),
    demonstrations=DemonstrationConfig(density=0.3),
    network=NetworkConfig(
        width=128,
        layers=3,
        heads=8,
        head_dim=16,
        policy_width=256,
        policy_layers=2,
        policy_heads=8,
        policy_head_dim=32,
        token_size=9,
        value_width=256,
        dtype="bfloat16",
    ),
    search=SearchConfig(num_actions=16, num_simulations=16),
    selfplay=SelfPlayConfig(
        num_games=2048, moves_per_step=4, kept_games=4, continued_share=0.5, continued_moves=8
    ),
    learner=LearnerConfig(
        # 8000 updates: a network that knows no demonstrations finishes no game of this size.
        demonstration_steps=1000,
        updates_per_step=8,
        replay_batch=1024,
        demonstration_batch=1024,
        best_games_share=0.5,
        microbatches=4,
        learning_rate=5e-4,
        warmup_updates=1000,
    ),
    max_minutes=24 * 60.0,
)
