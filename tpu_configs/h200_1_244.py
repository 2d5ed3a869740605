"""python train.py --config tpu_configs/h200_1_244.py

Hardware: one NVIDIA H200 (141 GB).
Expected time: 10 minutes for seed 0, 90 s of them to compile.
Result: <2,4,4> with 26 products over Z_2, lifted to the integers.
"""

import dataclasses
import pathlib

from train import load_config

_ladder = load_config(pathlib.Path(__file__).with_name("h200_1_ladder.py"))
config = dataclasses.replace(
    _ladder, game=dataclasses.replace(_ladder.game, targets=("matmul:2,4,4",))
)
