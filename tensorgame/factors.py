"""Actions: triples of factors (u, v, w), their canonical form, and their tokens.

An action is an integer array of shape (3, S). The same rank-one tensor is written by several
triples. In the canonical one the first non-zero entries of u and of v are positive over Z (paper,
Methods), and 1 over Z_p; w carries the units. Null actions (a zero factor) are not actions. The
token codec lists exactly the canonical non-null triples, by a mask on each token, so that a policy
over tokens is a distribution over distinct moves.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int8, Int32, Integer

from tensorgame.rings import Ring


def outer(action: Integer[Array, "3 S"]) -> Int32[Array, "S S S"]:
    """The rank-one tensor u (x) v (x) w of an action (3, S): shape (S, S, S), int32."""
    u, v, w = action.astype(jnp.int32)
    return u[:, None, None] * v[None, :, None] * w[None, None, :]


def outer_sum(actions: Integer[Array, "R 3 S"]) -> Int32[Array, "S S S"]:
    """The sum of the rank-one tensors of actions (R, 3, S): shape (S, S, S), int32.

    A null action adds nothing, so padding with zeros is harmless.
    """
    u, v, w = jnp.moveaxis(actions.astype(jnp.int32), 1, 0)
    # Fused with the sum, the products are one kernel of a GPU, whose tiles hold R S^3 numbers and
    # take more than a minute to compile at S = 16.
    pairs = jax.lax.optimization_barrier(u[:, :, None] * v[:, None, :])
    return jnp.einsum("rij,rk->ijk", pairs, w)


def canonicalize(action: Integer[Array, "3 S"], ring: Ring) -> Integer[Array, "3 S"]:
    """The canonical triple with the same rank-one tensor; shape (3, S), dtype kept."""
    if ring.num_units == 1:
        return action
    units = leading_units(action[:2], ring)
    # What u and v are multiplied by, w is divided by; a sign is its own inverse.
    undone = ring.normalizer(ring.reduce(units)) if ring.modulus else units
    scales = jnp.append(units, ring.reduce(undone.prod()))
    return ring.reduce(action * scales[:, None]).astype(action.dtype)


def leading_units(factors: Integer[Array, "*rows S"], ring: Ring) -> Int32[Array, "*rows"]:
    """The units by which factors (..., S) are multiplied to make their leading entry canonical."""
    first = jnp.argmax(factors != 0, axis=-1)[..., None]
    leading = jnp.take_along_axis(factors, first, axis=-1)[..., 0]
    return ring.normalizer(leading).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class ActionSpace:
    """Canonical non-null actions over ``ring`` as sequences of k tokens of d entries each.

    Attributes:
        ring: the coefficient ring.
        side: S, entries of a factor.
        token_size: d, entries of a token; divides S.
        corner: of u, v and w the first entries that may be other than zero; by default all S.
            Tokens of others alone are left out.
    """

    ring: Ring
    side: int
    token_size: int
    corner: tuple[int, int, int] | None = None

    @property
    def sides(self) -> tuple[int, int, int]:
        """Entries of u, v and w that may be other than zero."""
        return self.corner or (self.side,) * 3

    @property
    def num_tokens(self) -> int:
        """k, 3 S / d if no tokens are left out."""
        return len(self._factors)

    @property
    def vocabulary(self) -> int:
        """|F|^d, the number of values of a token."""
        return self.ring.num_symbols**self.token_size

    @property
    def size(self) -> int:
        """The number of actions, a Python integer."""
        factors = [self.ring.num_symbols**side - 1 for side in self.sides]
        return math.prod(factors) // self.ring.num_units**2

    @functools.cached_property
    def _counts(self) -> tuple[int, int, int]:
        """Tokens of u, v and w."""
        u, v, w = (-(-side // self.token_size) for side in self.sides)
        return u, v, w

    @functools.cached_property
    def _factors(self) -> np.ndarray:
        """Which factor each token belongs to: (k,)."""
        return np.repeat(np.arange(3), self._counts)

    @functools.cached_property
    def _places(self) -> np.ndarray:
        """The place of each token in its factor: (k,)."""
        return np.concatenate([np.arange(count) for count in self._counts])

    @functools.cached_property
    def _entries(self) -> np.ndarray:
        """Coefficients of each token: (V, d)."""
        symbols = np.indices((self.ring.num_symbols,) * self.token_size)
        return np.array(self.ring.coefficients)[symbols.reshape(self.token_size, -1).T]

    @functools.cached_property
    def nonzero(self) -> np.ndarray:
        """Which tokens have a non-zero entry: (V,), bool."""
        return self._entries.any(axis=1)

    @functools.cached_property
    def legal(self) -> np.ndarray:
        """Tokens that keep an action canonical, non-null and in its corner: (k, 2, V), bool.

        Indexed by position and by whether the factor already has a non-zero entry. An all-zero
        prefix must meet a non-zero entry by the factor's last token, and in u and v that entry must
        be canonical.
        """
        leading = self._entries[np.arange(self.vocabulary), (self._entries != 0).argmax(axis=1)]
        legal = np.ones((self.num_tokens, 2, self.vocabulary), bool)
        for position, (factor, place) in enumerate(zip(self._factors, self._places, strict=True)):
            if place == self._counts[factor] - 1:
                inside = self.sides[factor] - place * self.token_size
                legal[position] &= ~self._entries[:, inside:].any(axis=1)
                legal[position, 0] &= self.nonzero
            if factor < 2:
                legal[position, 0] &= self.ring.is_canonical(leading) | ~self.nonzero
        return legal

    def starts_factor(self, position: jax.Array | int) -> Bool[Array, ""]:
        """Whether the token at ``position`` is the first of a factor; true past the last."""
        return jnp.asarray(np.append(self._places == 0, True))[position]

    def started(self, tokens: Int32[Array, "*batch k"]) -> Bool[Array, "*batch k"]:
        """Whether the factor of each token (..., k) is non-zero before it: bool (..., k)."""
        nonzero = jnp.asarray(self.nonzero)[tokens]
        is_earlier = np.tri(self.num_tokens, k=-1, dtype=bool)
        is_earlier &= self._factors[:, None] == self._factors
        return (nonzero[..., None, :] & is_earlier).any(axis=-1)

    def encode(self, actions: Integer[Array, "*batch 3 S"]) -> Int32[Array, "*batch k"]:
        """Tokens (..., k), int32, of canonical actions (..., 3, S)."""
        coefficients = jnp.asarray(self.ring.coefficients, jnp.int8)
        symbols = jnp.searchsorted(coefficients, actions.astype(jnp.int8), method="compare_all")
        digits = symbols.reshape(*actions.shape[:-1], -1, self.token_size)
        weights = self.ring.num_symbols ** np.arange(self.token_size)[::-1]
        tokens = jnp.sum(digits * jnp.asarray(weights, jnp.int32), axis=-1)
        kept = [tokens[..., factor, :count] for factor, count in enumerate(self._counts)]
        return jnp.concatenate(kept, axis=-1)

    def decode(self, tokens: Int32[Array, "*batch k"]) -> Int8[Array, "*batch 3 S"]:
        """Actions (..., 3, S), int8, of tokens (..., k)."""
        entries = jnp.asarray(self._entries, jnp.int8)[tokens]
        factors = []
        for of_factor in jnp.split(entries, np.cumsum(self._counts)[:-1], axis=-2):
            factor = of_factor.reshape(*tokens.shape[:-1], -1)
            missing = self.side - factor.shape[-1]
            factors.append(jnp.pad(factor, [(0, 0)] * (factor.ndim - 1) + [(0, missing)]))
        return jnp.stack(factors, axis=-2)
