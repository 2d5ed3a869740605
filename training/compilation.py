"""Compiled programs are kept on disk, so that the second start of a configuration takes seconds."""

import os
import pathlib
import platform

import jax


def keep_compiled() -> None:
    """Makes JAX keep what it compiles in the user's cache folder, unless it was given another.

    JAX_COMPILATION_CACHE_DIR names another folder, JAX_ENABLE_COMPILATION_CACHE=false keeps none.
    To be called before anything is compiled: JAX looks for its cache once.
    """
    if jax.config.jax_compilation_cache_dir:
        return
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(home, "tensorgame", "xla")
    if jax.default_backend() == "cpu":
        # Made for the processor of this host; the folder may be seen by others.
        folder /= platform.node()
    jax.config.update("jax_compilation_cache_dir", str(folder))
