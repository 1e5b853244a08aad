"""Damage to what stages have written: noticed, named, and everything else left as it is."""

import json
import shutil

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from maemem.blockwise.store import open_prediction, read_labels, read_prediction
from maemem.stages import evaluate, predict, segment
from maemem.training.checkpoint import Checkpoints, read_parameters
from maemem.training.metrics import MetricWriter, read_metrics
from maemem.workdir import claim_workdir, timed
from tests import runs
from tests.blockwise import predictions, segmentations
from tests.blockwise.volumes import grey_values, stored_volume

# A file, and a bit of it.
BITS = st.tuples(st.integers(0, 1 << 16), st.integers(0, 1 << 24), st.integers(0, 7))


def fuzzed(count):
    return hypothesis.settings(
        max_examples=count,
        deadline=None,
        suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
    )


def flip(folder, bit):
    """Flips one bit of one of the files in a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = files[bit[0] % len(files)]
    content = bytearray(path.read_bytes())
    if content:
        content[bit[1] % len(content)] ^= 1 << bit[2]
        path.write_bytes(content)


def state(value):
    """What a training saves, in small: trained weights, of all bits of which something depends."""
    numbers = np.random.default_rng(value).normal(size=(3, 40, 30)).astype(np.float32)
    return {
        "step": jnp.int32(value),
        "params": {"bias": jnp.asarray(numbers[0, 0]), "kernel": jnp.asarray(numbers[0])},
        "opt_state": (jnp.asarray(numbers[1]), {"nu": jnp.asarray(numbers[2], jnp.bfloat16)}),
    }


def assert_same(found, wanted):
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def restore(folder):
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state(0)
    )
    with Checkpoints(folder, keep=3) as checkpoints:
        return checkpoints.restore(like)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_flipped_bit_of_a_checkpoint_is_noticed(tmp_path):
    """The one before is used then, bit for bit, and the damaged one is kept aside."""
    with Checkpoints(tmp_path / "whole", keep=3) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, state(step))
    noticed = 0

    @fuzzed(40)
    @hypothesis.given(bit=BITS)
    def check(bit):
        nonlocal noticed
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(tmp_path / "whole", tmp_path / "run" / "checkpoints")
        flip(tmp_path / "run" / "checkpoints" / "2", bit)
        try:
            found = restore(tmp_path / "run" / "checkpoints")
        except ValueError as error:
            found = str(error)
        if isinstance(found, str):  # Orbax does not list them; it is rare, and said.
            assert "damaged _CHECKPOINT_METADATA" in found
            return
        assert found is not None
        step = int(found["step"])
        assert_same(found, state(step))
        aside = list((tmp_path / "run").glob("damaged/*"))
        assert (step == 1) == bool(aside)
        noticed += step == 1

    check()
    assert noticed > 5


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_flipped_bit_of_a_network_to_start_from_is_noticed(tmp_path):
    with Checkpoints(tmp_path / "whole", keep=3) as checkpoints:
        checkpoints.save(7, state(7) | {"ema": None})

    @fuzzed(40)
    @hypothesis.given(bit=BITS)
    def check(bit):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(tmp_path / "whole", tmp_path / "run" / "checkpoints")
        flip(tmp_path / "run", bit)
        try:
            found, _ = read_parameters(tmp_path / "run", "pretrain")
        except ValueError as error:
            found = str(error)
        if isinstance(found, str):
            assert "checkpoints/7 cannot be read" in found
        else:
            assert_same(found, state(7)["params"])

    check()


def test_a_damaged_network_predicts_nothing(tmp_path):
    """That of another run; the stage itself says so."""
    folder, workdir = tmp_path / "other" / "finetune" / "checkpoints", tmp_path / "run"
    with Checkpoints(folder, keep=3) as checkpoints:
        checkpoints.save(7, state(7) | {"ema": None})
    config = runs.config(predict__network=str(tmp_path / "other"))
    with pytest.raises(ValueError, match="another one than the config describes"):
        predict.run(config, workdir)  # It can be read.
    # In which of the files of arrays the parameters are, and where, differs from time to time.
    for path in folder.rglob("ocdbt.process_0/d/*"):
        path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
    with pytest.raises(ValueError, match="checkpoints/7 cannot be read"):
        predict.run(config, workdir)
    assert not (workdir / "predict").exists()


def stored_prediction(path):
    volume = stored_volume(path.with_name("raw.zarr"), grey_values(predictions.SHAPE))
    return predictions.run(volume, path, dtype="uint8")


def stored_labels(path):
    affinities = segmentations.smooth_affinities(0, (6, 12, 12))
    options = {"block_zyx": (3, 6, 6), "chunk_zyx": (3, 6, 6)}
    return segmentations.run(affinities, segmentations.linked, path, **options)


@pytest.mark.parametrize(
    ("write", "read"), [(stored_prediction, read_prediction), (stored_labels, read_labels)]
)
def test_a_flipped_bit_of_a_result_is_noticed(tmp_path, write, read):
    whole = write(tmp_path / "whole.zarr")
    assert whole.any()
    noticed = 0

    @fuzzed(80)
    @hypothesis.given(bit=BITS)
    def check(bit):
        nonlocal noticed
        shutil.rmtree(tmp_path / "a.zarr", ignore_errors=True)
        shutil.copytree(tmp_path / "whole.zarr", tmp_path / "a.zarr")
        flip(tmp_path / "a.zarr" / "0" / "c", bit)
        try:
            found = read(tmp_path / "a.zarr")
        except ValueError as error:
            found = str(error)
        if isinstance(found, str):
            noticed += 1
            assert f"{tmp_path}/a.zarr cannot be read" in found
        else:
            np.testing.assert_array_equal(found, whole)

    check()
    assert noticed > 40


@pytest.mark.parametrize("content", [None, "", "{", "[1]", "{}", '{"config": 3}', "\x00"])
def test_results_whose_config_is_damaged_are_refused(tmp_path, content):
    (tmp_path / "pretrain").mkdir()
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=r"holds results, but no readable config\.json"):
        claim_workdir(runs.config(), tmp_path, ("pretrain",))
    assert (path.read_text() if path.exists() else None) == content


@pytest.mark.parametrize("damage", ["lost", "cut"])
def test_a_lost_or_truncated_chunk_is_not_read_as_zeros(tmp_path, damage):
    """Chunks of nothing but zeros are written for this."""
    volume = stored_volume(tmp_path / "raw.zarr", grey_values(predictions.SHAPE))
    nothing = predictions.run(
        *(volume, tmp_path / "a.zarr", lambda crops: np.zeros((*crops.shape, 2), np.float32))
    )
    assert not nothing.any()
    path = tmp_path / "a.zarr" / "0" / "c" / "0" / "1" / "2" / "1"
    content = path.read_bytes()
    path.unlink() if damage == "lost" else path.write_bytes(content[: len(content) // 2])
    with pytest.raises(
        ValueError, match=r"a\.zarr cannot be read .*; delete it, and run the stage"
    ):
        read_prediction(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"\xff", b"{}", b'{"attributes": {"maemem": 3}}']
)
def test_damaged_metadata_of_a_result_are_named(tmp_path, content):
    volume = stored_volume(tmp_path / "raw.zarr", grey_values(predictions.SHAPE))
    predictions.run(volume, tmp_path / "a.zarr")
    (tmp_path / "a.zarr" / "zarr.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.zarr"):
        open_prediction(tmp_path / "a.zarr")
    with pytest.raises(FileExistsError, match=r"a\.zarr exists and is no finished prediction"):
        predictions.run(volume, tmp_path / "a.zarr")


@pytest.mark.parametrize("content", ["", "{", "[1]", "{}", '{"thresholds": 3}'])
@pytest.mark.parametrize("name", ["segment/tuned.json", "evaluate/scores.json"])
def test_a_damaged_record_is_named_and_left_as_it_is(tmp_path, name, content):
    good = json.dumps({"thresholds": {"network": {"threshold": 0.5}}, "tuned": "0"})
    for other in ("segment/tuned.json", "evaluate/scores.json"):
        (tmp_path / other).parent.mkdir()
        (tmp_path / other).write_text(good if other != name else content)
    stages = (segment, evaluate) if name == "segment/tuned.json" else (evaluate,)
    for stage in stages:
        with pytest.raises(ValueError, match=r"(tuned|scores)\.json"):
            stage.run(runs.config(), tmp_path)
    assert (tmp_path / name).read_text() == content


def test_a_damaged_piece_of_a_segmentation_under_way_is_named(tmp_path):
    affinities = segmentations.smooth_affinities(0, (6, 12, 12))
    options = {"block_zyx": (3, 6, 6)}
    calls = []

    def killed(values):
        calls.append(None)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return segmentations.linked(values)

    with pytest.raises(KeyboardInterrupt):
        segmentations.run(affinities, killed, tmp_path / "a.zarr", **options)
    path = next(tmp_path.glob("a.zarr.partial/.conversion/pieces/cut/*.npz"))
    whole = path.read_bytes()

    for damaged in (whole[:50], whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"\.npz cannot be read .*delete the unfinished"):
            segmentations.run(affinities, segmentations.linked, tmp_path / "a.zarr", **options)
    path.write_bytes(whole)
    ids = next(
        p for p in tmp_path.glob("a.zarr.partial/.conversion/pieces/0/c/**/*") if p.is_file()
    )
    whole = ids.read_bytes()
    ids.write_bytes(whole[:-9])
    with pytest.raises(ValueError, match=r"/pieces cannot be read .*delete the unfinished"):
        segmentations.run(affinities, segmentations.linked, tmp_path / "a.zarr", **options)
    ids.write_bytes(whole)
    again = segmentations.run(affinities, segmentations.linked, tmp_path / "a.zarr", **options)
    wanted = segmentations.run(affinities, segmentations.linked, tmp_path / "b.zarr", **options)
    np.testing.assert_array_equal(again, wanted)


@pytest.mark.parametrize("damaged", ['{"step": 2, "lo', "3", "{}", "\x00\x00", '{"step": "2"}'])
def test_a_damaged_row_of_metrics_costs_that_row_alone(tmp_path, damaged):
    rows = [{"step": step, "loss": 1.0 / step} for step in range(1, 6)]
    lines = [json.dumps(row) for row in rows]
    lines[1] = damaged
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    with MetricWriter(tmp_path, 4) as writer:
        writer.write_scalars(5, {"loss": 0.5})
    kept = read_metrics(tmp_path / "metrics.jsonl")
    assert kept == [rows[0], rows[2], rows[3], {"step": 5, "loss": 0.5}]


@pytest.mark.parametrize("damaged", ["", "{", "[1]", '{"segment": "x"}', "\x00"])
def test_damaged_timings_begin_anew(tmp_path, damaged):
    (tmp_path / "timings.json").write_text(damaged)
    with timed("segment", tmp_path):
        pass
    assert json.loads((tmp_path / "timings.json").read_text()).keys() == {"segment"}
