"""The work folder of a run: what it is called, and which configuration it belongs to."""

import dataclasses
import hashlib
import json
import pathlib
import re

from tensorgame.algorithms.formats.files import write_atomically
from training.config import Config, ConfigError

# Fields that say when to stop and how fast to go. All others decide the results.
_FREE_FIELDS = {"devices", "max_minutes", "target_ranks", "lift"}
_CONFIG = "config.json"


def fingerprint(config: Config) -> str:
    """8 hex digits that name the results of ``config``."""
    return hashlib.sha256(json.dumps(_deciding_fields(config)).encode()).hexdigest()[:8]


def default_workdir(config: Config) -> pathlib.Path:
    """runs/matmul-2-2-2-z2-seed0-<fingerprint>, so that the same command finds its own run."""
    first, *others = map(slug, config.game.targets)
    target = f"{first}-and-{len(others)}-more" if others else first
    name = f"{target}-{config.game.ring}-seed{config.seed}-{fingerprint(config)}"
    return pathlib.Path("runs", name)


def slug(target: str) -> str:
    """The name of a target as a part of file names: matmul-2-2-2."""
    return re.sub(r"[^\w.]+", "-", target).strip("-.")


def claim(workdir: pathlib.Path, config: Config) -> None:
    """Makes the folder, or checks that it belongs to ``config``; leaves config.json there.

    Raises:
        ConfigError: the folder cannot be written, or holds something else.
    """
    path = workdir / _CONFIG
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if any(workdir.iterdir()):
            _check_owner(workdir, path.read_text(), config)
        text = json.dumps(dataclasses.asdict(config), indent=2) + "\n"
        write_atomically(path, text.encode())
    except FileNotFoundError:
        raise ConfigError(
            f"workdir is {workdir}, which holds files but no config.json of a run; name an empty "
            "or a new folder with --workdir"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"workdir is {workdir}, which cannot be used ({error.strerror}); name a folder that "
            "can be written with --workdir"
        ) from None


def read_config(workdir: pathlib.Path) -> Config:
    """The configuration that ``claim`` left in the folder."""
    saved = json.loads((workdir / _CONFIG).read_text())
    sections = {
        field.name: type(field.default)(**_tuples(saved[field.name]))
        for field in dataclasses.fields(Config)
        if dataclasses.is_dataclass(field.default)
    }
    return Config(**{**_tuples(saved), **sections})


def _tuples(fields: dict[str, object]) -> dict[str, object]:
    """JSON knows lists only."""
    return {name: tuple(x) if isinstance(x, list) else x for name, x in fields.items()}


def _check_owner(workdir: pathlib.Path, saved: str, config: Config) -> None:
    """Refuses a folder whose config.json differs in a field that decides results."""
    try:
        there = _flat(json.loads(saved))
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
