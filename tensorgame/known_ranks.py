"""Best known ranks of the bilinear maps in `tensorgame.targets`, ring by ring.

A record is listed under the smallest ring that its algorithm needs, and holds wherever that ring
maps to: integers everywhere, Z[1/2] over Q and modulo odd primes, Z[i,1/2] over Q[i] and modulo
primes p = 1 mod 4, where -1 is a square. Rational algorithms with other or unknown denominators
count over Q and Q[i] only. Sizes that are not listed are put together from smaller ones.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Mapping

# Larger matrices are not cut into parts of every size: it would take long.
_LARGEST_CUT = 24


@dataclasses.dataclass(frozen=True)
class Record:
    """The best rank that is known, and who found it."""

    rank: int
    source: str


def best(*records: Record) -> Record:
    """The record of least rank; the first of several."""
    return min(records, key=lambda record: record.rank)


def among(ring: str, records: Mapping[str, Record]) -> list[Record]:
    """The records that hold over a ring, of records by the ring that they are listed under."""
    return [records[listed] for listed in _listed_within(ring) if listed in records]


@functools.cache
def _listed_within(ring: str) -> tuple[str, ...]:
    """The rings of records that map to ``ring``.

    Raises:
        ValueError: if it is not Z, Z[i], Q, Q[i] or Z_p for a prime p.
    """
    if ring in ("Z", "Z[i]"):
        return ("Z",)
    if ring in ("Q", "Q[i]"):
        return ("Z", "Z[1/2]", "Q") + (("Z[i,1/2]",) if ring == "Q[i]" else ())
    p = _characteristic(ring)
    return ("Z", ring) + (("Z[1/2]",) if p > 2 else ()) + (("Z[i,1/2]",) if p % 4 == 1 else ())


def _characteristic(ring: str) -> int:
    """The prime p for Z_p, 0 for the other rings; raises ValueError for what is none of them."""
    if ring in ("Z", "Z[i]", "Q", "Q[i]"):
        return 0
    match = re.fullmatch(r"Z_([1-9][0-9]{0,9})", ring)
    p = int(match[1]) if match else 1
    if p == 1 or any(p % d == 0 for d in range(2, math.isqrt(p) + 1)):
        raise ValueError(f"ring is {ring!r}; it has to be Z, Q, Z[i], Q[i] or Z_p for a prime p")
    return p


_SOURCES = {
    "AE": "AlphaEvolve 2025",
    "AT": "AlphaTensor 2022",
    "Ar": "Arai, Ichikawa and Hukushima 2024",
    "DPS": "Dumas, Pernet and Sedoglavic 2025",
    "FC": "Khoruzhii, Gelss and Pokutta 2025",
    "FM": "FastMatrixMultiplication 2026, reported",
    "FMM": "Sedoglavic's catalogue fmm.univ-lille.fr",
    "KM": "Kauers and Moosbauer 2022",
    "KW": "Kauers and Wood 2025",
    "La": "Laderman 1976",
    "Li": "khoruzhii/lita 2026, reported",
    "MP": "Moosbauer and Poole 2025",
    "MW": "MerlijnW70/fmm-schemes 2026, reported",
    "P": "Perminov 2025",
    "SP": "serendipitous products, arXiv 2606.02480",
    "SS": "Sedoglavic and Smirnov 2021",
    "Sm": "Smirnov 2013",
    "St": "Strassen 1969",
    "Tg": "tungsten 2026",
}

# Sorted sizes, rank and source. All up to 8 were checked exactly from public files, but for those
# marked as reported; so were those of AlphaTensor, some of which need 1/2. A source is one
# collection that holds the algorithm, not always the first to find it. Left out are sizes up to 8
# that cuts, products or the formula of Hopcroft and Kerr explain.
_MATMUL_TEXT = {
    "Z": """
    2,2,2:7:St 2,4,7:45:AE 2,4,8:51:AE 2,5,6:47:AE 2,5,7:55:P 2,5,8:63:P 2,6,6:56:P 2,6,7:66:P
    2,6,8:75:P 2,7,7:76:P 3,3,3:23:La 3,3,4:29:Sm 3,3,5:36:Sm 3,3,6:42:P 3,3,7:49:P 3,3,8:56:P
    3,4,4:38:Sm 3,4,5:47:AT 3,4,6:54:P 3,4,7:64:P 3,4,8:73:P 3,5,5:58:SS 3,5,6:68:P 3,5,7:79:P
    3,5,8:90:P 3,6,6:82:FM 3,6,7:96:P 3,6,8:108:P 3,7,7:111:P 3,7,8:128:P 3,8,8:146:P 4,4,5:61:AE
    4,4,6:73:P 4,4,7:85:AE 4,4,8:96:P 4,5,5:76:AT 4,5,6:90:P 4,5,7:104:P 4,5,8:118:P 4,6,6:105:FMM
    4,6,7:123:P 4,6,8:140:FMM 4,7,7:144:P 4,7,8:161:P 4,8,8:180:P 5,5,5:93:MP 5,5,6:110:P
    5,5,7:127:P 5,5,8:144:P 5,6,6:130:P 5,6,7:150:P 5,6,8:170:P 5,7,7:176:P 5,7,8:204:P
    5,8,8:230:FMM 6,6,6:153:MP 6,6,7:183:P 6,6,8:203:FMM 6,7,7:212:P 6,7,8:238:P 6,8,8:266:FMM
    7,7,7:250:P 7,7,8:278:P 7,8,8:310:P 8,8,8:343:P
    3,5,9:105:AT 4,5,9:139:AT 4,5,10:152:AT 4,5,11:169:AT 4,9,10:255:AT 4,9,11:280:AT
    4,11,11:343:AT 4,11,12:366:AT 5,7,9:234:AT 5,7,10:257:AT 5,8,9:262:AT 5,8,10:287:AT
    5,9,9:296:AT 5,9,10:323:AT 5,9,11:358:AT 5,9,12:381:AT 6,7,9:270:AT 6,7,10:296:AT 6,8,10:329:AT
    6,9,9:342:AT 6,9,10:373:AT 6,9,11:411:AT 7,7,9:318:AT 7,7,10:350:AT 7,8,9:354:AT 7,8,10:393:AT
    7,8,11:432:AT 7,8,12:462:AT 7,9,9:399:AT 7,9,10:441:AT 7,10,10:478:AT 8,8,10:441:AT
    8,8,11:489:AT 8,9,10:489:AT 8,10,10:532:AT 8,10,11:596:AT 8,10,12:636:AT 8,11,11:649:AT
    8,11,12:691:AT 9,10,10:606:AT 10,10,10:682:AT 10,11,11:821:AT
    4,4,10:115:P 7,7,9:315:MW""",
    "Z_2": """
    3,3,8:55:P 3,6,6:82:Tg 3,8,8:145:KW 4,4,4:47:AT 4,4,5:60:KM 4,5,5:73:Ar 4,5,6:89:KW
    7,7,7:247:Tg 7,7,8:273:P 7,8,8:302:P 8,8,8:329:P 10,16,16:1558:Tg 12,12,16:1363:Tg
    13,13,13:1402:Tg 15,15,15:2008:Tg""",
    "Z[1/2]": """
    2,4,5:32:AE 3,3,6:40:Sm 4,4,4:48:DPS
    3,4,11:103:AT 3,9,11:225:AT 5,7,11:280:AT 5,8,11:317:AT 6,7,11:322:AT 6,8,11:365:AT
    7,7,11:384:AT 7,9,11:481:AT 7,9,12:510:AT 7,10,11:536:AT 7,11,11:582:AT 8,9,11:533:AT
    8,9,12:560:AT 9,9,9:498:AT 9,9,10:534:AT 9,9,11:576:AT 9,10,11:657:AT 9,10,12:696:AT
    9,11,11:725:AT 9,11,12:760:AT 10,10,11:746:AT 10,10,12:798:AT 10,11,12:874:AT 10,12,12:928:AT
    11,11,11:896:AT 11,11,12:941:AT 11,12,12:990:AT""",
    "Z[i,1/2]": "3,4,7:63:AE",
    "Q": """
    3,4,7:63:FMM 3,6,7:94:FMM 3,7,8:126:FMM 3,8,8:145:FMM 7,7,7:249:FMM 7,7,8:277:FMM 7,8,8:306:FMM
    5,5,12:204:P 4,8,12:272:SP 9,10,12:668:SP 9,12,16:1035:SP 11,12,12:968:SP 8,16,16:1230:SP
    11,13,15:1364:MW 11,14,14:1373:MW 13,13,13:1420:Li 20,20,20:4297:Li""",
}


def _parsed(text: str) -> dict[tuple[int, ...], Record]:
    """Records by size, from words such as ``3,3,6:40:Sm``."""
    words = [word.split(":") for word in text.split()]
    return {
        tuple(map(int, sizes.split(","))): Record(int(rank), _SOURCES[tag])
        for sizes, rank, tag in words
    }


_MATMUL = {ring: _parsed(text) for ring, text in _MATMUL_TEXT.items()}


def matmul(n: int, m: int, p: int, ring: str) -> Record:
    """A record for the product of n x m and m x p matrices."""
    return _matmul(tuple(sorted((n, m, p))), _listed_within(ring))


@functools.cache
def _matmul(sizes: tuple[int, int, int], rings: tuple[str, ...]) -> Record:
    """The best record for sorted sizes of those listed under ``rings`` and put together."""
    n, m, p = sizes
    schoolbook = Record(n * m * p, "schoolbook")
    if n == 1:
        return schoolbook
    listed = [_MATMUL[ring][sizes] for ring in rings if sizes in _MATMUL.get(ring, {})]
    if n == 2:
        listed.append(Record(-(-(3 * m * p + p) // 2), "Hopcroft and Kerr 1971"))
    return best(schoolbook, *listed, *_cuts_and_products(sizes, rings))


def _cuts_and_products(sizes: tuple[int, int, int], rings: tuple[str, ...]) -> list[Record]:
    """Cuts of one side into two, and Kronecker products of two smaller algorithms."""
    pairs = []
    for axis, side in enumerate(sizes):
        rest = sizes[:axis] + sizes[axis + 1 :]
        cuts = range(1, side // 2 + 1) if max(sizes) <= _LARGEST_CUT else []
        pairs += [("+", (*rest, cut), (*rest, side - cut)) for cut in cuts]
    for blocks in itertools.product(*(_divisors(side) for side in sizes)):
        inner = tuple(side // block for side, block in zip(sizes, blocks, strict=True))
        # Each product is seen twice, once from either factor.
        if 1 < math.prod(blocks) <= math.prod(inner):
            pairs.append(("x", blocks, inner))
    records = []
    for sign, one, other in pairs:
        parts = tuple(sorted(one)), tuple(sorted(other))
        ranks = [_matmul(part, rings).rank for part in parts]
        text = f" {sign} ".join(",".join(map(str, part)) for part in parts)
        records.append(Record(sum(ranks) if sign == "+" else math.prod(ranks), text))
    return records


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


# Products that need neither commuting entries nor transposed ones, found for X X^T but stated with
# two matrices; checked exactly from the published algorithms up to 4, reported for 5.
_GRAM = {
    (3, 3): Record(17, _SOURCES["FC"]),
    (4, 4): Record(34, "Rybin, Zhang and Luo 2025 (RXTX)"),
    (5, 5): Record(63, _SOURCES["FC"] + ", reported"),
}


@functools.cache
def gram(n: int, m: int, ring: str) -> Record:
    """A record for the upper triangle of X Y^T for X and Y of n x m."""
    records = [Record(m * n * (n + 1) // 2, "schoolbook"), matmul(n, m, n, ring)]
    if (n, m) in _GRAM:
        records.append(_GRAM[n, m])
    if max(n, m) <= _LARGEST_CUT:
        for cut in range(1, m // 2 + 1):
            rank = gram(n, cut, ring).rank + gram(n, m - cut, ring).rank
            records.append(Record(rank, f"gram {n},{cut} + {n},{m - cut}"))
        for cut in range(1, n // 2 + 1):
            corner = matmul(cut, m, n - cut, ring).rank
            rank = gram(cut, m, ring).rank + gram(n - cut, m, ring).rank + corner
            text = f"gram {cut},{m} + gram {n - cut},{m} + matmul {cut},{m},{n - cut}"
            records.append(Record(rank, text))
    return best(*records)


def symmetric_matmul(n: int, ring: str) -> Record:
    """A record for a symmetric times a general n x n matrix: column by column, or as any two."""
    columns = Record(n * n * (n + 1) // 2, "symmetric-matvec for each column")
    return best(columns, matmul(n, n, n, ring))


def skew_matmul(n: int, ring: str) -> Record:
    """A record for a skew-symmetric times a general n x n matrix."""
    columns = Record(n * (n - 1) * (n + 2) // 2, "skew-matvec for each column")
    listed = among(ring, {"Z[1/2]": Record(14, _SOURCES["FC"])}) if n == 3 else []
    return best(columns, matmul(n, n, n, ring), *listed)


# Checked exactly from the published algorithms but for those marked as reported.
_SYMMETRIC_SYMMETRIC = {
    2: {"Z[1/2]": Record(5, _SOURCES["FC"])},
    3: {"Z": Record(15, _SOURCES["FC"] + ", reported"), "Z[1/2]": Record(14, _SOURCES["FC"])},
    4: {"Z": Record(32, _SOURCES["FC"] + ", reported"), "Z[1/2]": Record(30, _SOURCES["FC"])},
    5: {"Z": Record(59, _SOURCES["FC"] + ", reported")},
}


def symmetric_symmetric(n: int, ring: str) -> Record:
    """A record for the product of two symmetric n x n matrices."""
    return best(symmetric_matmul(n, ring), *among(ring, _SYMMETRIC_SYMMETRIC.get(n, {})))


# Two polynomials with as many coefficients, without divisions, in any characteristic; and modulo 2
# by Chinese remainders, such as x^3, (x + 1)^3, x^2 + x + 1, both cubics and one leading
# coefficient: 5 + 5 + 3 + 6 + 6 + 1 = 26 products for the 15 coefficients at n = 8.
_KARATSUBA_LIKE = {2: 3, 3: 6, 4: 9, 5: 13, 6: 17, 7: 22}
_MODULO_2 = {8: 26, 9: 30, 10: 35, 11: 39, 12: 44, 13: 48}


def polynomial(n: int, m: int, ring: str) -> Record:
    """A record for the product of polynomials with n and m coefficients."""
    p = _characteristic(ring)
    # Points at which to evaluate, infinity included, that differ by units.
    points = p + 1 if p else n + m if ring in ("Q", "Q[i]") else 3
    return _polynomial(*sorted((n, m)), points, p == 2)


@functools.cache
def _polynomial(n: int, m: int, points: int, modulo_2: bool) -> Record:
    """The best record for n <= m."""
    schoolbook = Record(n * m, "schoolbook")
    if n == 1:
        return schoolbook
    if n + m - 1 <= points:
        return Record(n + m - 1, "Karatsuba 1962" if n == m == 2 else "Toom 1963 and Cook 1966")

    def rank(n: int, m: int) -> int:
        return _polynomial(*sorted((n, m)), points, modulo_2).rank

    records = [schoolbook]
    if n + m - 1 <= 3 * points:
        # Modulo x^2 a product takes 3 products, and modulo x^3 it takes 5.
        records.append(Record(2 * (n + m - 1) - points, "Chinese remainders at multiple points"))
    if n == m:
        if n in _KARATSUBA_LIKE:
            records.append(Record(_KARATSUBA_LIKE[n], "Montgomery 2005"))
        if modulo_2 and n in _MODULO_2:
            records.append(Record(_MODULO_2[n], "Cenk and Ozbudak 2009"))
        records.append(Record(2 * rank(-(-n // 2), -(-n // 2)) + rank(n // 2, n // 2), "in halves"))
    else:
        records.append(Record(rank(m, m), f"padded to polynomial {m},{m}"))
        records.append(Record(rank(n, n) + rank(n, m - n), f"polynomial {n},{n} + {n},{m - n}"))
    for parts in range(2, min(n, max(_KARATSUBA_LIKE) + 1)):
        block = -(-n // parts), -(-m // parts)
        text = f"polynomial {parts},{parts} x {block[0]},{block[1]}"
        records.append(Record(rank(parts, parts) * rank(*block), text))
    return best(*records)


def cyclic_convolution(n: int, ring: str) -> Record:
    """A record for the product modulo x^n - 1.

    By Chinese remainders it splits into products modulo the coprime factors of x^n - 1, and a
    product modulo a polynomial of degree d is one of polynomials with d coefficients, reduced. Over
    Z that would divide by n, so there the product of polynomials is only folded.
    """
    degrees = _coprime_factor_degrees(n, ring)
    rank = sum(polynomial(degree, degree, ring).rank for degree in degrees)
    if set(degrees) == {1}:
        source = "discrete Fourier transform"
    else:
        source = "polynomial product, folded" if len(degrees) == 1 else "Winograd 1978"
    return best(Record(n * n, "schoolbook"), Record(rank, source))


def _coprime_factor_degrees(n: int, ring: str) -> list[int]:
    """The degrees of coprime factors of x^n - 1, as many as there are."""
    p = _characteristic(ring)
    if ring in ("Z", "Z[i]"):
        return [n]
    power = 1
    while p and n % (power * p) == 0:
        power *= p
    degrees = []
    for d in _divisors(n // power):
        units = [k for k in range(1, d + 1) if math.gcd(k, d) == 1]
        # The cyclotomic polynomial of order d splits over Q(i) if d is a multiple of 4, and modulo
        # p into factors whose degree is the order of p modulo d.
        if p:
            degree = next(e for e in itertools.count(1) if (pow(p, e, d) - 1) % d == 0)
        else:
            degree = len(units) // 2 if ring == "Q[i]" and d % 4 == 0 else len(units)
        degrees += [degree * power] * (len(units) // degree)
    return degrees
