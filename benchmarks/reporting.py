"""What every measurement says of its origin, and how it is written down."""

import argparse
import json
import os
import pathlib
import platform

from training.provenance import ROOT, commit

__all__ = [
    "ROOT",
    "command_line",
    "commit",
    "cpu_name",
    "efficiency",
    "lines_to_draw",
    "origin",
    "report",
]

_CPU_INFO = pathlib.Path("/proc/cpuinfo")


def cpu_name() -> str:
    """The model of this machine's processor."""
    lines = _CPU_INFO.read_text().splitlines() if _CPU_INFO.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def origin(version: str | None) -> dict[str, str]:
    """Where a measurement comes from: the device, JAX, the commit, and XLA's flags if any are set.

    Args:
        version: name of the commit, where there is no git checkout.
    """
    # Programs that start others leave the devices to them.
    import jax

    device = jax.devices()[0]
    flags = os.environ.get("XLA_FLAGS")
    return {
        "device": cpu_name() if device.platform == "cpu" else device.device_kind,
        "jax": jax.__version__,
        "commit": version or commit(),
        **({"xla_flags": flags} if flags else {}),
    }


def command_line(description: str | None) -> argparse.ArgumentParser:
    """A parser that knows where lines go, ``output``, and the ``commit`` that they name."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=pathlib.Path, help="file that lines are appended to")
    parser.add_argument("--commit", help="name of this version, where there is no git checkout")
    return parser


def report(line: dict[str, object], output: pathlib.Path | None) -> None:
    """Prints one JSON line and appends it to ``output``."""
    text = json.dumps(line)
    print(text, flush=True)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("a") as file:
            file.write(text + "\n")


def efficiency(first: dict, other: dict) -> float:
    """Games a second and device of a line of scaling.py, by those of the first."""
    one, several = (
        line["games"] / line["step_milliseconds"] / line["devices"] for line in (first, other)
    )
    return several / one


def lines_to_draw(description: str | None) -> tuple[list[dict], pathlib.Path | None]:
    """The command line of a program that draws: the lines of its files, and where to."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path, help="a PNG file")
    options = parser.parse_args()
    texts = (path.read_text() for path in options.files)
    return [json.loads(line) for text in texts for line in text.splitlines()], options.output
