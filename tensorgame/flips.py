"""Random walks over the factorizations of one tensor, by flips (Kauers & Moosbauer 2022,
"Flip graphs for matrix multiplication", arXiv 2212.01175).

Two terms with a common factor can be rewritten,

    a (x) b (x) c + a (x) b' (x) c' = a (x) (b + l b') (x) c + a (x) b' (x) (c' - l c),

for any coefficient l and whatever modes a, b and c are of. Where a new factor is zero the term is
gone: the factorization has become shorter.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int8, Int32, Key

from tensorgame.factors import ActionSpace, canonicalize, leading_units
from tensorgame.rings import Ring


class _Walk(NamedTuple):
    """Where a walk stands, the last of the shortest factorizations it has met, and its length."""

    factors: Int8[Array, "R 3 S"]
    best: Int8[Array, "R 3 S"]
    length: Int32[Array, ""]


def walk(
    key: Key[Array, ""], factors: Int8[Array, "R 3 S"], ring: Ring, flips: int
) -> tuple[Int8[Array, "R 3 S"], Int32[Array, ""]]:
    """Makes random flips, those first that shorten the factorization.

    Args:
        key: the key is consumed.
        factors: canonical actions over ``ring``; rows of zeros are no terms.
        ring: the ring. Flips that leave its coefficients are not made.
        flips: how many are tried.

    Returns:
        The last of the shortest factorizations on the way, canonical actions (R, 3, S) with the
        same sum, terms first, and its number of terms.
    """

    def step(index: jax.Array, so_far: _Walk) -> _Walk:
        factors = _flip(jax.random.fold_in(key, index), so_far.factors, ring)
        length = _exists(factors).sum()
        best = jnp.where(length <= so_far.length, factors, so_far.best)
        return _Walk(factors, best, jnp.minimum(length, so_far.length))

    start = _Walk(factors, factors, _exists(factors).sum())
    end = jax.lax.fori_loop(0, flips, step, start)
    order = jnp.argsort(jnp.logical_not(_exists(end.best)), stable=True)
    return end.best[order], end.length


def _flip(key: Key[Array, ""], factors: Int8[Array, "R 3 S"], ring: Ring) -> Int8[Array, "R 3 S"]:
    """One random flip, or none if no two terms have a factor in common or it cannot be made."""
    pair_key, mode_key, scale_key = jax.random.split(key, 3)
    common = common_factors(factors, ring)
    # Two terms with two factors in common become one.
    twice = common & (common.sum(axis=0) >= 2)
    shortens = twice.any()
    mode, one, other, is_flip = _choose(pair_key, jnp.where(shortens, twice, common))
    second = (mode + 1 + jax.random.randint(mode_key, (), 0, 2)) % 3
    # Of the other two modes the one that they have in common too.
    after, last = (mode + 1) % 3, (mode + 2) % 3
    second = jnp.where(shortens, jnp.where(common[after, one, other], after, last), second)
    modes = jnp.stack([mode, second, 3 - mode - second])
    # Units of the first two factors are in the third, so that common factors are equal.
    a, b, c = canonicalize(factors[one][modes], ring).astype(jnp.int32)
    _, b_other, c_other = canonicalize(factors[other][modes], ring).astype(jnp.int32)
    scales = ring.coefficients[1:] if ring.modulus else (-1, 1)
    scale = jnp.where(shortens, -1, jax.random.choice(scale_key, jnp.asarray(scales)))
    new_one = jnp.stack([a, b + scale * b_other, c])
    new_other = jnp.stack([a, b_other, c_other - scale * c])
    new = ring.reduce(jnp.stack([new_one, new_other]))
    is_flip &= jnp.isin(new, jnp.asarray(ring.coefficients)).all()
    new = new[:, jnp.argsort(modes)] * (new != 0).any(axis=-1).all(axis=-1)[:, None, None]
    new = jax.vmap(canonicalize, in_axes=(0, None))(new.astype(factors.dtype), ring)
    flipped = factors.at[jnp.stack([one, other])].set(new)
    return jnp.where(is_flip, flipped, factors)


def common_factors(factors: Int8[Array, "R 3 S"], ring: Ring) -> Bool[Array, "3 R R"]:
    """Which two terms have a factor in common, up to a unit, in each mode."""
    units = leading_units(factors, ring)[..., None]
    count, _, side = factors.shape
    # As few numbers as can be for a factor.
    sizes = [d for d in range(1, side + 1) if side % d == 0 and ring.num_symbols**d < 2**31]
    tokens = ActionSpace(ring, side, max(sizes)).encode(ring.reduce(factors * units))
    tokens = tokens.reshape(count, 3, -1).swapaxes(0, 1)
    same = (tokens[:, :, None] == tokens[:, None]).all(axis=-1)
    exists = _exists(factors)
    different = ~jnp.eye(count, dtype=bool)
    return same & exists[:, None] & exists & different


def _choose(
    key: Key[Array, ""], among: Bool[Array, "3 R R"]
) -> tuple[Int32[Array, ""], Int32[Array, ""], Int32[Array, ""], Bool[Array, ""]]:
    """The place of a random true entry, and whether there is one."""
    counts = jnp.cumsum(among.ravel())
    place = jax.random.randint(key, (), 0, jnp.maximum(counts[-1], 1))
    index = jnp.argmax(counts > place)
    mode, one, other = jnp.unravel_index(index, among.shape)
    return mode, one, other, counts[-1] > 0


def _exists(factors: Int8[Array, "R 3 S"]) -> Bool[Array, "R"]:
    return (factors != 0).any(axis=(1, 2))
