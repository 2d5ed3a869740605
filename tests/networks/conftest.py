"""What the tests of GPU kernels share."""

from collections.abc import Callable

import jax
import pytest


@pytest.fixture(scope="session")
def translate() -> Callable[[jax.stages.Traced], str]:
    """A traced function's program for a CUDA device; the test is skipped where JAX cannot tell."""

    def for_cuda(traced: jax.stages.Traced) -> str:
        try:
            return traced.lower(lowering_platforms=("cuda",)).as_text()
        except RuntimeError as error:
            # From 0.11 on JAX asks a GPU what it can do.
            if "No supported GPU devices" not in str(error):
                raise
            pytest.skip(f"JAX {jax.__version__} translates kernels only where there is a GPU")

    return for_cuda
