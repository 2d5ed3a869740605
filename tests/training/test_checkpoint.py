"""Checkpoints of the true state, and the parameters on their own."""

import dataclasses
import errno
import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from training import export
from training.checkpoint import CheckpointError, Checkpoints
from training.config import Config, ConfigError
from training.mesh import make_mesh
from training.step import make_init
from training.workdir import claimed

COUNTERS = {"step": 3, "seconds": 1.5}


def data(tree: object) -> list[np.ndarray]:
    """The leaves as arrays, keys by their words."""
    return [
        np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
        for x in jax.tree.leaves(tree)
    ]


def assert_same(one: object, other: object) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(data(one), data(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def shapes(config: Config) -> object:
    return jax.eval_shape(make_init(config, make_mesh(config)), config.seed)


@pytest.fixture(scope="module")
def saved(trainer, tmp_path_factory):
    """A work folder with a checkpoint of step 3, and the state then and three steps later.

    The state was given to the next step, which overwrites it, while the checkpoint was written.
    """
    workdir = tmp_path_factory.mktemp("run")
    with claimed(workdir, trainer.config):
        pass
    state, _ = trainer.run(3)
    then = jax.tree.map(jnp.copy, state)
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(3, state, COUNTERS)
        for _ in range(3):
            state, _ = trainer.step(state)
    assert state.replay.count.sum() > then.replay.count.sum()
    return workdir, then, state


def test_a_resumed_run_goes_on_bit_for_bit(saved, trainer):
    workdir, then, later = saved
    with Checkpoints(workdir) as checkpoints:
        step, state, counters = checkpoints.restore(shapes(trainer.config))
    assert (step, counters) == (3, COUNTERS)
    assert_same(state, then)
    for _ in range(3):
        state, _ = trainer.step(state)
    assert_same(state, later)


DEVICES_SCRIPT = """
import jax, numpy as np, pathlib
from networks.network import NetworkConfig
from search.config import SearchConfig
from training.checkpoint import Checkpoints
from training.config import *
from training.mesh import *
from training.step import *

config = CONFIG
init = make_init(config, make_mesh(config))
with Checkpoints(pathlib.Path(WORKDIR)) as checkpoints:
    _, state, _ = checkpoints.restore(jax.eval_shape(init, config.seed))
for x in jax.tree.leaves((state.episodes, state.replay)):
    assert len(x.sharding.device_set) == 2 and not x.sharding.is_fully_replicated
np.savez("state.npz", *jax.tree.leaves(jax.device_get((state.params, state.replay))))
"""


def test_another_number_of_devices_goes_on(saved, trainer, tmp_path, pytestconfig):
    workdir, then, _ = saved
    config = dataclasses.replace(trainer.config, devices=2)
    script = DEVICES_SCRIPT.replace("CONFIG", repr(config))
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    path = os.pathsep.join([str(pytestconfig.rootpath), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, "-c", script.replace("WORKDIR", repr(str(workdir)))],
        cwd=tmp_path,
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    with np.load(tmp_path / "state.npz") as file:
        leaves = [file[name] for name in file.files]
    for a, b in zip(leaves, data((then.params, then.replay)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_cannot_be_written_is_told_and_may_succeed_later(tmp_path, monkeypatch):
    state = {"x": jnp.arange(4.0)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {"step": 1})
        checkpoints.wait()
        with monkeypatch.context() as patch:

            def fail(*_, **__):
                raise OSError(errno.ENOSPC, "No space left on device")

            patch.setattr(type(checkpoints._manager), "save", fail)
            with pytest.raises(CheckpointError, match=r"step 2 cannot .* No space .* of step 1"):
                checkpoints.save(2, state, {"step": 2})
        checkpoints.save(2, state, {"step": 2})
        checkpoints.wait()
        assert checkpoints.restore(state).step == 2


# The parameters on their own ---------------------------------------------------------------------


def test_exported_parameters_evaluate_a_position(saved, trainer, tmp_path, capsys):
    workdir, then, _ = saved
    path = tmp_path / "network.npz"
    assert export.main([str(workdir), str(path)]) == 0
    assert "parameters of step 3" in capsys.readouterr().out
    config, params = export.load(path)
    assert config == trainer.config
    position = jax.tree.map(lambda x: x[0], then.episodes.state)
    tokens = jnp.zeros((1, config.action_space.num_tokens), jnp.int32)
    evaluate = jax.jit(functools.partial(config.agent.apply, method="score"))
    assert_same(evaluate(params, position, tokens), evaluate(then.params, position, tokens))


def test_one_of_several_agents_is_exported(tiny, tmp_path, monkeypatch, capsys):
    config = dataclasses.replace(tiny, seed=4, num_seeds=3)
    with claimed(tmp_path, config):
        pass
    restored = (9, {"params": {"params": {"bias": jnp.arange(3.0)[:, None]}}})
    monkeypatch.setattr(export, "restore_parts", lambda *_: restored)
    path = tmp_path / "network.npz"
    assert export.main([str(tmp_path), str(path), "--seed", "6"]) == 0
    alone, params = export.load(path)
    assert alone == config.agents[2]
    assert params["params"]["bias"] == [2.0]
    for flags in ([], ["--seed", "7"]):
        assert export.main([str(tmp_path), str(path), *flags]) == 2
        assert "have the seeds 4, 5, 6; name one of them" in capsys.readouterr().err


def test_folders_without_parameters_are_refused(tmp_path, tiny, capsys):
    assert export.main([str(tmp_path), "network.npz"]) == 2
    assert "holds no config.json" in capsys.readouterr().err
    with claimed(tmp_path, tiny):
        pass
    with pytest.raises(ConfigError, match=r"no checkpoint in .* there is none"):
        export.export(tmp_path, tmp_path / "network.npz")
    np.savez(tmp_path / "other.npz", x=1)
    with pytest.raises(ValueError, match="holds no config"):
        export.load(tmp_path / "other.npz")
