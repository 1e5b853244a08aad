"""What a training step becomes on GPUs and TPUs, read from the program that they would be given."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest

from maemem.assembly.networks import reconstruction, segmentation
from maemem.assembly.trainings import optimizer_settings
from maemem.data.samples.crops import Crops
from maemem.models.layers import Compute
from maemem.training.mesh import make_mesh
from maemem.training.step import make_train_step, state_maker
from tests import runs

# The article's crop and patch, so its numbers of tokens: 21 are seen, 216 are decoded.
ARTICLE = {
    "data__crop_zyx": "(6,96,96)",
    "model__patch_zyx": "(1,16,16)",
    "model__channels": "(8,8,8,8)",
    "model__encoder__width": 32,
    "model__decoder__width": 32,
    "pretrain__masking__ratio": 0.9,
    "pretrain__masking__decoded": 0,
}


def program(stage: str, platform: str, attention: str) -> str:
    """The step of a stage, lowered for a platform."""
    config = runs.config(**ARTICLE)
    if stage == "pretrain":
        objective = reconstruction(config)
    else:  # Augmentation interpolates by small products, in float32 on purpose.
        objective = dataclasses.replace(segmentation(config, (30.0, 6.0, 6.0)), augmentation=None)
    model = dataclasses.replace(objective.model, compute=Compute(jnp.bfloat16, attention=attention))
    objective = dataclasses.replace(objective, model=model)
    optimizer = optimizer_settings(config[stage].optimizer, config[stage].steps)
    mesh = make_mesh()
    like, _ = state_maker(
        lambda key: objective.init(key, config.data.crop_zyx),
        optimizer.transformation(),
        seed=0,
        ema=False,
        mesh=mesh,
        fsdp=False,
    )
    step = make_train_step(
        objective.loss,
        optimizer.transformation(),
        optimizer.schedule(),
        like,
        seed=0,
        ema_decay=0.0,
        accumulation=1,
        mesh=mesh,
        fsdp=False,
    )
    shape = (8, *config.data.crop_zyx)
    image, labels = jax.ShapeDtypeStruct(shape, jnp.uint8), jax.ShapeDtypeStruct(shape, jnp.int32)
    batch = image if stage == "pretrain" else Crops(image, labels)
    return step.trace(like, batch).lower(lowering_platforms=(platform,)).as_text()


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
