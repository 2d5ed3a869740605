"""python train.py --config tpu_configs/h200_1_table.py

Hardware: one NVIDIA H200 (141 GB).
Expected time: 4 minutes, 100 s of them to compile.
Result: one agent for all ten products of matrices up to 4 x 4 has the best known ranks over Z of
all of them, found over Z_2 and lifted (docs/discovery.md). Walks by flips shorten the first games
that the agent solves, so this is not pure self-play.
"""

import dataclasses
import pathlib

from train import load_config

_flips = load_config(pathlib.Path(__file__).with_name("h200_1_flips.py"))
# The larger are played more often.
_WEIGHTS = {
    "2,2,2": 1,
    "2,2,3": 1,
    "2,2,4": 1,
    "2,3,3": 2,
    "2,3,4": 3,
    "2,4,4": 4,
    "3,3,3": 4,
    "3,3,4": 5,
    "3,4,4": 5,
    "4,4,4": 6,
}
config = dataclasses.replace(
    _flips,
    game=dataclasses.replace(
        _flips.game,
        targets=tuple(f"matmul:{sizes}" for sizes in _WEIGHTS),
        target_weights=tuple(map(float, _WEIGHTS.values())),
    ),
    # Each target's own, its best known rank.
    demonstrations=dataclasses.replace(_flips.demonstrations, max_factors=0),
)
