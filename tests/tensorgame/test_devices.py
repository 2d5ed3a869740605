"""What the devices of a run can do."""

import types

import jax
import pytest

from tensorgame import devices


@pytest.mark.parametrize(
    ("backend", "capability", "expected"),
    [("gpu", "9.0", 9), ("gpu", "12.1", 12), ("gpu", "gfx942", 0), ("tpu", "", 0)],
)
def test_only_devices_of_nvidia_have_a_generation(monkeypatch, backend, capability, expected):
    device = types.SimpleNamespace(compute_capability=capability)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    assert devices.generation() == expected


@pytest.mark.parametrize(("number", "expected"), [(9, True), (8, True), (7, False), (0, False)])
def test_triton_runs_since_ampere(monkeypatch, number, expected):
    monkeypatch.setattr(devices, "generation", lambda: number)
    assert devices.runs_triton() == expected
