import pathlib

import jax
import pytest

from training.compilation import keep_compiled


@pytest.fixture
def folder():
    """Reads and restores the folder that JAX keeps programs in."""
    before = jax.config.jax_compilation_cache_dir
    yield lambda: jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", before)


def test_programs_are_kept_in_the_cache_of_the_user(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    keep_compiled()
    assert pathlib.Path(folder()).is_relative_to(tmp_path / "tensorgame" / "xla")


def test_a_folder_that_jax_was_given_stays(folder, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    keep_compiled()
    assert folder() == str(tmp_path)
