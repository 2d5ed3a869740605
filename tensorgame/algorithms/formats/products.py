"""Algorithms as text, one product per line: ``(a11 + a22)*(b11 + b22)*(c11 + c22)``.

So are algorithms published with flip graphs (jakobmoosbauer/flips, mkauers/matrix-multiplication,
jakobmoosbauer/symmetric-flips). A line is a term of the trilinear form: for matrices ``c_ki``
stands for entry k, i of the *transpose* of C, so that ``c21`` says that the product is added to
c_12. Indices from 10 on are set apart: ``a1_10``. For other targets entries are counted from one
in the order of the tensor: ``a7``.

What is read is more: coefficients (``2*a11``, ``2 a11``, ``1/2*a11``), factors without ``*`` or
parentheses, factors of a product or a sum, and divisors (``-3*(a12 - a13)``, ``.../9``). Lines
that start with # are comments. Two of them, ``# target: NAME`` and ``# modulus: P``, are written
where the products alone would be read as another algorithm; without them the target is the
multiplication of the smallest matrices that have all indices.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from tensorgame import targets
from tensorgame.algorithms.factorization import Factorization
from tensorgame.algorithms.formats import inference
from tensorgame.targets import Target

_TOKEN = re.compile(r"\s*(?:\d+|[abc]\d{1,4}(_\d{1,4})?|[-+*/()])", re.IGNORECASE)
_HEADER = re.compile(r"#\s*(target|modulus):\s*(\S+)")

_Number = int | Fraction
_Form = dict[str, _Number]


def write(factorization: Factorization) -> bytes:
    """The products, after comments with the target and the modulus if these do not follow.

    Raises:
      ValueError: there are imaginary parts, or the target has no name of its own.
    """
    target = factorization.target
    if factorization.is_complex:
        raise ValueError(f"products as text hold no imaginary parts; {factorization.ring} has them")
    if not inference.has_name(target):
        raise ValueError(f"products as text do not hold the tensor of {target.name}")
    factors = (factorization.u, factorization.v, factorization.w)
    texts = [
        [_form_text(column, names, factorization.denominator) for column in factor.T.tolist()]
        for factor, names in zip(factors, _variables(target), strict=True)
    ]
    text = "".join("*".join(product) + "\n" for product in zip(*texts, strict=True))
    if not _matrix_sizes(target) or not _are_same(read(text), factorization):
        text = f"# target: {target.name}\n# modulus: {factorization.modulus}\n{text}"
    return text.encode()


def read(text: str) -> Factorization:
    """An algorithm from its products.

    Raises:
      ValueError: a line is no product of one sum each of a, b and c, or has a wrong index.
    """
    header, products = {}, []
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#"):
            header |= [match.groups() for match in _HEADER.finditer(line)]
        elif line.strip():
            try:
                products.append(_Parser(line).parse())
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
    if not products:
        raise ValueError("the text holds no products")
    if "target" in header:
        target = inference.target_of(header["target"], None)
    else:
        target = _smallest_target(products)
    rows = [{name: row for row, name in enumerate(names)} for names in _variables(target)]
    factors = [
        [_vector(product[mode], rows[mode], target) for product in products] for mode in range(3)
    ]
    fields = inference.over_common_denominator(factors)
    if "modulus" not in header:
        return inference.infer_ring(Factorization(target=target, **fields))
    if not re.fullmatch(r"\d{1,18}", header["modulus"]):
        raise ValueError(f"the modulus is {header['modulus']!r}; it has to be an integer")
    return Factorization(target=target, modulus=int(header["modulus"]), **fields)


def _matrix_sizes(target: Target) -> tuple[int, int, int] | None:
    """(n, m, p) of a target of the family matmul."""
    family, _, sizes = target.name.partition(":")
    return tuple(int(size) for size in sizes.split(",")) if family == "matmul" else None


def _variables(target: Target) -> list[list[str]]:
    """The names of the entries along each mode."""
    sizes = _matrix_sizes(target)
    if not sizes:
        sides = zip("abc", target.shape, strict=True)
        return [[f"{letter}{i + 1}" for i in range(side)] for letter, side in sides]
    n, m, p = sizes
    gap = "_" if max(sizes) > 9 else ""
    return [
        [f"{letter}{i + 1}{gap}{j + 1}" for i in range(rows) for j in range(columns)]
        for letter, rows, columns in (("a", n, m), ("b", m, p), ("c", p, n))
    ]


def _smallest_target(products: Sequence[Sequence[_Form]]) -> Target:
    """The product of the smallest matrices that have all entries."""
    largest = {letter: [0, 0] for letter in "abc"}
    for variable in {name for product in products for form in product for name in form}:
        indices = [int(i) for i in _split(variable)]
        largest[variable[0]] = [
            max(pair) for pair in zip(largest[variable[0]], indices, strict=True)
        ]
    (n, m), (m_too, p), (p_too, n_too) = largest.values()
    sizes = (max(n, n_too), max(m, m_too), max(p, p_too))
    inference.matmul_sides(sizes)
    return targets.matmul(*sizes)


def _split(variable: str) -> tuple[str, str]:
    """The two indices of an entry of a matrix."""
    first, _, second = variable[1:].partition("_")
    if not second and len(first) == 2:
        first, second = first
    if not second:
        raise ValueError(f"{variable} needs two indices, set apart from 10 on as in a1_10")
    return first, second


def _vector(form: _Form, rows: dict[str, int], target: Target) -> list[_Number]:
    """The coefficients of all entries along one mode."""
    vector: list[_Number] = [0] * len(rows)
    for variable, coefficient in form.items():
        name = variable
        if name not in rows and _matrix_sizes(target):
            # Indices may be set apart where it is not needed, and the other way round.
            first, second = _split(variable)
            gap = "" if "_" in variable else "_"
            name = f"{variable[0]}{first}{gap}{second}"
        if name not in rows:
            raise ValueError(f"{variable} is no entry of {target.name}")
        vector[rows[name]] += coefficient
    return vector


def _form_text(coefficients: Sequence[int], names: Sequence[str], denominator: int) -> str:
    """A sum in parentheses, such as (a11 - 1/2*a22)."""
    text = ""
    for coefficient, name in zip(coefficients, names, strict=True):
        if coefficient:
            sign = "-" if coefficient < 0 else "+"
            size = Fraction(abs(coefficient), denominator)
            term = name if size == 1 else f"{size}*{name}"
            text += f" {sign} {term}" if text else f"{sign}{term}".removeprefix("+")
    return f"({text or f'0*{names[0]}'})"


def _are_same(one: Factorization, other: Factorization) -> bool:
    def plain(factorization: Factorization) -> tuple[str, int, int, int]:
        name, rank = factorization.target.name, factorization.rank
        return name, factorization.modulus, factorization.denominator, rank

    arrays = ((one.u, other.u), (one.v, other.v), (one.w, other.w))
    return plain(one) == plain(other) and all(np.array_equal(a, b) for a, b in arrays)


@dataclasses.dataclass(frozen=True)
class _Term:
    """A number times sums of variables."""

    scale: _Number
    forms: tuple[_Form, ...]


class _Parser:
    """Reads one product by recursive descent."""

    def __init__(self, line: str) -> None:
        self._tokens: list[re.Match[str]] = []
        self._position = 0
        line, start = line.rstrip(), 0
        while start < len(line):
            token = _TOKEN.match(line, start)
            if not token:
                raise ValueError(f"{line[start:].strip()!r:.30} is not understood")
            self._tokens.append(token)
            start = token.end()

    def parse(self) -> tuple[_Form, _Form, _Form]:
        """The sums of a, b and c, with all factors moved to the last."""
        term = self._sum()
        if self._next():
            raise ValueError(f"{self._next()!r} is not understood here")
        forms = {variable[0]: form for form in term.forms for variable in form}
        letters = [{variable[0] for variable in form} for form in term.forms]
        if sorted(map(sorted, letters)) != [["a"], ["b"], ["c"]]:
            raise ValueError("this is no product of one sum each of a, b and c")
        scaled = {variable: term.scale * x for variable, x in forms["c"].items()}
        return forms["a"], forms["b"], scaled

    def _next(self) -> str:
        """The next token, or an empty text at the end."""
        if self._position == len(self._tokens):
            return ""
        return self._tokens[self._position].group().strip().lower()

    def _sum(self) -> _Term:
        terms = [self._signed()]
        while self._next() in ("+", "-"):
            terms.append(self._signed())
        if len(terms) == 1:
            return terms[0]
        if any(len(term.forms) != 1 for term in terms):
            raise ValueError("a sum has terms other than multiples of one variable")
        total: _Form = {}
        for term in terms:
            for variable, x in term.forms[0].items():
                total[variable] = total.get(variable, 0) + term.scale * x
        return _Term(1, (total,))

    def _signed(self) -> _Term:
        sign = 1
        while self._next() in ("+", "-"):
            sign = -sign if self._next() == "-" else sign
            self._position += 1
        term = self._product()
        return _Term(sign * term.scale, term.forms)

    def _product(self) -> _Term:
        term = self._atom()
        while self._next() not in ("", "+", "-", ")"):
            operator = self._next()
            self._position += operator in ("*", "/")
            factor = self._atom()
            if operator != "/":
                term = _Term(term.scale * factor.scale, term.forms + factor.forms)
            elif factor.forms or not factor.scale:
                raise ValueError("a divisor has to be a number other than zero")
            else:
                term = _Term(Fraction(term.scale) / factor.scale, term.forms)
        return term

    def _atom(self) -> _Term:
        token = self._next()
        self._position += 1
        if token == "(":
            term = self._sum()
            if self._next() != ")":
                raise ValueError("a parenthesis is not closed")
            self._position += 1
            if len(term.forms) != 1:
                return term
            # So that the factors of a single sum stay with it.
            form = {variable: term.scale * x for variable, x in term.forms[0].items()}
            return _Term(1, (form,))
        if token[:1].isdigit():
            return _Term(int(token), ())
        if token[:1] in ("a", "b", "c"):
            return _Term(1, ({token: 1},))
        raise ValueError(f"{token!r} is not understood here" if token else "the line is cut off")
