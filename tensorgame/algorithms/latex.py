"""The equations of an algorithm in LaTeX."""

from __future__ import annotations

import re

from tensorgame.algorithms.factorization import Factorization

# Characters of an equation's text that fit on a line of a page.
_LINE = 90

_SYMBOLS = {"\N{MINUS SIGN}": "-", "\N{MIDDLE DOT}": r"\,"}


def latex(factorization: Factorization) -> str:
    """An ``align*`` environment for the package amsmath, in a group that may break across pages.

    Long equations continue on further lines.
    """
    names = {name: _symbol(name) for labels in factorization.target.labels for name in labels}
    names |= {f"m{r + 1}": f"m_{{{r + 1}}}" for r in range(factorization.rank)}
    equations = [_equation(line, names) for line in factorization.equations().splitlines()]
    body = " \\\\\n".join(f"  {equation}" for equation in equations)
    return f"{{\\allowdisplaybreaks\n\\begin{{align*}}\n{body}\n\\end{{align*}}}}"


def _symbol(name: str) -> str:
    """a_{12} for a12, a_{1,12} for a1_12, a_{i} for a_i; words are set upright."""
    letters, indices, word = re.fullmatch(r"([A-Za-z]+)(\d[\d_]*)?(?:_(\w+))?", name).groups()
    index = [indices.replace("_", ",")] if indices else []
    index += [_upright(word)] if word else []
    return _upright(letters) + (f"_{{{','.join(index)}}}" if index else "")


def _upright(word: str) -> str:
    return word if len(word) == 1 else rf"\mathrm{{{word}}}".replace("_", r"\_")


def _equation(line: str, names: dict[str, str]) -> str:
    """A line of `Factorization.equations`, aligned at its equals sign."""
    left, equals, right = line.partition(" = ")
    if not equals:
        return rf"&\text{{{line}}}"
    lines = [""]
    width = 0
    for piece in re.split(r"(?<=[\w)])(?= [+\N{MINUS SIGN}] )", right):
        if width + len(piece) > _LINE:
            lines.append("")
            width = 0
        lines[-1] += _math(piece, names)
        width += len(piece)
    return f"{names[left]} &= " + " \\\\\n  &\\quad {}".join(lines)


def _math(text: str, names: dict[str, str]) -> str:
    text = re.sub(r"(\d*i?)/(\d+)", r"\\tfrac{\1}{\2}", text)
    text = re.sub(r"[A-Za-z]\w*", lambda match: names.get(match[0], match[0]), text)
    for symbol, command in _SYMBOLS.items():
        text = text.replace(symbol, command)
    return text
