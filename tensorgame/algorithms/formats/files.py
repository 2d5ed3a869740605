"""Files that are either written whole or not at all."""

from __future__ import annotations

import os
import pathlib
import uuid


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Replaces the file, or creates it.

    Raises:
      OSError: it cannot be written; a file that was there before is left as it was.
    """
    target = pathlib.Path(path)
    # The rename is atomic only within one folder; `tempfile` would make the file private (0600).
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
