"""Disks that are full, or cannot be written: an error, and nothing that was finished is lost."""

import contextlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maemem.config import everything
from maemem.data.convert import convert
from maemem.data.volumes import open_volume
from maemem.training.checkpoint import Checkpoints
from maemem.workdir import claim_workdir
from tests import disks, runs
from tests.blockwise import predictions
from tests.blockwise.volumes import grey_values, stored_volume

FULL = "(?i)no space left"


def fill(folder):
    """Leaves no byte."""
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_full_disk_ends_a_conversion_which_goes_on_when_there_is_space(tmp_path):
    array = grey_values((64, 128, 128))
    np.save(tmp_path / "a.npy", array)
    options = {"voxel_size_nm": (8, 8, 8), "shard_zyx": (32, 32, 32), "chunk_zyx": (32, 32, 32)}
    with disks.small_disk(tmp_path / "disk", "600k") as disk:
        output = disk / "a.zarr"
        with pytest.raises((ValueError, OSError), match=FULL):
            convert(str(tmp_path / "a.npy"), str(output), **options)
        assert not output.exists()
        done = {p: p.stat().st_mtime_ns for p in disk.glob("*.partial/.conversion/*/*")}
        assert done
        disks.grow(disk, "8m")
        convert(str(tmp_path / "a.npy"), str(output), **options)
        np.testing.assert_array_equal(open_volume(str(output)).store.read().result(), array)


def test_a_full_disk_ends_a_prediction_which_goes_on_when_there_is_space(tmp_path):
    volume = stored_volume(tmp_path / "raw.zarr", grey_values(predictions.SHAPE))
    whole = predictions.run(volume, tmp_path / "whole.zarr")
    with disks.small_disk(tmp_path / "disk", "40k") as disk:
        with pytest.raises((ValueError, OSError), match=FULL):
            predictions.run(volume, disk / "a.zarr")
        assert not (disk / "a.zarr").exists()
        assert list(disk.glob("*.partial/.conversion/*/*"))
        disks.grow(disk, "8m")
        assert predictions.run(volume, disk / "a.zarr").tobytes() == whole.tobytes()


def test_a_full_disk_ends_a_training_whose_last_checkpoint_stays(tmp_path):
    def state(value):
        return {"step": jnp.int32(value), "params": {"kernel": jnp.full((300, 300), value, float)}}

    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state(0)
    )

    def save(step):
        with Checkpoints(disk / "checkpoints", keep=3) as checkpoints:
            checkpoints.save(step, state(step))
            checkpoints.wait()

    with disks.small_disk(tmp_path / "disk", "2m") as disk:
        save(1)
        fill(disk)
        with pytest.raises((ValueError, OSError), match=FULL):
            save(2)
        (disk / "filler").unlink()
        with Checkpoints(disk / "checkpoints", keep=3) as checkpoints:
            found = checkpoints.restore(like)
            assert found is not None
            jax.tree.map(np.testing.assert_array_equal, found, state(1))


@pytest.mark.slow
def test_a_run_on_a_full_disk_says_so_and_goes_on_when_there_is_space(undisturbed, tmp_path):
    with disks.small_disk(tmp_path / "disk", "64m") as disk:
        process = runs.start(disk, **runs.LONG["pretrain"])
        runs.wait_for_rows(process, disk, 10)
        fill(disk)
        output, _ = process.communicate(timeout=100)
        assert process.returncode == 1, output
        assert re.search(FULL, output)
        assert "Traceback" not in output
        (disk / "filler").unlink()
        runs.run(disk, **runs.LONG["pretrain"])
        ours, theirs = (runs.parameters(w, 120) for w in (disk, undisturbed("pretrain")))
        runs.assert_same_arrays(ours, theirs)


@pytest.mark.parametrize("begun", [True, False])
def test_a_workdir_that_cannot_be_written_is_refused(tmp_path, begun):
    (tmp_path / "disk").mkdir()
    workdir = tmp_path / "disk" / "run"
    if begun:
        (workdir / "pretrain").mkdir(parents=True)
    with disks.read_only(tmp_path / "disk"), pytest.raises(OSError, match="Read-only"):
        claim_workdir(everything(), workdir, ("pretrain",))
