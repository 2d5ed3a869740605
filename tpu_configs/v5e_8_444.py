"""python train.py --config tpu_configs/v5e_8_444.py

Hardware: a TPU v5e host with eight chips of 16 GB (v5litepod-8).
Expected time: days; not measured.
Result: not yet run. Wanted: <4,4,4> with 47 products modulo 2, which are proved not to lift.
Memory of each, by the shapes: replay 136 MB, trees 108 MB, network (11.9 million parameters) and
optimizer 142 MB. What the learner keeps for the backward pass is more, and is divided by
learner.microbatches; whether all of it fits has not been settled (benchmarks/compile_tpu.py).
"""

from networks.network import NetworkConfig
from search.config import SearchConfig
from training.config import Config, DemonstrationConfig, GameConfig, LearnerConfig, SelfPlayConfig

config = Config(
    game=GameConfig(targets=("matmul:4,4,4",), basis_density=0.1),
    demonstrations=DemonstrationConfig(density=0.25),
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
        remat=True,
    ),
    search=SearchConfig(num_actions=32, num_simulations=32),
    selfplay=SelfPlayConfig(num_games=8 * 512, moves_per_step=2, kept_games=4),
    learner=LearnerConfig(
        demonstration_steps=2500,
        updates_per_step=4,
        replay_batch=1024,
        demonstration_batch=1024,
        microbatches=8,
        learning_rate=2e-4,
        warmup_updates=1000,
        decay_updates=500_000,
    ),
    lift=False,
    max_minutes=7 * 24 * 60.0,
)
