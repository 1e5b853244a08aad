"""Keeps what this process of several restores of a checkpoint: WORKDIR."""

import pathlib
import sys

import jax
import numpy as np

from maemem.stages import train
from maemem.training import fit
from maemem.training.checkpoint import Checkpoints
from maemem.training.mesh import join_cluster
from tests import runs

if __name__ == "__main__":
    workdir = pathlib.Path(sys.argv[1])
    join_cluster()
    config = runs.config(**runs.LONG["pretrain"], pretrain__checkpoint_every=20)
    ready = train.prepare(config, workdir, "pretrain")
    run = ready.run
    with Checkpoints(run.folder / "checkpoints", run.keep_checkpoints) as checkpoints:
        state = checkpoints.restore(fit.prepare(ready.learner, run, ready.like).like)
    arrays = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.addressable_data(0)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }
    np.savez(workdir / f"restored-{jax.process_index()}.npz", **arrays)
