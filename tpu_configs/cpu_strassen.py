"""python train.py --config tpu_configs/cpu_strassen.py

Hardware: two CPU cores.
Expected time: see the table in README.md.
Result: <2,2,2> with 7 products, found modulo 2 and lifted to the integers. These are the defaults,
so `python train.py` does the same.
"""

from training.config import Config

config = Config()
