"""What is left of a run that diverged."""

import json

import jax
import jax.numpy as jnp

from training.diagnosis import not_finite, write_diagnosis
from training.writers import JsonLines


def test_a_diagnosis_names_what_is_not_finite(tmp_path):
    bad = jnp.ones((2, 3)).at[0, 1].set(jnp.nan).at[1, 1].set(jnp.inf)
    state = {"params": {"bad": bad, "good": jnp.ones(2)}, "count": jnp.arange(3)}
    state |= {"key": jax.random.key(0), "empty": jnp.zeros((2, 0))}
    assert not_finite(state) == {"['params']['bad']": "2 of 6"}
    assert not_finite({"good": jnp.ones(2)}) == {}
    writer = JsonLines(tmp_path)
    writer.begin(0)
    for step in range(1, 31):
        writer.write({"step": step})
    writer.close()
    path = write_diagnosis(tmp_path, "policy_loss became nan", state, 1, "checkpoints/20")
    assert path == tmp_path / "divergence-30.json"
    told = json.loads(path.read_text())
    assert told["not_finite"] == {"['params']['bad']": "2 of 6"}
    assert (told["step"], told["examined_after_step"]) == (30, 31)
    assert told["last_checkpoint"] == "checkpoints/20"
    assert [line["step"] for line in told["last_metrics"]] == list(range(11, 31))
