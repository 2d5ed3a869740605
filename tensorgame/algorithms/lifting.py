"""Hensel lifting of factorizations modulo 2 to the integers.

Kauers and Moosbauer, "Flip graphs for matrix multiplication" (arXiv 2212.01175). Let x hold all
entries of u, v, w, let E(x) = T - sum_r u_r (x) v_r (x) w_r, and let J be the Jacobian of that sum
modulo 2. If E(x) = 0 modulo 2^k, then x + 2^k d is a solution modulo 2^(k+1) exactly if
J d = E(x) / 2^k modulo 2. J depends on x modulo 2 only, so one elimination serves all steps.

Three choices make this find small integers:

* Entries that are 1 modulo 2 come first as pivots. Zeros then stay zero whenever signs alone can
  solve the first step, and coefficients stay in {-1, 0, 1}.
* The entries that are free take random signs at the start of each attempt.
* Where J is singular, the signs chosen modulo 4 may admit no solution modulo 8, and almost all of
  them do not for, say, Strassen's algorithm applied twice. The kernel of J spans the other
  choices. Their effect on E / 4 is nearly additive, so a few linear solves find a better one.

For <4,4,4> with 49 products J has 4096 rows (equations) and 2352 columns (unknowns).
"""

from __future__ import annotations

import numpy as np

from tensorgame.factorization import Factorization

# Entries reach 2^steps in size, so 2^(3*16) times any practical rank stays within int64.
_MAX_STEPS = 16
_DETOUR_ROUNDS = 8


def lift(
    factorization: Factorization, *, steps: int = 10, attempts: int = 20, seed: int = 0
) -> Factorization | None:
    """Lifts a factorization modulo 2 to one over the integers that reduces to it.

    Args:
      factorization: a correct factorization with modulus 2.
      steps: the number of binary digits to try, 1 to 16; coefficients reach 2^steps in size.
      attempts: the number of random choices of pivots and signs to try, at least 1.
      seed: the result is a function of this seed and the other arguments.

    Returns:
      A factorization over Z, proved by ``check``: the first found with all coefficients in
      {-1, 0, 1} (in {-2, ..., 2} where signs provably do not suffice), or else the one with the
      smallest largest coefficient; None if no attempt succeeds. Where not even a solution modulo
      4 exists, no lift exists, and None comes at once.

    Raises:
      IncorrectFactorization: the factorization is wrong modulo 2.
      ValueError: its modulus is not 2, or steps or attempts is out of range.
    """
    if factorization.modulus != 2:
        raise ValueError(f"modulus is {factorization.modulus}; only modulus 2 can be lifted")
    if not 1 <= steps <= _MAX_STEPS:
        raise ValueError(f"steps is {steps}; it has to be from 1 to {_MAX_STEPS}")
    if attempts < 1:
        raise ValueError(f"attempts is {attempts}; it has to be at least 1")
    factorization.check()
    rng = np.random.default_rng(seed)
    brent = _BrentEquations(factorization)
    jacobian = brent.jacobian()
    best, best_size = None, 2**_MAX_STEPS + 1
    for _ in range(attempts):
        signs = rng.choice([-1, 1], size=brent.solution.size)
        order = rng.permutation(brent.solution.size)
        order = order[np.argsort(-brent.solution[order], kind="stable")]
        system = _Elimination(jacobian, order)
        start = brent.solution * signs
        # Another start adds J d to E(start) / 2, which changes nothing about solvability. That
        # holds for the columns of ones alone too: if they do not suffice, some zero becomes 2.
        change = system.solve(brent.digit(start, 1))
        if change is None:
            return None
        smallest_possible = 2 if change[brent.solution == 0].any() else 1
        lifted = _hensel(brent, system, start, steps, rng)
        if lifted is not None and (size := int(np.abs(lifted).max())) < best_size:
            u, v, w = brent.split(lifted)
            best = Factorization(sizes=factorization.sizes, modulus=0, u=u, v=v, w=w)
            best.check()
            best_size = size
            if size == smallest_possible:
                break
    return best


def _hensel(
    brent: _BrentEquations,
    system: _Elimination,
    x: np.ndarray,
    steps: int,
    rng: np.random.Generator,
) -> np.ndarray | None:
    """Improves the solution x modulo 2 step by step until it is exact, or returns None."""
    for k in range(1, steps + 1):
        change = system.solve(brent.digit(x, k))
        # The second step always looks for signs that solve it: they keep coefficients at 1.
        if change is None or k == 2:
            x = _detour(brent, system, x, k, rng)
            change = system.solve(brent.digit(x, k))
            if change is None:
                return None
        x = _residues(x + change * 2**k, 2 ** (k + 1))
        if not brent.error(x).any():
            return x
    return None


def _detour(
    brent: _BrentEquations, system: _Elimination, x: np.ndarray, k: int, rng: np.random.Generator
) -> np.ndarray:
    """Looks for another solution modulo 2^k, equal to x modulo 2^(k-1), from which step k works.

    It prefers one that is a solution modulo 2^(k+1) already. May return one that does not help.
    """

    def moved(kernel_vector: np.ndarray) -> np.ndarray:
        return _residues(x + kernel_vector * 2 ** (k - 1), 2**k)

    kernel = system.kernel
    for _ in range(_DETOUR_ROUNDS):
        digit = brent.digit(x, k)
        if not digit.any() or not len(kernel):
            break
        effects = np.stack([brent.digit(moved(vector), k) ^ digit for vector in kernel], axis=1)
        order = np.arange(len(kernel))
        choice = _Elimination(effects, order).solve(digit)
        if choice is None:
            obstruction = system.reduce(digit[:, None])[system.unused, 0]
            if not obstruction.any():
                break
            effects = system.reduce(effects)[system.unused]
            choice = _Elimination(effects, order).solve(obstruction)
        if choice is None:
            if k > 2:  # effects are exactly additive from the third step on: no choice helps
                break
            choice = rng.integers(0, 2, size=len(kernel))
        x = moved(choice @ kernel % 2)
    return x


def _residues(x: np.ndarray, modulus: int) -> np.ndarray:
    """The residues of x in (-modulus/2, modulus/2]."""
    return modulus // 2 - (modulus // 2 - x) % modulus


class _BrentEquations:
    """The equations that the flat vector x of all entries of u, v, w has to solve.

    Attributes:
      solution: (unknowns,) int64, the solution modulo 2, with entries 0 and 1.
    """

    def __init__(self, factorization: Factorization) -> None:
        n, m, p = factorization.sizes
        i, j, k = np.indices((n, m, p))
        self._target = np.zeros((n * m, m * p, p * n), dtype=np.int64)
        self._target[i * m + j, j * p + k, k * n + i] = 1
        self._shape = (-1, factorization.rank)
        self._bounds = np.cumsum([factorization.u.size, factorization.v.size])
        factors = (factorization.u, factorization.v, factorization.w)
        self.solution = np.concatenate([factor.ravel() for factor in factors])

    def split(self, x: np.ndarray) -> list[np.ndarray]:
        """The factors u, v, w in x."""
        return [part.reshape(self._shape) for part in np.split(x, self._bounds)]

    def error(self, x: np.ndarray) -> np.ndarray:
        """E(x) as a flat int64 array (equations,)."""
        u, v, w = self.split(x)
        pairs = (u[:, None, :] * v[None, :, :]).reshape(self._shape)
        return self._target.ravel() - (pairs @ w.T).ravel()

    def digit(self, x: np.ndarray, k: int) -> np.ndarray:
        """E(x) / 2^k modulo 2 for an x with E(x) = 0 modulo 2^k: (equations,) uint8."""
        return (self.error(x) >> k & 1).astype(np.uint8)

    def jacobian(self) -> np.ndarray:
        """J, a uint8 array (equations, unknowns) of zeros and ones."""
        u, v, w = (factor.astype(np.uint8) for factor in self.split(self.solution))
        eye_u, eye_v, eye_w = (np.eye(len(factor), dtype=np.uint8) for factor in (u, v, w))
        blocks = (
            np.einsum("ax,br,cr->abcxr", eye_u, v, w),
            np.einsum("ar,bx,cr->abcxr", u, eye_v, w),
            np.einsum("ar,br,cx->abcxr", u, v, eye_w),
        )
        return np.concatenate([b.reshape(self._target.size, -1) for b in blocks], axis=1)


class _Elimination:
    """Gauss-Jordan elimination modulo 2 of a 0/1 matrix, reusable for many right-hand sides.

    Args:
      matrix: (rows, columns) uint8.
      order: a permutation of the columns; earlier ones are preferred as pivots.

    Attributes:
      unused: (rows,) bool, the rows without pivot, where a reduced right-hand side has to vanish.
      kernel: (nullity, columns) int64, a basis of the kernel, in the given order of the free
        columns; each vector uses its free column and pivots that come before it only.
    """

    def __init__(self, matrix: np.ndarray, order: np.ndarray) -> None:
        rows, columns = matrix.shape
        packed = np.packbits(matrix[:, order], axis=1, bitorder="little")
        padded = np.zeros((rows, -(-columns // 64) * 8), dtype=np.uint8)
        padded[:, : packed.shape[1]] = packed
        words = padded.view("<u8")
        self._columns = columns
        self._cleared: list[np.ndarray] = []
        pivot_rows: list[int] = []
        pivot_columns: list[int] = []
        kernel = []
        self.unused = np.ones(rows, dtype=bool)
        for position, column in enumerate(order.tolist()):
            word, bit = divmod(position, 64)
            entries = (words[:, word] >> np.uint64(bit) & np.uint64(1)).astype(bool)
            candidates = entries & self.unused
            pivot = int(candidates.argmax())
            if not candidates[pivot]:
                vector = np.zeros(columns, dtype=np.int64)
                vector[column] = 1
                vector[pivot_columns] = entries[pivot_rows]
                kernel.append(vector)
                continue
            entries[pivot] = False
            cleared = np.flatnonzero(entries).astype(np.int32)
            # Words to the left hold only finished columns, which are not looked at again.
            words[cleared, word:] ^= words[pivot, word:]
            self.unused[pivot] = False
            self._cleared.append(cleared)
            pivot_rows.append(pivot)
            pivot_columns.append(column)
        self._pivot_rows, self._pivot_columns = pivot_rows, pivot_columns
        self.kernel = np.array(kernel, dtype=np.int64).reshape(-1, columns)

    def reduce(self, sides: np.ndarray) -> np.ndarray:
        """Applies the row operations to right-hand sides, the columns of (rows, n) uint8."""
        packed = np.packbits(sides, axis=1)
        for pivot, cleared in zip(self._pivot_rows, self._cleared, strict=True):
            if packed[pivot].any():
                packed[cleared] ^= packed[pivot]
        return np.unpackbits(packed, axis=1, count=sides.shape[1])

    def solve(self, side: np.ndarray) -> np.ndarray | None:
        """The solution (columns,) int64 with all free entries 0, or None if there is none."""
        reduced = self.reduce(side[:, None])[:, 0]
        if reduced[self.unused].any():
            return None
        solution = np.zeros(self._columns, dtype=np.int64)
        solution[self._pivot_columns] = reduced[self._pivot_rows]
        return solution
