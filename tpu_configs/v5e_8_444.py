"""python train.py --config tpu_configs/v5e_8_444.py

Hardware: a TPU v5e host with eight chips of 16 GB (v5litepod-8).
Expected time: days; not measured.
Result: not yet run. Wanted: <4,4,4> with 47 products modulo 2, which are proved not to lift.
Memory of each, by the shapes: replay 136 MB, trees 108 MB, network (11.9 million parameters) and
optimizer 142 MB. What the learner keeps for the backward pass is more, and is divided by
learner.microbatches; whether all of it fits has not been settled (benchmarks/compile_tpu.py).
"""

import dataclasses
import pathlib

from train import load_config

_h200 = load_config(pathlib.Path(__file__).with_name("h200_8_444.py"))
config = dataclasses.replace(
    _h200,
    selfplay=dataclasses.replace(_h200.selfplay, num_games=8 * 512),
    learner=dataclasses.replace(_h200.learner, microbatches=8),
)
