"""How often an agent plays ends of games in another way, and how often in no sparser one.

    python benchmarks/taste.py runs/matmul-2-3-3

Reads the newest checkpoint of a work folder of one agent that plays chains of games
(`training.chains`). From there it plays on for some moves and learns nothing: how many of the games
that end are followed if those with fewer entries always are (`selfplay.continued_sparser` 1), and
if they never are (0)? The difference is the agent's taste for few entries, against which chains
over Z have to go. One JSON line a work folder.
"""

import argparse
import dataclasses
import pathlib

import jax
from reporting import command_line, origin, report

from training.checkpoint import restore_parts
from training.config import Config, ConfigError
from training.mesh import make_mesh
from training.selfplay import Kept, PlayStatistics, nothing_found, play_move
from training.step import TrainState, make_init
from training.workdir import read_config

# What play needs of the state.
_PARTS = ("params", "step", "episodes", "replay", "best", "chains")


def main() -> None:
    """Runs the command line."""
    parser = command_line(__doc__)
    parser.add_argument("workdirs", nargs="+", type=pathlib.Path)
    parser.add_argument("--moves", type=int, default=8, help="of each place (8)")
    options = parser.parse_args()
    for workdir in options.workdirs:
        config, state = _agent(parser, workdir)
        line: dict[str, object] = {"workdir": workdir.name, "step": int(state.step)}
        for sparser in (1.0, 0.0):
            played = _play(config, state, sparser, options.moves)
            ends = float(played.continued)
            if not ends:
                parser.error(
                    f"no game of {workdir} ends in {options.moves} moves; try more --moves"
                )
            followed = round(float(played.rewritten) / ends, 4)
            line |= {"ends": int(ends), f"followed_{sparser:g}": followed}
        report({**line, **origin(options.commit)}, options.output)


def _agent(parser: argparse.ArgumentParser, workdir: pathlib.Path) -> tuple[Config, TrainState]:
    """A run of one agent with chains, on one device."""
    try:
        config = dataclasses.replace(read_config(workdir), devices=1)
        if config.num_seeds > 1 or not config.has_chains:
            parser.error(
                f"{workdir} is no run of a single agent with chains; name one of such a run"
            )
        shapes = jax.eval_shape(make_init(config, make_mesh(config)), config.seed)
        _, parts = restore_parts(workdir, {name: getattr(shapes, name) for name in _PARTS})
    except OSError:
        parser.error(f"{workdir} is no work folder of a run; name one, as runs/matmul-2-3-3")
    except ConfigError as error:
        parser.error(str(error))
    return config, shapes._replace(**parts)


def _play(config: Config, state: TrainState, sparser: float, moves: int) -> PlayStatistics:
    """What becomes of the games that places go on with from a state."""
    selfplay = dataclasses.replace(config.selfplay, continued_share=1.0, continued_sparser=sparser)
    config = dataclasses.replace(config, selfplay=selfplay)

    def move(so_far: tuple, key: jax.Array) -> tuple[tuple, PlayStatistics]:
        episodes, kept = so_far
        keys = jax.random.split(key, config.selfplay.num_games)
        *so_far, played = play_move(
            config, state.params, keys, state.step, episodes, kept, state.best
        )
        return tuple(so_far), played

    kept = Kept(state.replay, nothing_found(config), state.best, state.chains)
    go = jax.jit(lambda keys: jax.lax.scan(move, (state.episodes, kept), keys)[1])
    played = go(jax.random.split(jax.random.key(0), moves))
    return jax.tree.map(lambda x: x.sum(axis=0), played)


if __name__ == "__main__":
    main()
