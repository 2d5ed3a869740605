"""python train.py --config tpu_configs/h200_1_skew.py --num-seeds 3

Hardware: one NVIDIA H200 (141 GB).
Expected time: 5 minutes, 105 s of them to compile; 3 for one seed.
Result: a skew-symmetric 6 x 6 matrix by a vector with 20 products, played over Z_3 and lifted to
the integers; the definition has 30.
"""

import dataclasses
import pathlib

from train import load_config

_ladder = load_config(pathlib.Path(__file__).with_name("h200_1_ladder.py"))
config = dataclasses.replace(
    _ladder,
    game=dataclasses.replace(_ladder.game, targets=("skew-matvec:6",), ring="z3"),
    # Dense bases are too hard over Z_3, and few places go further in as many moves.
    selfplay=dataclasses.replace(
        _ladder.selfplay, num_games=128, moves_per_step=64, continued_basis_density=0.0
    ),
    learner=dataclasses.replace(_ladder.learner, demonstration_steps=1200),
)
