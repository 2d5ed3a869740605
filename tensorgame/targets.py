"""Bilinear maps as target tensors, by name: ``matmul:2,3,4``.

A bilinear map (a, b) -> c is given by a NumPy function on flat vectors. Its values on unit vectors
are its tensor, ``c_k = sum_ij T_ijk a_i b_j``, so that the meaning of a target and what algorithms
are checked against have one source. This module and those that it imports need NumPy only.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tensorgame import known_ranks
from tensorgame.bilinear import Target, check_shape, from_tensor, known_from, numbered
from tensorgame.known_ranks import Record
from tensorgame.matrix_products import (
    gram,
    matmul,
    skew_matmul,
    skew_matvec,
    symmetric_matmul,
    symmetric_matvec,
    symmetric_symmetric,
)

__all__ = [
    "FAMILIES",
    "Listed",
    "Record",
    "Target",
    "complex_numbers",
    "cyclic_convolution",
    "from_tensor",
    "gram",
    "listing",
    "matmul",
    "parse",
    "polynomial",
    "quaternion",
    "skew_matmul",
    "skew_matvec",
    "symmetric_matmul",
    "symmetric_matvec",
    "symmetric_symmetric",
]


def polynomial(n: int, m: int) -> Target:
    """Product of polynomials with n and with m coefficients.

    All modes list coefficients from the constant term on. Schoolbook: n m products. Needed over any
    field: n + m - 1, which suffice over Q and modulo p >= n + m - 2 (Toom 1963, Cook 1966, with
    infinity as a point). Over Z and modulo smaller primes the best known are 3, 6, 9, 13, 17 and 22
    for n = m = 2 to 7 (Montgomery 2005), and what is put together from them.
    """
    name = f"polynomial:{n},{m}"
    check_shape(name, n, m, n + m - 1)
    return Target(
        name=name,
        labels=(numbered("a", n), numbered("b", m), numbered("c", n + m - 1)),
        multiply=_polynomial_product,
        trivial_rank=n * m,
        lower_bound=n + m - 1,
        known=functools.partial(known_ranks.polynomial, n, m),
    )


def cyclic_convolution(n: int) -> Target:
    """Cyclic convolution of n numbers each: the product of polynomials modulo x^n - 1.

    ``c_k`` sums ``a_i b_j`` over i + j = k modulo n. Schoolbook: n^2 products. Best known: n modulo
    p if n divides p - 1, by the discrete Fourier transform; 2 n minus the number of divisors of n
    over Q, which is optimal (Winograd 1978); by Chinese remainders modulo other primes.
    """
    name = f"cyclic-convolution:{n}"
    check_shape(name, n, n, n)

    def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        c = _polynomial_product(a, b)
        folded = c[..., :n].copy()
        folded[..., : n - 1] += c[..., n:]
        return folded

    return Target(
        name=name,
        labels=(numbered("a", n), numbered("b", n), numbered("c", n)),
        multiply=multiply,
        trivial_rank=n * n,
        lower_bound=n,
        known=functools.partial(known_ranks.cyclic_convolution, n),
    )


def complex_numbers() -> Target:
    """Product of complex numbers.

    All modes list the real part, then the imaginary part. Schoolbook: 4 products. Best known: 3
    (Gauss), optimal over Q and modulo 2; 2 where there is a square root of -1 and 1/2.
    """

    def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        (a_re, a_im), (b_re, b_im) = np.moveaxis(a, -1, 0), np.moveaxis(b, -1, 0)
        return np.stack([a_re * b_re - a_im * b_im, a_re * b_im + a_im * b_re], axis=-1)

    return Target(
        name="complex",
        labels=tuple((f"{letter}_re", f"{letter}_im") for letter in "abc"),
        multiply=multiply,
        trivial_rank=4,
        lower_bound=2,
        known=known_from({"Z": Record(3, "Gauss"), "Z[i,1/2]": Record(2, "values at i and -i")}),
    )


def quaternion() -> Target:
    """Product of quaternions.

    All modes list the coefficients of 1, i, j and k; ij = k. Schoolbook: 16 products. Best known: 8
    over every ring (Howell and Lafon 1975), optimal over Q; 7 modulo odd primes and over Q[i],
    where quaternions are 2 x 2 matrices in another basis. Needed over any field: 7 (Alder and
    Strassen 1981).
    """

    def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        (a_r, a_i, a_j, a_k), (b_r, b_i, b_j, b_k) = np.moveaxis(a, -1, 0), np.moveaxis(b, -1, 0)
        c_r = a_r * b_r - a_i * b_i - a_j * b_j - a_k * b_k
        c_i = a_r * b_i + a_i * b_r + a_j * b_k - a_k * b_j
        c_j = a_r * b_j - a_i * b_k + a_j * b_r + a_k * b_i
        c_k = a_r * b_k + a_i * b_j - a_j * b_i + a_k * b_r
        return np.stack([c_r, c_i, c_j, c_k], axis=-1)

    def known(ring: str) -> Record:
        known = known_from({"Z": Record(8, "Howell and Lafon 1975")})(ring)
        splits = ring == "Q[i]" or (ring.startswith("Z_") and ring != "Z_2")
        return Record(7, "as 2 x 2 matrices, Strassen 1969") if splits else known

    return Target(
        name="quaternion",
        labels=tuple(tuple(f"{letter}_{part}" for part in "rijk") for letter in "abc"),
        multiply=multiply,
        trivial_rank=16,
        lower_bound=7,
        known=known,
    )


def _polynomial_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The coefficients (..., n + m - 1) of the products of polynomials (..., n) and (..., m)."""
    n, m = a.shape[-1], b.shape[-1]
    batch = np.broadcast_shapes(a.shape[:-1], b.shape[:-1])
    c = np.zeros((*batch, n + m - 1), np.result_type(a, b))
    for i in range(n):
        c[..., i : i + m] += a[..., i, None] * b
    return c


# One function a family; its docstring is what users are told, the first line in tables.
FAMILIES: dict[str, Callable[..., Target]] = {
    "matmul": matmul,
    "skew-matvec": skew_matvec,
    "symmetric-matvec": symmetric_matvec,
    "skew-matmul": skew_matmul,
    "symmetric-matmul": symmetric_matmul,
    "symmetric-symmetric": symmetric_symmetric,
    "gram": gram,
    "polynomial": polynomial,
    "cyclic-convolution": cyclic_convolution,
    "complex": complex_numbers,
    "quaternion": quaternion,
}
_FILE_PATTERN = "tensor:FILE"


def _pattern(family: str) -> str:
    """How targets of a family are named, such as ``matmul:n,m,p``."""
    return ":".join([family, ",".join(inspect.signature(FAMILIES[family]).parameters)]).rstrip(":")


def parse(name: str) -> Target:
    """The target called ``name``: ``family:n,m,...``, or ``tensor:FILE`` for a tensor from a file.

    A file is a ``.npy``, or a ``.npz`` with one array or one of several that is called ``tensor``,
    as `from_tensor` takes it.

    Raises:
        ValueError: if there is no such target, with what would be one, or the file is not right.
    """
    family, colon, text = name.partition(":")
    if family == "tensor":
        return from_tensor(name, _read(name, text))
    if family not in FAMILIES:
        patterns = ", ".join([*map(_pattern, FAMILIES), _FILE_PATTERN])
        raise ValueError(f"{name!r} is unknown; targets are {patterns}")
    wanted = inspect.signature(FAMILIES[family]).parameters
    arguments = text.split(",") if colon else []
    if len(arguments) != len(wanted):
        raise ValueError(
            f"{name!r} has {len(arguments)} arguments; {_pattern(family)} has {len(wanted)}"
        )
    for argument in arguments:
        if not re.fullmatch("[+-]?[0-9]{1,9}", argument):
            raise ValueError(
                f"{name!r} has the argument {argument!r}, which is not an integer of up to 9 digits"
            )
        if int(argument) < 1:
            raise ValueError(f"{name!r} has the argument {argument}, which is not positive")
    return FAMILIES[family](*map(int, arguments))


def _read(name: str, file: str) -> np.ndarray:
    """The array in a .npy or .npz file; nothing in it is ever executed."""
    if Path(file).suffix not in (".npy", ".npz"):
        raise ValueError(f"{name!r} names no .npy or .npz file; {_FILE_PATTERN} reads these")
    try:
        with open(file, "rb") as stream:
            content = np.load(stream, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return content
            keys = content.files
            if len(keys) == 1 or "tensor" in keys:
                return content[keys[0] if len(keys) == 1 else "tensor"]
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} cannot be read as an array of numbers: {reason}") from error
    raise ValueError(
        f"{file} holds {len(keys)} arrays, none called tensor; it has to hold one, or one called so"
    )


@dataclasses.dataclass(frozen=True)
class Listed:
    """A row of the table of families.

    Attributes:
        pattern: how its targets are named, such as ``matmul:n,m,p``.
        description: the first line of its docstring.
        example: a target of it; None for tensors from files.
    """

    pattern: str
    description: str
    example: Target | None


_EXAMPLES = {
    "matmul": (4, 4, 4),
    "gram": (4, 4),
    "polynomial": (5, 5),
    "cyclic-convolution": (8,),
    "complex": (),
    "quaternion": (),
}


def listing() -> list[Listed]:
    """The families in order, and last the tensors from files."""
    rows = []
    for family, make in FAMILIES.items():
        description = inspect.getdoc(make).partition("\n")[0]
        rows.append(Listed(_pattern(family), description, make(*_EXAMPLES.get(family, (4,)))))
    return [*rows, Listed(_FILE_PATTERN, "Any tensor of integers, from a .npy or .npz file.", None)]
