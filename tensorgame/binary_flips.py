"""Walks by flips modulo 2 (`tensorgame.flips`), with a factor's entries as the bits of one number.

A flip needs few numbers, one after the other, and by XLA the kernels that make it are started in
each. So on a GPU a whole walk is one kernel, a warp of it, whose terms stay in registers; on other
devices the same steps are a loop of XLA.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Bool, Int8, Int32, Key, UInt32

from tensorgame.devices import runs_triton
from tensorgame.hashing import mix

# Entries of a factor: bits of an int32 that is not negative.
MOST_ENTRIES = 31
# Of the terms, with those that only fill up: two counts of them fit into an int32.
MOST_TERMS = 512
# One in so many steps makes two terms three, while there are no more than at the shortest.
PLUS = 64

# 2^32 over the golden ratio: its multiples are far from each other.
_GOLDEN = np.uint32(0x9E3779B9)
# Of a draw, above all its random bits.
_FIRST = 1 << 30


class _Factors(NamedTuple):
    """A number for each, zero for that of no term, of one term or of L places for terms."""

    u: Int32[Array, "*L"]
    v: Int32[Array, "*L"]
    w: Int32[Array, "*L"]


class _Walk(NamedTuple):
    """Where a walk stands.

    Attributes:
        terms: its factorization.
        length: how many terms there are.
        next: the place of a term with two factors in common with another one, or -1.
        best: the last of the shortest factorizations it has met.
        best_length: how many terms that has.
    """

    terms: _Factors
    length: Int32[Array, ""]
    next: Int32[Array, ""]
    best: _Factors
    best_length: Int32[Array, ""]


def walk(
    key: Key[Array, ""], factors: Int8[Array, "R 3 S"], flips: int, interpret: bool = False
) -> Int8[Array, "R 3 S"]:
    """The last of the shortest factorizations of a walk over Z_2, terms in any rows.

    Args:
        key: the key is consumed.
        factors: canonical actions, R at most `MOST_TERMS` and S at most `MOST_ENTRIES`; rows of
            zeros are no terms.
        flips: how many are tried.
        interpret: run the kernel's definition by XLA, on any device.
    """
    rows, _, side = factors.shape
    bits = jnp.arange(side, dtype=jnp.int32)
    numbers = (factors.astype(jnp.int32) << bits).sum(axis=-1).T
    numbers = jnp.pad(numbers, ((0, 0), (0, (1 << (rows - 1).bit_length()) - rows)))
    seed = jax.random.bits(key, (), jnp.uint32)
    if interpret or runs_triton():
        best = pl.pallas_call(
            functools.partial(_kernel, rows=rows, flips=flips),
            out_shape=jax.ShapeDtypeStruct(numbers.shape, numbers.dtype),
            compiler_params=triton.CompilerParams(num_warps=1),
            # Of no floating-point operations.
            cost_estimate=pl.CostEstimate(
                flops=0, transcendentals=0, bytes_accessed=2 * numbers.nbytes
            ),
            interpret=interpret,
        )(numbers, seed)
    else:
        best = jnp.stack(_walked(_Factors(*numbers), seed, rows, flips))
    return (best.T[:rows, :, None] >> bits & 1).astype(factors.dtype)


def _kernel(numbers, seed, out, *, rows: int, flips: int) -> None:
    """ONE walk, with references to (3, L), to a scalar, and to (3, L)."""
    terms = _Factors(*(numbers[mode, :] for mode in range(3)))
    for mode, best in enumerate(_walked(terms, seed[...], rows, flips)):
        out[mode, :] = best


def _walked(terms: _Factors, seed: UInt32[Array, ""], rows: int, flips: int) -> _Factors:
    """The last of the shortest factorizations on the way, in the first ``rows`` of L places."""
    length = (terms.u != 0).astype(jnp.int32).sum()
    start = _Walk(terms, length, jnp.int32(-1), terms, length)
    step = functools.partial(_step, seed=seed, rows=rows)
    return jax.lax.fori_loop(0, flips, step, start).best


def _step(index: Int32[Array, ""], so_far: _Walk, *, seed: UInt32[Array, ""], rows: int) -> _Walk:
    """One random flip, or none if the term that is drawn has no factor in common.

    First a term comes that has two factors in common with another one, which then become one. A
    kernel has hardly anything to wait for but these operations, so there are few for each place.
    """
    terms, length, following, best, best_length = so_far
    noise = mix(seed + index.astype(jnp.uint32) * _GOLDEN)
    coins = mix(noise ^ _GOLDEN)
    place = jax.lax.iota(jnp.int32, len(terms.u))
    exists = terms.u != 0
    bits = mix(noise + place.astype(jnp.uint32) * _GOLDEN)
    one = _drawn(_lots(bits * _GOLDEN, place, exists))
    one = jnp.where(following >= 0, following, one)
    is_one = place == one
    mine = _at(terms, is_one)
    others = exists & ~is_one
    is_common = [x == y for x, y in zip(terms, mine, strict=True)]
    may_grow = (length <= best_length) & (length < rows) & (coins < np.uint32(2**32 // PLUS))
    among = others & (is_common[0] | is_common[1] | is_common[2] | may_grow)
    # Two terms with two factors in common come before all others.
    lots = _lots(bits, place, among) + jnp.where(others & _two_of(is_common), _FIRST, 0)
    other = _drawn(lots)
    is_made = other >= 0
    is_other = place == other
    theirs = _at(terms, is_other)
    new = _flipped(mine, theirs, coins)
    # Of two terms without a common factor. After a flip the third is none, and goes nowhere.
    free = jnp.max(jnp.where(exists | (place >= rows), -1, place))
    is_free = (place == free) & (new[2].u != 0) & is_made
    to = (is_one & is_made, is_other, is_free)
    for term, is_here in zip(new, to, strict=True):
        terms = _Factors(*(jnp.where(is_here, x, y) for x, y in zip(term, terms, strict=True)))
    made = sum((term.u != 0).astype(jnp.int32) for term in new)
    length = jnp.where(is_made, length + made - 2, length)
    following = _following(terms, new[:2], (one, other), place)
    is_best = length <= best_length
    best = _Factors(*(jnp.where(is_best, x, y) for x, y in zip(terms, best, strict=True)))
    return _Walk(terms, length, following, best, jnp.minimum(length, best_length))


def _flipped(mine: _Factors, theirs: _Factors, coins: UInt32[Array, ""]) -> list[_Factors]:
    """What becomes of two terms: a flip where they have a factor in common, else three terms.

    Args:
        mine: a (x) b (x) c.
        theirs: a' (x) b' (x) c', where a and then b are common factors as far as there are such.
        coins: random bits, for which of the modes a and b are of otherwise.

    Returns:
        Three terms, zeros for no term.
    """
    is_same = [x == y for x, y in zip(mine, theirs, strict=True)]
    some = (((coins >> 8) & 0xFF) * 3 >> 8).astype(jnp.int32)
    mode = jnp.where(is_same[0], 0, jnp.where(is_same[1], 1, jnp.where(is_same[2], 2, some)))
    after = jnp.where(mode == 2, 0, mode + 1)
    last = 3 - mode - after
    # Of three common factors any two will do.
    is_after = jnp.where(after == 1, is_same[1], is_same[2] & (after == 2))
    is_after |= ~_two_of(is_same) & (coins & 1 == 0)
    second = jnp.where(is_after, after, last)
    terms: list[list[Int32[Array, ""]]] = [[], [], []]
    for i, (x, y) in enumerate(zip(mine, theirs, strict=True)):
        terms[0].append(jnp.where(second == i, x ^ y, x))
        terms[1].append(jnp.where(mode == i, x, jnp.where(second == i, y, x ^ y)))
        terms[2].append(jnp.where(mode == i, x ^ y, y))
    found = []
    for term in terms:
        is_term = (term[0] != 0) & (term[1] != 0) & (term[2] != 0)
        found.append(_Factors(*(jnp.where(is_term, x, 0) for x in term)))
    return found


def _following(
    terms: _Factors,
    new: list[_Factors],
    places: tuple[Int32[Array, ""], Int32[Array, ""]],
    place: Int32[Array, "L"],
) -> Int32[Array, ""]:
    """The place of one of two new terms that has two factors in common with another, or -1."""
    sums = jnp.zeros_like(place)
    for i, (term, its) in enumerate(zip(new, places, strict=True)):
        is_near = _two_of([x == y for x, y in zip(term, terms, strict=True)]) & (place != its)
        sums += jnp.where(is_near & (term.u != 0), MOST_TERMS**i, 0)
    # Both counts in one number.
    found = jnp.sum(sums)
    nearby = jnp.where(found >= MOST_TERMS, places[1], -1)
    return jnp.where(found & (MOST_TERMS - 1) != 0, places[0], nearby)


def _lots(
    bits: UInt32[Array, "L"], place: Int32[Array, "L"], among: Bool[Array, "L"]
) -> Int32[Array, "L"]:
    """Random numbers that end with their place, less than `_FIRST`; -1 for none."""
    # Enough bits: two of 128 places draw the same of eight million.
    return jnp.where(among, (bits >> 2).astype(jnp.int32) & -len(place) | place, -1)


def _drawn(lots: Int32[Array, "L"]) -> Int32[Array, ""]:
    """The place of the largest, -1 for none."""
    lot = jnp.max(lots)
    return jnp.where(lot < 0, -1, lot & (len(lots) - 1))


def _at(terms: _Factors, is_here: Bool[Array, "L"]) -> _Factors:
    """The term of one place."""
    return _Factors(*(jnp.sum(jnp.where(is_here, x, 0)) for x in terms))


def _two_of(conditions: list[Bool[Array, "*L"]]) -> Bool[Array, "*L"]:
    """Whether at least two of three hold."""
    a, b, c = conditions
    return a & (b | c) | b & c
