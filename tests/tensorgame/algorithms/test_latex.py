"""Equations in LaTeX."""

import dataclasses
import re

import numpy as np
import pytest

from tensorgame.algorithms import released
from tensorgame.algorithms.factorization import Factorization
from tensorgame.algorithms.latex import latex
from tensorgame.targets import from_tensor


def one_by_one(rank: int, labels: tuple = (("a1",), ("b1",), ("c1",)), **fields) -> Factorization:
    target = dataclasses.replace(from_tensor("t", np.ones((1, 1, 1), int)), labels=labels)
    ones = {name: np.ones((1, rank), int) for name in "uvw"}
    return Factorization(target=target, **(ones | fields))


def test_a_small_algorithm_in_full():
    f = dataclasses.replace(released.load("alphatensor:2,2,2"))
    assert (
        latex(f)
        == r"""{\allowdisplaybreaks
\begin{align*}
  m_{1} &= (a_{21} - a_{22}) b_{12} \\
  m_{2} &= (a_{11} + a_{21} - a_{22})(b_{12} + b_{21} + b_{22}) \\
  m_{3} &= (a_{11} - a_{12} + a_{21} - a_{22})(b_{21} + b_{22}) \\
  m_{4} &= a_{12} b_{21} \\
  m_{5} &= (a_{11} + a_{21})(b_{11} + b_{12} + b_{21} + b_{22}) \\
  m_{6} &= a_{11} b_{11} \\
  m_{7} &= a_{22} (b_{12} + b_{22}) \\
  c_{11} &= m_{4} + m_{6} \\
  c_{12} &= -m_{1} + m_{2} - m_{3} - m_{4} \\
  c_{21} &= -m_{2} + m_{5} - m_{6} - m_{7} \\
  c_{22} &= m_{1} + m_{7}
\end{align*}}"""
    )


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"denominator": 6, "u": [[3, -4]]},
            r"m_{1} &= (\tfrac{1}{2}\,a_{1})(\tfrac{1}{6}\,b_{1})",
        ),
        (
            {"u": [[[1, 1], [0, -2]]], "v": [[[0, 1]] * 2], "w": [[[1, 0]] * 2], "denominator": 2},
            r"m_{1} &= ((\tfrac{1}{2}+\tfrac{i}{2})\,a_{1})(\tfrac{i}{2}\,b_{1})",
        ),
        ({"u": [[0, -2]]}, r"m_{1} &= (0) b_{1}"),
        ({"u": [[0, -2]]}, r"m_{2} &= (-2\,a_{1}) b_{1}"),
        ({"modulus": 3}, r"&\text{All arithmetic is mod"),
        ({"labels": (("x1_12",), ("re1",), ("out",))}, r"m_{1} &= x_{1,12} \mathrm{re}_{1}"),
        ({"labels": (("a_re",), ("b_i",), ("c",))}, r"m_{1} &= a_{\mathrm{re}} b_{i}"),
        ({"labels": (("x1",), ("y",), ("out_c",))}, r"\mathrm{out}_{c} &= m_{1} + m_{2}"),
    ],
)
def test_numbers_and_names(fields, line):
    assert line in latex(one_by_one(2, **fields))


def test_long_equations_continue_and_lose_nothing():
    f = released.load("alphatensor:5,5,5")
    text = latex(f)
    assert max(map(len, text.splitlines())) < 250
    joined = text.replace(" \\\\\n  &\\quad {}", "")
    equations = f.equations().splitlines()
    assert len(joined.splitlines()) == len(equations) + 3
    for line, equation in zip(joined.splitlines()[2:], equations, strict=False):
        plain = re.sub(r"[_{}&\\, ]", "", line)
        for symbol, ascii_symbol in (("\N{MINUS SIGN}", "-"), ("\N{MIDDLE DOT}", "")):
            equation = equation.replace(symbol, ascii_symbol)
        assert plain == re.sub(" ", "", equation)


def test_braces_and_parentheses_match():
    for name in ("3,4,11", "4,4,4:mod2"):
        text = latex(released.load(f"alphatensor:{name}"))
        assert text.count("{") == text.count("}")
        assert text.count("(") == text.count(")")
        assert not re.search(r"[^\x00-\x7f]", text)
