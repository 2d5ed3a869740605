"""Which steps a profile is of."""

import gzip

import jax
import jax.numpy as jnp
import pytest

from training.profiling import profiled


@pytest.fixture
def traces(monkeypatch):
    """Folders and the numbers of calls at which traces begin and end."""
    seen = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: seen.append(folder))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: seen.append("end"))

    def step(state):
        seen.append(int(state))
        return state + 1, None

    return seen, step


@pytest.mark.parametrize(
    ("calls", "events"),
    [
        (9, [0, 1, 2, 3, "there", 4, 5, "end", 6, 7, 8]),
        (5, [0, 1, 2, 3, "there", 4, "end"]),
        (4, [0, 1, 2, 3]),
    ],
)
def test_a_profile_is_of_warm_steps(calls, events, traces, tmp_path, capsys):
    seen, step = traces
    folder = tmp_path / "there"
    with profiled(step, folder, 1, 2) as traced:
        state = 0
        for _ in range(calls):
            state, _ = traced(state)
    assert seen == [str(folder) if event == "there" else event for event in events]
    out = capsys.readouterr().out
    assert out.count("xprof --logdir") == ("there" in events)
    assert out.count("no profile") == ("there" not in events)


def test_without_a_profile_the_step_is_as_it_was(traces, tmp_path):
    _, step = traces
    with profiled(step, tmp_path, 0, 0) as same:
        assert same is step


def test_a_profile_can_be_opened(tmp_path, capsys):
    step = jax.jit(lambda state: (state + 1, None))
    with profiled(step, tmp_path, 0, 1) as traced:
        state = jnp.zeros(())
        for _ in range(5):
            state, _ = traced(state)
    (path,) = tmp_path.rglob("*.trace.json.gz")
    assert b"traceEvents" in gzip.decompress(path.read_bytes())
    assert list(tmp_path.rglob("*.xplane.pb"))
    assert f"profile of 1 steps: {tmp_path}" in capsys.readouterr().out
