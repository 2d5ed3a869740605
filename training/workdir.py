"""The work folder of a run: what it is called, and which configuration and process have it."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import pathlib
import re
import sys
from collections.abc import Iterator

from training.config import Config, ConfigError
from training.storage import Path, is_bucket, write

try:
    import fcntl
except ImportError:  # Windows has none: there folders are not locked
    fcntl = None

# Fields that say when to stop and how fast to go. All others decide the results.
_FREE_FIELDS = {"devices", "max_minutes", "checkpoint_minutes", "target_ranks", "lift"}
_CONFIG = "config.json"
_LOCK = ".lock"
# What a process that is killed leaves of a file (`tensorgame.algorithms.formats.files`).
_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{32}\.tmp")


def fingerprint(config: Config) -> str:
    """8 hex digits that name the results of ``config``."""
    return hashlib.sha256(json.dumps(_deciding_fields(config)).encode()).hexdigest()[:8]


def default_workdir(config: Config) -> pathlib.Path:
    """runs/matmul-2-2-2-z2-seed0-<fingerprint>, so that the same command finds its own run."""
    first, *others = map(slug, config.game.targets)
    target = f"{first}-and-{len(others)}-more" if others else first
    last = config.seed + config.num_seeds - 1
    seeds = f"seed{config.seed}" if config.num_seeds == 1 else f"seeds{config.seed}-{last}"
    name = f"{target}-{config.game.ring}-{seeds}-{fingerprint(config)}"
    return pathlib.Path("runs", name)


def slug(target: str) -> str:
    """The name of a target as a part of file names: matmul-2-2-2."""
    return re.sub(r"[^\w.]+", "-", target).strip("-.")


@contextlib.contextmanager
def claimed(workdir: Path, config: Config) -> Iterator[None]:
    """Makes the folder, or checks that it belongs to ``config``, and keeps other processes out.

    Leaves config.json there. The operating system takes the lock back when the process ends,
    however it ends. In a bucket there are no locks.

    Raises:
        ConfigError: the folder cannot be written, holds something else, or another process has it.
    """
    with contextlib.ExitStack() as stack:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            _check_owner(workdir, config)
            if not is_bucket(workdir):
                stack.enter_context(_locked(workdir))
                _remove_temporaries(workdir)
            text = json.dumps(dataclasses.asdict(config), indent=2) + "\n"
            write(workdir / _CONFIG, text.encode())
        # The package for a kind of bucket may not be installed.
        except (OSError, ImportError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"workdir is {workdir}, which cannot be used ({reason}); name a folder that can be "
                "written with --workdir"
            ) from None
        yield


@contextlib.contextmanager
def _locked(workdir: pathlib.Path) -> Iterator[None]:
    """Holds the lock of a local folder."""
    if fcntl is None:
        yield
        return
    with (workdir / _LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"workdir is {workdir}, where another process is at work; stop that one first, or "
                "name another folder with --workdir"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
                raise
            print(
                f"warning: {workdir} cannot be locked ({error.strerror}); see to it that no other "
                "process works there",
                file=sys.stderr,
            )
        yield


def _remove_temporaries(workdir: pathlib.Path) -> None:
    """Removes what killed processes have left half-written; the folder has to be locked."""
    for folder, _, names in os.walk(workdir):
        for name in filter(_TEMPORARY.fullmatch, names):
            pathlib.Path(folder, name).unlink()


def read_config(workdir: Path) -> Config:
    """The configuration that ``claimed`` left in the folder."""
    return config_from_json((workdir / _CONFIG).read_text())


def config_from_json(text: str) -> Config:
    """The configuration whose fields are the JSON text."""
    saved = json.loads(text)
    sections = {
        field.name: type(field.default)(**_tuples(saved[field.name]))
        for field in dataclasses.fields(Config)
        if dataclasses.is_dataclass(field.default)
    }
    return Config(**{**_tuples(saved), **sections})


def _tuples(fields: dict[str, object]) -> dict[str, object]:
    """JSON knows lists only."""
    return {name: tuple(x) if isinstance(x, list) else x for name, x in fields.items()}


def _check_owner(workdir: Path, config: Config) -> None:
    """Refuses a folder whose config.json differs in a field that decides results."""
    # Empty folders do not exist in a bucket.
    names = [path.name for path in workdir.iterdir()] if workdir.exists() else []
    # A process that is killed at once leaves no more than these.
    if all(name == _LOCK or _TEMPORARY.fullmatch(name) for name in names):
        return
    try:
        there = _flat(json.loads((workdir / _CONFIG).read_text()))
    except FileNotFoundError:
        raise ConfigError(
            f"workdir is {workdir}, which holds files but no config.json of a run; name an empty "
            "or a new folder with --workdir"
        ) from None
    except (ValueError, AttributeError):
        raise ConfigError(
            f"workdir is {workdir}, whose config.json is damaged; name another folder with "
            "--workdir"
        ) from None
    here = _deciding_fields(config)
    names = sorted((here.keys() | there.keys()) - _FREE_FIELDS)
    differences = [
        f"{name}: there {there.get(name, 'absent')}, here {here.get(name, 'absent')}"
        for name in names
        if there.get(name) != here.get(name)
    ]
    if differences:
        raise ConfigError(
            f"workdir is {workdir}, which belongs to another run ({'; '.join(differences)}); name "
            "another folder with --workdir"
        )


def _deciding_fields(config: Config) -> dict[str, object]:
    fields = _flat(json.loads(json.dumps(dataclasses.asdict(config))))
    return {name: fields[name] for name in sorted(fields.keys() - _FREE_FIELDS)}


def _flat(tree: dict, prefix: str = "") -> dict[str, object]:
    """{"search": {"num_actions": 8}} as {"search.num_actions": 8}."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
