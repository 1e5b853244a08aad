"""The networks that a config describes."""

import functools

import jax
import numpy as np
import pytest

from maemem.assembly.checks import check_config
from maemem.assembly.learners import make_learner, make_segmenter
from maemem.assembly.networks import intensity_range
from tests import runs
from tests.learners.made import like


def shapes(learner, config):
    """Of all parameters, by name; nothing is computed."""
    crops = like(config.data.crop_zyx)
    made = jax.eval_shape(lambda key: learner.init(key, crops), jax.random.key(0))
    return {
        jax.tree_util.keystr(path): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(made)
    }


@pytest.mark.parametrize("fields", [{}, {"rotary": True}, {"patch_zyx": (2, 8, 8)}])
def test_a_segmenter_has_the_encoder_that_is_pre_trained(fields):
    config = runs.config(**{f"model__encoder__{name}": of for name, of in fields.items()})
    pretrained = shapes(make_learner(config, "pretrain"), config)
    fine_tuned = shapes(make_learner(config, "finetune"), config)
    encoder = {name: shape for name, shape in pretrained.items() if "encoder" in name}
    assert encoder
    assert encoder.items() <= fine_tuned.items()


def test_a_segmenter_predicts_each_channel_of_the_target():
    config = runs.config()
    learner = make_segmenter(config)
    crops = np.zeros((2, *config.data.crop_zyx), np.uint8)
    init = functools.partial(learner.init, like=like(config.data.crop_zyx))
    params = jax.eval_shape(init, jax.random.key(0))
    found = jax.eval_shape(learner.predict, params, crops)
    assert found.shape == (*crops.shape, len(learner.target.channels))


@pytest.mark.parametrize(("given", "used"), [((), (0.0, 255.0)), ((10, 4000), (10.0, 4000.0))])
def test_intensities_are_those_of_uint8_unless_said(given, used):
    assert intensity_range(runs.config(data__intensity_range=given)) == used


@pytest.mark.parametrize("field", ["data__crop_zyx", "predict__window_zyx"])
def test_what_is_too_small_for_the_target_is_refused(field):
    config = runs.config(**{field: (1, 32, 32)}, predict__stride_zyx=(1, 32, 32))
    with pytest.raises(ValueError, match=field.replace("__", r"\.")):
        check_config(config)
