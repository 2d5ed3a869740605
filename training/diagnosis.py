"""What is known of a run that diverged, in a file for whoever looks into it."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from training.storage import Path, write
from training.writers import read_metrics

_LINES = 20


def write_diagnosis(
    workdir: Path, reason: str, state: object, steps_made: int, checkpoint: str | None
) -> Path:
    """Writes divergence-<step>.json into the work folder.

    Args:
        workdir: where metrics.jsonl has the step that diverged as its last line.
        reason: one sentence.
        state: the newest state of the run, which may be some steps further.
        steps_made: those steps.
        checkpoint: the last one.

    Returns:
        The path of the file.
    """
    lines = read_metrics(workdir)
    step = lines[-1]["step"] if lines else 0
    diagnosis = {
        "step": step,
        "reason": reason,
        "last_checkpoint": checkpoint,
        "examined_after_step": step + steps_made,
        "not_finite": not_finite(state),
        "last_metrics": lines[-_LINES:],
    }
    path = workdir / f"divergence-{step}.json"
    write(path, (json.dumps(diagnosis, indent=1) + "\n").encode())
    return path


def not_finite(tree: object) -> dict[str, str]:
    """The arrays of ``tree`` with infinite or undefined entries: "3 of 64", by their paths."""
    leaves = {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    }
    # One program, as each array by itself would be a compilation.
    bad = jax.jit(lambda xs: {path: (~jnp.isfinite(x)).sum() for path, x in xs.items()})(leaves)
    counts = {path: int(np.asarray(count)) for path, count in bad.items()}
    return {path: f"{n} of {leaves[path].size}" for path, n in counts.items() if n}
