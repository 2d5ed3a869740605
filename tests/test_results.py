"""What benchmarks/results keeps of discovered algorithms is right."""

import pathlib

import pytest

from tensorgame.algorithms import formats

FOLDER = pathlib.Path(__file__).parents[1] / "benchmarks" / "results" / "algorithms"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.npz")), ids=lambda path: path.stem)
def test_an_algorithm_is_of_the_target_and_rank_that_its_name_says(path):
    found = formats.load(path)
    name, *_ = path.stem.split("-z2-")
    assert found.target.name == name.replace("-", ":", 1).replace("-", ",")
    assert f"-rank{found.rank}" in path.stem
    assert "over Z," in found.check()
