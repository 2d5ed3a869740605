"""What the devices of a run can do."""

import jax


def generation() -> int:
    """Of NVIDIA's devices the major compute capability, 9 for Hopper; 0 of any other."""
    if jax.default_backend() != "gpu":
        return 0
    major, _, minor = jax.local_devices()[0].compute_capability.partition(".")
    return int(major) if minor.isdigit() else 0


def runs_triton() -> bool:
    """Whether kernels written in Triton run: on NVIDIA's devices since Ampere."""
    return generation() >= 8
