"""What benchmarks/results keeps of discovered algorithms is right."""

import pathlib

import pytest

from tensorgame.algorithms import formats
from training.workdir import slug

FOLDER = pathlib.Path(__file__).parents[1] / "benchmarks" / "results" / "algorithms"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.npz")), ids=lambda path: path.stem)
def test_an_algorithm_is_of_the_target_and_rank_that_its_name_says(path):
    found = formats.load(path)
    assert found.check()
    assert path.stem.startswith(f"{slug(found.target.name)}-z")
    assert f"-rank{found.rank}" in path.stem
