"""What to do with an algorithm once it is found: ``python -m tensorgame --help``.

Exit status: 0, it is done, or the answer is yes; 1, the answer is no; 2, bad input; 3, undecided.
"""

from __future__ import annotations

import os
import pathlib
import signal
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import tyro

# What takes long to import is imported where it is needed. Nothing here needs JAX.
if TYPE_CHECKING:
    from rich.table import Table

    from tensorgame.algorithms.description import Description
    from tensorgame.algorithms.factorization import Factorization

_Source = Annotated[str, tyro.conf.arg(metavar="FILE")]
_Output = Annotated[pathlib.Path, tyro.conf.arg(metavar="OUT")]

_ABOUT = """\
Describe, prove, convert, compare and lift algorithms for bilinear maps.

FILE is a path of any known format, PATH#KEY for one algorithm of a file of several, or the name of
a published one, such as alphatensor:4,4,4:mod2.

Exit status: 0 if it is done or the answer is yes, 1 if the answer is no, 2 for bad input."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line ``argv``; returns the exit status."""
    commands = (show, verify, convert, compare, lift, targets)
    try:
        status = tyro.extras.subcommand_cli_from_dict(
            {command.__name__: command for command in commands},
            prog="python -m tensorgame",
            description=_ABOUT,
            args=argv,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader, such as head, has seen enough. Python flushes once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (OSError, ValueError) as error:
        _complain(error)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return status


def show(
    file: _Source,
    /,
    *,
    equations: bool = False,
    latex: bool = False,
    picture: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="OUT.png")] = None,
    attempts: int = 1,
) -> int:
    """Describe an algorithm: rank, additions, growth of errors, where it is valid.

    Args:
        file: The algorithm.
        equations: Print its equations instead.
        latex: Print its equations in LaTeX instead.
        picture: Draw its factor matrices instead; .pdf and .svg will do as well.
        attempts: How often to look for common sums anew; more attempts find fewer additions.
    """
    factorization = _load(file)
    if equations:
        print(factorization.equations())
    if latex:
        from tensorgame.algorithms import latex as in_latex

        print(in_latex.latex(factorization))
    if picture is not None:
        from tensorgame.algorithms.drawing import draw

        draw(factorization, picture)
        print(f"drawn as {picture}")
    if not equations and not latex and picture is None:
        from tensorgame.algorithms.description import describe

        _print(_figures(describe(factorization, attempts=attempts)))
    return 0


def verify(files: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FILE [FILE ...]")], /) -> int:
    """Prove algorithms exactly. Exit status: 1 if one is wrong, 2 if a file cannot be read.

    Args:
        files: Files, of which all algorithms are checked, or single algorithms.
    """
    from tensorgame.algorithms.factorization import IncorrectFactorization

    if not files:
        raise ValueError("verify needs at least one FILE")
    status = 0
    for file in files:
        try:
            entries = _load_all(file)
        except (OSError, ValueError) as error:
            _complain(error)
            status = 2
            continue
        for key, factorization in entries.items():
            name = file if len(entries) == 1 else f"{file}#{key}"
            # The algorithms of a whole collection go by their own names.
            name = key if key.startswith(f"{file}:") else name
            try:
                print(f"{name}: {factorization.check()}; {factorization.validity()}", flush=True)
            except IncorrectFactorization as error:
                print(f"{name}: WRONG, {error}", flush=True)
                status = max(status, 1)
    return status


def convert(file: _Source, out: _Output, /) -> int:
    """Write an algorithm in another format, which the ending of OUT says.

    Args:
        file: The algorithm.
        out: Where to: .npz, .json, .exp, .bits or .txt.
    """
    return _save(_load(file), out)


def compare(first: _Source, second: _Source, /) -> int:
    """Say whether two algorithms are the same up to symmetry. Exit status: 0 if so, 1 if not, 3 if
    that remains undecided.

    Args:
        first: One algorithm.
        second: The other.
    """
    from tensorgame.algorithms import equivalence

    comparison = equivalence.compare(_load(first), _load(second))
    print(f"{comparison.verdict}: {comparison.reason}")
    return {"equivalent": 0, "not equivalent": 1, "undecided": 3}[comparison.verdict]


def lift(file: _Source, out: _Output, /, *, attempts: int = 20, seed: int = 0) -> int:
    """Turn an algorithm modulo a prime into one over the integers or the rationals. Exit status: 1
    if that fails.

    Args:
        file: The algorithm, over Z_p.
        out: Where to write what it is lifted to.
        attempts: How many random choices to try.
        seed: The result depends on it and on nothing else that is random.
    """
    from tensorgame.algorithms import lifting

    outcome = lifting.try_lift(_load(file), attempts=attempts, seed=seed)
    print(outcome.reason)
    return 1 if outcome.factorization is None else _save(outcome.factorization, out)


def targets() -> int:
    """List the bilinear maps, each with an example."""
    from rich.table import Table

    from tensorgame.targets import listing

    table = Table("target", "bilinear map", "example", box=None, pad_edge=False)
    for heading in ("schoolbook", "best over Q"):
        table.add_column(heading, justify="right")
    for row in listing():
        figures: tuple[str, ...] = ()
        if row.example is not None:
            known = row.example.known("Q").rank
            figures = (row.example.name, str(row.example.trivial_rank), str(known))
        table.add_row(row.pattern, row.description, *figures)
    _print(table)
    return 0


def _load(file: str) -> Factorization:
    """One algorithm, proved.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no algorithm; the message names the file.
    """
    from tensorgame.algorithms import formats
    from tensorgame.algorithms.factorization import IncorrectFactorization

    factorization = formats.load(file)
    try:
        factorization.check()
    except IncorrectFactorization as error:
        raise ValueError(
            f"{file} is no algorithm for {factorization.target.name}: {error}"
        ) from None
    return factorization


def _load_all(file: str) -> dict[str, Factorization]:
    from tensorgame.algorithms import formats

    if "#" in file and not pathlib.Path(file).exists():
        return {file: formats.load(file)}
    return formats.load_all(file)


def _save(factorization: Factorization, out: pathlib.Path) -> int:
    from tensorgame.algorithms import formats

    formats.save(factorization, out)
    print(factorization.summary())
    print(factorization.check())
    print(f"saved as {out}")
    return 0


def _figures(description: Description) -> Table:
    """A table of two columns."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _lines(description):
        # Not a str: rich would take the [i] of Q[i] for a change to italics.
        table.add_row(name, Text(value))
    return table


def _lines(d: Description) -> Iterable[tuple[str, str]]:
    yield "target", d.target
    yield "ring", d.ring
    yield "products", f"{d.rank} (schoolbook: {d.trivial_rank})"
    yield "best known", f"{d.best_known.rank} over {d.ring} ({d.best_known.source})"
    if d.omega is not None:
        yield "exponent", f"{d.omega:.4f} = 3 ln {d.rank} / ln {d.trivial_rank}"
    counts = (
        f"{n} ({share:.0%}) in {name}"
        for name, n, share in zip("uvw", d.nonzeros, d.density, strict=True)
    )
    yield "nonzeros", ", ".join(counts)
    yield "additions", f"{_sum(d.naive_additions)} as written"
    yield "", f"{_sum(d.reduced_additions)} with common sums computed once"
    listed = ", ".join(d.coefficients[:12])
    more = f", ... ({len(d.coefficients)} values)" if len(d.coefficients) > 12 else ""
    yield "coefficients", f"{listed}{more}"
    if d.growth is not None:
        text = f"{d.growth}" if d.growth.denominator == 1 else f"{float(d.growth):.6g} = {d.growth}"
        yield "growth factor", f"{text} = sum of |u|^2 |v|^2 |w|^2"
    yield "proof", d.proof
    yield "", d.valid


def _sum(parts: Sequence[int]) -> str:
    return f"{sum(parts)} = {' + '.join(map(str, parts))}"


def _print(table: Table) -> None:
    """Without a terminal there are neither colours nor a width to keep to."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    console.print(table)


def _complain(error: Exception) -> None:
    """One sentence for what the user has to change."""
    if isinstance(error, OSError) and error.filename is not None:
        reason = f"{os.fspath(error.filename)}: {error.strerror}"
    else:
        reason = " ".join(str(error).split())
    print(f"error: {reason}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
