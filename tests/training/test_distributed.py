"""Several processes as one run, on one machine through Gloo."""

import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import jax
import pytest

from training import distributed
from training.config import Config, ConfigError
from training.distributed import Agreement, Wishes, from_first, start, together, voice

ROOT = pathlib.Path(__file__).parents[2]
VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return server.getsockname()[1]


@pytest.fixture
def launch(tmp_path) -> Iterator[Callable[[str], list[subprocess.Popen]]]:
    """``launch(script)`` starts two processes of one run, which write 0.out, 0.err, 1.out, ..."""
    started = []

    def launch(script: str) -> list[subprocess.Popen]:
        coordinates = {"JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}"}
        pair = []
        for number in range(2):
            environment = {
                **os.environ,
                **coordinates,
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": str(number),
                "JAX_PLATFORMS": "cpu",
                "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            }
            out, err = ((tmp_path / f"{number}.{end}").open("w") for end in ("out", "err"))
            with out, err:
                command = [sys.executable, "-c", script]
                pair.append(
                    subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out, stderr=err)
                )
        started.extend(pair)
        return pair

    yield launch
    for process in started:
        process.kill()
        process.wait()


def wait(pair: list[subprocess.Popen], seconds: float) -> list[int]:
    """The exit statuses."""
    return [process.wait(timeout=seconds) for process in pair]


# Alone -------------------------------------------------------------------------------------------


@pytest.fixture
def nothing_set(monkeypatch):
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def test_auto_runs_alone_where_there_is_no_cluster(nothing_set):
    start("auto")
    start("off")
    assert not jax.distributed.is_initialized()


def test_on_needs_other_processes(nothing_set):
    with pytest.raises(ConfigError, match="--distributed is on, but the processes could not be"):
        start("on")


def test_numbers_of_processes_are_numbers(nothing_set, monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
    with pytest.raises(ConfigError, match="JAX_NUM_PROCESSES=two; it must be a whole number"):
        start("auto")


def test_a_single_task_of_slurm_keeps_all_devices(nothing_set, monkeypatch):
    def initialize(**_kwargs):
        raise AssertionError("JAX would take one device")

    monkeypatch.setattr(distributed.jax.distributed, "initialize", initialize)
    monkeypatch.setenv("SLURM_NTASKS", "1")
    start("auto")


def test_a_single_process_has_its_will_at_once(tmp_path):
    agree = Agreement()
    for wishes in (Wishes(0, False, True), Wishes(15, False, False), Wishes(0, True, False)):
        assert agree(wishes) == wishes
    assert from_first(7) == 7
    assert together(lambda: "done") == "done"
    with voice(tmp_path) as books:
        assert books == tmp_path


def test_a_single_process_raises_its_own_error():
    def refuse() -> None:
        raise ConfigError("no")

    with pytest.raises(ConfigError, match=r"^no$"):
        together(refuse)


# Together ----------------------------------------------------------------------------------------

AGREEMENT_SCRIPT = """
import pathlib, jax
from training.config import Config, ConfigError
from training.distributed import *

start("auto")
me = jax.process_index()
assert jax.process_count() == 2 and is_first() == (me == 0)
assert from_first(10 + me) == 10
Config().validate()
try:
    Config(devices=1).validate()
    raise AssertionError("a process without a device")
except ConfigError as error:
    assert "2 processes with 2 devices run together" in str(error)

def refuse_in_1():
    if me:
        raise ConfigError("mine")

try:
    together(refuse_in_1)
    raise AssertionError("only one was refused")
except ConfigError as error:
    message = str(error)
assert message == ("mine" if me else "process 1 cannot run; its own message says why")

here = pathlib.Path("books")
with voice(here) as books:
    assert (books == here) == (me == 0)
    print("told")
assert me == 0 or not books.exists()
try:
    check_shared(pathlib.Path("missing"))
    raise AssertionError("it is not there")
except ConfigError as error:
    assert f"which process {me} does not see" in str(error)

# Process 1 gets a signal at its third call; process 0 alone decides of the rest.
agree, answers = Agreement(), []
for call in range(200):
    answers.append(agree(Wishes(15 * (me == 1 and call > 2), me == 1, me == 0 and call == 0)))
assert answers[0] == Wishes(0, False, True)
stopped = [call for call, answer in enumerate(answers) if answer.signal]
assert stopped and not any(answer.over for answer in answers)
assert len(stopped) < 100, "most calls cost nothing"
pathlib.Path(f"stopped{me}").write_text(str(stopped))
"""


def test_two_processes_agree(launch, tmp_path):
    pair = launch(AGREEMENT_SCRIPT)
    statuses = wait(pair, 300)
    assert statuses == [0, 0], [(tmp_path / f"{n}.err").read_text() for n in range(2)]
    assert (tmp_path / "stopped0").read_text() == (tmp_path / "stopped1").read_text()
    assert "told" in (tmp_path / "0.out").read_text()
    assert "told" not in (tmp_path / "1.out").read_text()


TRAINING_SCRIPT = """
import sys
import train
from networks.network import NetworkConfig
from search.config import SearchConfig
from training.config import *

train.load_config = lambda _: CONFIG
flags = "--config tiny --workdir work --distributed on --max-minutes 60 --checkpoint-minutes 0.02"
sys.exit(train.main(flags.split()))
"""


def checkpoints(workdir: pathlib.Path) -> list[int]:
    return sorted(int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdigit())


def steps(workdir: pathlib.Path) -> list[int]:
    """Of the complete lines of metrics.jsonl."""
    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line)["step"] for line in text.splitlines(keepends=True) if line[-1] == "\n"]


def wait_for(condition: Callable[[], bool], pair: list[subprocess.Popen], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        assert all(process.poll() is None for process in pair), "a process ended"
        time.sleep(0.1)


@pytest.mark.slow
def test_two_processes_train_together_and_go_on_after_one_was_killed(tiny, launch, tmp_path):
    # A rank that cannot be reached, and a cache, as the second start compiles the same.
    config: Config = dataclasses.replace(tiny, devices=0, target_ranks=(1,))
    script = TRAINING_SCRIPT.replace("CONFIG", repr(config))
    workdir = tmp_path / "work"

    pair = launch(script)
    wait_for(lambda: max(checkpoints(workdir), default=0) > 2, pair, 900)
    pair[1].kill()
    left, killed = wait(pair, 300)
    assert killed == -signal.SIGKILL
    assert left != 0, "what is left does not go on alone"
    reached = checkpoints(workdir)[-1]

    pair = launch(script)
    wait_for(lambda: max(checkpoints(workdir), default=0) > reached + 2, pair, 900)
    pair[1].send_signal(signal.SIGTERM)
    assert wait(pair, 300) == [128 + signal.SIGTERM] * 2
    out, silent = ((tmp_path / f"{number}.out").read_text() for number in range(2))
    assert f"at step {reached} in work" in out
    assert "step" not in silent
    told = steps(workdir)
    assert told == list(range(1, checkpoints(workdir)[-1] + 1))
