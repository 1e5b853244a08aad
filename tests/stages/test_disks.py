"""Disks that are full, or cannot be written: an error, and nothing that was finished is lost."""

import contextlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maemem.data.convert import convert
from maemem.data.stores.volumes import open_volume
from maemem.training.checkpoint import Checkpoints
from tests import disks, runs
from tests.blockwise import predictions
from tests.blockwise.volumes import grey_values, stored_volume

FULL = "(?i)no space left"
FULL_LINE = "(?i).*error: .*no space left.*"


def fill(folder):
    """Leaves no byte."""
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def command(*arguments):
    """A conversion from the command line."""
    line = [sys.executable, "-m", "maemem.data.convert", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True)


def finished(disk):
    """How many blocks are recorded as finished, and when each chunk on a disk was written."""
    done = [p for p in disk.glob("*.partial/.conversion/*/*") if not p.name.endswith("__lock")]
    assert done
    chunks = [p for p in disk.glob("*.partial/0/c/**/*") if p.is_file()]
    (partial,) = disk.glob("*.partial")
    return len(done), {p.relative_to(partial): p.stat().st_mtime_ns for p in chunks}


def unchanged(output, written):
    """How many chunks were not written again: each block has at least one."""
    return sum((output / name).stat().st_mtime_ns == at for name, at in written.items())


def test_a_full_disk_ends_a_conversion_which_goes_on_when_there_is_space(tmp_path):
    array = grey_values((64, 128, 128))
    np.save(tmp_path / "a.npy", array)
    options = {"voxel_size_nm": (8, 8, 8), "shard_zyx": (32, 32, 32), "chunk_zyx": (32, 32, 32)}
    said = {name: ",".join(map(str, value)) for name, value in options.items()}
    with disks.small_disk(tmp_path / "disk", "600k") as disk:
        output = disk / "a.zarr"
        with pytest.raises((ValueError, OSError), match=FULL):
            convert(str(tmp_path / "a.npy"), str(output), **options)
        assert not output.exists()
        done, written = finished(disk)
        again = command(tmp_path / "a.npy", output, *(f"--{k}={v}" for k, v in said.items()))
        assert again.returncode == 1
        assert re.fullmatch(FULL_LINE, again.stderr.splitlines()[-1])
        assert "Traceback" not in again.stderr
        disks.grow(disk, "8m")
        convert(str(tmp_path / "a.npy"), str(output), **options)
        assert unchanged(output, written) >= done
        np.testing.assert_array_equal(open_volume(str(output)).store.read().result(), array)


def test_a_full_disk_ends_a_prediction_which_goes_on_when_there_is_space(tmp_path):
    volume = stored_volume(tmp_path / "raw.zarr", grey_values(predictions.SHAPE))
    whole = predictions.run(volume, tmp_path / "whole.zarr")
    with disks.small_disk(tmp_path / "disk", "40k") as disk:
        with pytest.raises((ValueError, OSError), match=FULL):
            predictions.run(volume, disk / "a.zarr")
        assert not (disk / "a.zarr").exists()
        done, written = finished(disk)
        disks.grow(disk, "8m")
        assert predictions.run(volume, disk / "a.zarr").tobytes() == whole.tobytes()
        assert unchanged(disk / "a.zarr", written) >= done


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
        (workdir / "config.json").write_text("{}")
    with disks.read_only(tmp_path / "disk"):
        printed = runs.run(workdir, status=1)
    assert re.search("error: .*Read-only file system", printed.splitlines()[-1])
    assert "Traceback" not in printed
    assert list((tmp_path / "disk").rglob("*.*")) == [workdir / "config.json"] * begun
