"""What a training step becomes on GPUs and TPUs, read from the program that they would be given."""

import dataclasses
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

from maemem.assembly.learners import make_learner
from maemem.assembly.trainings import make_training
from maemem.models.compute import Compute
from maemem.training.fit import prepare
from tests import runs
from tests.learners.made import like

# The article's crop and patch, so its numbers of tokens: 21 are seen, 216 are decoded.
ARTICLE = {
    "data__crop_zyx": "(6,96,96)",
    "model__encoder__patch_zyx": "(1,16,16)",
    "model__segmenter__channels": "(8,8,8,8)",
    "model__encoder__width": 32,
    "pretrain__learner__decoder__width": 32,
    "pretrain__learner__ratio": 0.9,
    "pretrain__learner__decoded": 0,
}


def program(stage: str, platform: str, attention: str) -> str:
    """The step of a stage, lowered for a platform."""
    config = runs.config(**ARTICLE)
    learner, run = make_learner(config, stage), make_training(config, stage, pathlib.Path())
    how = Compute(jnp.bfloat16, attention=attention)
    made = learner.given.segmenter
    given = dataclasses.replace(
        learner.given,
        compute=how,
        encoder=learner.given.encoder.clone(compute=how),
        segmenter=lambda outputs: clone(made(outputs), how),
        augmentation=None,  # It interpolates by small products, in float32 on purpose.
    )
    learner = dataclasses.replace(learner, given=given)
    batch = like(config.data.crop_zyx, 8, learner.reads)
    _, state, _, step = prepare(learner, run, batch)
    return step.trace(state, batch).lower(lowering_platforms=(platform,)).as_text()


def clone(segmenter, how):
    return segmenter.clone(compute=how, encoder=segmenter.encoder.clone(compute=how))


no_gpu = pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN is asked what it can")


@pytest.mark.parametrize(
    ("platform", "attention"),
    [("cuda", "xla"), ("tpu", "xla"), pytest.param("cuda", "cudnn", marks=no_gpu)],
)
@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_products_are_bfloat16_attention_is_fused_and_nothing_calls_back(
    stage, platform, attention
):
    text = program(stage, platform, attention)
    called = set(re.findall(r"custom_call @([^\s(]+)\(", text))
    if attention == "cudnn":
        assert {"__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"} <= called
    assert not [name for name in called if "callback" in name]
    assert not re.findall(r"stablehlo\.(?:infeed|outfeed|send|recv)\b", text)
    products = re.findall(r"stablehlo\.(?:dot_general|convolution).*", text)
    assert len(products) > 30
    # The gradient of attention's logits is float32, the other factor of its two products is not.
    float32 = [line for line in products if re.search(r": \(tensor<\S+xf32>, \S+xf32>\)", line)]
    # The segmenter's last layer, forward and its two gradients, makes float32 logits.
    assert len(float32) == (3 if stage == "finetune" else 0), float32
