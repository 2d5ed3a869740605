"""python train.py --config tpu_configs/h200_1_flips.py

Hardware: one NVIDIA H200 (141 GB).
Expected time: 4 minutes, 100 s of them to compile.
Result: <4,4,4> with 49 products over Z_2, lifted to the integers, and with --no-lift the 47 that
are known modulo 2 alone (docs/discovery.md). Walks by flips shorten the first games that the agent
solves, so this is not pure self-play.
"""

import dataclasses
import pathlib

from train import load_config

_ladder = load_config(pathlib.Path(__file__).with_name("h200_1_ladder.py"))
config = dataclasses.replace(
    _ladder,
    # Sparse bases and demonstrations as long as the schoolbook bring the first solved game.
    game=dataclasses.replace(_ladder.game, targets=("matmul:4,4,4",), basis_density=0.03),
    demonstrations=dataclasses.replace(_ladder.demonstrations, max_factors=64),
    # 2048 walks fill the card, half a second in each step. Places follow shorter games sooner, as
    # they make fewer moves between walks.
    selfplay=dataclasses.replace(
        _ladder.selfplay, num_games=2048, moves_per_step=4, continued_migration=1e-3
    ),
    learner=dataclasses.replace(_ladder.learner, demonstration_steps=1200, flips=200_000),
)
