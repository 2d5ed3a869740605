"""Algorithms in .npz archives: our own, and those that were released with the AlphaTensor paper.

Our own hold the int64 arrays u, v, w, modulus () and denominator (), and ``target``, its name as
text (). A target without a name of its own comes with its tensor, an int64 array (I, J, K). Nothing
is pickled, so that ``numpy.load`` reads them as it is.

The release holds one entry "n,m,p" per algorithm: pickled object arrays of u, v and w, or an array
(3, rows, R) where they have equal shapes. The third mode is transposed as in ours. Fractions are
floats, all of them multiples of 1/8.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence

import numpy as np

from tensorgame import targets
from tensorgame.algorithms.factorization import Factorization
from tensorgame.algorithms.formats import inference, npy

_FIELDS = ("u", "v", "w", "modulus", "denominator", "target")
_MOST_BYTES = 2**30
_LARGEST_DENOMINATOR = 2**10


def write(factorization: Factorization) -> bytes:
    """The algorithm as a plain archive."""
    arrays = {name: getattr(factorization, name) for name in "uvw"}
    arrays |= {
        name: np.array(getattr(factorization, name), np.int64)
        for name in ("modulus", "denominator")
    }
    arrays["target"] = np.array(factorization.target.name)
    if not inference.has_name(factorization.target):
        arrays["tensor"] = factorization.target.tensor
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def read(content: bytes) -> dict[str, Factorization]:
    """The algorithms of either kind of archive by their keys.

    Raises:
      ValueError: it is no such archive, or has unusable values.
      Exception: what a damaged archive makes of `zipfile`.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
        if size > _MOST_BYTES:
            raise ValueError(f"the archive unpacks to {size} bytes; up to {_MOST_BYTES} are read")
        arrays = {
            name.removesuffix(".npy"): npy.read(archive.read(name)) for name in archive.namelist()
        }
    if set(_FIELDS) <= set(arrays):
        factorization = _plain(arrays)
        return {factorization.target.name: factorization}
    if arrays and all(re.fullmatch(r"\d{1,4},\d{1,4},\d{1,4}", key) for key in arrays):
        return {key: _released(key, factors) for key, factors in arrays.items()}
    raise ValueError(
        f"the archive holds {', '.join(arrays) or 'nothing'}; it needs {', '.join(_FIELDS)}, or "
        "entries such as 2,2,2"
    )


def _plain(arrays: dict[str, np.ndarray | list[np.ndarray]]) -> Factorization:
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise ValueError(f"{name} is pickled; it has to be a plain array")
        wanted = "U" if name == "target" else "iu"
        if array.dtype.kind not in wanted:
            words = "text" if name == "target" else "an integer dtype"
            raise ValueError(f"{name} has dtype {array.dtype}; it has to be {words}")
        if name in _FIELDS[3:] and array.shape:
            raise ValueError(f"{name} has shape {array.shape}; it has to be a scalar")
    return Factorization(
        target=inference.target_of(arrays["target"].item(), arrays.get("tensor")),
        modulus=arrays["modulus"].item(),
        denominator=arrays["denominator"].item(),
        u=arrays["u"],
        v=arrays["v"],
        w=arrays["w"],
    )


def _released(key: str, factors: np.ndarray | list[np.ndarray]) -> Factorization:
    sizes = [int(size) for size in key.split(",")]
    sides = inference.matmul_sides(sizes)
    shapes = [array.shape for array in factors]
    if len(shapes) != 3 or [shape[:1] for shape in shapes] != [(side,) for side in sides]:
        raise ValueError(f"{key} has factors of shapes {shapes}; they need {sides} rows")
    denominator, (u, v, w) = _integers(key, list(factors))
    factorization = Factorization(
        target=targets.matmul(*sizes), denominator=denominator, u=u, v=v, w=w
    )
    return inference.infer_ring(factorization)


def _integers(key: str, factors: Sequence[np.ndarray]) -> tuple[int, list[np.ndarray]]:
    """A common denominator and the numerators, as int64 if the factors were floats."""
    if all(factor.dtype.kind in "iu" for factor in factors):
        return 1, list(factors)
    if not all(factor.dtype.kind in "iuf" and np.isfinite(factor).all() for factor in factors):
        raise ValueError(f"{key} has factors that are no finite numbers")
    floats = [factor.astype(np.float64) for factor in factors]
    denominator = 1
    while denominator <= _LARGEST_DENOMINATOR:
        scaled = [factor * denominator for factor in floats]
        if max(np.abs(factor).max(initial=0) for factor in scaled) >= 2**53:
            break
        if all((factor == np.rint(factor)).all() for factor in scaled):
            return denominator, [factor.astype(np.int64) for factor in scaled]
        denominator *= 2
    raise ValueError(
        f"{key} has entries that are no multiples of 1/{_LARGEST_DENOMINATOR} below 2**53"
    )
