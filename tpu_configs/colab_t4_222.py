"""python train.py --config tpu_configs/colab_t4_222.py

Hardware: one NVIDIA T4 with 16 GB, as Colab lends it; float32, as that card has no bfloat16 units.
Expected time: minutes, most of them compilation; not measured.
Result: not yet run. <2,2,2> with 7 products over Z_2, lifted to the integers, is what it is for.
Memory, by the shapes: replay 4 MB, trees 3 MB, network and optimizer 1 MB.
"""

from training.config import Config, LearnerConfig, SelfPlayConfig

# The defaults are too few games to fill an accelerator.
config = Config(
    selfplay=SelfPlayConfig(num_games=1024),
    learner=LearnerConfig(replay_batch=256, demonstration_batch=256),
)
