"""python train.py --config tpu_configs/v5p_64_all.py --workdir gs://BUCKET/all

Hardware: 64 TPU v5p chips of 95 GB on 16 hosts (v5p-128, which counts cores).
Expected time: a week; not measured.
Result: not yet run. Wanted: the best known ranks of all n, m, p from 2 to 5 at once.
Memory of each, by the shapes: replay 367 MB, trees 2.3 GB, network (41 million parameters) and
optimizer 494 MB. What the learner keeps for the backward pass is more, and is divided by
learner.microbatches; whether all of it fits has not been settled (benchmarks/compile_tpu.py).
"""

from itertools import combinations_with_replacement

from networks.network import NetworkConfig
from search.config import SearchConfig
from training.config import Config, DemonstrationConfig, GameConfig, LearnerConfig, SelfPlayConfig

config = Config(
    game=GameConfig(
        targets=tuple(
            f"matmul:{n},{m},{p}" for n, m, p in combinations_with_replacement(range(2, 6), 3)
        ),
        ring="z",
        coefficients=(-2, -1, 0, 1, 2),
        history=1,
        basis_density=0.015,
        signed_permutations=100,
    ),
    demonstrations=DemonstrationConfig(density=0.2),
    network=NetworkConfig(
        width=256,
        layers=6,
        heads=8,
        head_dim=32,
        policy_width=1024,
        policy_layers=2,
        policy_heads=16,
        policy_head_dim=64,
        token_size=5,
        value_width=512,
        dtype="bfloat16",
        remat=True,
    ),
    search=SearchConfig(num_actions=32, num_simulations=64),
    selfplay=SelfPlayConfig(num_games=64 * 1024, moves_per_step=1, kept_games=2),
    learner=LearnerConfig(
        demonstration_steps=5000,
        updates_per_step=4,
        replay_batch=4096,
        demonstration_batch=4096,
        microbatches=2,
        swapped_share=0.5,
        learning_rate=1e-4,
        warmup_updates=1000,
        decay_updates=500_000,
    ),
    max_minutes=7 * 24 * 60.0,
)
