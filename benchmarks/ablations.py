"""What the parts of the agent are worth: learning curves of variants at equal device time.

    python benchmarks/ablations.py --setting 2,2,2 --seconds 20 --seeds 3

Each variant changes one part of a base configuration. Its seeds are agents of one program, which
runs from the start until its steps have taken the given time. All variants are compiled before the
first is run, so that compilation neither counts nor disturbs: one by itself, then the others side
by side. One JSON line a seed.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import NamedTuple

import jax
import numpy as np
from reporting import ROOT, command_line, origin, report

from train import load_config
from training.config import Config
from training.mesh import make_mesh
from training.step import StepOutput, TrainState, make_init, make_step

# Between changes that are made together.
_AND = " & "
# Points of a learning curve.
_POINTS = 40
# What is told of the last tenth of the steps.
_AT_THE_END = ("root_entropy", "tree_depth", "value_error", "demonstration_policy_loss")


def _replaced(section: str, **fields: object) -> Callable[[Config], Config]:
    """The change of some fields of one section."""
    return lambda config: dataclasses.replace(
        config, **{section: dataclasses.replace(getattr(config, section), **fields)}
    )


def _without_best_games(config: Config) -> Config:
    """Neither among the demonstrations nor as openings."""
    config = _replaced("learner", best_games_share=0.0)(config)
    return _replaced("selfplay", continued_share=0.0)(config)


def _without_demonstrations(config: Config) -> Config:
    """Self-play alone, in as many positions; empty rings would be filled with demonstrations."""
    batch = config.learner.replay_batch + config.learner.demonstration_batch
    learner = {"demonstration_steps": 0, "replay_batch": batch, "demonstration_batch": 0}
    return _replaced("learner", **learner)(_without_best_games(config))


# Both over Z_2, with as many games in progress as an accelerator plays in about the time that it
# needs for a few: the main job, and the ladder's agent.
_LADDER = load_config(ROOT / "tpu_configs" / "h200_1_ladder.py")
SETTINGS = {
    "2,2,2": _replaced("selfplay", num_games=512)(Config()),
    "2,3,3": _replaced("game", targets=("matmul:2,3,3",))(
        _replaced("selfplay", num_games=512)(_LADDER)
    ),
}

VARIANTS: dict[str, Callable[[Config], Config]] = {
    "gumbel+beam": lambda config: config,
    "gumbel+iid": _replaced("search", sampling="independent"),
    "sampled_alphazero": _replaced("search", algorithm="sampled_alphazero", sampling="independent"),
    "unsampled mass": _replaced("search", unsampled_mass=True),
    "no change of basis": _replaced("game", canonical_probability=1.0),
    "a basis a mode": _replaced("game", shared_basis=False),
    "bases of one density": _replaced("game", varied_density=False),
    "sparse bases": _replaced("game", basis_density=0.05),
    "no demonstrations": _without_demonstrations,
    "padded demonstrations": _replaced("demonstrations", padded=True),
    "no best games": _without_best_games,
    "no continued games": _replaced("selfplay", continued_share=0.0),
    "continued in the bases of play": _replaced("selfplay", continued_basis_density=0.0),
    "up to 8 moves continued": _replaced("selfplay", continued_moves=8),
    "flips": _replaced("learner", best_games_share=0.5, flips=100),
    "symmetric queries": _replaced("game", signed_permutations=100),
    "history of 3": _replaced("game", history=3),
    "reanalyse half": _replaced("learner", reanalysed_share=0.5),
    "swapped half": _replaced("learner", swapped_share=0.5),
    "4 considered moves": _replaced("search", considered_actions=4),
    "values in moves": _replaced("search", rescale_values=False, value_scale=0.02),
    "a third of the value scale": _replaced("search", value_scale=0.03),
    **{
        f"{count} simulations": _replaced("search", num_simulations=count)
        for count in (4, 8, 16, 32, 64)
    },
}


@dataclasses.dataclass
class _Curve:
    """What the steps of a run told, one entry a step."""

    seconds: list[float] = dataclasses.field(default_factory=list)
    games: list[float] = dataclasses.field(default_factory=list)
    solved: list[float] = dataclasses.field(default_factory=list)
    returns: list[float] = dataclasses.field(default_factory=list)
    best: list[int] = dataclasses.field(default_factory=list)
    metrics: list[dict[str, float]] = dataclasses.field(default_factory=list)

    def add(self, seconds: float, output: StepOutput, max_moves: int) -> None:
        metrics, found = output
        self.seconds.append(seconds)
        self.games.append(float(metrics["games"]))
        self.solved.append(float(metrics["solved"]))
        self.returns.append(float(metrics["return"] * metrics["games"]))
        best = min(int(found.moves.min()), self.best[-1] if self.best else max_moves + 1)
        self.best.append(best)
        self.metrics.append({name: float(metrics[name]) for name in _AT_THE_END})

    def summary(self, max_moves: int) -> dict[str, object]:
        """The curve in equal stretches of time: mean cost of a game, share solved, best rank."""
        stretch = np.minimum(
            np.array(self.seconds) / self.seconds[-1] * _POINTS, _POINTS - 1e-9
        ).astype(int)
        games, solved, returns = (
            np.bincount(stretch, np.array(values), _POINTS)
            for values in (self.games, self.solved, self.returns)
        )

        def mean(total: np.ndarray) -> list[float | None]:
            pairs = zip(total, games, strict=True)
            return [round(x / count, 3) if count else None for x, count in pairs]

        reached = [rank for rank in self.best if rank <= max_moves]
        times = dict(zip(reversed(self.best), reversed(self.seconds), strict=True))
        last = self.metrics[-max(1, len(self.metrics) // 10) :]
        return {
            "steps": len(self.seconds),
            "games": int(games.sum()),
            "games_of_stretches": games.astype(int).tolist(),
            "mean_rank": mean(-returns),
            "solved_share": mean(solved),
            "best_rank": min(reached, default=None),
            "seconds_to_rank": {r: round(t, 2) for r, t in times.items() if r <= max_moves},
            **{name: round(float(np.mean([m[name] for m in last])), 3) for name in _AT_THE_END},
        }


def main() -> None:
    """Runs the command line."""
    options = _parse()
    programs = _compile(options)
    for name, (config, init, step, compile_seconds) in programs.items():
        for seed, curve in enumerate(_run(step, init(0), options.seconds, config)):
            line = {
                "variant": name,
                "target": config.game.targets[0],
                "ring": config.game.ring,
                "seed": seed,
                "agents": config.num_seeds,
                "seconds": options.seconds,
                "compile_seconds": compile_seconds,
                **curve.summary(config.max_moves),
                "simulations": config.search.num_simulations,
                "parallel_games": config.selfplay.num_games,
                **origin(options.commit),
            }
            report(line, options.output)


class _Program(NamedTuple):
    config: Config
    init: Callable[[int], TrainState]
    step: jax.stages.Compiled
    compile_seconds: float


def _compile(options: argparse.Namespace) -> dict[str, _Program]:
    """The variants, ready to run; those that are as the base are left out."""
    base = dataclasses.replace(SETTINGS[options.setting], num_seeds=options.seeds)
    configs = {name: _varied(base, name) for name in options.variants or VARIANTS}
    configs = {n: c for n, c in configs.items() if c != base or n == next(iter(VARIANTS))}
    pending = {}
    with ThreadPoolExecutor(options.jobs) as pool:
        for name, config in configs.items():
            config.validate()
            mesh = make_mesh(config)
            init = make_init(config, mesh)
            lowered = make_step(config, mesh).lower(jax.eval_shape(init, 0))
            done = pool.submit(_timed, name, lowered.compile)
            if not pending:
                # Kernels are chosen by timing them; with JAX_COMPILATION_CACHE_DIR the others find
                # what this one chose.
                wait([done])
            pending[name] = config, init, done
    return {n: _Program(c, init, *done.result()) for n, (c, init, done) in pending.items()}


def _varied(config: Config, name: str) -> Config:
    """The configuration with the changes of a variant, or of several that are joined by " & "."""
    for part in name.split(_AND):
        config = VARIANTS[part](config)
    return config


def _timed(name: str, call: Callable[[], jax.stages.Compiled]) -> tuple[jax.stages.Compiled, float]:
    """What the call returns, and how long it took, in seconds."""
    began = time.perf_counter()
    result = call()
    seconds = round(time.perf_counter() - began, 1)
    print(f"{name}: compiled in {seconds} s", file=sys.stderr, flush=True)
    return result, seconds


def _run(
    step: jax.stages.Compiled, state: TrainState, seconds: float, config: Config
) -> list[_Curve]:
    """Makes steps for so long, each of which is waited for; a curve for each agent."""
    agents = config.num_seeds
    curves = [_Curve() for _ in range(agents)]
    jax.block_until_ready(state)
    began = time.perf_counter()
    while not curves[0].seconds or curves[0].seconds[-1] < seconds:
        state, output = step(state)
        output = jax.device_get(output)
        now = time.perf_counter() - began
        for agent, curve in enumerate(curves):
            own = jax.tree.map(lambda x, i=agent: x[i], output) if agents > 1 else output
            curve.add(now, own, config.max_moves)
    return curves


def _parse() -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("--setting", choices=SETTINGS, default="2,2,2", help="the base (2,2,2)")
    parser.add_argument(
        "--variants", nargs="+", help="some only; several changes of one are joined by ' & '"
    )
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 (3)")
    parser.add_argument("--seconds", type=float, default=20, help="device time of a variant (20)")
    parser.add_argument("--jobs", type=int, default=2, help="compilations at a time (2)")
    options = parser.parse_args()
    unknown = {part for name in options.variants or () for part in name.split(_AND)} - set(VARIANTS)
    if unknown:
        parser.error(f"--variants has {', '.join(unknown)}; there are {', '.join(VARIANTS)}")
    return options


if __name__ == "__main__":
    main()
