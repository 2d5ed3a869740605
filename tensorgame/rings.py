"""Coefficient rings in which the game is played.

A ring fixes three things: how tensors are reduced after each move, which coefficients a factor may
have, and over which field ranks are taken. Coefficients are contiguous integers, so *symbol* ``i``
stands for the coefficient ``low + i``.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Integer


@dataclasses.dataclass(frozen=True)
class Ring:
    """The integers (``modulus == 0``) or the integers modulo a prime, with allowed coefficients.

    Attributes:
        modulus: 0 for Z, 2 for Z_2.
        low: smallest coefficient of a factor.
        high: largest coefficient of a factor.
    """

    modulus: int
    low: int
    high: int

    @property
    def name(self) -> str:
        return f"Z_{self.modulus}" if self.modulus else "Z"

    @property
    def num_symbols(self) -> int:
        """|F|, the number of coefficients."""
        return self.high - self.low + 1

    @property
    def has_signs(self) -> bool:
        """Whether -1 and 1 differ, so that equivalent triples need a canonical sign."""
        return self.modulus != 2

    def reduce(self, x: Integer[Array, "*shape"]) -> Integer[Array, "*shape"]:
        """The representative of each entry of the integer array ``x``; over Z, ``x`` itself."""
        return jnp.mod(x, self.modulus) if self.modulus else x

    @property
    def dtype(self) -> jnp.dtype:
        """Storage type of residuals; `Game.largest_start` shows that it does not overflow."""
        return jnp.dtype(jnp.int8 if self.modulus else jnp.int16)


Z2 = Ring(modulus=2, low=0, high=1)


def integers(max_coefficient: int) -> Ring:
    """Z with factor coefficients in {-max_coefficient, ..., max_coefficient}."""
    return Ring(modulus=0, low=-max_coefficient, high=max_coefficient)
