"""python train.py --config tpu_configs/h200_1_integers.py --num-seeds 3

Hardware: one NVIDIA H200 (141 GB).
Expected time: 5 minutes, 100 s of them to compile.
Result: <2,2,4> with 14 products, played over Z with coefficients -1, 0 and 1 instead of over Z_2.
docs/discovery.md tells of <2,2,5> and <2,3,3>.
"""

import dataclasses
import pathlib

from train import load_config

_ladder = load_config(pathlib.Path(__file__).with_name("h200_1_ladder.py"))
config = dataclasses.replace(
    _ladder,
    game=dataclasses.replace(_ladder.game, targets=("matmul:2,2,4",), ring="z"),
    # What is left to play has to keep to the coefficients, so that few dense bases fit, and in
    # sparse ones an agent finds sparse products: chains follow these seldom.
    selfplay=dataclasses.replace(
        _ladder.selfplay,
        continued_basis_density=0.2,
        continued_migration=1e-3,
        continued_sparser=0.05,
    ),
)
