"""python train.py --config tpu_configs/h200_1_244.py

Hardware: one NVIDIA H200 (141 GB).
Expected time: 10 minutes for seed 0, 90 s of them to compile.
Result: <2,4,4> with 26 products over Z_2, lifted to the integers. For other targets with
--selfplay.continued-migration 1e-3: 20 for 2,3,4 in 3 minutes, 20 modulo 2 for skew-matvec:6 in 5.
"""

import dataclasses
import pathlib

from train import load_config

_ladder = load_config(pathlib.Path(__file__).with_name("h200_1_ladder.py"))
config = dataclasses.replace(
    _ladder,
    game=dataclasses.replace(_ladder.game, targets=("matmul:2,4,4",)),
    # Long chains in few places, most of whose moves are made after few updates.
    selfplay=dataclasses.replace(
        _ladder.selfplay,
        num_games=512,
        moves_per_step=16,
        continued_share=0.99,
        continued_migration=3e-4,
    ),
)
