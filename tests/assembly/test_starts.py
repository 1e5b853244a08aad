"""What a network starts from, as a config names it."""

import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from maemem.assembly.learners import make_learner
from maemem.assembly.starts import read_2d, start_from
from maemem.assembly.trainings import make_training
from maemem.models.inflation import inflate
from tests import runs
from tests.learners.made import like
from tests.models import vit

FIELDS = {
    "model__encoder__patch_zyx": (2, vit.PATCH, vit.PATCH),
    "model__encoder__positions_yx": (vit.SIDE, vit.SIDE),
    "model__encoder__width": vit.WIDTH,
    "model__encoder__depth": vit.DEPTH,
    "model__encoder__heads": vit.HEADS,
    "model__encoder__rotary": False,
}


@pytest.fixture
def file(tmp_path):
    """Published 2-D weights, and what lies beside them."""
    save_file(vit.renamed(vit.weights()), tmp_path / "model.safetensors")
    beside = {"num_attention_heads": vit.HEADS, "hidden_act": "gelu"}
    (tmp_path / "config.json").write_text(json.dumps(beside))
    normalised = {"image_mean": vit.MEAN, "image_std": vit.STD}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(normalised))
    return tmp_path / "model.safetensors"


def expected():
    """The encoder of `file`, in patches of two sections."""
    patch = (2, vit.PATCH, vit.PATCH)
    return inflate(vit.weights(), patch, "centre", mean=vit.MEAN, std=vit.STD)


def test_a_network_starts_from_2d_weights(file, tmp_path, caplog):
    config = runs.config(**FIELDS, pretrain__encoder=str(file))
    learner, crops = make_learner(config, "pretrain"), like(config.data.crop_zyx)
    shapes = jax.eval_shape(lambda key: learner.init(key, crops), jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    with caplog.at_level(logging.INFO, "maemem"):
        started = start_from(params, config, make_training(config, "pretrain", tmp_path), tmp_path)
    assert f"mean {list(vit.MEAN)}" in caplog.text
    assert "parameters matched, of encoder" in caplog.text
    jax.tree.map(np.testing.assert_array_equal, started["encoder"], expected())


def test_weights_without_a_word_about_pixels_take_them_from_minus_one_to_one(file):
    (file.parent / "preprocessor_config.json").unlink()
    found = read_2d(file, runs.config(**FIELDS), "centre")
    wanted = inflate(vit.weights(), (2, vit.PATCH, vit.PATCH), "centre")
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"model__encoder__positions_yx": ()},
            r"knows 3x3 .* set --config\.model\.encoder\.positions_yx=3,3",
        ),
        ({"model__encoder__heads": 4}, "has 2 attention heads, and model.encoder.heads is 4"),
        ({"model__encoder__patch_zyx": (1, 8, 8)}, "patches of 4x4 pixels"),
    ],
)
def test_2d_weights_that_do_not_fit_are_refused(file, fields, message):
    with pytest.raises(ValueError, match=message):
        read_2d(file, runs.config(**FIELDS | fields), "centre")


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "other.safetensors").write_text("no tensors")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        read_2d(tmp_path / "other.safetensors", runs.config(**FIELDS), "centre")


@pytest.mark.slow
def test_a_whole_run_starts_from_2d_weights(file, tmp_path):
    fields = FIELDS | {
        "model__encoder__patch_zyx": "(2,4,4)",
        "model__encoder__positions_yx": "3,3",
    }
    fields |= {
        "model__segmenter__channels": "(4,8)",
        "data__crop_zyx": "(2,16,16)",
        "pretrain__steps": 4,
    }
    fields |= {"pretrain__learner__decoded": 4, "predict__stride_zyx": "(2,16,16)"}
    fields |= {"finetune__steps": 2, "finetune__optimizer__layer_decay": 0.7}
    stages = "('pretrain','finetune','predict')"
    printed = runs.run(tmp_path, **fields, stages=stages, pretrain__encoder=str(file))
    assert f"from {file}: " in printed
    assert f"from {tmp_path}/pretrain/checkpoints/4: " in printed
    gain = runs.parameters(tmp_path, 4)["params/encoder/positions/depth_gain"]
    assert np.abs(gain).max() > 0
    assert (tmp_path / "predict" / "test" / "labelled.zarr").exists()
