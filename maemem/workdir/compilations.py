"""XLA's compilation cache in a workdir."""

from __future__ import annotations

import os
import pathlib

import jax

from maemem import layout


def cache_compilations(workdir: pathlib.Path) -> None:
    """Caches compiled programs in WORKDIR/cache/compiled, so that a resumed run starts fast.

    JAX's own variables take precedence: `JAX_COMPILATION_CACHE_DIR` names a folder for all runs,
    `JAX_ENABLE_COMPILATION_CACHE=false` disables the cache.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = layout.compiled_folder(workdir).absolute()
        jax.config.update("jax_compilation_cache_dir", str(folder))
    # JAX skips programs that compile in under a second, which together take most of a start.
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
