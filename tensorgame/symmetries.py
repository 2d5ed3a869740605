"""Symmetries of TensorGame: other looks of a tensor under which its factors are known.

Three kinds (paper, Methods): random unimodular *changes of basis*, one for each game; *signed
permutations* of the coordinates, one for each query of the network; and *another order* of the
factors, as a sum has none.

A linear map A on the three modes turns T into ``T'_ijk = sum_abc A_ia B_jb C_kc T_abc`` and a
factor u of T into A u. With determinants +-1 the inverse is an integer matrix, so factors that are
found in any basis come back as integers, ``u = A^-1 u'``.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int8, Int32, Integer, Key

from tensorgame.factors import ActionSpace, canonicalize
from tensorgame.game import State
from tensorgame.rings import Ring

# Changes of basis --------------------------------------------------------------------------------


class Basis(NamedTuple):
    """Matrices of the three modes and their exact inverses, each (3, S, S), int32."""

    matrices: Int32[Array, "3 S S"]
    inverses: Int32[Array, "3 S S"]


@dataclasses.dataclass(frozen=True)
class BasisSampler:
    """Draws bases A = P L, with P upper and L lower triangular and diagonals +-1.

    Attributes:
        ring: where the matrices live.
        side: S.
        density: probability that an entry off the diagonals of P and L is non-zero; these entries
            are +-1 over Z and any unit over Z_p. The paper's .015 is for S = 25: at S = 4 most such
            bases are mere changes of sign.
        varied: whether each basis has a density of its own, uniform between 0 and ``density``.
        canonical: probability of the identity.
        shared: one matrix for the three modes, as in the paper, or one each.
    """

    ring: Ring
    side: int
    density: float
    varied: bool
    canonical: float
    shared: bool

    def __call__(self, key: Key[Array, ""], shape: Int32[Array, "3"]) -> Basis:
        """A random basis for a tensor of the given shape (3,) in the corner of the cube.

        A basis leaves the padding of the cube alone: of a shared matrix a mode takes the corner
        that its side has room for, of P as of L. The key is consumed.
        """
        canonical_key, mode_key, density_key = jax.random.split(key, 3)
        least = 0.0 if self.varied else self.density
        density = jax.random.uniform(density_key, minval=least, maxval=self.density)
        inside = jnp.arange(self.side) < shape[:, None]
        keep = jax.random.bernoulli(canonical_key, self.canonical)
        masks = inside[:, :, None] & inside[:, None, :] & ~keep
        keys = jnp.broadcast_to(mode_key, 3) if self.shared else jax.random.split(mode_key, 3)
        return Basis(*jax.vmap(self._one_mode, in_axes=(0, 0, None))(keys, masks, density))

    def identity(self) -> Basis:
        """The canonical basis."""
        identity = jnp.broadcast_to(jnp.eye(self.side, dtype=jnp.int32), (3, self.side, self.side))
        return Basis(identity, identity)

    def _one_mode(
        self, key: Key[Array, ""], mask: Bool[Array, "S S"], density: Float32[Array, ""]
    ) -> tuple[Int32[Array, "S S"], Int32[Array, "S S"]]:
        """A matrix (S, S) equal to the identity outside ``mask`` (S, S), and its inverse."""
        nonzero_key, unit_key, sign_key = jax.random.split(key, 3)
        shape = (2, *mask.shape)
        nonzero = jax.random.bernoulli(nonzero_key, density, shape)
        signs = jnp.where(jax.random.bernoulli(sign_key, 0.5, shape), -1, 1)
        units = signs
        if self.ring.modulus:
            units = jax.random.randint(unit_key, shape, 1, self.ring.modulus)
        identity = jnp.eye(self.side, dtype=jnp.int32)
        entries = jnp.where(identity, signs, jnp.where(nonzero, units, 0))
        entries = jnp.where(mask, entries, identity)
        upper, lower = jnp.triu(entries[0]), jnp.tril(entries[1])
        inverse_upper = self._invert_lower(upper[::-1, ::-1])[::-1, ::-1]
        matrix, inverse = upper @ lower, self._invert_lower(lower) @ inverse_upper
        return self.ring.reduce(matrix), self.ring.reduce(inverse)

    def _invert_lower(self, lower: Int32[Array, "S S"]) -> Int32[Array, "S S"]:
        """The exact inverse of a lower triangular integer matrix (S, S) with diagonal +-1.

        With its rows made to begin with 1 on the diagonal it is I - X, and the powers of X vanish
        from the S-th on: the inverse is (I + X)(I + X^2)(I + X^4) ..., a few products. Over Z they
        may overflow on the way, which does no harm to an inverse that fits.
        """
        identity = jnp.eye(self.side, dtype=lower.dtype)
        diagonal = jnp.diagonal(lower)
        power = identity - diagonal[:, None] * lower
        inverse = identity + power
        for _ in range(1, max(1, (self.side - 1).bit_length())):
            power = self.ring.reduce(power @ power)
            inverse = self.ring.reduce(inverse @ (identity + power))
        return self.ring.reduce(inverse * diagonal)


def change_basis(
    tensor: Integer[Array, "S S S"], basis: Basis, ring: Ring
) -> Int32[Array, "S S S"]:
    """``tensor`` (S, S, S) seen in ``basis``: int32, reduced."""
    tensor = tensor.astype(jnp.int32)
    for matrix in basis.matrices:
        # Contracts the first mode and appends the new one, so that three rounds restore the order.
        # Reduced after each mode, as entries of a product of three would not fit over Z_p.
        tensor = ring.reduce(jnp.tensordot(tensor, matrix, axes=[[0], [1]]))
    return tensor


def to_canonical(
    actions: Integer[Array, "R 3 S"], basis: Basis, ring: Ring
) -> Int32[Array, "R 3 S"]:
    """Actions (R, 3, S) found in ``basis``, in the canonical one: int32, reduced.

    Their entries may lie outside the ring's coefficients.
    """
    return _apply(basis.inverses, actions, ring)


def from_canonical(
    actions: Integer[Array, "R 3 S"], basis: Basis, ring: Ring
) -> Int32[Array, "R 3 S"]:
    """Actions (R, 3, S) of the canonical basis, in ``basis``: int32, reduced.

    Their entries may lie outside the ring's coefficients.
    """
    return _apply(basis.matrices, actions, ring)


def _apply(
    matrices: Int32[Array, "3 S S"], actions: Integer[Array, "R 3 S"], ring: Ring
) -> Int32[Array, "R 3 S"]:
    return ring.reduce(jnp.einsum("xij,rxj->rxi", matrices, actions.astype(jnp.int32)))


# Signed permutations -----------------------------------------------------------------------------


class SignedPermutation(NamedTuple):
    """The matrix with ``signs[i]`` in row i and column ``places[i]``, the same on all modes.

    Attributes:
        places: a permutation, (S,), int32.
        signs: +-1, (S,), int8; all 1 over Z_2.
    """

    places: Int32[Array, "*batch S"]
    signs: Int8[Array, "*batch S"]

    @property
    def inverse(self) -> "SignedPermutation":
        """The signed permutation that undoes this one."""
        places = jnp.argsort(self.places).astype(jnp.int32)
        return SignedPermutation(places, self.signs[places])


def signed_permutations(
    key: Key[Array, ""], count: int, side: int, ring: Ring
) -> SignedPermutation:
    """A random set of them, (count, S). The paper's has 100, drawn once for an experiment."""
    place_key, sign_key = jax.random.split(key)
    places = jax.vmap(lambda k: jax.random.permutation(k, side))(jax.random.split(place_key, count))
    signs = jax.random.rademacher(sign_key, (count, side), jnp.int8)
    if ring.num_units == 1:
        signs = jnp.ones_like(signs)
    return SignedPermutation(places.astype(jnp.int32), signs)


def choose(key: Key[Array, ""], among: SignedPermutation) -> SignedPermutation:
    """A random one of a set (N, S); the key is consumed."""
    choice = jax.random.randint(key, (), 0, len(among.places))
    return jax.tree.map(lambda x: x[choice], among)


def permute_state(state: State, by: SignedPermutation, ring: Ring) -> State:
    """A game seen through a signed permutation; its history is no longer canonical."""
    i, s = by
    residual = state.residual[i[:, None, None], i[None, :, None], i[None, None, :]]
    signs = s[:, None, None] * s[None, :, None] * s[None, None, :]
    residual = ring.reduce(residual * signs.astype(residual.dtype))
    history = None if state.history is None else _permute(state.history, by, ring)
    return State(residual, state.moves, history)


def permute_tokens(
    tokens: Int32[Array, "A k"], by: SignedPermutation, space: ActionSpace
) -> Int32[Array, "A k"]:
    """Actions (A, k) as tokens, seen through a signed permutation and canonical again."""
    actions = _permute(space.decode(tokens), by, space.ring)
    return space.encode(jax.vmap(canonicalize, in_axes=(0, None))(actions, space.ring))


def _permute(
    actions: Int8[Array, "*batch 3 S"], by: SignedPermutation, ring: Ring
) -> Int8[Array, "*batch 3 S"]:
    return ring.reduce(actions[..., by.places] * by.signs)


# Order of the factors ----------------------------------------------------------------------------


def swap_with_last(
    actions: Integer[Array, "R 3 S"], place: Int32[Array, ""], count: Int32[Array, ""]
) -> Integer[Array, "R 3 S"]:
    """Actions (R, 3, S) with the one at ``place`` and the last of ``count`` swapped.

    The paper adds, for each finished game, one more with a random move swapped so.
    """
    order = jnp.arange(len(actions))
    last = count - 1
    order = jnp.where(order == place, last, jnp.where(order == last, place, order))
    return actions[order]
