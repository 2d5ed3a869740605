"""The symmetries of matrix multiplication, acting on its algorithms.

An algorithm for <n, m, p> writes ``trace(A B C) = sum_r <U_r, A> <V_r, B> <W_r, C>`` with C of
p x n and ``<U, A> = sum_ij U_ij A_ij``, where U_r, V_r, W_r are columns of the factors as matrices
of n x m, m x p and p x n. So three kinds of maps take algorithms to algorithms:

* `transform`: ``U_r -> x U_r y^-1, V_r -> y V_r z^-1, W_r -> z W_r x^-1`` (sandwiching), from
  ``trace(A B C) = trace(X A Y^-1 . Y B Z^-1 . Z C X^-1)`` with ``x = X^T`` and so on;
* `rotate`: ``(U, V, W) -> (V, W, U)``, from <n, m, p> to <m, p, n>;
* `transpose`: ``(U, V, W) -> (W^T, V^T, U^T)``, from <n, m, p> to <n, p, m>.

For n = m = p there are no other symmetries (de Groote, "On varieties of optimal algorithms for the
computation of bilinear mappings", 1978).
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from tensorgame.algorithms.factorization import Factorization
from tensorgame.algorithms.linear_algebra import embed, inverse, reciprocal, reduced
from tensorgame.targets import Target, matmul

# Fractions, or residues, of shape (R, L, e): e is 2 for real and imaginary parts, otherwise 1.
_Vectors = np.ndarray


def sizes(target: Target) -> tuple[int, int, int] | None:
    """(n, m, p) if the tensor is that of `tensorgame.targets.matmul`, else None."""
    first, second, third = target.shape
    n = math.isqrt(first * third // second)
    m = math.isqrt(first * second // third)
    p = math.isqrt(second * third // first)
    if (n * m, m * p, p * n) != target.shape or matmul(n, m, p) != target:
        return None
    return n, m, p


def transform(
    factorization: Factorization, x: np.ndarray, y: np.ndarray, z: np.ndarray
) -> Factorization:
    """Sandwiching: U_r -> x U_r y^-1, V_r -> y V_r z^-1, W_r -> z W_r x^-1.

    Args:
      factorization: an algorithm for <n, m, p>.
      x: an invertible matrix (n, n) of integers or ``Fraction``, or with a last axis of two for
        the real and the imaginary part.
      y: the same, (m, m).
      z: the same, (p, p).

    Raises:
      ValueError: the target is no matrix multiplication, a matrix has a wrong shape or no inverse
        in the field, or the result does not fit into int64.
    """
    vectors = _sandwiched(factorization, x, y, z)
    return _from_vectors(factorization, vectors)


def _sandwiched(
    factorization: Factorization, x: np.ndarray, y: np.ndarray, z: np.ndarray
) -> list[_Vectors]:
    """The factors of `transform`, exact."""
    lengths, modulus = _matmul_sizes(factorization), factorization.modulus
    given = {"x": np.asarray(x), "y": np.asarray(y), "z": np.asarray(z)}
    is_complex = factorization.is_complex or any(matrix.ndim == 3 for matrix in given.values())
    pairs = [
        _with_inverse(name, matrix, length, modulus, is_complex)
        for (name, matrix), length in zip(given.items(), lengths, strict=True)
    ]
    vectors = []
    for mode, matrices in enumerate(matrix_factors(factorization, is_complex)):
        moved = pairs[mode][0] @ matrices @ pairs[(mode + 1) % 3][1]
        moved = reduced(moved, modulus)
        if not modulus:
            moved = moved * Fraction(1, factorization.denominator)
        vectors.append(as_vectors(moved, is_complex))
    return vectors


def as_vectors(matrices: np.ndarray, is_complex: bool) -> _Vectors:
    """Matrices (R, rows, columns), embedded if complex, as vectors."""
    parts = [matrices[:, ::2, ::2], matrices[:, 1::2, ::2]] if is_complex else [matrices]
    return np.stack([part.reshape(len(matrices), -1) for part in parts], -1)


def rotate(factorization: Factorization) -> Factorization:
    """(U, V, W) -> (V, W, U): an algorithm for <n, m, p> becomes one for <m, p, n>.

    Raises:
      ValueError: the target is no matrix multiplication.
    """
    n, m, p = _matmul_sizes(factorization)
    f = factorization
    return dataclasses.replace(f, target=matmul(m, p, n), u=f.v, v=f.w, w=f.u)


def transpose(factorization: Factorization) -> Factorization:
    """(U, V, W) -> (W^T, V^T, U^T): an algorithm for <n, m, p> becomes one for <n, p, m>.

    Raises:
      ValueError: the target is no matrix multiplication.
    """
    n, m, p = _matmul_sizes(factorization)
    u, v, w = (
        factor.reshape(rows, columns, *factor.shape[1:]).swapaxes(0, 1).reshape(factor.shape)
        for factor, rows, columns in zip(
            (factorization.u, factorization.v, factorization.w), (n, m, p), (m, p, n), strict=True
        )
    )
    return dataclasses.replace(factorization, target=matmul(n, p, m), u=w, v=v, w=u)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Transformation:
    """A symmetry and the permutation of the products that goes with it.

    Attributes:
      transposed: whether `transpose` comes first.
      rotations: how often `rotate` comes next, 0 to 2.
      sandwich: x, y and z of `transform`, which comes last: arrays of dtype object with integers
        or fractions; None for the identity.
      permutation: product r of the image, as a tensor of rank one, is product ``permutation[r]``
        of the other algorithm.
    """

    transposed: bool
    rotations: int
    sandwich: tuple[np.ndarray, np.ndarray, np.ndarray] | None
    permutation: tuple[int, ...]

    def apply(self, factorization: Factorization) -> Factorization:
        """The image, its products in the order of those of the argument."""
        image = turn(factorization, self.transposed, self.rotations)
        return transform(image, *self.sandwich) if self.sandwich is not None else image

    def maps(self, source: Factorization, image: Factorization) -> bool:
        """Whether it takes the products of the source exactly to those of the image."""
        if sorted(self.permutation) != list(range(image.rank)) or source.rank != image.rank:
            return False
        moved = turn(source, self.transposed, self.rotations)
        if moved.target != image.target or moved.modulus != image.modulus:
            return False
        keys = product_keys(image)
        return image_keys(moved, self.sandwich) == [keys[s] for s in self.permutation]


def turn(factorization: Factorization, transposed: bool, rotations: int) -> Factorization:
    """`transpose`, if so wanted, and then `rotate` as often as wanted."""
    image = transpose(factorization) if transposed else factorization
    for _ in range(rotations):
        image = rotate(image)
    return image


def matching(first: Factorization, second: Factorization) -> tuple[int, ...] | None:
    """The permutation that makes the products equal as tensors of rank one.

    Product r of the first is product ``permutation[r]`` of the second up to factors a, b, c with
    a b c = 1 on u, v, w. All products with a factor of zero count as equal. None if there is no
    such permutation.
    """
    if first.modulus != second.modulus or first.rank != second.rank:
        return None
    return match_keys(product_keys(first), product_keys(second))


def match_keys(first: Sequence[tuple], second: Sequence[tuple]) -> tuple[int, ...] | None:
    """The permutation with ``first[r] == second[permutation[r]]``, if there is one."""
    places: dict[tuple, list[int]] = defaultdict(list)
    for s, key in enumerate(second):
        places[key].append(s)
    permutation = []
    for key in first:
        if not places[key]:
            return None
        permutation.append(places[key].pop(0))
    return tuple(permutation)


def product_keys(factorization: Factorization) -> list[tuple]:
    """One tuple a product, the same for equal tensors of rank one and only for those."""
    vectors = []
    for factor in (factorization.u, factorization.v, factorization.w):
        parts = factor if factorization.is_complex else factor[..., None]
        exact = parts.swapaxes(0, 1).astype(object)
        if not factorization.modulus:
            exact = exact * Fraction(1, factorization.denominator)
        vectors.append(exact)
    return _keys(vectors, factorization.modulus)


def image_keys(
    factorization: Factorization, sandwich: tuple[np.ndarray, np.ndarray, np.ndarray] | None
) -> list[tuple]:
    """`product_keys` of the image under `transform`, also where that does not fit into int64."""
    if sandwich is None:
        return product_keys(factorization)
    return _keys(_sandwiched(factorization, *sandwich), factorization.modulus)


def _keys(vectors: list[_Vectors], modulus: int) -> list[tuple]:
    rows = canonical_rows(*vectors, modulus)
    if rows.shape[2] == 2 and not rows[..., 1].any():
        rows = rows[..., :1]
    return [tuple(row) for row in rows.reshape(len(rows), -1)]


def canonical_rows(u: _Vectors, v: _Vectors, w: _Vectors, modulus: int) -> np.ndarray:
    """u, v, w side by side, (R, I + J + K, e), scaled so that u_r and v_r begin with a one.

    A product with a factor of zero becomes zero.
    """
    u, first = monic(u, modulus)
    v, second = monic(v, modulus)
    w = times(w, times(first, second, modulus)[:, None], modulus)
    rows = np.concatenate([u, v, w], axis=1)
    rows[~w.any((1, 2))] = 0
    return rows


def monic(vectors: _Vectors, modulus: int) -> tuple[_Vectors, np.ndarray]:
    """The vectors divided by their first nonzero entry, and these entries (R, e)."""
    first = vectors.any(2).argmax(1)
    leading = vectors[np.arange(len(vectors)), first]
    conjugate = leading * np.array([1, -1])[: leading.shape[1]]
    norms = reduced((leading * leading).sum(1), modulus)
    if leading.shape[1] == 1:
        conjugate, norms = np.ones_like(leading), leading[:, 0]
    inverses = [reciprocal(norm, modulus) if norm else 0 for norm in norms.tolist()]
    scales = conjugate * np.array(inverses, vectors.dtype)[:, None]
    return times(vectors, reduced(scales, modulus)[:, None], modulus), leading


def times(a: np.ndarray, b: np.ndarray, modulus: int) -> np.ndarray:
    """Products of real (..., 1) or complex (..., 2) numbers."""
    if a.shape[-1] == 1:
        return reduced(a * b, modulus)
    (a_re, a_im), (b_re, b_im) = np.moveaxis(a, -1, 0), np.moveaxis(b, -1, 0)
    product = np.stack([a_re * b_re - a_im * b_im, a_re * b_im + a_im * b_re], -1)
    return reduced(product, modulus)


def matrix_factors(factorization: Factorization, is_complex: bool) -> list[np.ndarray]:
    """U, V, W as (R, n, m), (R, m, p), (R, p, n) of Python integers, numerators only.

    With ``is_complex`` the matrices are embedded and have twice the rows and columns.
    """
    n, m, p = _matmul_sizes(factorization)
    matrices = []
    for factor, shape in zip(
        (factorization.u, factorization.v, factorization.w), ((n, m), (m, p), (p, n)), strict=True
    ):
        parts = factor if factorization.is_complex else factor[..., None]
        parts = parts.astype(object)
        real = parts[..., 0].T.reshape(-1, *shape)
        if is_complex:
            imaginary = parts[..., -1] if factorization.is_complex else 0 * parts[..., 0]
            real = embed(real, imaginary.T.reshape(-1, *shape))
        matrices.append(real)
    return matrices


def _matmul_sizes(factorization: Factorization) -> tuple[int, int, int]:
    found = sizes(factorization.target)
    if found is None:
        raise ValueError(
            f"target is {factorization.target.name}; only matrix multiplication (matmul:n,m,p) has "
            "these symmetries"
        )
    return found


def _with_inverse(
    name: str, given: np.ndarray, length: int, modulus: int, is_complex: bool
) -> tuple[np.ndarray, np.ndarray]:
    """A sandwich matrix, embedded if wanted, and its inverse."""
    if given.shape not in [(length, length), (length, length, 2)]:
        raise ValueError(
            f"{name} has shape {given.shape}; it has to be ({length}, {length}), or "
            f"({length}, {length}, 2) with imaginary parts"
        )
    if given.ndim == 3 and modulus:
        raise ValueError(f"{name} has imaginary parts; modulo {modulus} it has to have none")
    try:
        exact = np.array([Fraction(entry) for entry in given.ravel().tolist()], object)
        if modulus:
            exact = [entry.numerator * pow(entry.denominator, -1, modulus) for entry in exact]
            exact = np.array([entry % modulus for entry in exact], object)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} has an entry outside the field: {error}") from None
    matrix = exact.reshape(given.shape)
    if is_complex:
        real = matrix if given.ndim == 2 else matrix[..., 0]
        matrix = embed(real, 0 * real if given.ndim == 2 else matrix[..., 1])
    inverted = inverse(matrix, modulus)
    if inverted is None:
        raise ValueError(f"{name} is singular; it has to be invertible")
    return matrix, inverted.astype(object)


def _from_vectors(original: Factorization, vectors: list[_Vectors]) -> Factorization:
    """The factorization of the same target and modulus with these factors."""
    denominator = 1
    if not original.modulus:
        entries = np.concatenate([factor.ravel() for factor in vectors])
        denominator = math.lcm(*(Fraction(entry).denominator for entry in entries))
    u, v, w = (
        _as_int64(name, factor.swapaxes(0, 1) * denominator)
        for name, factor in zip("uvw", vectors, strict=True)
    )
    if u.shape[2] == 1:
        u, v, w = u[..., 0], v[..., 0], w[..., 0]
    return dataclasses.replace(original, denominator=denominator, u=u, v=v, w=w)


def _as_int64(name: str, values: np.ndarray) -> np.ndarray:
    whole = [int(value) for value in values.ravel()]
    if max(map(abs, whole)) >= 2**63:
        raise ValueError(
            f"{name} of the image needs {max(map(abs, whole))}, beyond int64; take x, y, z with "
            "smaller entries"
        )
    return np.array(whole, np.int64).reshape(values.shape)
