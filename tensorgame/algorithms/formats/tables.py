"""Algorithms as numbers in text: bit masks, and tables of coefficients.

Both start with the four integers ``n m p R`` for <n,m,p> with R products.

Bit masks, for arithmetic modulo 2, go on with one line ``u v w`` per product, in decimal. Bit i of
u, of value 2**i, is the coefficient of entry i of A in row-major order, counted from zero; so it is
for v and B. Bit k n + i of w says that the product is added to c_ik: the third mode is transposed.
Flip graph programs hold products so in memory (jakobmoosbauer/flips, dronperminov's
ternary_flip_graph).

Tables of coefficients, as written by ternary_flip_graph and collected in FastMatrixMultiplication,
go on with R n m numbers of u, product by product, R m p of v and R p n of w. Rational ones have two
numbers for each, numerator and denominator.
"""

from __future__ import annotations

import itertools
import re
from fractions import Fraction

from tensorgame import targets
from tensorgame.algorithms.factorization import Factorization
from tensorgame.algorithms.formats import inference


def recognizes(text: str) -> bool:
    """Whether the text starts with four integers."""
    return re.match(r"\s*\d+[ \t]+\d+[ \t]+\d+[ \t]+\d+\s*?(\n|$)", text) is not None


def write(factorization: Factorization) -> bytes:
    """The algorithm as bit masks.

    Raises:
      ValueError: it is not modulo 2, or not for matrices.
    """
    name, _, sizes = factorization.target.name.partition(":")
    if factorization.modulus != 2:
        raise ValueError(
            f"bit masks hold algorithms modulo 2; this one is over {factorization.ring}"
        )
    if name != "matmul" or not inference.has_name(factorization.target):
        raise ValueError(
            f"bit masks hold algorithms for matmul; this one is for {factorization.target.name}"
        )
    lines = [f"{sizes.replace(',', ' ')} {factorization.rank}"]
    factors = (factorization.u, factorization.v, factorization.w)
    for columns in zip(*(factor.T.tolist() for factor in factors), strict=True):
        lines.append(" ".join(str(sum(bit << i for i, bit in enumerate(c))) for c in columns))
    return ("\n".join(lines) + "\n").encode()


def read(text: str) -> Factorization:
    """An algorithm from bit masks or from a table of coefficients.

    Raises:
      ValueError: the numbers are too few, too many or unusable.
    """
    lines = [line.split() for line in text.splitlines() if line.strip()]
    header, *body = ([_integer(word) for word in line] for line in lines)
    *sizes, rank = header
    sides = inference.matmul_sides(sizes)
    numbers = list(itertools.chain.from_iterable(body))
    entries = rank * sum(sides)
    if rank and len(body) == rank and all(len(line) == 3 for line in body):
        factors = [
            [_bits(mask, side, name) for mask in column]
            for name, side, column in zip("uvw", sides, zip(*body, strict=True), strict=True)
        ]
        fields = inference.over_common_denominator(factors)
        return Factorization(target=targets.matmul(*sizes), modulus=2, **fields)
    if rank and len(numbers) == 2 * entries:
        numbers = _fractions(numbers)
    elif not rank or len(numbers) != entries:
        raise ValueError(
            f"{len(numbers)} numbers follow the sizes {' '.join(map(str, header))}; they have "
            f"to be {rank} lines of 3 bit masks, {entries} coefficients, or {2 * entries} of pairs"
        )
    fields = inference.over_common_denominator(_vectors(numbers, sides, rank))
    return inference.infer_ring(Factorization(target=targets.matmul(*sizes), **fields))


def _integer(word: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,4000}", word):
        raise ValueError(f"the text holds {word!r:.40} where integers have to be")
    return int(word)


def _bits(mask: int, side: int, name: str) -> list[int]:
    if not 0 <= mask < 1 << side:
        raise ValueError(f"{name} has the bit mask {mask!s:.40}; it has to be of {side} bits")
    return [mask >> i & 1 for i in range(side)]


def _fractions(numbers: list[int]) -> list[Fraction]:
    if 0 in numbers[1::2]:
        raise ValueError("the table of coefficients has a denominator of zero")
    return [Fraction(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]


def _vectors(
    numbers: list[int] | list[Fraction], sides: tuple[int, int, int], rank: int
) -> list[list[list[int] | list[Fraction]]]:
    """The numbers of u, v and w, each cut into one vector per product."""
    factors, start = [], 0
    for side in sides:
        cuts = range(start, start + rank * side, side)
        factors.append([numbers[cut : cut + side] for cut in cuts])
        start += rank * side
    return factors
