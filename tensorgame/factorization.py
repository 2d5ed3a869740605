"""A matrix multiplication algorithm as three integer factor matrices, and its exact proof.

The target <n,m,p> is the tensor ``T[i*m + j, j*p + k, k*n + i] = 1`` of shape (nm, mp, pn): the
third mode is C transposed, flattened as p x n. Product r is ``m_r = (u_r . A)(v_r . B)``, and row
k*n + i of ``w`` says how the products add up to entry (i, k) of C = A B.

This module needs NumPy only and shares no code with the game, so that what the game finds is
proved by something that knows nothing of how it was found.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import operator
import os
import pathlib
import uuid

import numpy as np

_INT64_MAX = 2**63 - 1


class IncorrectFactorization(ValueError):  # noqa: N818
    """The products do not compute the matrix product."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Factorization:
    """R products that are meant to multiply an n x m matrix by an m x p matrix.

    Attributes:
      sizes: (n, m, p), each at least 1.
      modulus: 0 for the integers, 2 for arithmetic modulo 2.
      u, v, w: read-only int64 arrays of shapes (nm, R), (mp, R) and (pn, R), reduced modulo
        ``modulus``. Any array of an integer dtype is accepted; it is copied.

    Building one checks its form only; ``check`` proves that it is right.

    Raises:
      ValueError: a field has a wrong type, shape or value.
    """

    sizes: tuple[int, int, int]
    modulus: int
    u: np.ndarray
    v: np.ndarray
    w: np.ndarray

    def __post_init__(self) -> None:
        try:
            n, m, p = sizes = tuple(operator.index(size) for size in self.sizes)
        except (TypeError, ValueError):
            sizes = (0,)
        if min(sizes) < 1:
            raise ValueError(f"sizes is {self.sizes!r}; it has to be three positive integers")
        try:
            modulus = operator.index(self.modulus)
        except TypeError:
            modulus = -1
        if modulus not in (0, 2):
            raise ValueError(f"modulus is {self.modulus!r}; it has to be 0 (the integers) or 2")
        object.__setattr__(self, "sizes", sizes)
        object.__setattr__(self, "modulus", modulus)
        for name, rows in (("u", n * m), ("v", m * p), ("w", p * n)):
            object.__setattr__(self, name, self._checked_factor(name, rows))
        ranks = [factor.shape[1] for factor in (self.u, self.v, self.w)]
        if len(set(ranks)) > 1:
            raise ValueError(f"u, v, w have {ranks} columns; all need one column per product")

    def _checked_factor(self, name: str, rows: int) -> np.ndarray:
        given = np.asarray(getattr(self, name))
        if not np.issubdtype(given.dtype, np.integer):
            raise ValueError(f"{name} has dtype {given.dtype}; it has to be an integer dtype")
        if given.ndim != 2 or given.shape[0] != rows or given.shape[1] < 1:
            raise ValueError(
                f"{name} has shape {given.shape}; for sizes {self.sizes} it has to be ({rows}, R) "
                "with R >= 1"
            )
        if int(given.max()) > _INT64_MAX:
            raise ValueError(f"{name} holds {given.max()}; its entries have to fit into int64")
        factor = given.astype(np.int64)
        if self.modulus:
            factor %= self.modulus
        factor.setflags(write=False)
        return factor

    @property
    def rank(self) -> int:
        """The number of products R."""
        return self.u.shape[1]

    @property
    def trivial_rank(self) -> int:
        """The number of products of the schoolbook algorithm, n*m*p."""
        n, m, p = self.sizes
        return n * m * p

    @property
    def ring_name(self) -> str:
        """Z or Z_2."""
        return "Z_2" if self.modulus else "Z"

    def check(self) -> str:
        """Proves the algorithm exactly, and returns the line that says so.

        The algorithm is bilinear, so it is right if it is right for every pair of unit matrices:
        it runs on all of them, and NumPy's own product of each pair is what it has to give.

        Raises:
          IncorrectFactorization: some entries are wrong; the message counts them and shows one.
        """
        n, m, p = self.sizes
        factors = (self.u, self.v, self.w)
        largest_u, largest_v, largest_w = (
            np.abs(factor.astype(object)).max(axis=0, initial=1) for factor in factors
        )
        # No intermediate value exceeds this sum of Python ints, so int64 is exact below its limit.
        bound = (largest_u * largest_v * largest_w).sum()
        exact = np.int64 if bound <= _INT64_MAX else object
        u, v, w = (factor.astype(exact) for factor in factors)

        a, b = np.eye(n * m, dtype=np.int64), np.eye(m * p, dtype=np.int64)
        products = (a.astype(exact) @ u)[:, None, :] * (b.astype(exact) @ v)[None, :, :]
        c_transposed = (products @ w.T).reshape(n * m, m * p, p, n)
        got = c_transposed.swapaxes(2, 3)
        if self.modulus:
            got = got % self.modulus
        want = a.reshape(-1, 1, n, m) @ b.reshape(1, -1, m, p)
        wrong = np.argwhere(got != want)
        if len(wrong):
            s, t, i, k = (int(index) for index in wrong[0])
            raise IncorrectFactorization(
                f"{len(wrong)} of the {want.size} entries are wrong over {self.ring_name}: the "
                f"coefficient of a{self._index(*divmod(s, m))} b{self._index(*divmod(t, p))} in "
                f"c{self._index(i, k)} is {got[s, t, i, k]}, not {want[s, t, i, k]}"
            )
        return (
            f"checked: {self.rank} products reproduce all {want.size} entries over {self.ring_name}"
        )

    def coefficients(self) -> tuple[int, ...]:
        """The distinct entries of u, v and w in increasing order."""
        return tuple(np.unique(np.concatenate([self.u, self.v, self.w])).tolist())

    def equations(self) -> str:
        """The algorithm as text: one line per product, then one per entry of C = A B."""
        n, m, p = self.sizes
        a = [f"a{self._index(i, j)}" for i in range(n) for j in range(m)]
        b = [f"b{self._index(j, k)}" for j in range(m) for k in range(p)]
        products = [f"m{r + 1}" for r in range(self.rank)]
        lines = ["All arithmetic is mod 2."] if self.modulus else []
        for name, u, v in zip(products, self.u.T, self.v.T, strict=True):
            left, right = _factor_text(u, a), _factor_text(v, b)
            gap = "" if left.endswith(")") and right.startswith("(") else " "
            lines.append(f"{name} = {left}{gap}{right}")
        for i, k in np.ndindex(n, p):
            lines.append(f"c{self._index(i, k)} = {_sum_text(self.w[k * n + i], products)}")
        return "\n".join(lines)

    def canonical(self) -> Factorization:
        """The same products with their signs moved: each u_r and v_r starts with a positive entry.

        A product that vanishes gets all three of its signs so. Over Z_2 nothing changes.
        """
        sign_u, sign_v, sign_w = (_leading_signs(factor) for factor in (self.u, self.v, self.w))
        vanishes = ~(self.u.any(axis=0) & self.v.any(axis=0))
        sign_w = np.where(vanishes, sign_w, sign_u * sign_v)
        return dataclasses.replace(self, u=self.u * sign_u, v=self.v * sign_v, w=self.w * sign_w)

    def key(self) -> bytes:
        """A SHA-256 digest of the sizes, the modulus and the multiset of canonical products.

        It ignores the order of the products and, over Z, moves of signs within a product.
        """
        canonical = self.canonical()
        rows = np.concatenate([canonical.u, canonical.v, canonical.w]).T
        header = np.array([*self.sizes, self.modulus])
        content = np.concatenate([header, rows[np.lexsort(rows.T)].ravel()])
        return hashlib.sha256(content.astype("<i8").tobytes()).digest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes an .npz with int64 arrays u, v, w, sizes (3,) and modulus (), atomically.

        Raises:
          OSError: the file cannot be written; a file that was there before is left as it was.
        """
        buffer = io.BytesIO()
        header = {name: np.array(getattr(self, name), np.int64) for name in ("sizes", "modulus")}
        np.savez(buffer, u=self.u, v=self.v, w=self.w, **header)
        _write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Factorization:
        """Reads what ``save`` wrote. The result has the right form; only ``check`` proves it.

        Raises:
          OSError: the file cannot be read.
          ValueError: the file is not such an .npz, is damaged, or holds unusable values. Pickled
            objects are never unpickled.
        """
        content = io.BytesIO(pathlib.Path(path).read_bytes())
        names = [field.name for field in dataclasses.fields(cls)]
        try:
            with np.load(content, allow_pickle=False) as archive:
                return cls(**{name: archive[name] for name in names})
        except Exception as error:  # damaged archives raise errors of a dozen unrelated types
            raise ValueError(
                f"{path} is not an intact .npz with the plain arrays {', '.join(names)}: "
                f"{type(error).__name__}: {error}"
            ) from error

    def save_text(self, path: str | os.PathLike[str]) -> None:
        """Writes a header, the line of the proof and the equations as UTF-8, atomically.

        Raises:
          IncorrectFactorization: the algorithm is wrong; nothing is written.
          OSError: the file cannot be written; a file that was there before is left as it was.
        """
        n, m, p = self.sizes
        header = f"<{n},{m},{p}> with {self.rank} products over {self.ring_name}"
        text = f"{header} (schoolbook: {self.trivial_rank})\n{self.check()}\n\n{self.equations()}\n"
        _write_atomically(path, text.encode())

    def _index(self, row: int, column: int) -> str:
        separator = "" if max(self.sizes) <= 9 else "_"
        return f"{row + 1}{separator}{column + 1}"


def _leading_signs(factor: np.ndarray) -> np.ndarray:
    """The sign of the first nonzero entry of each column, 1 for a zero column: (R,) int64."""
    first = np.take_along_axis(factor, (factor != 0).argmax(axis=0)[None], axis=0)[0]
    return np.where(first < 0, -1, 1)


def _sum_text(coefficients: np.ndarray, names: list[str]) -> str:
    terms = []
    for coefficient, name in zip(coefficients.tolist(), names, strict=True):
        if coefficient:
            sign = "\N{MINUS SIGN}" if coefficient < 0 else "+"
            size = "" if abs(coefficient) == 1 else f"{abs(coefficient)}\N{MIDDLE DOT}"
            first = sign.strip("+")
            terms.append(f" {sign} {size}{name}" if terms else f"{first}{size}{name}")
    return "".join(terms) or "0"


def _factor_text(coefficients: np.ndarray, names: list[str]) -> str:
    text = _sum_text(coefficients, names)
    return text if text in names else f"({text})"


def _write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    target = pathlib.Path(path)
    # The rename is atomic only within one folder; `tempfile` would make the file private (0600).
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
