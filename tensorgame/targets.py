"""Bilinear maps as target tensors, by name: ``matmul:2,3,4``.

The tensor of <n,m,p> represents (A, B) -> AB for A of shape n x m and B of shape m x p, with the
third mode transposed: ``T[i*m + j, j*p + k, k*n + i] = 1`` (the convention of the factorizations
that were released with the paper).
"""

import dataclasses
import math
import re

import numpy as np

# Lower bounds proved over every field, beyond the flattening rank, for sorted sizes: Winograd 1971
# (2,2,2); Alekseyev 1985 (2,2,3); Alekseev and Smirnov 2013 (2,2,4); Blaeser 2003 (2,3,3; 3,3,3).
_LOWER_BOUNDS = {(2, 2, 2): 7, (2, 2, 3): 11, (2, 2, 4): 14, (2, 3, 3): 14, (3, 3, 3): 19}

# Best known ranks over Z_2 and over Z with coefficients in {-1, 0, 1}, for sorted sizes: the
# paper's Fig. 3, and since then Kauers and Moosbauer 2022 (4,4,5 over Z_2), Arai et al. 2024 (4,5,5
# over Z_2), AlphaEvolve 2025 (4,4,5) and Moosbauer and Poole 2025 (5,5,5).
_BEST_KNOWN = {
    (2, 2, 2): (7, 7),
    (2, 2, 3): (11, 11),
    (2, 2, 4): (14, 14),
    (2, 2, 5): (18, 18),
    (2, 3, 3): (15, 15),
    (2, 3, 4): (20, 20),
    (2, 3, 5): (25, 25),
    (2, 4, 4): (26, 26),
    (2, 4, 5): (33, 33),
    (2, 5, 5): (40, 40),
    (3, 3, 3): (23, 23),
    (3, 3, 4): (29, 29),
    (3, 3, 5): (36, 36),
    (3, 4, 4): (38, 38),
    (3, 4, 5): (47, 47),
    (3, 5, 5): (58, 58),
    (4, 4, 4): (47, 49),
    (4, 4, 5): (60, 61),
    (4, 5, 5): (73, 76),
    (5, 5, 5): (93, 93),
}


@dataclasses.dataclass(frozen=True)
class Target:
    """The matrix multiplication map <n,m,p>.

    Attributes:
        sizes: (n, m, p), all positive.
    """

    sizes: tuple[int, int, int]

    @property
    def name(self) -> str:
        return "matmul:" + ",".join(map(str, self.sizes))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(nm, mp, pn), the sides of the tensor."""
        n, m, p = self.sizes
        return n * m, m * p, p * n

    @property
    def side(self) -> int:
        """S, the side of the cube into which the tensor is padded with zeros."""
        return max(self.shape)

    @property
    def trivial_rank(self) -> int:
        """nmp, the products of the schoolbook algorithm."""
        return math.prod(self.sizes)

    @property
    def lower_bound(self) -> int:
        """A proved lower bound on the rank; the largest flattening rank where no better is known.

        Rank does not depend on the order of the sizes. The matrix-vector and outer-product cases
        need all their products.
        """
        sizes = tuple(sorted(self.sizes))
        if sizes[0] == 1:
            return self.trivial_rank
        return _LOWER_BOUNDS.get(sizes, self.side)

    def best_known(self, modulus: int) -> int:
        """The best known rank over Z_2 (``modulus == 2``) or Z; the trivial one if not on file."""
        pair = _BEST_KNOWN.get(tuple(sorted(self.sizes)), (self.trivial_rank,) * 2)
        return pair[0] if modulus == 2 else pair[1]

    def tensor(self) -> np.ndarray:
        """The tensor padded to a cube: shape (S, S, S), int8, entries 0 and 1."""
        n, m, p = self.sizes
        i, j, k = np.ogrid[:n, :m, :p]
        tensor = np.zeros((self.side,) * 3, np.int8)
        tensor[i * m + j, j * p + k, k * n + i] = 1
        return tensor


def parse(name: str) -> Target:
    """The target called ``matmul:n,m,p``.

    Raises:
        ValueError: if ``name`` is not of that form or a size is not positive.
    """
    match = re.fullmatch(r"matmul:(-?\d+),(-?\d+),(-?\d+)", name)
    if match is None:
        raise ValueError(f"game.target is {name!r}, which is unknown: write matmul:n,m,p")
    sizes = tuple(int(size) for size in match.groups())
    if min(sizes) < 1:
        raise ValueError(f"game.target is {name!r}: sizes must be positive, as in matmul:2,2,2")
    return Target(sizes)
