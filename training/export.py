"""The network of a run as one file, for use without the run: ``python -m training.export``.

The file is a plain .npz: the parameters under their paths, such as ``params/torso/...``, and under
``config`` the configuration as JSON text. Nothing is pickled.
"""

import dataclasses
import io
import json
import os
import sys
from typing import Annotated

import jax
import numpy as np
import tyro
from flax.traverse_util import flatten_dict, unflatten_dict

from training import storage
from training.checkpoint import restore_parts
from training.config import Config, ConfigError
from training.mesh import make_mesh
from training.step import make_init
from training.workdir import config_from_json, read_config

_CONFIG = "config"


def export(
    workdir: str | os.PathLike[str], path: str | os.PathLike[str], seed: int | None = None
) -> int:
    """Writes the parameters of the newest checkpoint that can be read; returns its step.

    The run may be going on. Of several agents ``seed`` names one.

    Raises:
        ConfigError: the folder holds no run, no agent of that seed, or no checkpoint that can be
            read.
        OSError: the file cannot be written.
    """
    folder = storage.parse(workdir)
    try:
        config = read_config(folder)
    except FileNotFoundError:
        raise ConfigError(f"{folder} holds no config.json; name the work folder of a run") from None
    # One device is enough, whatever number the run has.
    alone = dataclasses.replace(config, devices=1)
    shapes = jax.eval_shape(make_init(alone, make_mesh(alone)), config.seed)
    agent = _choose(config, folder, seed)
    step, parts = restore_parts(folder, {"params": shapes.params})
    params = parts["params"]
    if config.num_seeds > 1:
        params = jax.tree.map(lambda x: x[agent.seed - config.seed], params)
    arrays = flatten_dict(jax.device_get(params), sep="/")
    text = json.dumps(dataclasses.asdict(agent))
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, **{_CONFIG: np.array(text)})
    storage.write(storage.parse(path), buffer.getvalue())
    return step


def _choose(config: Config, folder: storage.Path, seed: int | None) -> Config:
    """The configuration of the agent with this seed, or of the only one."""
    agents = {one.seed: one for one in config.agents}
    if seed is None and len(agents) == 1:
        return config.agents[0]
    if seed not in agents:
        raise ConfigError(
            f"--seed is {seed}, but the agents of {folder} have the seeds "
            f"{', '.join(map(str, agents))}; name one of them"
        )
    return agents[seed]


def load(path: str | os.PathLike[str]) -> tuple[Config, dict]:
    """The configuration and the parameters that ``export`` wrote, as NumPy arrays.

    ``config.agent.apply(params, state, method="value")`` and the like take them as they are.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such file.
    """
    content = storage.parse(path).read_bytes()
    with np.load(io.BytesIO(content)) as file:
        if _CONFIG not in file.files:
            raise ValueError(f"{path} holds no config; it was not written by training.export")
        arrays = {name: file[name] for name in file.files}
    config = config_from_json(arrays.pop(_CONFIG).item())
    return config, unflatten_dict(arrays, sep="/")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Write the network of a run as one .npz file."""

    workdir: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="WORKDIR")]
    """The work folder of a run."""
    path: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE")]
    """The file to write; one that is there is replaced."""
    seed: Annotated[int | None, tyro.conf.arg(metavar="SEED")] = None
    """Which of several agents (num_seeds)."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command line ``argv``; returns the exit status."""
    arguments = tyro.cli(Arguments, prog="python -m training.export", args=argv)
    try:
        step = export(arguments.workdir, arguments.path, arguments.seed)
    except (ConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"saved the parameters of step {step} as {arguments.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
