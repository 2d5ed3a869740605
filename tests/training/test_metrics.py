"""What the host counts of each step, and what is shown of it."""

import dataclasses
import json
import math
import types

import numpy as np
import pytest

from training import metrics as metrics_module
from training.config import Config, GameConfig
from training.flops import Costs
from training.metrics import COUNTERS, Meter, peak_memory
from training.plotting import plot
from training.progress import Progress, _details
from training.writers import JsonLines, read_metrics

TWO = Config(game=GameConfig(targets=("matmul:1,1,2", "complex"), max_moves=6), target_ranks=(2, 3))
COSTS = Costs(evaluation=1000.0, move=9000.0, learning=4e6, peak=1e8)


def step_metrics(games=(2, 2), solved=((2, 1), (5, 1)), **others: float) -> dict[str, np.ndarray]:
    """Of a step with so many games of each target, and solved ones as pairs (moves, games)."""
    by_moves = np.zeros((2, TWO.max_moves + 1), np.float32)
    for target, (moves, count) in enumerate(solved):
        by_moves[target, moves] = count
    numbers = {"games": sum(games), "solved": by_moves.sum(), "moves": 8, "evaluations": 72}
    numbers |= {"return": -3.0, "policy_loss": 1 / 3, "gradient_norm": 2.0, **others}
    found = {name: np.float32(value) for name, value in numbers.items()}
    return {**found, "target_games": np.array(games, np.float32), "target_solved": by_moves}


def measure(meter: Meter, seconds: float, **step: object) -> dict:
    best = {"matmul:1,1,2": 2, "complex": None}
    line = meter.measure(step_metrics(**step), best, seconds)
    assert json.loads(json.dumps(line, allow_nan=False)) == line
    return line


# Counting ----------------------------------------------------------------------------------------


def test_a_line_has_what_was_counted_and_measured():
    meter = Meter(TWO, {**COUNTERS, "step": 6, "total_games": 10, "compile_seconds": 3.0}, COSTS)
    line = measure(meter, 20.0, value_error=math.nan)
    assert meter.counters == {name: line[name] for name in COUNTERS}
    assert (line["step"], line["seconds"], line["compile_seconds"]) == (7, 20.0, 3.0)
    assert (line["total_games"], line["total_solved"], line["total_moves"]) == (14, 2, 8)
    assert line["total_flops"] == 72 * 1000 + 4e6
    assert line["policy_loss"] == pytest.approx(1 / 3, rel=1e-6)
    assert line["value_error"] is None
    assert line["peak_memory_bytes"] > 2**20
    assert line["best_ranks"] == {"matmul:1,1,2": 2, "complex": None}
    assert line["target_games"] == {"matmul:1,1,2": 2, "complex": 2}
    assert line["target_ranks"] == {"matmul:1,1,2": [[2, 1]], "complex": [[5, 1]]}


def test_rates_are_those_of_the_last_seconds():
    meter = Meter(TWO, COUNTERS, COSTS)
    first = measure(meter, 1.0)
    for name in ("games_per_second", "share_of_peak", "solved_share"):
        assert first[name] is None
    second = measure(meter, 3.0, games=(4, 0), solved=((2, 3), (0, 0)))
    assert second["games_per_second"] == 4 / 2
    assert second["moves_per_second"] == 8 / 2
    assert second["evaluations_per_second"] == 72 / 2
    assert second["flops_per_second"] == COSTS.of_step(8) / 2
    assert second["share_of_peak"] == COSTS.of_step(8) / 2 / COSTS.peak
    assert second["solved_share"] == 3 / 4
    assert second["solved_shares"] == {"matmul:1,1,2": 3 / 4, "complex": None}
    third = measure(meter, 12.0, games=(0, 4), solved=((2, 0), (3, 1)))
    assert third["games_per_second"] == round(4 / 9, 4), "the first step is too long ago"
    assert third["solved_shares"] == {"matmul:1,1,2": None, "complex": 1 / 4}


def test_without_a_known_peak_there_is_no_share():
    meter = Meter(TWO, {"step": 3}, Costs(evaluation=1.0, move=9.0, learning=1.0, peak=None))
    assert [measure(meter, second)["share_of_peak"] for second in (1.0, 2.0)] == [None, None]


def test_the_peak_of_memory_is_the_fullest_device(monkeypatch):
    def device(stats):
        return types.SimpleNamespace(memory_stats=lambda: stats)

    def devices(*stats):
        monkeypatch.setattr(metrics_module.jax, "local_devices", lambda: list(map(device, stats)))

    devices({"peak_bytes_in_use": 5}, {"peak_bytes_in_use": 7})
    assert peak_memory() == 7
    devices(None)
    before = peak_memory()
    filled = np.ones(2**25)
    assert peak_memory() >= max(before, filled.nbytes)


# What is shown -----------------------------------------------------------------------------------


def test_plain_lines_say_the_essentials(tmp_path, capsys):
    writer = JsonLines(tmp_path)
    with Progress(TWO, [COUNTERS], 60.0, COSTS, [[writer]]) as progress:
        for second in (1.0, 12.0):
            best = {"matmul:1,1,2": 2, "complex": None}
            progress.update([step_metrics(replay_age=3.0)], [best], second)
    line = capsys.readouterr().out.splitlines()[-1]
    for words in (
        "time 0:12 of 1:00",
        "step 2",
        "games 8 (0.364/s)",
        "best matmul:1,1,2 2 (wanted 2)",
        "best complex - (wanted 3)",
        "TFLOP/s 3.7e-07 (0.4% of peak)",
        "policy loss 0.333",
    ):
        assert words in line
    assert len(read_metrics(tmp_path)) == 2
    details = dict(_details(progress._latest[0]))
    assert details["replay age"] == "3"
    assert details["memory"].endswith("GiB at most")
    assert "tree depth" not in details, "it was not measured"


def test_several_agents_are_shown_together_and_written_apart(tmp_path, capsys):
    config = dataclasses.replace(TWO, seed=4, num_seeds=2)
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    writers = [[JsonLines(folder)] for folder in folders]
    with Progress(config, [COUNTERS] * 2, 60.0, COSTS, writers) as progress:
        metrics = [step_metrics(policy_loss=1.0), step_metrics(games=(6, 4), policy_loss=2.0)]
        best = [{"matmul:1,1,2": 2, "complex": None}, {"matmul:1,1,2": 3, "complex": 4}]
        progress.update(metrics, best, 1.0)
    out = capsys.readouterr().out
    for words in ("games 14", "best matmul:1,1,2 2 3", "best complex - 4", "policy loss 1.5"):
        assert words in out
    lines = [read_metrics(folder)[0] for folder in folders]
    assert [(line["seed"], line["policy_loss"]) for line in lines] == [(4, 1.0), (5, 2.0)]


def test_the_curve_of_several_targets(tmp_path):
    assert plot(TWO, tmp_path) is None
    meter, writer = Meter(TWO, COUNTERS, COSTS), JsonLines(tmp_path)
    writer.begin(0)
    for second in range(1, 30):
        line = meter.measure(step_metrics(), {"matmul:1,1,2": 2, "complex": None}, float(second))
        writer.write(line)
    writer.close()
    assert plot(TWO, tmp_path).stat().st_size > 10_000
