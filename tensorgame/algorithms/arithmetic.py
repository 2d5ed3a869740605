"""Arithmetic of residues and of Gaussian integers, exact."""

from __future__ import annotations

import numpy as np

Gaussian = tuple[int, int]
"""The real and the imaginary part."""


def residues(x: np.ndarray, modulus: int) -> np.ndarray:
    """The residues of integers in (-modulus/2, modulus/2]; modulo 2 these are 0 and 1."""
    return modulus // 2 - (modulus // 2 - x) % modulus


def gaussian_quotient(x: Gaussian, y: Gaussian) -> Gaussian:
    """The Gaussian integer nearest to x / y."""
    norm = y[0] ** 2 + y[1] ** 2
    parts = (x[0] * y[0] + x[1] * y[1], x[1] * y[0] - x[0] * y[1])
    real, imaginary = ((2 * part + norm) // (2 * norm) for part in parts)
    return real, imaginary


def gaussian_gcd(x: Gaussian, y: Gaussian) -> Gaussian:
    """A greatest common divisor of two Gaussian integers, by Euclid's algorithm."""
    while any(y):
        a, b = gaussian_quotient(x, y)
        x, y = y, (x[0] - a * y[0] + b * y[1], x[1] - a * y[1] - b * y[0])
    return x
