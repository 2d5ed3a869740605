"""Every configuration file: its docstring, its limits, and its step on the devices it is for."""

import pathlib
import re
import runpy

import jax
import pytest

import train
from training.config import Config, ConfigError
from training.mesh import make_abstract_mesh
from training.step import make_init, make_step

ROOT = pathlib.Path(__file__).parents[1]
DEVICES = {
    "colab_t4_222": 1,
    "cpu_ladder": 1,
    "cpu_strassen": 1,
    "cpu_strassen_z": 1,
    "h200_1_flips": 1,
    "h200_1_integers": 1,
    "h200_1_ladder": 1,
    "h200_1_skew": 1,
    "h200_1_table": 1,
    "h200_8_444": 8,
    "paper": 64,
    "v5e_8_444": 8,
    "v5p_64_all": 64,
}


def test_every_file_is_tested():
    assert {path.stem for path in (ROOT / "tpu_configs").glob("*.py")} == set(DEVICES)


@pytest.mark.parametrize("name", DEVICES)
def test_a_docstring_opens_with_the_command_and_tells_what_to_expect(name):
    path = ROOT / "tpu_configs" / f"{name}.py"
    first, *lines = runpy.run_path(str(path))["__doc__"].splitlines()
    assert first.startswith(f"python train.py --config tpu_configs/{name}.py")
    starts = [line.partition(":")[0] for line in lines if re.match(r"[A-Z][\w ]+: ", line)]
    assert starts[:3] == ["Hardware", "Expected time", "Result"]


def load(name: str) -> Config:
    return train.load_config(ROOT / "tpu_configs" / f"{name}.py")


@pytest.mark.parametrize(("name", "devices"), DEVICES.items())
def test_a_file_is_valid_for_its_devices_and_for_one(name, devices):
    config = load(name)
    assert config.devices == 0, "a file takes the devices that are there"
    config.validate_for(devices)
    config.validate_for(1)


def test_a_file_is_refused_for_devices_that_do_not_divide_it():
    with pytest.raises(ConfigError, match="num_games is 4096, which 7 devices do not divide"):
        load("v5e_8_444").validate_for(7)


# Tracing takes seconds for each.
TRACED = [
    pytest.param(*item, marks=[] if item[0] == "v5e_8_444" else pytest.mark.slow)
    for item in DEVICES.items()
]


@pytest.mark.parametrize(("name", "devices"), TRACED)
def test_the_step_traces_for_the_devices_it_is_for(name, devices):
    config = load(name)
    mesh = make_abstract_mesh(devices)
    before = jax.eval_shape(make_init(config, mesh), config.seed)
    after, output = jax.eval_shape(make_step(config, mesh), before)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), before
    )
    assert len(after.replay.count) == config.selfplay.num_games
    assert output.found.moves.shape == (len(config.targets),)
