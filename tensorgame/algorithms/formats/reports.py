"""Text for people: what the algorithm is, the line of its proof, and its equations."""

from __future__ import annotations

import re

from tensorgame.algorithms.factorization import Factorization


def write(factorization: Factorization) -> bytes:
    """The text, in UTF-8.

    Raises:
      IncorrectFactorization: the algorithm is wrong.
    """
    lines = [factorization.summary(), factorization.check(), "", factorization.equations(), ""]
    return "\n".join(lines).encode()


def recognizes(text: str) -> bool:
    """Whether the text is one that `write` wrote."""
    return re.match(r"[^\n]* products over [^\n]*\nchecked: ", text) is not None
