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

from tensorgame.devices import generation
from tensorgame.hashing import mix

# Entries of a factor: bits of an int32 that is not negative.
MOST_ENTRIES = 31
# Of the terms, with those that only fill up: three counts of them fit into an int32.
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
        shortens: 1 for terms that may have two factors in common with another one, int32 (L,).
        length: how many terms there are.
        best: the last of the shortest factorizations it has met.
        best_length: how many terms that has.
    """

    terms: _Factors
    shortens: Int32[Array, "L"]
    length: Int32[Array, ""]
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
    if interpret or generation() >= 8:
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
    exist = (terms.u != 0).astype(jnp.int32)
    # Which terms have two factors in common with others is seen when each is drawn.
    start = _Walk(terms, exist, exist.sum(), terms, exist.sum())
    step = functools.partial(_step, seed=seed, rows=rows)
    return jax.lax.fori_loop(0, flips, step, start).best


def _step(index: Int32[Array, ""], so_far: _Walk, *, seed: UInt32[Array, ""], rows: int) -> _Walk:
    """One random flip, or none if the term that is drawn has no factor in common.

    First terms come that have two factors in common with another one, which become one.
    """
    terms, shortens, length, best, best_length = so_far
    noise = mix(seed + index.astype(jnp.uint32) * _GOLDEN)
    coins = mix(noise ^ _GOLDEN)
    place = jax.lax.iota(jnp.int32, len(shortens))
    exists = terms.u != 0
    one, _, _ = _drawn(_lots(noise, place, 3, exists, shortens != 0))
    is_one = place == one
    mine = _at(terms, is_one)
    others = exists & ~is_one
    common = [(x == y) & others for x, y in zip(terms, mine, strict=True)]
    twice = _count(common) >= 2
    # With any other term that has no factor in common it is three terms that come of two.
    may_grow = (length <= best_length) & (length < rows) & (coins < np.uint32(2**32 // PLUS))
    lots = [
        _lots(noise, place, mode, is_common | (others & may_grow), is_common & twice)
        for mode, is_common in enumerate(common)
    ]
    other, mode, is_shorter = _drawn(functools.reduce(jnp.maximum, lots))
    is_other = place == other
    is_made = other >= 0
    grows = may_grow & is_made & ~is_shorter
    free = jnp.max(jnp.where(exists | (place >= rows), -1, place))

    new = _flipped(mine, _at(terms, is_other), mode, is_shorter, coins)
    to = (is_one & is_made, is_other, (place == free) & grows)
    for term, is_here in zip(new, to, strict=True):
        terms = _Factors(*(jnp.where(is_here, x, y) for x, y in zip(term, terms, strict=True)))
    made = _count([term.u != 0 for term in new])
    length = jnp.where(is_made, length + made - 2, length)
    # Sums of all three at a time, in the bits of one number.
    nearby = [
        (_count([x == y for x, y in zip(term, terms, strict=True)]) >= 2) & ~is_here & (term.u != 0)
        for term, is_here in zip(new, to, strict=True)
    ]
    sums = jnp.sum(sum(x.astype(jnp.int32) * MOST_TERMS**i for i, x in enumerate(nearby)))
    shortens = jnp.where(is_one, 0, shortens)
    for i, is_here in enumerate(to):
        some = sums // MOST_TERMS**i % MOST_TERMS > 0
        shortens = jnp.where(is_here, some.astype(jnp.int32), shortens)

    is_best = length <= best_length
    best = _Factors(*(jnp.where(is_best, x, y) for x, y in zip(terms, best, strict=True)))
    return _Walk(terms, shortens, length, best, jnp.minimum(length, best_length))


def _flipped(
    mine: _Factors,
    theirs: _Factors,
    mode: Int32[Array, ""],
    is_shorter: Bool[Array, ""],
    coins: UInt32[Array, ""],
) -> list[_Factors]:
    """What becomes of two terms: a flip, or three if they differ in the mode; zeros for no term.

    Args:
        mine: a (x) b (x) c.
        theirs: a' (x) b' (x) c'.
        mode: that of a.
        is_shorter: whether the two have another factor in common, which is b then.
        coins: random bits, for which of the other modes is that of b otherwise.
    """
    after = jnp.where(mode == 2, 0, mode + 1)
    last = 3 - mode - after
    is_same = [x == y for x, y in zip(mine, theirs, strict=True)]
    is_after = jnp.where(after == 0, is_same[0], jnp.where(after == 1, is_same[1], is_same[2]))
    is_after = jnp.where(is_shorter, is_after, coins & 1 == 0)
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


def _lots(
    noise: UInt32[Array, ""],
    place: Int32[Array, "L"],
    mode: int,
    among: Bool[Array, "L"],
    first: Bool[Array, "L"],
) -> Int32[Array, "L"]:
    """Random numbers with place and mode, the largest for those that come first; -1 for none."""
    name = place * 4 + mode
    bits = mix(noise + name.astype(jnp.uint32) * _GOLDEN)
    # Enough of them: two of 128 places draw the same one of two million.
    bits = (bits >> 2).astype(jnp.int32) & -(4 * len(place))
    return jnp.where(among, bits | name | jnp.where(first, _FIRST, 0), -1)


def _drawn(
    lots: Int32[Array, "L"],
) -> tuple[Int32[Array, ""], Int32[Array, ""], Bool[Array, ""]]:
    """Place and mode of the largest, and whether it is of those that come first; -1 for none."""
    lot = jnp.max(lots)
    place = (lot >> 2) & (len(lots) - 1)
    return jnp.where(lot < 0, -1, place), lot & 3, lot >= _FIRST


def _at(terms: _Factors, is_here: Bool[Array, "L"]) -> _Factors:
    """The term of one place."""
    return _Factors(*(jnp.sum(jnp.where(is_here, x, 0)) for x in terms))


def _count(conditions: list[Bool[Array, "*L"]]) -> Int32[Array, "*L"]:
    """How many of them hold."""
    return functools.reduce(jnp.add, (x.astype(jnp.int32) for x in conditions))
