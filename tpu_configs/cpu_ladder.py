"""python train.py --config tpu_configs/cpu_ladder.py --game.targets skew-matvec:4

Hardware: one core of a CPU.
Expected time: 6 to 10 minutes, 100 s of them to compile.
Result: 9 products for a skew-symmetric 4 x 4 matrix by a vector, 11 for 2,2,3, modulo 2 and lifted;
docs/discovery.md tells of others.
"""

from search.config import SearchConfig
from training.config import Config, DemonstrationConfig, GameConfig, LearnerConfig, SelfPlayConfig

config = Config(
    game=GameConfig(targets=("skew-matvec:4",), varied_density=True),
    demonstrations=DemonstrationConfig(varied_density=True),
    search=SearchConfig(num_simulations=4),
    selfplay=SelfPlayConfig(continued_share=0.9, continued_moves=4, continued_basis_density=0.5),
    learner=LearnerConfig(demonstration_steps=120, best_games_share=0.5),
)
