import math

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from maemem.models.compute import Compute
from maemem.models.contract import Level
from maemem.models.convolution import cumulative_strides, strides_of
from maemem.models.encoders.vit import Vit
from maemem.models.segmenters.unetr import skips
from tests.models.networks import SIZES, autoencoder, unetr
from tests.models.parameters import random_variables

# Of the encoder and of the whole, with patches 1×16×16, the article's channels and 3 outputs.
PARAMETERS = {"base": (85_253_376, 153_972_195), "large": (382_863_744, 454_728_291)}
# What Cheng et al. (2023) publish for a crop of 6×96×96.
PUBLISHED_MULTIPLY_ADDS = {"base": 154.1e9, "large": 221.1e9}
ARTICLE = (64, 128, 256, 512)
CROP, PATCH = (2, 8, 8), (1, 4, 4)


def small(depth=4, **options):
    return unetr(PATCH, (24, depth, 2), (4, 8), **options)


def image_of(crop_zyx=CROP, batch=2):
    return jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (batch, *crop_zyx, 1)), jnp.float32)


def article(variant, crop_zyx=(6, 96, 96)):
    model = unetr((1, 16, 16), SIZES[variant], ARTICLE)
    image = jax.ShapeDtypeStruct((1, *crop_zyx, 1), jnp.float32)
    return model, jax.eval_shape(model.init, jax.random.key(0), image), image


def count(tree) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("variant", PARAMETERS)
def test_parameter_counts(variant):
    _, variables, _ = article(variant)
    params = variables["params"]
    assert (count(params["encoder"]), count(params)) == PARAMETERS[variant]


def multiply_adds(jaxpr) -> int:
    """Of all matrix products and convolutions: size of the result × what is summed over."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (summed, _), _ = equation.params["dimension_numbers"]
            axes = math.prod(equation.invars[0].aval.shape[axis] for axis in summed)
            total += equation.outvars[0].aval.size * axes
        elif equation.primitive.name == "conv_general_dilated":
            total += equation.outvars[0].aval.size * math.prod(equation.invars[1].aval.shape[:-1])
        total += sum(map(multiply_adds, jax.extend.core.jaxprs_in_params(equation.params)))
    return total


def upsampling_multiply_adds(params) -> int:
    """Of the transposed convolutions alone, for a crop of 6×96×96 and patches 1×16×16."""
    total = 0
    for path, kernel in traverse_util.flatten_dict(params).items():
        if path[-2:] == ("boxes", "kernel"):
            place = int(path[-3].removeprefix("up_"))
            # A climb counts its way from the tokens, the trunk its levels from the finest.
            level = 3 - place if path[0].startswith("climb") else place
            total += kernel.size * 6 * (96 >> (level + 1)) ** 2
    return total


@pytest.mark.parametrize(("variant", "truly"), [("base", 142.6e9), ("large", 209.3e9)])
def test_multiply_adds(variant, truly):
    """What is computed, and what the article counts.

    Its figures come out when each voxel that a transposed convolution makes is charged with all
    four weights of the stride, of which it takes one, and when the two products of attention are
    not counted. That is what a usual counter of modules does.
    """
    model, variables, image = article(variant)
    computed = multiply_adds(jax.make_jaxpr(model.apply)(variables, image).jaxpr)
    assert computed == pytest.approx(truly, rel=1e-3)
    width, depth, _ = SIZES[variant]
    attention = 2 * depth * width * 216**2
    as_published = computed - attention + 3 * upsampling_multiply_adds(variables["params"])
    assert as_published == pytest.approx(PUBLISHED_MULTIPLY_ADDS[variant], rel=0.02)


def test_the_encoder_is_that_of_the_masked_autoencoder():
    image, ids = image_of(), jnp.arange(4)[None].repeat(2, 0)
    pretrained = autoencoder(PATCH, (24, 4, 2), (12, 1, 2))
    trees = [
        jax.eval_shape(model.init, jax.random.key(0), image, *rest)["params"]["encoder"]
        for model, rest in ((pretrained, (ids, ids)), (small(), ()))
    ]
    assert trees[0] == trees[1]


@pytest.mark.parametrize(
    ("patch", "channels", "crop"),
    [
        ((1, 16, 16), (4, 8, 8, 16), (3, 32, 48)),
        ((8, 8, 8), (4, 8, 16), (16, 8, 24)),
        ((2, 8, 8), (4, 8, 16), (4, 16, 24)),
        ((2, 2, 2), (8,), (4, 6, 8)),
        ((1, 32, 32), (4, 4, 4, 8, 8), (1, 32, 64)),
    ],
)
def test_logits_are_as_large_as_the_crop(patch, channels, crop):
    model = unetr(patch, (24, 2, 2), channels)
    variables = jax.eval_shape(model.init, jax.random.key(0), image_of(patch))
    logits = jax.eval_shape(model.apply, variables, image_of(crop))
    assert (logits.shape, logits.dtype) == ((2, *crop, 3), jnp.float32)


@pytest.mark.parametrize(
    ("patch", "levels", "expected"),
    [
        ((1, 16, 16), 4, [1, 2, 3]),
        ((8, 8, 8), 3, [1, 1, 2]),
        ((1, 4, 4), 2, [1, 1, 1]),
        ((1, 32, 32), 5, [2, 3, 4]),
    ],
)
def test_the_deeper_a_level_of_tokens_the_coarser_the_decoder_level_that_it_joins(
    patch, levels, expected
):
    tokens = Level(jnp.zeros((1, 1, 1, 1, 8)), patch)
    steps = strides_of(patch, (8,) * levels)
    found = skips([tokens] * 3, tokens, cumulative_strides(steps))
    assert [joined for _, _, _, joined in found] == expected
    assert {start for _, _, start, _ in found} == {levels}


def test_a_level_of_the_decoders_own_stride_joins_there():
    fine, coarse = (Level(jnp.zeros((1, 1, 1, 1, 8)), (n, n, n)) for n in (2, 4))
    strides = ((1, 1, 1), (2, 2, 2), (4, 4, 4))
    assert [(start, joined) for _, _, start, joined in skips([fine], coarse, strides)] == [(1, 1)]
    other = Level(jnp.zeros((1, 1, 1, 1, 8)), (1, 3, 3))
    with pytest.raises(ValueError, match=r"a level of stride \(1, 3, 3\); expected: one of"):
        skips([other], coarse, strides)


def test_the_decoder_sees_all_levels_of_the_encoder():
    model, image = small(depth=8), image_of()
    variables = random_variables(model, image)

    def energy(moves):
        def move(encode, args, kwargs, context):
            levels = encode(*args, **kwargs)
            if not (isinstance(context.module, Vit) and context.method_name == "__call__"):
                return levels
            pairs = zip(levels, moves, strict=True)
            return [level.replace(features=level.features + moved) for level, moved in pairs]

        with nn.intercept_methods(move):
            return jnp.square(model.apply(variables, image)).sum()

    slopes = jax.jit(jax.grad(energy))(jnp.zeros((4, 2, 2, 2, 2, 24)))
    assert (np.abs(slopes).max((1, 2, 3, 4, 5)) > 0).all()


def test_every_parameter_matters_and_folding_changes_nothing():
    image, folding = image_of(), Compute(convolution="folded")
    plain, folded = (small(2, rotary=True, compute=compute) for compute in (Compute(), folding))
    variables = random_variables(plain, image)

    def run(model):
        def energy(variables):
            return jnp.sin(model.apply(variables, image)).sum()

        return jax.tree.leaves(jax.jit(jax.value_and_grad(energy))(variables))

    expected = run(plain)
    assert all(jnp.abs(leaf).max() > 0 for leaf in expected)
    for ours, leaf in zip(run(folded), expected, strict=True):
        np.testing.assert_allclose(ours, leaf, rtol=1e-3, atol=1e-3)


def test_remat_changes_no_logits():
    plain, image = small(), image_of()
    variables = random_variables(plain, image)
    expected = plain.apply(variables, image)
    remat = small(compute=Compute(remat=True))
    np.testing.assert_allclose(remat.apply(variables, image), expected, atol=1e-4)


def test_bfloat16_gives_float32_logits():
    model, image = small(compute=Compute(jnp.bfloat16)), image_of()
    variables = random_variables(model, image)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    logits = model.apply(variables, image)
    assert logits.dtype == jnp.float32
    exact = small().apply(variables, image)
    assert 0 < jnp.abs(logits - exact).max() < 0.2
    text = jax.jit(model.apply).lower(variables, image).as_text()
    convolutions = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert convolutions
    assert all("xf32>" not in line for line in convolutions)


@pytest.mark.parametrize(
    ("patch", "channels", "crop", "message"),
    [
        ((1, 12, 12), (4, 8), (1, 24, 24), "cannot be reached by doubling"),
        ((1, 4, 4), (4, 8, 16), (1, 8, 8), r"3 channels \(4, 8, 16\) for patch 1x4x4.* give 2"),
        ((1, 4, 4), (4, 8), (1, 8, 10), "crop 1x8x10 is not divisible by patch 1x4x4 along x"),
    ],
)
def test_what_does_not_fit_is_refused(patch, channels, crop, message):
    model = unetr(patch, (24, 2, 2), channels)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), image_of(crop))
