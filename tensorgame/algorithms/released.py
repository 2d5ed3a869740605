"""The algorithms released with the AlphaTensor paper, by name: ``alphatensor:4,4,4:mod2``.

A name has the sizes n,m,p of <n,m,p> and, for arithmetic modulo 2, ``:mod2``. There are 93 over Z
or Q and 20 modulo 2, as in the files factorizations_r.npz and factorizations_f2.npz of
google-deepmind/alphatensor (Fawzi et al., Nature 610, 47-53, 2022). They are licensed under CC BY
4.0; the file NOTICE has the attribution.

The release is pickled arrays of int32, int64 and float64. It was encoded anew, with the same
numbers in the same order, by

    python -m tensorgame.algorithms.released factorizations_r.npz factorizations_f2.npz OUT

as one int8 array (n m + m p + p n, R) per algorithm, u above v above w, and an array of their
common denominators in the order of the names.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib.resources
import io
import os
import sys

import numpy as np

from tensorgame import targets
from tensorgame.algorithms.factorization import Factorization

PREFIX = "alphatensor"
_MOD2 = ":mod2"
_DENOMINATORS = "denominators"


def names() -> list[str]:
    """The names of all algorithms: those over Z or Q by size, and then those modulo 2."""
    return [f"{PREFIX}:{key}" for key in _denominators()]


def load(name: str) -> Factorization:
    """The algorithm of this name.

    Raises:
      ValueError: there is none; the message lists near names.
    """
    key = name.removeprefix(f"{PREFIX}:")
    denominators = _denominators()
    if f"{PREFIX}:{key}" != name or key not in denominators:
        raise ValueError(f"{name!r} was not released; near it are {', '.join(_near(key))}")
    with np.load(_file(), allow_pickle=False) as archive:
        rows = archive[key]
    target = targets.matmul(*_sizes(key))
    i, j, _ = target.shape
    u, v, w = np.split(rows, [i, i + j])
    modulus = 2 if key.endswith(_MOD2) else 0
    return Factorization(
        target=target, modulus=modulus, denominator=denominators[key], u=u, v=v, w=w
    )


def encode(standard: str | os.PathLike[str], mod2: str | os.PathLike[str]) -> bytes:
    """The data file, made from the two files of the release.

    Raises:
      OSError: a file cannot be read.
      ValueError: a file is damaged, or holds a number beyond int8.
    """
    # The formats know the released names, so that this module has to come first.
    from tensorgame.algorithms import formats

    algorithms = formats.load_all(standard)
    for key, factorization in formats.load_all(mod2).items():
        # Some of them are right over Z as well, which is not how they were found.
        algorithms[key + _MOD2] = dataclasses.replace(factorization, modulus=2)
    arrays = {}
    for key, factorization in algorithms.items():
        rows = np.concatenate([factorization.u, factorization.v, factorization.w])
        arrays[key] = rows.astype(np.int8)
        if not np.array_equal(arrays[key], rows):
            raise ValueError(f"{key} holds numbers from {rows.min()} to {rows.max()}, beyond int8")
    denominators = [factorization.denominator for factorization in algorithms.values()]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{_DENOMINATORS: np.array(denominators, np.int16)}, **arrays)
    return buffer.getvalue()


def _file() -> io.BytesIO:
    folder = importlib.resources.files("tensorgame.algorithms")
    return io.BytesIO((folder / "data" / "alphatensor.npz").read_bytes())


@functools.cache
def _denominators() -> dict[str, int]:
    """The common denominators by key."""
    with np.load(_file(), allow_pickle=False) as archive:
        keys = [key for key in archive.files if key != _DENOMINATORS]
        return dict(zip(keys, archive[_DENOMINATORS].tolist(), strict=True))


def _sizes(key: str) -> list[int]:
    return [int(size) for size in key.removesuffix(_MOD2).split(",")]


def _near(key: str) -> list[str]:
    """Names of the same sizes in another order, or else names that look alike."""
    wanted = sorted(key.removesuffix(_MOD2).split(","))
    keys = list(_denominators())
    same = [k for k in keys if sorted(k.removesuffix(_MOD2).split(",")) == wanted]
    return [f"{PREFIX}:{k}" for k in same or difflib.get_close_matches(key, keys, cutoff=0)]


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python -m tensorgame.algorithms.released STANDARD MOD2 OUT")
    with open(sys.argv[3], "wb") as file:
        file.write(encode(sys.argv[1], sys.argv[2]))
