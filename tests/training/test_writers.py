"""Where metrics go: lines of JSON, TensorBoard, Weights & Biases."""

import importlib.util
import sys
import types

import jax
import pytest

from training import writers as writers_module
from training.config import Config, ConfigError
from training.writers import JsonLines, make_writers, read_metrics, scalars


def test_metrics_of_void_steps_are_dropped(tmp_path):
    writer = JsonLines(tmp_path)
    writer.begin(0)
    for step in (1, 2, 3):
        writer.write({"step": step})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4')
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3]
    again = JsonLines(tmp_path)
    again.begin(2)
    again.write({"step": 3, "again": True})
    again.close()
    assert read_metrics(tmp_path) == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]


def test_scalars_have_tags_in_groups():
    line = {"step": 3, "policy_loss": 0.5, "gradient_norm": 2.0, "games_per_second": None}
    line |= {"best_ranks": {"complex": None, "matmul:1,1,2": 2}, "target_ranks": {"complex": []}}
    tags = scalars(line)
    # What is not known and lists are no numbers.
    assert tags == {
        "run/step": 3,
        "loss/policy_loss": 0.5,
        "norm/gradient_norm": 2.0,
        "best_ranks/matmul:1,1,2": 2,
    }


def test_only_process_0_writes(tmp_path, monkeypatch):
    assert any(isinstance(writer, JsonLines) for writer in make_writers(Config(), tmp_path))
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert make_writers(Config(), tmp_path, "project") == []


def test_tensorboard_is_used_where_it_is_installed(tmp_path, monkeypatch):
    package = importlib.util.spec_from_loader("tensorboard", None, origin="there.py")
    folder = importlib.util.spec_from_loader("tensorboard", None)
    for spec, expected in ((package, ["JsonLines", "TensorBoard"]), (None, ["JsonLines"])):
        monkeypatch.setattr(importlib.util, "find_spec", lambda _name, spec=spec: spec)
        names = [type(writer).__name__ for writer in make_writers(Config(), tmp_path)]
        assert names == expected
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: folder)
    assert len(make_writers(Config(), tmp_path)) == 1, "a folder of this name is no package"


def test_tensorboard_reads_what_is_written(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        writer = writers_module.TensorBoard(tmp_path)
        writer.begin(start)
        for step in steps:
            writer.write({"step": step, "policy_loss": step + start, "best_ranks": {"a:1": 7}})
        writer.close()
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    course = [(event.step, event.value) for event in read.Scalars("loss/policy_loss")]
    assert course == [(1, 1.0), (2, 2.0), (3, 5.0), (4, 6.0)]
    assert {event.value for event in read.Scalars("best_ranks/a:1")} == {7.0}


class FakeWandb(types.ModuleType):
    """Stands for wandb; notes what it is asked for."""

    def __init__(self):
        super().__init__("wandb")
        self.__spec__ = importlib.util.spec_from_loader("wandb", None, origin="wandb.py")
        self.opened, self.logged, self.refuses = [], [], False
        self.errors = types.SimpleNamespace(Error=RuntimeError)

    def init(self, **options):
        if self.refuses:
            raise RuntimeError("api_key not configured\n(no-tty)")
        self.opened.append(options)
        return self

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.logged.append("finished")


def test_weights_and_biases_goes_on_with_its_run(tmp_path, monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for _ in range(2):
        *_, writer = make_writers(Config(), tmp_path, "tensors")
        writer.begin(4)
        writer.write({"step": 5, "policy_loss": 0.5})
        writer.close()
    first, second = fake.opened
    assert first["project"] == "tensors"
    assert first["id"] == second["id"]
    assert first["config"]["game"]["targets"] == ("matmul:2,2,2",)
    assert fake.logged == [(5, {"run/step": 5, "loss/policy_loss": 0.5}), "finished"] * 2
    fake.refuses = True
    with pytest.raises(ConfigError, match=r"--wandb is tensors.*api_key not configured"):
        make_writers(Config(), tmp_path, "tensors")


def test_weights_and_biases_has_to_be_installed(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "wandb" else find(n))
    with pytest.raises(ConfigError, match=r"not installed.*pip install 'tensorgame\[wandb\]'"):
        make_writers(Config(), tmp_path, "tensors")
