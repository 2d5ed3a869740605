"""python train.py --config tpu_configs/h200_1_333.py

Hardware: one NVIDIA H200 (141 GB).
Expected time: 145 s for seed 0, 67 of them to compile.
Result: <3,3,3> with 23 products over Z_2, lifted to the integers.
"""

import dataclasses
import pathlib

from train import load_config

_ladder = load_config(pathlib.Path(__file__).with_name("h200_1_ladder.py"))
config = dataclasses.replace(
    _ladder,
    game=dataclasses.replace(_ladder.game, targets=("matmul:3,3,3",)),
    selfplay=dataclasses.replace(
        _ladder.selfplay,
        num_games=2048,
        moves_per_step=4,
        continued_share=0.95,
        continued_migration=1 / 32,
    ),
    learner=dataclasses.replace(_ladder.learner, demonstration_steps=300, updates_per_step=8),
)
