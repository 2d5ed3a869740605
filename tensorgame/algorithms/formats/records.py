"""Algorithms in JSON.

Our own records are objects with ``target``, the name of the target; ``modulus``; ``denominator``;
and ``u``, ``v``, ``w``, lists of rows of R integers each, or with imaginary parts of R pairs. A
target without a name of its own comes with ``tensor``, nested lists of integers.

Schemes as in the collection dronperminov/FastMatrixMultiplication are read too: ``n`` has the three
sizes, and ``u``, ``v``, ``w`` one row per product, of integers and of strings such as "-1/2". The
third mode is transposed as in ours; ``z2`` marks arithmetic modulo 2.
"""

from __future__ import annotations

import itertools
import json
import re
from fractions import Fraction

import numpy as np

from tensorgame import targets
from tensorgame.algorithms.factorization import Factorization
from tensorgame.algorithms.formats import inference


def write(factorization: Factorization) -> bytes:
    """The algorithm as our own record, a row per line."""
    fields = {
        "target": json.dumps(factorization.target.name),
        "modulus": str(factorization.modulus),
        "denominator": str(factorization.denominator),
    }
    fields |= {name: _rows_text(getattr(factorization, name)) for name in "uvw"}
    if not inference.has_name(factorization.target):
        fields["tensor"] = _rows_text(factorization.target.tensor)
    lines = ",\n".join(f"  {json.dumps(name)}: {text}" for name, text in fields.items())
    return f"{{\n{lines}\n}}\n".encode()


def read(text: str) -> Factorization:
    """An algorithm from a record of our own or from a scheme.

    Raises:
      ValueError: it is no such record, or has unusable values.
    """
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"the JSON is damaged: {error}") from None
    scheme = {"n", "u", "v", "w"}
    ours = {"target", "modulus", "denominator", "u", "v", "w"}
    if ours <= set(record):
        return _ours(record)
    if scheme <= set(record):
        return _scheme(record)
    missing = ", ".join(sorted(ours - set(record)))
    raise ValueError(f"the record has no {missing}")


def _rows_text(array: np.ndarray) -> str:
    return "[\n    " + ",\n    ".join(json.dumps(row) for row in array.tolist()) + "\n  ]"


def _ours(record: dict[str, object]) -> Factorization:
    name = record["target"]
    if not isinstance(name, str):
        raise ValueError(f"target is {name!r}; it has to be a name")
    tensor = _integers(record, "tensor") if "tensor" in record else None
    for field in ("modulus", "denominator"):
        if type(record[field]) is not int:
            raise ValueError(f"{field} is {record[field]!r}; it has to be an integer")
    return Factorization(
        target=inference.target_of(name, tensor),
        modulus=record["modulus"],
        denominator=record["denominator"],
        u=_integers(record, "u"),
        v=_integers(record, "v"),
        w=_integers(record, "w"),
    )


def _integers(record: dict[str, object], name: str) -> np.ndarray:
    """Nested lists of integers as an array."""
    shape, leaves = [], [record[name]]
    while leaves and all(isinstance(leaf, list) for leaf in leaves):
        lengths = {len(leaf) for leaf in leaves}
        if len(lengths) > 1:
            raise ValueError(f"{name} is ragged: its lists have {sorted(lengths)} entries")
        shape.append(lengths.pop())
        leaves = list(itertools.chain.from_iterable(leaves))
    for leaf in leaves:
        if type(leaf) is not int:
            raise ValueError(f"{name} has the entry {leaf!r:.40}; it has to hold integers")
    return inference.int64_array(leaves, name).reshape(shape)


def _scheme(record: dict[str, object]) -> Factorization:
    sizes = record["n"]
    sides = inference.matmul_sides(sizes if isinstance(sizes, list) else [])
    factors = [_vectors(record, name, side) for name, side in zip("uvw", sides, strict=True)]
    ranks = [len(factor) for factor in factors]
    if len(set(ranks)) > 1:
        raise ValueError(f"u, v, w have {ranks} rows; all need one row per product")
    fields = inference.over_common_denominator(factors)
    modulus = 2 if record.get("z2") is True else 0
    factorization = Factorization(target=targets.matmul(*sizes), modulus=modulus, **fields)
    return factorization if modulus else inference.infer_ring(factorization)


def _vectors(record: dict[str, object], name: str, side: int) -> list[list[Fraction | int]]:
    """One list of ``side`` numbers per product."""
    rows = record[name]
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) for row in rows):
        raise ValueError(f"{name} has to be a list of rows, one per product")
    lengths = sorted({len(row) for row in rows})
    if lengths != [side]:
        raise ValueError(f"{name} has rows of {lengths} entries; they need {side}")
    return [[_fraction(name, entry) for entry in row] for row in rows]


def _fraction(name: str, entry: object) -> Fraction | int:
    if type(entry) is int:
        return entry
    if isinstance(entry, str) and re.fullmatch(r"-?\d{1,18}(/[1-9]\d{0,17})?", entry):
        return Fraction(entry)
    raise ValueError(f"{name} has the entry {entry!r:.40}; it has to hold integers and fractions")
