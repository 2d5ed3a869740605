"""What the parts of the agent are worth: learning curves of variants at equal device time.

    python benchmarks/ablations.py --target matmul:2,2,2 --seconds 20 --seeds 0 1 2

Each variant changes one part of a base configuration. It is compiled once and then run from the
start for every seed, until its steps have taken the given time; compilation does not count. One
JSON line a run.
"""

import argparse
import dataclasses
import pathlib
import time
from collections.abc import Callable

import jax
import numpy as np
from reporting import commit, cpu_name, report

from training.config import Config, GameConfig
from training.step import StepOutput, TrainState, make_init, make_mesh, make_step

# Points of a learning curve.
_POINTS = 40


def _replaced(section: str, **fields: object) -> Callable[[Config], Config]:
    """The change of some fields of one section."""
    return lambda config: dataclasses.replace(
        config, **{section: dataclasses.replace(getattr(config, section), **fields)}
    )


def _without_demonstrations(config: Config) -> Config:
    """Self-play alone, in as many positions; empty rings would be filled with demonstrations."""
    batch = config.learner.replay_batch + config.learner.demonstration_batch
    learner = {"demonstration_steps": 0, "replay_batch": batch, "demonstration_batch": 0}
    return _replaced("learner", **learner)(config)


VARIANTS: dict[str, Callable[[Config], Config]] = {
    "gumbel+beam": lambda config: config,
    "gumbel+iid": _replaced("search", sampling="independent"),
    "sampled_alphazero": _replaced("search", algorithm="sampled_alphazero", sampling="independent"),
    "unsampled mass": _replaced("search", unsampled_mass=True),
    "no change of basis": _replaced("game", canonical_probability=1.0),
    "no demonstrations": _without_demonstrations,
    "symmetric queries": _replaced("game", signed_permutations=100),
    "history of 3": _replaced("game", history=3),
    "reanalyse half": _replaced("learner", reanalysed_share=0.5),
    "swapped half": _replaced("learner", swapped_share=0.5),
    **{
        f"{count} simulations": _replaced("search", num_simulations=count)
        for count in (4, 16, 32, 64)
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

    def add(self, seconds: float, output: StepOutput, max_moves: int) -> None:
        metrics, found = output
        self.seconds.append(seconds)
        self.games.append(float(metrics["games"]))
        self.solved.append(float(metrics["solved"]))
        self.returns.append(float(metrics["return"] * metrics["games"]))
        best = min(int(found.moves.min()), self.best[-1] if self.best else max_moves + 1)
        self.best.append(best)

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
        return {
            "steps": len(self.seconds),
            "games": int(games.sum()),
            "mean_rank": mean(-returns),
            "solved_share": mean(solved),
            "best_rank": min(reached, default=None),
            "seconds_to_rank": {r: round(t, 2) for r, t in times.items() if r <= max_moves},
        }


def main() -> None:
    """Runs the command line."""
    options = _parse()
    device = jax.devices()[0]
    for name in options.variants or VARIANTS:
        config = VARIANTS[name](_base(options))
        config.validate()
        mesh = make_mesh(config)
        init = make_init(config, mesh)
        began = time.perf_counter()
        step = make_step(config, mesh).lower(jax.eval_shape(init, 0)).compile()
        compile_seconds = time.perf_counter() - began
        for seed in options.seeds:
            curve = _run(step, init(seed), options.seconds, config.max_moves)
            line = {
                "variant": name,
                "target": options.target,
                "ring": options.ring,
                "seed": seed,
                "seconds": options.seconds,
                "compile_seconds": round(compile_seconds, 1),
                **curve.summary(config.max_moves),
                "simulations": config.search.num_simulations,
                "parallel_games": config.selfplay.num_games,
                "device": cpu_name() if device.platform == "cpu" else device.device_kind,
                "jax": jax.__version__,
                "commit": options.commit or commit(),
            }
            report(line, options.output)


def _base(options: argparse.Namespace) -> Config:
    """The default agent on the target, with as many games as asked for."""
    config = Config(game=GameConfig(targets=(options.target,), ring=options.ring))
    if options.games:
        config = _replaced("selfplay", num_games=options.games)(config)
    return config


def _run(step: jax.stages.Compiled, state: TrainState, seconds: float, max_moves: int) -> _Curve:
    """Makes steps for so long; each is waited for, so that its time is its own."""
    curve = _Curve()
    jax.block_until_ready(state)
    began = time.perf_counter()
    while not curve.seconds or curve.seconds[-1] < seconds:
        state, output = step(state)
        output = jax.device_get(output)
        curve.add(time.perf_counter() - began, output, max_moves)
    return curve


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", default="matmul:2,2,2", help="the bilinear map")
    parser.add_argument("--ring", default="z2", help="z2, z or zp")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, help="some only")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED")
    parser.add_argument("--seconds", type=float, default=20, help="device time of a run (20)")
    parser.add_argument("--games", type=int, help="games in progress; the default's")
    parser.add_argument("--output", type=pathlib.Path, help="file that the lines are appended to")
    parser.add_argument("--commit", help="name of this version, where there is no git checkout")
    return parser.parse_args()


if __name__ == "__main__":
    main()
