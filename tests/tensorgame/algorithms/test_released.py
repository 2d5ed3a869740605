"""The released algorithms: all there, all right, and found by name."""

import io

import numpy as np
import pytest

from tensorgame.algorithms import released


def test_there_are_93_over_the_integers_or_rationals_and_20_modulo_2():
    names = released.names()
    assert len(set(names)) == len(names) == 113
    rings = [released.load(name).ring for name in names]
    assert (rings.count("Z"), rings.count("Q"), rings.count("Z_2")) == (66, 27, 20)
    assert all(
        (ring == "Z_2") == name.endswith(":mod2") for name, ring in zip(names, rings, strict=True)
    )


@pytest.mark.parametrize("name", released.names())
def test_all_are_right(name):
    algorithm = released.load(name)
    assert name.removeprefix("alphatensor").startswith(algorithm.target.name.removeprefix("matmul"))
    assert algorithm.check().startswith(f"checked: {algorithm.rank} products reproduce all")


@pytest.mark.parametrize(
    ("name", "rank"),
    [
        # Extended Data Table 1 and Fig. 3 of the AlphaTensor paper.
        ("2,2,2", 7),
        ("2,2,2:mod2", 7),
        ("3,3,3", 23),
        ("3,4,5", 47),
        ("3,4,5:mod2", 47),
        ("4,4,4", 49),
        ("4,4,4:mod2", 47),
        ("4,4,5", 63),
        ("4,4,5:mod2", 63),
        ("4,5,5", 76),
        ("5,5,5", 98),
        ("5,5,5:mod2", 96),
        ("9,9,9", 498),
        ("11,12,12", 990),
    ],
)
def test_ranks(name, rank):
    assert released.load(f"alphatensor:{name}").rank == rank


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("alphatensor:5,4,4", "alphatensor:4,4,5, alphatensor:4,4,5:mod2$"),
        ("alphatensor:9,9,8:mod2", "near it are alphatensor:"),
        ("alphatensor:", "near it are alphatensor:"),
        ("4,4,4", "near it are alphatensor:4,4,4, alphatensor:4,4,4:mod2$"),
    ],
)
def test_unknown_names(name, near):
    with pytest.raises(ValueError, match=f"{name!r} was not released.*{near}"):
        released.load(name)


def test_encoding_keeps_the_numbers(tmp_path):
    u, v, w = np.eye(2, dtype=np.int32), np.eye(2) / 8, np.ones((1, 2)) * 8
    standard, mod2 = np.empty(3, object), np.empty(3, object)
    standard[:], mod2[:] = [u, v, w], [u, u, np.ones((1, 2), np.int64)]
    np.savez(tmp_path / "r.npz", **{"1,2,1": standard})
    np.savez(tmp_path / "f2.npz", **{"1,2,1": mod2})
    content = released.encode(tmp_path / "r.npz", tmp_path / "f2.npz")
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        assert archive.files == ["denominators", "1,2,1", "1,2,1:mod2"]
        assert archive["denominators"].tolist() == [8, 1]
        assert archive["1,2,1"].tolist() == [[8, 0], [0, 8], [1, 0], [0, 1], [64, 64]]
        assert archive["1,2,1"].dtype == np.int8
    standard[0] = u * 100
    np.savez(tmp_path / "r.npz", **{"1,2,1": standard})
    with pytest.raises(ValueError, match="1,2,1 holds numbers from 0 to 800, beyond int8"):
        released.encode(tmp_path / "r.npz", tmp_path / "f2.npz")
