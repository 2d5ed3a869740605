"""Random walks over the factorizations of one tensor, by flips (Kauers & Moosbauer 2022,
"Flip graphs for matrix multiplication", arXiv 2212.01175).

Two terms with a common factor can be rewritten,

    a (x) b (x) c + a (x) b' (x) c' = a (x) (b + l b') (x) c + a (x) b' (x) (c' - l c),

for any coefficient l and whatever modes a, b and c are of. Where a new factor is zero the term is
gone: the factorization has become shorter.

Flips do not connect all factorizations of a length, and those from which none is shortened may be
many. The way out is over one more term (Arai, Ichikawa & Hukushima 2024, "Adaptive flip graph
algorithm for matrix multiplication", arXiv 2312.16960): any two terms are three,

    a (x) b (x) c + a' (x) b' (x) c'
        = a (x) (b + b') (x) c + a (x) b' (x) (c' - c) + (a' - a) (x) b' (x) c'.

Over Z_2 walks are those of `tensorgame.binary_flips`, by the same rules.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int8, Int32, Key

from tensorgame import binary_flips
from tensorgame.factors import ActionSpace, canonicalize, leading_units
from tensorgame.rings import Ring


class _Terms(NamedTuple):
    """A factorization.

    Attributes:
        factors: canonical actions, (R, 3, S), zeros for no term.
        codes: of their factors, (R, 3, d), int32, see `_codes`.
        shortens: terms that may have two factors in common with another one, bool (R,).
    """

    factors: Int8[Array, "R 3 S"]
    codes: Int32[Array, "R 3 d"]
    shortens: Bool[Array, "R"]


class _Walk(NamedTuple):
    """Where a walk stands, the last of the shortest factorizations it has met, and its length."""

    terms: _Terms
    best: Int8[Array, "R 3 S"]
    length: Int32[Array, ""]


def walk(
    key: Key[Array, ""], factors: Int8[Array, "R 3 S"], ring: Ring, flips: int
) -> tuple[Int8[Array, "R 3 S"], Int32[Array, ""]]:
    """Makes random flips, those first that shorten the factorization, and sometimes one term more.

    Args:
        key: the key is consumed.
        factors: canonical actions over ``ring``; rows of zeros are no terms.
        ring: the ring. Flips that leave its coefficients are not made.
        flips: how many are tried: of a random term with one of those that share a factor with it.

    Returns:
        The last of the shortest factorizations on the way, canonical actions (R, 3, S) with the
        same sum, terms first, and its number of terms.
    """
    rows, _, side = factors.shape
    if ring.modulus == 2 and side <= binary_flips.MOST_ENTRIES and rows <= binary_flips.MOST_TERMS:
        best = binary_flips.walk(key, factors, flips)
    else:
        best = _walk(key, factors, ring, flips)
    exists = _exists(best)
    return best[jnp.argsort(jnp.logical_not(exists), stable=True)], exists.sum()


def _walk(
    key: Key[Array, ""], factors: Int8[Array, "R 3 S"], ring: Ring, flips: int
) -> Int8[Array, "R 3 S"]:
    """The last of the shortest factorizations on the way, terms in any rows."""

    def step(index: jax.Array, so_far: _Walk) -> _Walk:
        is_shortest = _exists(so_far.terms.factors).sum() <= so_far.length
        terms = _flip(jax.random.fold_in(key, index), so_far.terms, ring, is_shortest)
        length = _exists(terms.factors).sum()
        best = jnp.where(length <= so_far.length, terms.factors, so_far.best)
        return _Walk(terms, best, jnp.minimum(length, so_far.length))

    shortens = (common_factors(factors, ring).sum(axis=0) >= 2).any(axis=1)
    start = _Terms(factors, _codes(factors, ring), shortens)
    return jax.lax.fori_loop(0, flips, step, _Walk(start, factors, _exists(factors).sum())).best


def _flip(key: Key[Array, ""], terms: _Terms, ring: Ring, may_grow: Bool[Array, ""]) -> _Terms:
    """One random flip, or none if the term has no factor in common or it cannot be made.

    It looks at one term, not at all pairs: a walk is long, and this is most of its time.
    """
    factors, codes, shortens = terms
    plus_key, term_key, other_key, mode_key, scale_key = jax.random.split(key, 5)
    exists = _exists(factors)
    one = _draw(term_key, jnp.where(shortens.any(), shortens, exists))
    common = _common(codes, one)
    # Two terms with two factors in common become one.
    twice = common & (common.sum(axis=1) >= 2)[:, None]
    is_shorter = twice.any()
    # With any other term that has no factor in common it is three terms that come of two.
    others = exists & (jnp.arange(len(factors)) != one)
    grows = may_grow & ~is_shorter & ~exists.all()
    grows &= jax.random.bernoulli(plus_key, 1 / binary_flips.PLUS)
    among = jnp.where(grows, others[:, None], jnp.where(is_shorter, twice, common)).ravel()
    other, mode = jnp.divmod(_draw(other_key, among), 3)
    second = (mode + 1 + jax.random.randint(mode_key, (), 0, 2)) % 3
    # Of the other two modes the one that they have in common too.
    after, last = (mode + 1) % 3, (mode + 2) % 3
    second = jnp.where(is_shorter, jnp.where(common[other, after], after, last), second)
    modes = jnp.stack([mode, second, 3 - mode - second])
    # Units of the first two factors are in the third, so that common factors are equal.
    a, b, c = canonicalize(factors[one][modes], ring).astype(jnp.int32)
    a_other, b_other, c_other = canonicalize(factors[other][modes], ring).astype(jnp.int32)
    scales = ring.coefficients[1:] if ring.modulus else (-1, 1)
    scale = jnp.where(is_shorter, -1, jax.random.choice(scale_key, jnp.asarray(scales)))
    new_one = jnp.stack([a, b + scale * b_other, c])
    new_other = jnp.stack([a, b_other, c_other - scale * c])
    # No term after a flip, whose first factors are equal.
    third = jnp.stack([a_other - a, b_other, c_other])
    new = ring.reduce(jnp.stack([new_one, new_other, third]))
    is_made = among.any() & ring.allows(new).all()
    new = new[:, jnp.argsort(modes)] * (new != 0).any(axis=-1).all(axis=-1)[:, None, None]
    new = jax.vmap(canonicalize, in_axes=(0, None))(new.astype(factors.dtype), ring)
    free = jnp.where(grows, jnp.argmin(exists), len(factors))
    places = jnp.where(is_made, jnp.stack([one, other, free]), len(factors))
    factors = factors.at[places].set(new, mode="drop")
    codes = codes.at[places].set(_codes(new, ring), mode="drop")
    can_be_shorter = [(_common(codes, x).sum(axis=1) >= 2).any() for x in (one, other, free)]
    shortens = shortens.at[one].set(False).at[places].set(jnp.stack(can_be_shorter), mode="drop")
    return _Terms(factors, codes, shortens)


def _draw(key: Key[Array, ""], among: Bool[Array, "N"]) -> Int32[Array, ""]:
    """One of them by random, the first place if there is none."""
    # One is added to a random order of the places, so that it is positive.
    order = jax.random.bits(key, among.shape, jnp.uint32) >> 1
    return jnp.argmax(jnp.where(among, order + 1, 0))


def common_factors(factors: Int8[Array, "R 3 S"], ring: Ring) -> Bool[Array, "3 R R"]:
    """Which two terms have a factor in common, up to a unit, in each mode."""
    codes = _codes(factors, ring)
    common = jax.vmap(_common, in_axes=(None, 0))(codes, jnp.arange(len(codes)))
    return jnp.moveaxis(common, -1, 0)


def _common(codes: Int32[Array, "R 3 d"], one: Int32[Array, ""]) -> Bool[Array, "R 3"]:
    """Which factors of one term others have too; those of no term are nobody's."""
    mine = codes[one]
    is_other = jnp.arange(len(codes)) != one
    return (codes == mine).all(axis=-1) & mine.any() & is_other[:, None]


def _codes(factors: Int8[Array, "N 3 S"], ring: Ring) -> Int32[Array, "N 3 d"]:
    """The same numbers for factors that differ by a unit; zeros for those of no term."""
    units = leading_units(factors, ring)[..., None]
    count, _, side = factors.shape
    # As few numbers as can be for a factor.
    sizes = [d for d in range(1, side + 1) if side % d == 0 and ring.num_symbols**d < 2**31 - 1]
    tokens = ActionSpace(ring, side, max(sizes)).encode(ring.reduce(factors * units))
    # Not zero for the coefficients' smallest, which may be -1.
    exists = _exists(factors)[:, None, None]
    return jnp.where(exists, tokens.reshape(count, 3, -1) + 1, 0)


def _exists(factors: Int8[Array, "N 3 S"]) -> Bool[Array, "N"]:
    return (factors != 0).any(axis=(1, 2))
