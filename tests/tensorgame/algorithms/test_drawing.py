"""Pictures of factor matrices."""

import pathlib
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest

from tensorgame.algorithms import released
from tensorgame.algorithms.drawing import _cells, _colours, draw
from tensorgame.algorithms.factorization import Factorization
from tensorgame.targets import from_tensor, matmul


def drawn(factorization: Factorization, path: pathlib.Path) -> np.ndarray:
    """The picture as one number a pixel, 0xRRGGBB."""
    draw(factorization, path)
    return packed((matplotlib.image.imread(path)[..., :3] * 255).round().astype(np.uint8))


def packed(colours: np.ndarray) -> np.ndarray:
    return colours.astype(np.int32) @ np.array([2**16, 2**8, 1], np.int32)


@pytest.mark.parametrize("name", ["2,2,2", "4,4,4:mod2", "5,5,5", "11,12,12"])
def test_each_number_fills_its_share_of_the_cells(name, tmp_path):
    f = released.load(f"alphatensor:{name}")
    picture = drawn(f, tmp_path / "picture.png")
    values, counts, _ = _cells(f)
    colours, nonzero = _colours(values), values.any(axis=1)
    pixels = np.array([np.count_nonzero(picture == c) for c in packed(colours[nonzero])])
    occurrences = counts[nonzero]
    np.testing.assert_allclose(pixels / pixels.sum(), occurrences / occurrences.sum(), atol=0.05)
    assert max(picture.shape) < 2600


def test_zero_is_white_and_signs_are_red_and_blue():
    values = np.array([[0, 0], [1, 0], [2, 0], [-1, 0], [-2, 0], [0, 1], [0, -1], [1, 1]])
    colours = _colours(values)
    zero, one, two, minus_one, minus_two, i, minus_i, _ = colours.astype(int)
    assert (zero == 255).all()
    for red, blue in ((one, minus_one), (two, minus_two)):
        assert red[0] > red[2]
        assert blue[2] > blue[0]
    assert (two < one).all()
    assert (minus_two < minus_one).all()
    assert len({tuple(c) for c in colours}) == len(values)
    assert minus_i[1] == minus_i.max()
    assert i[2] > i[0] > i[1]


def test_complex_and_many_coefficients_and_large_residues(tmp_path):
    rng = np.random.default_rng(0)
    target = matmul(2, 2, 2)
    gaussian = {name: rng.integers(-3, 4, (4, 9, 2)) for name in "uvw"}
    many = {name: rng.integers(-40, 40, (4, 9)) for name in "uvw"}
    for n, fields in enumerate((gaussian, many, many | {"modulus": 7}, many | {"denominator": 4})):
        path = tmp_path / f"{n}.png"
        picture = drawn(Factorization(target=target, **fields), path)
        assert len(np.unique(picture)) > 6


def test_factors_of_unequal_heights_and_a_single_product(tmp_path):
    ones = [np.ones((side, 1), int) for side in (1, 30, 2)]
    target = from_tensor("t", np.ones((1, 30, 2), int))
    f = Factorization(target=target, u=ones[0], v=ones[1], w=ones[2])
    assert drawn(f, tmp_path / "tall.png").shape[0] > 1000


def test_other_formats_and_bad_paths(tmp_path):
    f = released.load("alphatensor:2,2,2")
    draw(f, tmp_path / "picture.svg")
    assert (tmp_path / "picture.svg").read_text().startswith("<?xml")
    with pytest.raises(ValueError, match="not supported"):
        draw(f, tmp_path / "picture.doc")
    with pytest.raises(OSError, match="No such file"):
        draw(f, tmp_path / "absent" / "picture.png")


def test_pyplot_and_matplotlib_are_not_imported_early():
    code = (
        "import sys; from tensorgame.algorithms import drawing as d, released;"
        "assert 'matplotlib' not in sys.modules;"
        "import io; d.draw(released.load('alphatensor:2,2,2'), io.BytesIO());"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
