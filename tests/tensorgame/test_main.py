"""The command line for algorithms."""

import dataclasses
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

import tensorgame
from tensorgame.__main__ import main
from tensorgame.algorithms import formats, lifting
from tensorgame.algorithms.factorization import Factorization

STRASSEN = "alphatensor:2,2,2"
MODULO_2 = "alphatensor:2,2,2:mod2"
ROOT = pathlib.Path(tensorgame.__file__).parents[1]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def wrong() -> str:
    """A file whose products compute something else."""
    f = formats.load(STRASSEN)
    formats.save(dataclasses.replace(f, u=-f.u), "wrong.npz")
    return "wrong.npz"


def run(*argv: str) -> int:
    return main(list(argv))


def refused(capsys, *argv: str) -> str:
    """The one sentence with which a command line is refused."""
    assert run(*argv) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def started(command: str) -> subprocess.CompletedProcess:
    """Runs a shell command, in which $TENSORGAME is the program."""
    env = os.environ | {"TENSORGAME": f"{sys.executable} -m tensorgame"}
    return subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT, env=env)


# Show --------------------------------------------------------------------------------------------


def test_show_describes(capsys):
    assert run("show", "alphatensor:4,4,4:mod2") == 0
    out = capsys.readouterr().out
    figures = dict(re.findall(r"^(\w[\w ]+?) {2,}(\S.*?) *$", out, re.MULTILINE))
    assert figures["target"] == "matmul:4,4,4"
    assert figures["ring"] == "Z_2"
    assert figures["products"] == "47 (schoolbook: 64)"
    assert figures["best known"].endswith(")")
    assert figures["exponent"].startswith("2.7773")
    assert figures["additions"] == "340 = 101 + 101 + 138 as written"
    assert "growth factor" not in figures
    assert "characteristic 2" in out
    assert "\x1b" not in out


def test_show_keeps_brackets_and_fractions(capsys):
    f = formats.load(STRASSEN)
    factors = {name: np.stack([0 * x, x], axis=-1) for name, x in (("u", f.u), ("v", f.v))}
    w = np.stack([-f.w, 0 * f.w], axis=-1)
    formats.save(dataclasses.replace(f, **factors, w=w), "complex.json")
    assert run("show", "complex.json") == 0
    assert "Z[i]" in capsys.readouterr().out
    assert run("show", "alphatensor:3,4,11") == 0
    assert "-2, -1, -1/2, 1/2, 1, 2" in capsys.readouterr().out


def test_show_more_attempts_find_fewer_additions(capsys):
    totals = []
    for attempts in ("1", "30"):
        run("show", "alphatensor:4,4,4:mod2", "--attempts", attempts)
        totals.append(int(re.search(r"(\d+) = .* computed once", capsys.readouterr().out)[1]))
    assert totals[1] < totals[0] < 340


def test_show_equations_latex_and_picture(capsys, tmp_path):
    f = formats.load(STRASSEN)
    assert run("show", STRASSEN, "--equations") == 0
    assert capsys.readouterr().out == f"{f.equations()}\n"
    assert run("show", STRASSEN, "--latex") == 0
    assert r"m_{4} &= a_{12} b_{21} \\" in capsys.readouterr().out
    assert run("show", STRASSEN, "--picture", "out.png") == 0
    assert capsys.readouterr().out == "drawn as out.png\n"
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


# Verify ------------------------------------------------------------------------------------------


def test_verify_proves_each(capsys):
    assert run("verify", STRASSEN, MODULO_2) == 0
    lines = capsys.readouterr().out.splitlines()
    for line, name in zip(lines, (STRASSEN, MODULO_2), strict=True):
        f = formats.load(name)
        assert line == f"{name}: {f.check()}; {f.validity()}"


def test_verify_takes_files_of_many_and_single_entries(capsys, monkeypatch, wrong):
    right = formats.load(STRASSEN)
    entries = {"one": right, "two": formats.load(wrong)}
    monkeypatch.setattr(formats, "load_all", lambda source: entries)
    assert run("verify", "many.npz") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("many.npz#one: checked: 7 products")
    assert re.match("many.npz#two: WRONG, .* of the 64 entries are wrong over Z", lines[1])
    monkeypatch.setattr(formats, "load", lambda source: entries[source.partition("#")[2]])
    assert run("verify", "many.npz#one") == 0
    assert capsys.readouterr().out.startswith("many.npz#one: checked")


def test_verify_goes_on_after_bad_files(capsys, tmp_path, wrong):
    (tmp_path / "noise.npz").write_bytes(b"noise")
    assert run("verify", wrong) == 1
    assert run("verify", "absent.npz", "noise.npz", wrong, STRASSEN) == 2
    captured = capsys.readouterr()
    errors = captured.err.splitlines()
    assert errors[0] == "error: absent.npz: No such file or directory"
    assert errors[1].startswith("error: noise.npz")
    assert len(errors) == 2
    assert captured.out.splitlines()[-1].startswith(f"{STRASSEN}: checked")


# Convert, compare, lift --------------------------------------------------------------------------


def test_convert_writes_what_loads_again(capsys):
    f = formats.load("alphatensor:3,4,5")
    for name in ("a.json", "a.npz"):
        assert run("convert", "alphatensor:3,4,5", name) == 0
        assert f.check() in capsys.readouterr().out
        assert formats.load(name).key() == f.key()
    assert run("convert", "a.json", "a.txt") == 0


def test_lift_saves_or_says_why_not(capsys, tmp_path):
    assert run("lift", MODULO_2, "lifted.npz") == 0
    assert "checked: 7 products reproduce all 64 entries over Z" in capsys.readouterr().out
    assert formats.load("lifted.npz").modulus == 0
    assert run("lift", "alphatensor:4,4,4:mod2", "none.npz") == 1
    reason = lifting.try_lift(formats.load("alphatensor:4,4,4:mod2")).reason
    assert capsys.readouterr().out == f"{reason}\n"
    assert not (tmp_path / "none.npz").exists()


@pytest.mark.parametrize(
    ("verdict", "status"), [("equivalent", 0), ("not equivalent", 1), ("undecided", 3)]
)
def test_compare_has_a_status_for_each_verdict(verdict, status, capsys, monkeypatch):
    equivalence = pytest.importorskip("tensorgame.algorithms.equivalence")
    asked = []

    def compare(first: Factorization, second: Factorization) -> equivalence.Comparison:
        asked.append((first.modulus, second.modulus))
        return equivalence.Comparison(verdict, "for a reason")

    monkeypatch.setattr(equivalence, "compare", compare)
    assert run("compare", STRASSEN, MODULO_2) == status
    assert capsys.readouterr().out == f"{verdict}: for a reason\n"
    assert asked == [(0, 2)]


def test_compare_an_algorithm_with_itself_and_with_another(capsys):
    assert run("compare", STRASSEN, STRASSEN) == 0
    assert run("compare", STRASSEN, "alphatensor:3,3,3") == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["equivalent", "not equivalent"]


def test_targets_lists_the_families(capsys):
    assert run("targets") == 0
    out = capsys.readouterr().out
    assert re.search(r"^matmul:n,m,p +Product A B .* matmul:4,4,4 +64 +\d+ *$", out, re.MULTILINE)


# Mistakes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("show absent.npz", "absent.npz: No such file or directory"),
        ("show .", ".: Is a directory"),
        ("show alphatensor:9,9", "'alphatensor:9,9' was not released"),
        ("show alphatensor:2,2,2 --attempts 0", "attempts is 0"),
        ("show alphatensor:2,2,2 --picture out.doc", "doc"),
        ("show alphatensor:2,2,2 --picture absent/out.png", "absent/out.png: No such file"),
        ("convert alphatensor:2,2,2 out.doc", "'.doc'"),
        ("convert alphatensor:2,2,2 absent/out.npz", "No such file"),
        ("convert alphatensor:2,2,2 out.bits", "bit masks hold algorithms modulo 2"),
        ("lift alphatensor:2,2,2 out.npz", "modulus is 0"),
        ("lift alphatensor:2,2,2:mod2 out.npz --attempts 0", "attempts is 0"),
        ("compare alphatensor:2,2,2 absent.npz", "absent.npz: No such file"),
        ("verify", "at least one FILE"),
    ],
)
def test_mistakes_are_refused_in_one_sentence(argv, says, capsys, tmp_path):
    assert says in refused(capsys, *argv.split())
    assert not list(tmp_path.iterdir())


def test_wrong_algorithms_are_bad_input(capsys, wrong):
    for argv in (["show", wrong], ["convert", wrong, "out.json"], ["compare", STRASSEN, wrong]):
        assert "wrong.npz is no algorithm for matmul:2,2,2" in refused(capsys, *argv)


@pytest.mark.parametrize("argv", ["", "prove", "show", "show a b", "lift a", "verify --fast a"])
def test_unknown_commands_and_flags_are_refused(argv, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(argv.split())
    assert capsys.readouterr().err


# As a program ------------------------------------------------------------------------------------


def test_the_program_needs_no_jax_and_no_matplotlib():
    code = (
        "import sys; from tensorgame.__main__ import main;"
        f"main(['show', '{STRASSEN}']); main(['targets']); main(['verify', '{STRASSEN}']);"
        "sys.exit(bool({'jax', 'jaxlib', 'flax', 'matplotlib'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)


def test_the_program_answers_in_pipes():
    shown = started(f"$TENSORGAME show {STRASSEN}")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "\x1b" not in shown.stdout
    bad = started("$TENSORGAME show absent.npz")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr == "error: absent.npz: No such file or directory\n"


def test_a_reader_that_has_seen_enough_is_no_error():
    done = started(f"$TENSORGAME verify {' '.join([STRASSEN] * 300)} | head -n 1")
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
