"""python train.py --config tpu_configs/cpu_strassen_z.py

Hardware: two CPU cores.
Expected time: see the table in README.md.
Result: <2,2,2> with 7 products, played over the integers with coefficients -1, 0 and 1.
"""

from training.config import Config, GameConfig

config = Config(game=GameConfig(ring="z"))
