"""What the devices of a run can do."""

import jax


def generation() -> int:
    """Of NVIDIA's devices the first number of their compute capability, 9 for Hopper; otherwise 0.

    Triton needs 8, that of Ampere.
    """
    if jax.default_backend() != "gpu":
        return 0
    major, _, minor = jax.local_devices()[0].compute_capability.partition(".")
    return int(major) if minor.isdigit() else 0
