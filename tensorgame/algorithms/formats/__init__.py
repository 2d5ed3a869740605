"""Algorithms in files: reading what others publish and writing what they can read.

====================== ======== ===================== ========================================
Format                 Written  Rings                 Targets
====================== ======== ===================== ========================================
plain arrays           .npz     all                   all, see `archives`
AlphaTensor release    no       Z, Q with halves, Z_2 matrix multiplication, see `archives`
JSON record            .json    all                   all, see `records`
JSON scheme            no       Z, Q, Z_2, Z_3        matrix multiplication, see `records`
products               .exp     Z, Q, Z_p             those with a name, see `products`
bit masks              .bits    Z_2                   matrix multiplication, see `tables`
table of coefficients  no       Z, Q, Z_2, Z_3        matrix multiplication, see `tables`
text with the proof    .txt     all                   all; for people, it is not read back
====================== ======== ===================== ========================================

Saving goes by the ending of the path, loading by the content of the file. Files from others are
safe to load: nothing in them is run. Loading checks the form only;
`tensorgame.algorithms.factorization.Factorization.check` proves an algorithm.

Formats that do not name a ring are read over Z or Q, unless all coefficients are 0, 1 (or 2) and
the algorithm is wrong over Z and right modulo 2 (or 3).
"""

from __future__ import annotations

import os
import pathlib

from tensorgame.algorithms import released
from tensorgame.algorithms.factorization import Factorization
from tensorgame.algorithms.formats import archives, files, products, records, reports, tables

_WRITERS = {
    ".npz": archives.write,
    ".json": records.write,
    ".exp": products.write,
    ".bits": tables.write,
    ".txt": reports.write,
}


def load(source: str | os.PathLike[str]) -> Factorization:
    """Reads one algorithm: its form is right, and only its ``check`` proves more.

    Args:
      source: a path of any known format; ``PATH#KEY`` for one algorithm of a file of several; or
        the name of a released one, such as ``alphatensor:4,4,4:mod2``.

    Raises:
      OSError: the file cannot be read.
      ValueError: the file is damaged or of an unknown format, holds unusable values, or holds
        several algorithms and no key, or a wrong one, was given.
    """
    if _is_released(source):
        return released.load(str(source))
    path, key = _split(source)
    factorizations = load_all(path)
    if not key and len(factorizations) == 1:
        return next(iter(factorizations.values()))
    if key in factorizations:
        return factorizations[key]
    known = list(factorizations)
    some = ", ".join(map(repr, known[:5])) + (
        f" and {len(known) - 5} more" if len(known) > 5 else ""
    )
    problem = f"has no algorithm {key!r}" if key else f"holds {len(known)} algorithms"
    raise ValueError(f"{path} {problem}; load {path}#KEY with one of the keys {some}")


def load_all(source: str | os.PathLike[str]) -> dict[str, Factorization]:
    """Reads all algorithms of a file by their keys, or all that were released: "alphatensor".

    The key is the name of the target where the file has no other, and what `load` wants after #.

    Raises:
      OSError: the file cannot be read.
      ValueError: the file is damaged, of an unknown format, or holds unusable values.
    """
    if source == released.PREFIX:
        return {name: released.load(name) for name in released.names()}
    if _is_released(source):
        return {str(source): released.load(str(source))}
    return decode(pathlib.Path(source).read_bytes(), os.fspath(source))


def save(factorization: Factorization, path: str | os.PathLike[str]) -> None:
    """Writes one algorithm in the format of the path's ending, atomically.

    Raises:
      OSError: the file cannot be written; a file that was there before is left as it was.
      ValueError: the ending is unknown, or the format cannot hold the algorithm. Nothing is
        written. Text with the proof needs an algorithm that is right: `IncorrectFactorization`.
    """
    files.write_atomically(path, encode(factorization, path))


def encode(factorization: Factorization, path: str | os.PathLike[str]) -> bytes:
    """What ``save`` writes to ``path``, for files that are not on this machine.

    Raises:
      ValueError: as `save` does.
    """
    ending = pathlib.PurePath(path).suffix.lower()
    if ending not in _WRITERS:
        raise ValueError(
            f"{os.fspath(path)} ends in {ending!r}; the formats are {', '.join(_WRITERS)}"
        )
    return _WRITERS[ending](factorization)


def decode(content: bytes, name: str) -> dict[str, Factorization]:
    """What `load_all` reads from a file called ``name`` with this content.

    Raises:
      ValueError: the content is damaged, of an unknown format, or holds unusable values.
    """
    try:
        return _read(content)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    # Damaged archives and pickles raise errors of a dozen unrelated types; what could be wrong
    # with the file system has been read by now.
    except Exception as error:
        raise ValueError(f"{name} is damaged: {type(error).__name__}: {error}") from error


def _is_released(source: str | os.PathLike[str]) -> bool:
    return isinstance(source, str) and source.startswith(f"{released.PREFIX}:")


def _split(source: str | os.PathLike[str]) -> tuple[str, str]:
    """The path and the key, which is empty if there is none: a path may contain # as well."""
    path = os.fspath(source)
    if "#" not in path or pathlib.Path(path).exists():
        return path, ""
    path, _, key = path.rpartition("#")
    return path, key


def _read(content: bytes) -> dict[str, Factorization]:
    if not content.strip():
        raise ValueError("the file is empty")
    if content.startswith(b"PK"):
        return archives.read(content)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("the file is neither an .npz archive nor text in UTF-8") from None
    if reports.recognizes(text):
        raise ValueError("this text was written for people; save as .npz or .json to load it again")
    if text.lstrip().startswith("{"):
        read = records.read
    else:
        read = tables.read if tables.recognizes(text) else products.read
    factorization = read(text)
    return {factorization.target.name: factorization}
