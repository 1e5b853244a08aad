"""Compiles something beside a run: WORKDIR."""

import pathlib
import sys

import jax

from maemem.workdir import cache_compilations

if __name__ == "__main__":
    cache_compilations(pathlib.Path(sys.argv[1]))
    jax.jit(lambda x: x * 2 + 1)(3.0)
