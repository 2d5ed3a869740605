"""Files: what is saved loads again, what is damaged is refused, and nothing in a file is run."""

import builtins
import io
import json
import os
import pathlib
import pickle
import re
import stat
import zipfile
from collections.abc import Callable

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from tensorgame.algorithms import formats
from tensorgame.algorithms.factorization import Factorization, IncorrectFactorization
from tensorgame.algorithms.formats import npy
from tensorgame.targets import from_tensor, matmul, parse

SIZES = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
SEEDS = st.integers(0, 2**32 - 1)
LARGEST = 2**63 - 1
# What the unpickler may raise on damaged input, by the documentation of `pickle`.
PICKLE_ERRORS = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    KeyError,
    TypeError,
)
RINGS = {
    "Z": (0, 1, False),
    "Z_2": (2, 1, False),
    "Z_3": (3, 1, False),
    "Z_17": (17, 1, False),
    "Q": (0, 6, False),
    "Z[i]": (0, 1, True),
    "Q[i]": (0, 10, True),
}
REAL = ("Z", "Z_2", "Z_3", "Z_17", "Q")
HELD = {".npz": tuple(RINGS), ".json": tuple(RINGS), ".exp": REAL, ".bits": ("Z_2",)}

# Strassen's products as a term of the trilinear form each; c21 is entry 2, 1 of C transposed.
STRASSEN = """\
(a11 + a22)*(b11 + b22)*(c11 + c22)
(a21 + a22)*(b11)*(c12 - c22)
(a11)*(b12 - b22)*(c21 + c22)
(a22)*(-b11 + b21)*(c11 + c12)
(a11 + a12)*(b22)*(-c11 + c21)
(-a11 + a21)*(b11 + b12)*(c22)
(a12 - a22)*(b21 + b22)*(c11)
"""


def random_algorithm(sizes: tuple[int, int, int], seed: int, ring: str) -> Factorization:
    """Factors at random, so that nothing but the coefficients themselves can come back."""
    modulus, denominator, is_complex = RINGS[ring]
    rng = np.random.default_rng(seed)
    target, rank = matmul(*sizes), int(rng.integers(1, 5))
    largest = int(rng.choice([1, 2, 9, LARGEST]))
    tail = (2,) if is_complex else ()
    u, v, w = (
        rng.integers(-largest, largest, (side, rank, *tail), endpoint=True)
        * rng.integers(0, 2, (side, rank, *tail))
        for side in target.shape
    )
    return Factorization(target=target, modulus=modulus, denominator=denominator, u=u, v=v, w=w)


def assert_same(loaded: Factorization, saved: Factorization) -> None:
    assert loaded.target == saved.target
    assert loaded.target.name == saved.target.name
    assert (loaded.modulus, loaded.denominator) == (saved.modulus, saved.denominator)
    for name in "uvw":
        np.testing.assert_array_equal(getattr(loaded, name), getattr(saved, name))


def put(path: pathlib.Path, text: str) -> pathlib.Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def strassen(tmp_path) -> Factorization:
    return formats.load(put(tmp_path / "strassen.exp", STRASSEN))


@pytest.fixture
def saved(strassen, tmp_path) -> Callable[[str], pathlib.Path]:
    """``saved(ending)`` is a path with Strassen's algorithm."""

    def save(ending: str) -> pathlib.Path:
        modulo_2 = Factorization(
            target=strassen.target, modulus=2, u=strassen.u, v=strassen.v, w=strassen.w
        )
        path = tmp_path / f"saved{ending}"
        formats.save(modulo_2 if ending == ".bits" else strassen, path)
        return path

    return save


class TestRoundTrips:
    @pytest.mark.parametrize(("ending", "ring"), [(e, r) for e, held in HELD.items() for r in held])
    def test_every_format_gives_back_what_it_holds(self, ending, ring, tmp_path_factory):
        path = tmp_path_factory.mktemp("files") / f"algorithm{ending}"

        @hypothesis.settings(deadline=None, max_examples=20)
        @hypothesis.given(SIZES, SEEDS)
        def check(sizes, seed):
            algorithm = random_algorithm(sizes, seed, ring)
            formats.save(algorithm, path)
            assert_same(formats.load(path), algorithm)

        check()

    @pytest.mark.parametrize("sizes", [(1, 1, 1), (10, 1, 2), (2, 11, 1)])
    @pytest.mark.parametrize("ending", HELD)
    def test_sizes_of_one_and_of_two_digits(self, ending, sizes, tmp_path):
        algorithm = random_algorithm(sizes, 0, "Z_2")
        formats.save(algorithm, tmp_path / f"x{ending}")
        assert_same(formats.load(tmp_path / f"x{ending}"), algorithm)

    @pytest.mark.parametrize("ending", [".npz", ".json", ".exp"])
    @pytest.mark.parametrize("name", ["polynomial:2,3", "complex", "gram:2,2"])
    def test_targets_other_than_matrices(self, ending, name, tmp_path):
        target, rng = parse(name), np.random.default_rng(0)
        u, v, w = (rng.integers(-3, 3, (side, 4)) for side in target.shape)
        algorithm = Factorization(target=target, denominator=2, u=u, v=v, w=w)
        formats.save(algorithm, tmp_path / f"x{ending}")
        assert_same(formats.load(tmp_path / f"x{ending}"), algorithm)

    @pytest.mark.parametrize("ending", [".npz", ".json"])
    @pytest.mark.parametrize("name", ["tensor:polynomials.npy", "matmul:2,2,2"])
    def test_a_tensor_comes_along_if_the_name_does_not_say_it(self, ending, name, tmp_path):
        tensor = np.zeros((2, 2, 3), np.int64)
        for i, j in np.ndindex(2, 2):
            tensor[i, j, i + j] = 1
        u, v, w = (
            [[1, 0, 1], [0, 1, 1]],
            [[1, 0, 1], [0, 1, 1]],
            [[1, 0, 0], [-1, -1, 1], [0, 1, 0]],
        )
        karatsuba = Factorization(target=from_tensor(name, tensor), u=u, v=v, w=w)
        formats.save(karatsuba, tmp_path / f"x{ending}")
        loaded = formats.load(tmp_path / f"x{ending}")
        assert_same(loaded, karatsuba)
        loaded.check()

    def test_the_ring_of_products_is_written_only_if_they_do_not_tell(self, strassen, tmp_path):
        formats.save(strassen, tmp_path / "z.exp")
        assert (tmp_path / "z.exp").read_text() == STRASSEN
        modulo_2 = Factorization(
            target=strassen.target, modulus=2, u=strassen.u, v=strassen.v, w=strassen.w
        )
        formats.save(modulo_2, tmp_path / "z2.exp")
        first, *lines = (tmp_path / "z2.exp").read_text().splitlines()
        assert first == "(a11 + a22)*(b11 + b22)*(c11 + c22)"
        assert len(lines) == 6
        wrong = random_algorithm((2, 2, 2), 0, "Z_17")
        formats.save(wrong, tmp_path / "z17.exp")
        assert (
            (tmp_path / "z17.exp").read_text().startswith("# target: matmul:2,2,2\n# modulus: 17\n")
        )

    def test_plain_archives_need_no_pickle(self, strassen, saved):
        with np.load(saved(".npz"), allow_pickle=False) as archive:
            assert sorted(archive.files) == ["denominator", "modulus", "target", "u", "v", "w"]
            assert archive["target"].item() == "matmul:2,2,2"
            np.testing.assert_array_equal(archive["u"], strassen.u)

    def test_bit_masks_are_laid_out_as_documented(self, saved):
        lines = saved(".bits").read_text().splitlines()
        # (a11 + a22)(b11 + b22) goes to c11 and c22; (a11 + a12) b22 to c11 and c12, which is
        # entry 2, 1 of C transposed.
        assert lines[:2] == ["2 2 2 7", "9 9 9"]
        assert lines[5] == "3 8 5"

    def test_text_with_the_proof_is_for_people(self, strassen, tmp_path):
        path = tmp_path / "strassen.txt"
        formats.save(strassen, path)
        summary, proof, empty, first, *_ = path.read_text(encoding="utf-8").splitlines()
        assert (summary, proof, empty) == (strassen.summary(), strassen.check(), "")
        assert first == "m1 = (a11 + a22)(b11 + b22)"
        with pytest.raises(ValueError, match=r"strassen\.txt: this text was written for people"):
            formats.load(path)


class TestSaving:
    @pytest.mark.parametrize(
        ("ending", "ring", "message"),
        [
            (".exp", "Q[i]", "products as text hold no imaginary parts"),
            (".bits", "Z", "bit masks hold algorithms modulo 2; this one is over Z"),
            (".bits", "Z_17", "bit masks hold algorithms modulo 2; this one is over Z_17"),
            (".xyz", "Z", r"ends in '\.xyz'; the formats are \.npz, \.json, \.exp, \.bits, \.txt"),
        ],
    )
    def test_refuses_what_a_format_cannot_hold(self, ending, ring, message, tmp_path):
        with pytest.raises(ValueError, match=message):
            formats.save(random_algorithm((2, 2, 2), 0, ring), tmp_path / f"x{ending}")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("ending", [".exp", ".bits"])
    def test_refuses_a_target_without_a_name_where_there_is_no_place_for_it(self, ending, tmp_path):
        target = from_tensor("tensor:x.npy", np.eye(2, dtype=int)[None])
        algorithm = Factorization(target=target, modulus=2, u=[[1]], v=[[1], [0]], w=[[1], [1]])
        with pytest.raises(ValueError, match=r"tensor:x\.npy"):
            formats.save(algorithm, tmp_path / f"x{ending}")
        assert not list(tmp_path.iterdir())

    def test_proves_before_it_writes_the_proof(self, tmp_path):
        with pytest.raises(IncorrectFactorization):
            formats.save(random_algorithm((2, 2, 2), 0, "Z"), tmp_path / "wrong.txt")
        assert not list(tmp_path.iterdir())

    def test_leaves_the_old_file_if_it_fails(self, strassen, saved, monkeypatch):
        path = saved(".npz")
        before = path.read_bytes()

        def fail(_: int) -> None:
            raise OSError("disk full")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="disk full"):
            formats.save(random_algorithm((2, 2, 2), 0, "Z"), path)
        assert path.read_bytes() == before
        assert not list(path.parent.glob(".*"))

    def test_a_new_file_is_as_readable_as_any(self, saved, tmp_path):
        other = put(tmp_path / "other", "")
        assert stat.S_IMODE(saved(".json").stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


class TestProducts:
    @pytest.mark.parametrize(
        "line",
        [
            "(2*a11 - a12)*(b11)*(c11)/3",
            "(2 a11-a12) b11 c11 / 3",
            "2/3*(a11 - 1/2*a12)*b11*c11",
            "-((-2*a11 + a12) (1/3 b11) c11)",
            "(2*A11 - A12)*(B1_1)*(1/3*C11)",
            "c11*b11*(4*(a11 - 1/2*a12))/(2*3)",
            "(a11 + a11 - a12)*(--b11)*(c11)*1/3 ",
        ],
    )
    def test_reads_what_others_write(self, line, tmp_path):
        text = f"# found by hand\n\n{line}\n(a12)*(b21)*(c11)\r\n"
        algorithm = formats.load(put(tmp_path / "x.exp", text))
        assert algorithm.target.name == "matmul:1,2,1"
        terms = (algorithm.u[:, 0], algorithm.v[:, 0], algorithm.w[:, 0])
        product = np.einsum("i,j,k->ijk", *terms) * 3
        want = np.zeros((2, 2, 1), int)
        want[0, 0], want[1, 0] = 2, -1
        np.testing.assert_array_equal(product, want * algorithm.denominator**3)

    def test_c_is_transposed(self, tmp_path):
        text = "a11*b11*c11\na11*b12*c21\na11*b13*c31\n"
        algorithm = formats.load(put(tmp_path / "x.exp", text))
        assert algorithm.target.name == "matmul:1,1,3"
        algorithm.check()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("(a11)*(b11)", "line 1: this is no product of one sum each of a, b and c"),
            ("(a11)*(b11)*(c11)*(c11)", "line 1: this is no product of one sum each"),
            ("(a11 + b11)*(b11)*(c11)", "line 1: this is no product of one sum each"),
            ("a11*b11*c11\n(a11 + 1)*b11*c11", "line 2: a sum has terms other than multiples"),
            ("(a11)*(b11)*(c11", "line 1: a parenthesis is not closed"),
            ("(a11)*(b11)*(c11))", r"line 1: '\)' is not understood here"),
            ("(a11)*(b11)*", "line 1: the line is cut off"),
            ("a11*b11*c11/0", "line 1: a divisor has to be a number other than zero"),
            ("a11*b11*c11/a11", "line 1: a divisor has to be a number other than zero"),
            ("a11*b11*1.5*c11", r"line 1: '\.5\*c11' is not understood"),
            ("a1*b11*c11", "a1 needs two indices, set apart from 10 on as in a1_10"),
            ("a111*b11*c11", "a111 needs two indices"),
            ("a11*b11*c10", "c10 is no entry of matmul:1,1,1"),
            ("# target: matmul:1,1,1\na12*b11*c11", "a12 is no entry of matmul:1,1,1"),
            ("# target: nothing:1\na1*b1*c1", "'nothing:1' is unknown"),
            ("# target: tensor:x\na1*b1*c1", "the target 'tensor:x' comes without its tensor"),
            ("# modulus: two\na11*b11*c11", "the modulus is 'two'; it has to be an integer"),
            ("# modulus: 2\na11*b11*c11/3", "denominator is 3; modulo 2 it has to be 1"),
            ("a11*b11*c9999_9999", "65536 are possible"),
            (f"{2**63}*a11*b11*c11", "w has entries that do not fit into int64"),
            ("# nothing\n", "the text holds no products"),
            ("hello", "line 1: 'hello' is not understood"),
        ],
    )
    def test_says_what_is_wrong(self, text, message, tmp_path):
        with pytest.raises(ValueError, match=rf"^\S*bad\.exp: .*{message}"):
            formats.load(put(tmp_path / "bad.exp", text))


class TestTables:
    def test_masks_and_coefficients_say_the_same(self, strassen, saved, tmp_path):
        factors = (strassen.u, strassen.v, strassen.w)
        numbers = [" ".join(map(str, factor.T.ravel())) for factor in factors]
        table = formats.load(put(tmp_path / "table", "\n".join(["2 2 2 7", *numbers])))
        assert_same(table, strassen)
        pairs = [line.replace(" ", " 3 ") + " 3" for line in numbers]
        thirds = formats.load(put(tmp_path / "thirds", "\n".join(["2 2 2 7", *pairs])))
        assert thirds.denominator == 3
        np.testing.assert_array_equal(thirds.u, strassen.u)
        masks = formats.load(saved(".bits"))
        assert masks.modulus == 2
        np.testing.assert_array_equal(masks.u, strassen.u % 2)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "2 2 2 7\n9 9 9\n",
                "3 numbers follow the sizes 2 2 2 7; .* 7 lines of 3 bit masks, 84",
            ),
            ("1 1 1 1\n2 1 1\n", "u has the bit mask 2; it has to be of 1 bits"),
            ("1 1 2 1\n1 -1 1\n", "v has the bit mask -1; it has to be of 2 bits"),
            ("1 1 1 1\n1 x 1\n", "the text holds 'x' where integers have to be"),
            ("1 1 1 1\n1 0.5 1\n", "the text holds '0.5' where integers have to be"),
            ("0 1 1 1\n1 1 1\n", r"the sizes \[0, 1, 1\] have to be three positive integers"),
            ("1 1 1 0\n", "0 numbers follow"),
            ("999999 1 999999 1\n1 1 1\n", "65536 are possible"),
            ("1 1 1 1\n1 1 1 0 1 1\n", "a denominator of zero"),
        ],
    )
    def test_says_what_is_wrong(self, text, message, tmp_path):
        with pytest.raises(ValueError, match=rf"^\S*bad\.bits: .*{message}"):
            formats.load(put(tmp_path / "bad.bits", text))


class TestRecords:
    def scheme(self, algorithm: Factorization, **changes: object) -> str:
        """Rows are products, as in the collection FastMatrixMultiplication."""
        factors = {name: getattr(algorithm, name).T.tolist() for name in "uvw"}
        return json.dumps({"n": [2, 2, 2], "m": 7, **factors, **changes})

    def test_reads_schemes(self, strassen, tmp_path):
        assert_same(formats.load(put(tmp_path / "x", self.scheme(strassen))), strassen)
        halved = [[f"{x}/2" for x in row] for row in strassen.u.T.tolist()]
        loaded = formats.load(put(tmp_path / "x", self.scheme(strassen, u=halved)))
        assert loaded.denominator == 2
        np.testing.assert_array_equal(loaded.u, strassen.u)
        np.testing.assert_array_equal(loaded.v, strassen.v * 2)
        modulo_2 = formats.load(put(tmp_path / "x", self.scheme(strassen, z2=True)))
        assert modulo_2.ring == "Z_2"

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"n": [2, 2]}, r"the sizes \[2, 2\] have to be three positive integers"),
            ({"n": "222"}, r"the sizes \[\] have to be three positive integers"),
            ({"u": [[1, 0, 0, 0]]}, r"u, v, w have \[1, 7, 7\] rows"),
            ({"u": [[1, 0, 0]] * 7}, r"u has rows of \[3\] entries; they need 4"),
            ({"v": [[1, 0, 0, 0.5]] * 7}, "v has the entry 0.5; it has to hold integers and"),
            ({"v": [[1, 0, 0, "1/0"]] * 7}, "v has the entry '1/0'; it has to hold integers and"),
            ({"w": {}}, "w has to be a list of rows"),
        ],
    )
    def test_says_what_is_wrong_with_a_scheme(self, strassen, changes, message, tmp_path):
        with pytest.raises(ValueError, match=rf"^\S*bad\.json: .*{message}"):
            formats.load(put(tmp_path / "bad.json", self.scheme(strassen, **changes)))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"u": [[1, 2], [3]]}, r"u is ragged: its lists have \[1, 2\] entries"),
            ({"v": [[1, 2], 3]}, r"v has the entry \[1, 2\]; it has to hold integers"),
            ({"w": [[1.0]]}, "w has the entry 1.0; it has to hold integers"),
            ({"w": [[float("nan")]]}, "w has the entry nan; it has to hold integers"),
            ({"w": [[True]]}, "w has the entry True; it has to hold integers"),
            ({"w": [[2**63]]}, "w has entries that do not fit into int64"),
            ({"w": 1}, "w has shape"),
            ({"u": []}, "u has shape"),
            ({"u": [[1] * 7] * 3}, "u has shape"),
            ({"modulus": 4}, "modulus is 4"),
            ({"modulus": None}, "modulus is None; it has to be an integer"),
            ({"denominator": 0}, "denominator is 0"),
            ({"denominator": 0.5}, "denominator is 0.5; it has to be an integer"),
            ({"target": 3}, "target is 3; it has to be a name"),
            ({"target": "nothing:3"}, "'nothing:3' is unknown"),
            ({"target": "tensor:x"}, "the target 'tensor:x' comes without its tensor"),
            ({"tensor": [[1]]}, "has shape"),
        ],
    )
    def test_says_what_is_wrong_with_a_record(self, saved, changes, message, tmp_path):
        record = json.loads(saved(".json").read_text()) | changes
        with pytest.raises(ValueError, match=rf"^\S*bad\.json: .*{message}"):
            formats.load(put(tmp_path / "bad.json", json.dumps(record)))

    def test_names_the_fields_that_are_missing(self, tmp_path):
        with pytest.raises(
            ValueError, match="the record has no denominator, modulus, target, v, w"
        ):
            formats.load(put(tmp_path / "x.json", '{"u": [[1]]}'))


def release(**entries: object) -> bytes:
    """An archive as the release has them: object arrays of u, v and w, pickled."""
    buffer = io.BytesIO()
    arrays = {}
    for key, factors in entries.items():
        arrays[key] = np.empty(3, object)
        arrays[key][:] = factors
    np.savez(buffer, **arrays)
    return buffer.getvalue()


class TestRelease:
    FACTORS = ([[1, 0], [0, 1]], [[1, 0], [0, 1]], [[1, 1]])

    def factors(self, dtype: str = "i8", order: str = "C") -> list[np.ndarray]:
        return [np.array(factor, dtype, order=order) for factor in self.FACTORS]

    @pytest.mark.parametrize("dtype", ["i1", "i4", "i8", ">i4", "f4", "f8"])
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_reads_pickled_arrays(self, dtype, order, tmp_path):
        path = tmp_path / "release.npz"
        path.write_bytes(release(**{"1,2,1": self.factors(dtype, order)}))
        algorithm = formats.load(path)
        assert algorithm.ring == "Z"
        algorithm.check()
        for name, factor in zip("uvw", self.FACTORS, strict=True):
            np.testing.assert_array_equal(getattr(algorithm, name), factor)

    def test_reads_arrays_of_equal_shapes_as_they_are(self, strassen, tmp_path):
        np.savez(tmp_path / "x.npz", **{"2,2,2": np.stack([strassen.u, strassen.v, strassen.w])})
        assert_same(formats.load(tmp_path / "x.npz"), strassen)

    @pytest.mark.parametrize("name", ["numpy.core.multiarray", "numpy._core.multiarray"])
    def test_reads_pickles_of_old_and_new_numpy(self, name, tmp_path):
        content = release(**{"1,2,1": self.factors()})
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entry = archive.read("1,2,1.npy")
        head = entry.index(b"}") + entry[entry.index(b"}") :].index(b"\n") + 1
        # Protocol 2 spells the names out, so that one can be put in place of the other.
        array = np.load(io.BytesIO(entry), allow_pickle=True)
        array[:] = [factor.astype(np.int8) for factor in array]
        text = pickle.dumps(array, protocol=3).replace(b"numpy._core.multiarray", name.encode())
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
            archive.writestr("1,2,1.npy", entry[:head] + text)
        formats.load(tmp_path / "x.npz").check()

    def test_recovers_fractions_exactly(self, tmp_path):
        u, v, w = self.factors("f8")
        path = tmp_path / "x.npz"
        path.write_bytes(release(**{"1,2,1": [u / 8, v * 4, w * 2]}))
        algorithm = formats.load(path)
        assert algorithm.denominator == 8
        np.testing.assert_array_equal(algorithm.u, self.FACTORS[0])
        np.testing.assert_array_equal(algorithm.w, [[16, 16]])
        algorithm.check()

    def test_finds_out_what_is_right_modulo_2_or_3_alone(self, tmp_path):
        one, path = np.ones((1, 1), np.int64), tmp_path / "x.npz"
        for entries, ring in (((1, 1, 1), "Z"), ((2, 2, 1), "Z_3"), ((2, 1, 1), "Z")):
            path.write_bytes(release(**{"1,1,1": [one * entry for entry in entries]}))
            assert formats.load(path).ring == ring
        path.write_bytes(release(**{"1,1,1": [np.ones((1, 3), np.int64)] * 3}))
        assert formats.load(path).ring == "Z_2"

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 0.1, 2.0**-11, 2.0**60])
    def test_refuses_floats_that_are_no_small_fractions(self, bad, tmp_path):
        u, v, w = self.factors("f8")
        u[0, 0] = bad
        path = tmp_path / "bad.npz"
        path.write_bytes(release(**{"1,2,1": [u, v, w]}))
        with pytest.raises(
            ValueError, match=r"^\S*bad\.npz: 1,2,1 has (factors|entries) that are no"
        ):
            formats.load(path)

    @pytest.mark.parametrize(
        ("key", "factors", "message"),
        [
            ("2,2,2", FACTORS, r"2,2,2 has factors of shapes .*; they need \(4, 4, 4\) rows"),
            ("9999,9999,1", FACTORS, "65536 are possible"),
            ("0,2,1", FACTORS, "have to be three positive integers"),
            ("other", FACTORS, "the archive holds other; it needs u, v, w, modulus"),
        ],
    )
    def test_says_what_is_wrong(self, key, factors, message, tmp_path):
        path = tmp_path / "bad.npz"
        path.write_bytes(release(**{key: [np.array(factor) for factor in factors]}))
        with pytest.raises(ValueError, match=rf"^\S*bad\.npz: .*{message}"):
            formats.load(path)

    def test_keys(self, tmp_path):
        path = tmp_path / "two#.npz"
        path.write_bytes(release(**{"1,2,1": self.factors(), "2,1,1": self.factors()[::-1]}))
        with pytest.raises(ValueError, match=r"2,1,1 has factors"):
            formats.load(path)
        u, v, w = self.factors()
        path.write_bytes(release(**{"1,2,1": [u, v, w], "2,1,1": [u, w, v]}))
        assert list(formats.load_all(path)) == ["1,2,1", "2,1,1"]
        assert formats.load(f"{path}#2,1,1").target.name == "matmul:2,1,1"
        for source, problem in (
            (path, "holds 2 algorithms"),
            (f"{path}#3", "has no algorithm '3'"),
        ):
            with pytest.raises(ValueError, match=rf"{problem}; load .*#KEY .* '1,2,1', '2,1,1'$"):
                formats.load(source)


class Evil:
    """Pickles as a call."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple:
        function, *arguments = self.call
        return function, tuple(arguments)


RAN = "RAN_BY_A_PICKLE"


def text(content: str) -> bytes:
    """Text in a pickle."""
    return b"X" + len(content).to_bytes(4, "little") + content.encode()


# What Python itself would not write is spelled out: c names a global, R calls it, b sets its state.
CODE = f"import os; os.environ[{RAN!r}] = '1'"
PAYLOADS = {
    "os.system": pickle.dumps(Evil(os.system, f"exit && export {RAN}=1")),
    "os.putenv": pickle.dumps(Evil(os.putenv, RAN, "1")),
    "builtins.exec": pickle.dumps(Evil(builtins.exec, CODE)),
    "builtins.eval": pickle.dumps(Evil(builtins.eval, f"exec({CODE!r})"), protocol=2),
    "builtins.getattr": b"cbuiltins\ngetattr\n(cos\nenviron\n" + text("clear") + b"tR.",
    "numpy.load": pickle.dumps(Evil(np.load, "x.npy")),
    "numpy.testing runstring": b"cnumpy.testing._private.utils\nrunstring\n"
    + text(CODE)
    + b"\x85R.",
    "numpy.ctypeslib": b"cnumpy.ctypeslib\nload_library\n" + text("c") + b"\x85R.",
    "numpy scalars": b"cnumpy.core.multiarray\nscalar\n)R.",
    "dotted": b"cnumpy\nndarray.__class__.__base__\n)R.",
    "dotted, new protocol": b"\x80\x04" + text("numpy") + text("ndarray.__init__") + b"\x93.",
    "module of a known name": b"cnumpy.core\nmultiarray\n.",
    "persistent": b"Pid\n.",
    "extension": b"\x80\x02\x82\x01.",
    "instance": b"(" + text(CODE) + b"i__builtin__\nexec\n.",
    "new object": b"cnumpy\ndtype\n)\x81.",
    "state of a known class": b"cnumpy\ndtype\n" + text("x") + b"\x85b.",
    "state of a known name": b"cnumpy\nndarray\n" + text("x") + b"\x85b.",
    "call of a known name": b"cnumpy\nndarray\nK\x09\x85R.",
    "dtype of objects": b"cnumpy\ndtype\n" + text("O,O") + b"\x85R.",
    "byte order": b"cnumpy\ndtype\n" + text("i8") + b"\x85RK\x03" + text("!") + b"\x86b.",
    "another class": b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\ndtype\n\x85R.",
    "no state": b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n\x85R.",
    "all memory": b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".",
    "all memory for a memo": b"]r\xff\xff\xff\xff.",
    "all memory for a frame": b"\x80\x04\x95" + (2**40).to_bytes(8, "little") + b"N.",
    "no array": pickle.dumps([1, 2, 3]),
    "nothing": b"",
}


class TestMaliciousPickles:
    def write(self, path: pathlib.Path, payload: bytes) -> None:
        buffer = io.BytesIO()
        header = {"descr": "|O", "fortran_order": False, "shape": (3,)}
        np.lib.format.write_array_header_1_0(buffer, header)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("1,2,1.npy", buffer.getvalue() + payload)

    @pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS.keys())
    def test_run_nothing(self, payload, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv(RAN, raising=False)
        before = dict(os.environ)
        self.write(tmp_path / "bad.npz", payload)
        with pytest.raises(ValueError, match=r"^\S*bad\.npz(:| is damaged:) "):
            formats.load(tmp_path / "bad.npz")
        assert dict(os.environ) == before
        assert os.listdir(tmp_path) == ["bad.npz"]

    @pytest.mark.parametrize("call", [(os.mkdir, "made"), (np.zeros, 3), (exec, CODE)])
    def test_run_nothing_inside_an_array(self, call, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        factors = [*TestRelease().factors()[:2], Evil(*call)]
        (tmp_path / "bad.npz").write_bytes(release(**{"1,2,1": factors}))
        with pytest.raises(ValueError, match=r"bad\.npz: a pickle asks for \S+; only arrays"):
            formats.load(tmp_path / "bad.npz")
        assert os.listdir(tmp_path) == ["bad.npz"]
        assert RAN not in os.environ

    def test_the_payloads_would_run_otherwise(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        self.write(tmp_path / "x.npz", pickle.dumps(Evil(os.mkdir, "made")))
        with np.load(tmp_path / "x.npz", allow_pickle=True) as archive:
            archive["1,2,1"]
        assert (tmp_path / "made").is_dir()

    @pytest.mark.parametrize(
        ("state", "message"),
        [
            ((1, (2**30,), "i8", False, b""), "has 0 bytes"),
            ((1, (-1, -8), "i1", False, b"12345678"), "has 8 bytes"),
            ((1, ("a", 2**30), "i8", False, b""), "without a shape"),
            ((1, (8,), "i8", False, 2**30), "without its bytes"),
            ((1, (1,), "O8", False, b"12345678"), "other than the three arrays|something else"),
        ],
    )
    def test_claims_are_checked_before_memory_is_taken(self, state, message, tmp_path):
        version, shape, dtype, fortran, raw = state

        class Array:
            def __reduce__(self) -> tuple:
                parts = (version, shape, np.dtype(dtype), fortran, raw)
                return np.empty(0).__reduce__()[0], (np.ndarray, (0,), b"b"), parts

        self.write(tmp_path / "bad.npz", pickle.dumps(Array()))
        with pytest.raises(ValueError, match=message):
            formats.load(tmp_path / "bad.npz")


class TestDamage:
    @pytest.mark.parametrize("ending", HELD)
    def test_a_truncated_file_is_refused_or_plainly_shorter(self, ending, saved, tmp_path):
        content = saved(ending).read_bytes()
        whole = formats.load(saved(ending))
        path = tmp_path / "cut"
        for length in range(0, len(content) - 1, max(1, len(content) // 200)):
            path.write_bytes(content[:length])
            # Lines of products can be cut off between two of them; the proof finds that out.
            if ending == ".exp" and content[:length].rstrip().endswith((b")", b"2", b"1")):
                try:
                    cut = formats.load(path)
                except ValueError:
                    continue
                assert cut.key() != whole.key()
                continue
            with pytest.raises(ValueError, match=re.escape(str(path))):
                formats.load(path)

    @pytest.mark.parametrize("pickled", [False, True])
    def test_no_flipped_byte_goes_unnoticed(self, strassen, saved, pickled, tmp_path):
        path = tmp_path / "flipped.npz"
        if pickled:
            factors = (strassen.u, strassen.v, strassen.w)
            content = release(**{"2,2,2": [factor.astype(np.int8) for factor in factors]})
        else:
            content = saved(".npz").read_bytes()
        rng = np.random.default_rng(0)
        for at in rng.choice(len(content), 200, replace=False):
            damaged = bytearray(content)
            damaged[at] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            # Some bytes of an archive, such as its dates, mean nothing.
            try:
                loaded = formats.load(path)
            except ValueError as error:
                assert str(path) in str(error)  # noqa: PT017
            else:
                assert loaded.key() == strassen.key()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "the file is empty"),
            (b" \n", "the file is empty"),
            (b"\xff\xfe\x00\x01", "the file is neither an .npz archive nor text in UTF-8"),
            (b"PK\x03\x04", "is damaged: BadZipFile"),
            (b'{"u": [', "the JSON is damaged"),
            (b"[" * 100_000, "is not understood"),
            (b'{"u": ' + b"[" * 100_000, "is damaged: RecursionError"),
            (b"(" * 100_000, "is damaged: RecursionError"),
        ],
    )
    def test_unknown_files(self, content, message, tmp_path):
        path = tmp_path / "bad"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"^\S*bad(: | ).*{message}"):
            formats.load(path)

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("u", np.ones((4, 7)), "u has dtype float64; it has to be an integer dtype"),
            ("u", np.ones((3, 7), int), "u has shape"),
            ("v", np.ones((4, 6), int), "columns|shape"),
            ("modulus", np.array([0]), r"modulus has shape \(1,\); it has to be a scalar"),
            ("modulus", np.array(6), "modulus is 6"),
            ("denominator", np.array(0), "denominator is 0"),
            ("target", np.array(3), "target has dtype int64; it has to be text"),
            ("target", np.array("tensor:x"), "the target 'tensor:x' comes without its tensor"),
            ("tensor", np.ones((2, 2), int), "has shape"),
            ("w", np.array([1, "a", None], object), "a pickle holds something else than arrays"),
        ],
    )
    def test_unusable_arrays(self, name, value, message, saved, tmp_path):
        with np.load(saved(".npz")) as archive:
            arrays = dict(archive) | {name: value}
        np.savez(tmp_path / "bad.npz", **arrays)
        with pytest.raises(ValueError, match=rf"^\S*bad\.npz: .*{message}"):
            formats.load(tmp_path / "bad.npz")

    def test_archives_that_unpack_to_too_much(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
            archive.writestr("u.npy", b"")
        content = bytearray((tmp_path / "bomb.npz").read_bytes())
        # The size in the directory at the end, which is the one that is believed.
        at = content.index(b"PK\x01\x02") + 24
        content[at : at + 4] = (2**31).to_bytes(4, "little")
        (tmp_path / "bomb.npz").write_bytes(content)
        with pytest.raises(ValueError, match="unpacks to 2147483648 bytes"):
            formats.load(tmp_path / "bomb.npz")

    def test_damaged_pickles_are_refused_or_read_as_arrays(self):
        factors = np.empty(3, object)
        factors[:] = TestRelease().factors()
        buffer = io.BytesIO()
        np.save(buffer, factors)
        content = buffer.getvalue()
        rng = np.random.default_rng(0)
        for at in rng.integers(content.index(b"\n") + 1, len(content), 3000):
            damaged = bytearray(content)
            damaged[at] = rng.integers(256)
            try:
                arrays = npy.read(bytes(damaged))
            except (ValueError, *PICKLE_ERRORS):
                continue
            assert [type(array) for array in arrays] == [np.ndarray] * 3
            assert not any(array.dtype.hasobject for array in arrays)

    def test_files_that_cannot_be_read(self, tmp_path):
        for path in (tmp_path / "missing.npz", tmp_path):
            with pytest.raises(OSError, match=re.escape(str(path))):
                formats.load(path)


def test_released_names_load_like_files():
    algorithm = formats.load("alphatensor:4,4,4:mod2")
    assert (algorithm.rank, algorithm.ring) == (47, "Z_2")
    assert list(formats.load_all("alphatensor:2,2,2")) == ["alphatensor:2,2,2"]
    assert len(formats.load_all("alphatensor")) == 113
