"""python train.py --config tpu_configs/h200_8_444.py

Hardware: eight NVIDIA H200 of one host.
Expected time: days; not measured.
Result: not yet run. Wanted: <4,4,4> with 47 products modulo 2, which are proved not to lift.
Memory of each, by the shapes: replay 272 MB, trees 216 MB, network (11.9 million parameters) and
optimizer 142 MB. What the learner keeps for the backward pass is more, and is divided by
learner.microbatches.
"""

from networks.network import NetworkConfig
from search.config import SearchConfig
from training.config import Config, DemonstrationConfig, GameConfig, LearnerConfig, SelfPlayConfig

config = Config(
    game=GameConfig(targets=("matmul:4,4,4",), basis_density=0.1, varied_density=True),
    demonstrations=DemonstrationConfig(varied_density=True),
    network=NetworkConfig(
        width=256,
        layers=6,
        heads=8,
        head_dim=32,
        policy_width=512,
        policy_layers=2,
        policy_heads=16,
        policy_head_dim=32,
        token_size=4,
        value_width=512,
        dtype="bfloat16",
    ),
    search=SearchConfig(num_actions=32, num_simulations=32),
    selfplay=SelfPlayConfig(
        num_games=8 * 1024,
        moves_per_step=2,
        kept_games=4,
        continued_share=0.95,
        continued_moves=4,
        continued_migration=3e-4,
        continued_basis_density=0.5,
    ),
    learner=LearnerConfig(
        demonstration_steps=2500,
        updates_per_step=4,
        replay_batch=1024,
        demonstration_batch=1024,
        best_games_share=0.5,
        microbatches=2,
        learning_rate=2e-4,
        warmup_updates=1000,
        decay_updates=500_000,
    ),
    lift=False,
    max_minutes=7 * 24 * 60.0,
)
