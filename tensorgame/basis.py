"""Random unimodular changes of basis, and the way back for factors (paper, "Change of basis").

In another basis the target is ``T'_ijk = sum_abc A_ia B_jb C_kc T_abc`` and a factor u of T becomes
A u. With determinants +-1 the inverse is an integer matrix, so factors found in any basis come back
as integers, ``u = A^-1 u'``.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, Integer, Key

from tensorgame.rings import Ring


class Basis(NamedTuple):
    """Matrices of the three modes and their exact inverses, each (3, S, S), int32."""

    matrices: Int32[Array, "3 S S"]
    inverses: Int32[Array, "3 S S"]


@dataclasses.dataclass(frozen=True)
class BasisSampler:
    """Draws bases A = P L, with P upper and L lower triangular and diagonals +-1.

    Attributes:
        ring: where the matrices live.
        shape: sides of the target before padding. Independent modes leave the padding alone; a
            shared matrix acts on the padded side, and the way back cuts the padding off.
        density: probability that an entry off the diagonals of P and L is non-zero. The paper's
            .015 is for S = 25: at S = 4 most such bases are mere changes of sign.
        canonical: probability of the identity.
        shared: one matrix for the three modes, as in the paper, or one each.
    """

    ring: Ring
    shape: tuple[int, int, int]
    density: float
    canonical: float
    shared: bool

    def __call__(self, key: Key[Array, ""]) -> Basis:
        """A random basis; the key is consumed."""
        canonical_key, mode_key = jax.random.split(key)
        num_modes = 1 if self.shared else 3
        side = max(self.shape)
        inside = np.arange(side) < (side if self.shared else np.array(self.shape)[:, None])
        inside = np.broadcast_to(inside, (num_modes, side))
        keep = jax.random.bernoulli(canonical_key, self.canonical)
        masks = jnp.asarray(inside[:, :, None] & inside[:, None, :]) & ~keep
        basis = jax.vmap(self._one_mode)(jax.random.split(mode_key, num_modes), masks)
        return Basis(*(jnp.broadcast_to(m, (3, side, side)) for m in basis))

    def _one_mode(
        self, key: Key[Array, ""], mask: Bool[Array, "S S"]
    ) -> tuple[Int32[Array, "S S"], Int32[Array, "S S"]]:
        """A matrix (S, S) equal to the identity outside ``mask`` (S, S), and its inverse."""
        nonzero_key, sign_key = jax.random.split(key)
        nonzero = jax.random.bernoulli(nonzero_key, self.density, (2, *mask.shape))
        signs = jnp.where(jax.random.bernoulli(sign_key, 0.5, (2, *mask.shape)), -1, 1)
        identity = jnp.eye(mask.shape[0], dtype=jnp.int32)
        entries = jnp.where(mask, signs * jnp.where(identity, 1, nonzero), identity)
        upper, lower = jnp.triu(entries[0]), jnp.tril(entries[1])
        inverse_upper = _invert_lower(upper[::-1, ::-1])[::-1, ::-1]
        matrix, inverse = upper @ lower, _invert_lower(lower) @ inverse_upper
        return self.ring.reduce(matrix), self.ring.reduce(inverse)


def _invert_lower(lower: Int32[Array, "S S"]) -> Int32[Array, "S S"]:
    """The exact inverse of a lower triangular integer matrix (S, S) with diagonal +-1."""

    def substitute(row, inverse):
        unit = (jnp.arange(lower.shape[0]) == row).astype(lower.dtype)
        below = jnp.where(jnp.arange(lower.shape[0]) < row, lower[row], 0)
        return inverse.at[row].set(lower[row, row] * (unit - below @ inverse))

    return jax.lax.fori_loop(0, lower.shape[0], substitute, jnp.zeros_like(lower))


def change_basis(
    tensor: Integer[Array, "S S S"], basis: Basis, ring: Ring
) -> Int32[Array, "S S S"]:
    """``tensor`` (S, S, S) seen in ``basis``: int32, reduced."""
    a, b, c = basis.matrices
    return ring.reduce(jnp.einsum("ia,jb,kc,abc->ijk", a, b, c, tensor.astype(jnp.int32)))


def to_canonical(
    actions: Integer[Array, "R 3 S"], basis: Basis, ring: Ring
) -> Int32[Array, "R 3 S"]:
    """Actions (R, 3, S) found in ``basis``, in the canonical one: int32, reduced.

    Their entries may lie outside the ring's coefficients.
    """
    return ring.reduce(jnp.einsum("xij,rxj->rxi", basis.inverses, actions.astype(jnp.int32)))
