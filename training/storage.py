"""Files of a work folder, which may be local or in a bucket (gs://, s3://)."""

import os
import pathlib

from etils import epath

from tensorgame.algorithms.formats.files import write_atomically

# A bucket's path has the same methods. Local ones stay those of the standard library.
Path = pathlib.Path | epath.Path


def parse(text: str | os.PathLike[str]) -> Path:
    """The path that ``text`` names: of a bucket if it has a scheme, such as gs://."""
    return epath.Path(text) if _has_scheme(os.fspath(text)) else pathlib.Path(text)


def is_bucket(path: Path) -> bool:
    """Whether the path is an object of a bucket."""
    return _has_scheme(os.fspath(path))


def write(path: Path, content: bytes) -> None:
    """Replaces the file, or creates it: whole, or not at all.

    An object of a bucket is there only once it is complete, so that it can be written as it is.

    Raises:
        OSError: it cannot be written; what was there before is left as it was.
    """
    if is_bucket(path):
        path.write_bytes(content)
    else:
        write_atomically(path, content)


def read_lines(path: Path) -> list[str]:
    """The complete lines of a text file, none if it does not exist; the last one may be torn."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [line for line in lines if line.endswith("\n")]


def _has_scheme(text: str) -> bool:
    return "://" in text
