"""Where a result comes from: the version of the project and what it was computed on."""

import contextlib
import datetime
import functools
import importlib.metadata
import pathlib
import subprocess

import jax

ROOT = pathlib.Path(__file__).resolve().parent.parent


@functools.cache
def commit() -> str:
    """The commit of this checkout, with -dirty after it if tracked files differ from it.

    Without a checkout, the version of the installed package, or "unknown".
    """
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    # An installed package may lie in the checkout of something else.
    if (ROOT / ".git").exists():
        with contextlib.suppress(FileNotFoundError, subprocess.CalledProcessError):
            result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            return result.stdout.strip()
    try:
        return f"version {importlib.metadata.version('tensorgame')}"
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def origin() -> dict[str, object]:
    """What a line about a result says of now and here; ``time`` is in UTC."""
    now = datetime.datetime.now(datetime.UTC)
    return {
        "time": now.isoformat(timespec="seconds"),
        "commit": commit(),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "jax": jax.__version__,
    }
