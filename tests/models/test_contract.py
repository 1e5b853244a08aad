"""What every encoder and segmenter must do, of each key of their dictionaries by itself."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from maemem.fields import build_kind, section
from maemem.models.contract import Encoder, Segmenter
from maemem.models.encoders import ENCODERS
from maemem.models.segmenters import SEGMENTERS
from tests.models.networks import autoencoder, vit
from tests.models.parameters import random_variables

# What differs from a kind's defaults, to be small; and what a segmenter stands on.
SMALL = {
    "vit": {"patch_zyx": (1, 4, 4), "width": 24, "depth": 4, "heads": 2},
    "residual": {"patch_zyx": (1, 4, 4), "channels": (4, 8)},
    "unetr": {"channels": (4, 8)},
    "unet": {"channels": (4, 8)},
}
BASE = {"unetr": "vit", "unet": "residual"}
CROP = (2, 8, 8)
# Parameters with default fields: of encoders, and of segmenters on them for 3 logits.
COUNTS = {"vit": 85_253_376, "residual": 23_452_992, "unetr": 153_972_195, "unet": 31_799_427}


def encoder_of(kind, small=True):
    return build_kind(ENCODERS, made(ENCODERS, kind, small), "model.encoder")


def segmenter_of(kind, small=True):
    given = {"encoder": encoder_of(BASE[kind], small), "outputs": 3}
    return build_kind(SEGMENTERS, made(SEGMENTERS, kind, small), "model.segmenter", **given)


def made(kinds, kind, small):
    return section(kinds[kind], kinds, **(SMALL[kind] if small else {}))


def image_of(crop=CROP, batch=2, channels=1):
    shape = (batch, *crop, channels)
    return jnp.asarray(np.random.default_rng(0).uniform(-1, 1, shape), jnp.float32)


def count(tree) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def test_every_key_is_tested():
    assert SMALL.keys() == COUNTS.keys() == ENCODERS.keys() | SEGMENTERS.keys()
    assert BASE.keys() == SEGMENTERS.keys()


@pytest.mark.parametrize("kind", [*ENCODERS, *SEGMENTERS])
def test_parameter_counts_of_defaults(kind):
    model = encoder_of(kind, False) if kind in ENCODERS else segmenter_of(kind, False)
    encoder = model if kind in ENCODERS else model.encoder
    image = jax.ShapeDtypeStruct((1, *encoder.patch_zyx, 1), jnp.float32)
    assert count(jax.eval_shape(model.init, jax.random.key(0), image)) == COUNTS[kind]


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("channels", [1, 3])
def test_levels_have_truthful_strides(kind, channels):
    encoder = encoder_of(kind)
    assert isinstance(encoder, Encoder)
    image = image_of((4, 16, 24), channels=channels)
    levels, _ = encoder.init_with_output(jax.random.key(0), image)
    for level in levels:
        assert level.features.shape[0] == 2
        extent = [n * s for n, s in zip(level.features.shape[1:4], level.stride_zyx, strict=True)]
        assert extent == [4, 16, 24]
    assert levels[-1].stride_zyx == encoder.patch_zyx
    sizes = [math.prod(level.stride_zyx) for level in levels]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("kind", ENCODERS)
def test_visible_tokens_alone_are_encoded_or_refused(kind):
    encoder, visible = encoder_of(kind), jnp.array([[0, 3], [5, 1]])
    variables = encoder.init(jax.random.key(0), image_of())
    try:
        levels = encoder.apply(variables, image_of(), visible)
    except ValueError as error:
        assert "has no tokens to hide" in str(error)  # noqa: PT017
    else:
        assert levels[-1].features.shape[:2] == (2, 2)


@pytest.mark.parametrize("kind", ENCODERS)
def test_below_counts_the_layers_above_every_parameter(kind):
    encoder = encoder_of(kind)
    params = encoder.init(jax.random.key(0), image_of())["params"]
    below = encoder.below(params)
    assert jax.tree.structure(below) == jax.tree.structure(params)
    layers = jax.tree.leaves(below)
    assert min(layers) == 0
    assert set(layers) <= set(range(max(layers) + 1))


def test_layers_of_a_transformer_are_counted_as_in_mae():
    """Block i of n has n − i layers to the output, what is before them n + 1, the last norm 0."""
    encoder = vit((1, 4, 4), (24, 3, 2), positions_yx=(2, 2))
    params = encoder.init(jax.random.key(0), image_of())["params"]
    for name, below in traverse_util.flatten_dict(encoder.below(params), sep="/").items():
        part, *rest = name.split("/")
        if part in ("patch_embedding", "positions"):
            assert below == 4, name
        elif rest[0].startswith("block_"):
            assert below == 3 - int(rest[0][-2:]), name
        else:
            assert (rest[0], below) == ("norm", 0), name


def test_levels_of_a_transformer_are_after_each_quarter_of_its_blocks():
    encoder = vit((1, 4, 4), (24, 8, 2))
    variables = encoder.init(jax.random.key(0), image_of())

    def energies(variables):
        return [jnp.square(level.features).sum() for level in encoder.apply(variables, image_of())]

    slopes = jax.jacobian(energies)(variables)
    for i, slope in enumerate(slopes):
        blocks = slope["params"]["transformer"]
        moved = [n for n in range(8) if jnp.any(blocks[f"block_{n:02d}"]["mlp_in"]["kernel"] != 0)]
        assert moved == list(range(2 * (i + 1)))


@pytest.mark.parametrize("kind", SEGMENTERS)
def test_logits_are_float32_of_every_voxel_and_every_parameter_matters(kind):
    model = segmenter_of(kind)
    assert isinstance(model, Segmenter)
    variables = random_variables(model, image_of())
    logits = model.apply(variables, image_of())
    assert (logits.shape, logits.dtype) == ((2, *CROP, 3), jnp.float32)
    gradient = jax.jit(jax.grad(lambda v: jnp.sin(model.apply(v, image_of())).sum()))(variables)
    for name, leaf in traverse_util.flatten_dict(gradient["params"], sep="/").items():
        assert jnp.abs(leaf).max() > 0, name


@pytest.mark.parametrize("kind", SEGMENTERS)
def test_the_encoder_of_a_segmenter_is_the_encoder(kind):
    model = segmenter_of(kind)
    whole = jax.eval_shape(model.init, jax.random.key(0), image_of())["params"]["encoder"]
    alone = jax.eval_shape(model.encoder.init, jax.random.key(0), image_of())["params"]
    assert whole == alone


@pytest.mark.parametrize("kind", [*ENCODERS, *SEGMENTERS])
def test_crops_that_patches_do_not_tile_are_refused(kind):
    model = encoder_of(kind) if kind in ENCODERS else segmenter_of(kind)
    with pytest.raises(ValueError, match="crop 2x8x10 is not divisible by patch 1x4x4 along x"):
        jax.eval_shape(model.init, jax.random.key(0), image_of((2, 8, 10)))


def test_a_unet_refuses_levels_that_it_cannot_add():
    given = {"encoder": encoder_of("vit"), "outputs": 3}
    model = build_kind(SEGMENTERS, made(SEGMENTERS, "unet", True), "model.segmenter", **given)
    with pytest.raises(ValueError, match="take encoder kind residual with the same channels"):
        jax.eval_shape(model.init, jax.random.key(0), image_of())


def test_a_unetr_stands_on_a_convolutional_encoder():
    given = {"encoder": encoder_of("residual"), "outputs": 3}
    model = build_kind(SEGMENTERS, made(SEGMENTERS, "unetr", True), "model.segmenter", **given)
    logits, _ = jax.jit(model.init_with_output)(jax.random.key(0), image_of())
    assert logits.shape == (2, *CROP, 3)


def test_a_masked_autoencoder_needs_tokens():
    model = autoencoder((1, 4, 4), (24, 2, 2), (12, 1, 2)).clone(encoder=encoder_of("residual"))
    ids = jnp.zeros((2, 2), int)
    with pytest.raises(ValueError, match="has no tokens to hide"):
        jax.eval_shape(model.init, jax.random.key(0), image_of(), ids, ids)
