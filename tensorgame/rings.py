"""Coefficient rings in which the game is played.

A ring fixes how tensors are reduced after each move, which coefficients a factor may have, over
which field ranks are taken, and which triples of factors are the same action.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Integer

# Factors are stored as int8.
_LARGEST_COEFFICIENT = 127


@dataclasses.dataclass(frozen=True)
class Ring:
    """The integers (``modulus == 0``) or the field of a prime modulus, with allowed coefficients.

    *Symbol* i stands for the coefficient ``coefficients[i]``.

    Attributes:
        modulus: 0 for Z, a prime p for Z_p.
        coefficients: of a factor, increasing. Over Z_p all of 0..p-1; over Z any set with 0 and 1
            that holds -c with each c.

    Raises:
        ValueError: if the coefficients are not of that kind, or do not fit into int8.
    """

    modulus: int
    coefficients: tuple[int, ...]

    def __post_init__(self) -> None:
        given, text = set(self.coefficients), " ".join(map(str, self.coefficients))
        if self.coefficients != tuple(sorted(given)):
            raise ValueError(f"coefficients are {text}; they have to be different and increasing")
        if not {0, 1} <= given or (not self.modulus and given != {-c for c in given}):
            raise ValueError(
                f"coefficients are {text}; they need 0 and 1 and with each c also -c, as in -1 0 1"
            )
        if self.coefficients[-1] > _LARGEST_COEFFICIENT:
            raise ValueError(
                f"coefficients go up to {self.coefficients[-1]}; at most {_LARGEST_COEFFICIENT} "
                "fits into int8"
            )

    @property
    def name(self) -> str:
        """Z or Z_p."""
        return f"Z_{self.modulus}" if self.modulus else "Z"

    @property
    def num_symbols(self) -> int:
        """|F|, the number of coefficients."""
        return len(self.coefficients)

    @property
    def largest(self) -> int:
        """The largest coefficient."""
        return self.coefficients[-1]

    @property
    def num_units(self) -> int:
        """How many factors of a triple are the same up to a unit: 2 over Z, p - 1 over Z_p."""
        return self.modulus - 1 if self.modulus else 2

    def reduce(self, x: Integer[Array, "*shape"]) -> Integer[Array, "*shape"]:
        """The representative of each entry of the integer array ``x``; over Z, ``x`` itself."""
        return jnp.mod(x, self.modulus) if self.modulus else x

    def normalizer(self, leading: Integer[Array, "*shape"]) -> Integer[Array, "*shape"]:
        """The unit that makes each entry of ``leading`` canonical: positive, or 1 over Z_p.

        Over Z_p the entries are in 0..p-1; that of 0 is 1, here and over Z.
        """
        if not self.modulus:
            return jnp.where(leading < 0, -1, 1).astype(leading.dtype)
        return jnp.asarray(self._inverses, leading.dtype)[leading]

    def allows(self, x: Integer[Array, "*shape"]) -> Bool[Array, "*shape"]:
        """Which entries of ``x`` are coefficients that a factor may have."""
        return jnp.isin(x, jnp.asarray(self.coefficients))

    def is_canonical(self, leading: np.ndarray) -> Bool[np.ndarray, "..."]:
        """Whether the first non-zero entry of a canonical factor may be each of ``leading``."""
        return leading == 1 if self.modulus else leading > 0

    @functools.cached_property
    def _inverses(self) -> np.ndarray:
        return np.array([1, *(pow(c, -1, self.modulus) for c in range(1, self.modulus))])

    @property
    def dtype(self) -> jnp.dtype:
        """Storage type of residuals; `Game.largest_start` shows that it does not overflow."""
        return jnp.dtype(jnp.int8 if self.modulus else jnp.int16)


def modular(prime: int) -> Ring:
    """Z_p with all its coefficients.

    Raises:
        ValueError: if ``prime`` is not a prime, or beyond 127.
    """
    if prime < 2 or any(prime % d == 0 for d in range(2, math.isqrt(prime) + 1)):
        raise ValueError(f"the modulus is {prime}, which is not a prime")
    return Ring(prime, tuple(range(prime)))


def integers(coefficients: Sequence[int] = (-1, 0, 1)) -> Ring:
    """Z with factor coefficients in the given set, which holds 0 and 1, and -c with each c."""
    return Ring(0, tuple(coefficients))


def parse(name: str, coefficients: Sequence[int]) -> Ring:
    """The ring called ``z``, with these coefficients, or ``z2``, ``z3``, ``z17``, ...

    Raises:
        ValueError: if there is no such ring.
    """
    if name == "z":
        return integers(coefficients)
    if not re.fullmatch(r"z\d+", name):
        raise ValueError(f"{name!r} is no ring; write z, z2, or zp for another prime p, as in z17")
    return modular(int(name[1:]))


Z2 = modular(2)
