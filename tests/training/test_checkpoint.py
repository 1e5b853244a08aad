"""Checkpoints on disk: what is kept, what is read back, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maemem.training.checkpoint import Checkpoints, read_parameters


def state(step, ema=False):
    params = {"layer": {"kernel": jnp.arange(6.0).reshape(2, 3) + step}}
    average = jax.tree.map(lambda leaf: leaf / 2, params) if ema else None
    return {"step": jnp.int32(step), "params": params, "ema": average}


def like():
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state(0)
    )


def save(folder, steps, keep=9, ema=False):
    with Checkpoints(folder, keep) as checkpoints:
        for step in steps:
            checkpoints.save(step, state(step, ema))


def kept(folder):
    return sorted(int(path.name) for path in folder.iterdir())


def destroy(checkpoint):
    for path in checkpoint.rglob("*"):
        if path.is_file() and "METADATA" not in path.name:
            path.write_bytes(b"")


def assert_same(found, wanted):
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_the_newest_state_is_restored(tmp_path):
    with Checkpoints(tmp_path / "run", keep=3) as checkpoints:
        assert checkpoints.restore(like()) is None
        assert checkpoints.describe_last() == "none yet"
        for step in (2, 4):
            checkpoints.save(step, state(step))
        assert checkpoints.describe_last() == f"step 4 in {tmp_path / 'run' / '4'}"
    with Checkpoints(tmp_path / "run", keep=3) as checkpoints:
        assert_same(checkpoints.restore(like()), state(4))


def test_only_the_last_are_kept(tmp_path):
    save(tmp_path / "run", (1, 2, 3, 4), keep=2)
    assert kept(tmp_path / "run") == [3, 4]


def test_a_step_is_saved_once(tmp_path):
    save(tmp_path / "run", (1,))
    with Checkpoints(tmp_path / "run", keep=3) as checkpoints:
        checkpoints.save(1, state(9))
        checkpoints.wait()
        assert_same(checkpoints.restore(like()), state(1))


def test_a_damaged_checkpoint_is_set_aside(tmp_path, caplog):
    folder = tmp_path / "run" / "checkpoints"
    save(folder, (1, 2, 3))
    destroy(folder / "3")
    with Checkpoints(folder, keep=9) as checkpoints:
        assert_same(checkpoints.restore(like()), state(2))
    assert kept(folder) == [1, 2]
    assert [path.name for path in (tmp_path / "run" / "damaged").iterdir()] == ["3-0"]
    assert "falling back to the checkpoint of step 2" in caplog.text


def test_where_none_can_be_read_all_stay(tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    save(folder, (1, 2))
    for step in (1, 2):
        destroy(folder / str(step))
    with (
        Checkpoints(folder, keep=9) as checkpoints,
        pytest.raises(ValueError, match="none of the checkpoints"),
    ):
        checkpoints.restore(like())
    assert kept(folder) == [1, 2]


@pytest.mark.parametrize("ema", [False, True])
@pytest.mark.parametrize("given", ["", "pretrain/checkpoints", "pretrain/checkpoints/2"])
def test_parameters_are_read_from_a_workdir_or_less_of_it(tmp_path, given, ema):
    save(tmp_path / "pretrain" / "checkpoints", (1, 2), ema=ema)
    params, checkpoint = read_parameters(tmp_path / given, "pretrain")
    assert_same(params, state(2, ema)["ema" if ema else "params"])
    assert checkpoint == tmp_path / "pretrain" / "checkpoints" / "2"


def test_parameters_that_are_not_there_or_damaged_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected a workdir with finetune/checkpoints"):
        read_parameters(tmp_path, "finetune")
    save(tmp_path / "checkpoints", (1,))
    destroy(tmp_path / "checkpoints" / "1")
    with pytest.raises(ValueError, match=r"checkpoints/1 cannot be read"):
        read_parameters(tmp_path, "finetune")
