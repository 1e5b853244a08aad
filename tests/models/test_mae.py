import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maemem.models.compute import Compute
from maemem.models.layers import attend
from maemem.models.masking import mask_tokens
from tests.models.networks import SIZES, autoencoder

# Parameters of the encoder with patches 1×16×16, and of encoder and decoder 4×512 together.
PARAMETERS = {
    "tiny": (5_388_096, 18_229_312),
    "small": (21_393_024, 34_332_544),
    "base": (85_253_376, 98_389_504),
    "large": (382_863_744, 396_196_480),
}
CROP, PATCH = (4, 16, 16), (1, 8, 8)


def small(**options):
    return autoencoder(PATCH, (48, 3, 4), (36, 2, 3), **options)


def inputs(seed=0, batch=2):
    image = jax.random.uniform(jax.random.key(seed), (batch, *CROP, 1), minval=-1)
    keys = jax.random.split(jax.random.key(1), batch)
    visible, masked = jax.vmap(lambda key: mask_tokens(key, (4, 2, 2), "random", 0.75))(keys)
    return image, visible, masked


def count(tree) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("variant", SIZES)
def test_parameter_counts(variant):
    model = autoencoder((1, 16, 16), SIZES[variant])
    image = jax.ShapeDtypeStruct((1, 6, 96, 96, 1), jnp.float32)
    ids = [jax.ShapeDtypeStruct((1, n), jnp.int32) for n in (21, 195)]
    params = jax.eval_shape(model.init, jax.random.key(0), image, *ids)["params"]
    assert (count(params["encoder"]), count(params)) == PARAMETERS[variant]


def test_every_variant_has_its_count():
    assert PARAMETERS.keys() == SIZES.keys()


def test_base_by_hand():
    width, mlp = 768, 4 * 768
    attention = (width * 3 * width + 3 * width) + (width * width + width)
    hidden = (width * mlp + mlp) + (mlp * width + width)
    block = attention + hidden + 4 * width  # and two norms
    assert 12 * block + (256 * width + width) + 2 * width == PARAMETERS["base"][0]


def test_encoder_and_decoder_make_up_the_whole():
    model, (image, visible, masked) = small(rotary=True), inputs()
    variables = model.init(jax.random.key(0), image, visible, masked)
    encoder, decoder = ({"params": variables["params"][n]} for n in ("encoder", "decoder"))
    latent = model.encoder.apply(encoder, image, visible)[-1].features
    assert latent.shape == (2, 4, 48)
    parts = model.decoder.apply(decoder, latent, visible, masked, (4, 2, 2))
    whole = model.apply(variables, image, visible, masked)
    assert whole.shape == (2, 12, 64)
    np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_the_encoder_sees_visible_patches_only():
    model, (image, visible, masked) = small(), inputs()
    variables = model.init(jax.random.key(0), image, visible, masked)

    def energy(image):
        return jnp.square(model.apply(variables, image, visible, masked)).sum()

    moved = jax.grad(energy)(image)
    grid = jnp.abs(moved).reshape(2, 4, 2, 8, 2, 8).sum((3, 5)).reshape(2, 16)
    for crop in range(2):
        assert (grid[crop, visible[crop]] > 0).all()
        assert (grid[crop, masked[crop]] == 0).all()


@pytest.mark.parametrize("rotary", [False, True])
def test_token_order_within_ids_does_not_matter(rotary):
    model, (image, visible, masked) = small(rotary=rotary), inputs()
    variables = model.init(jax.random.key(0), image, visible, masked)
    whole = model.apply(variables, image, visible, masked)
    turned = model.apply(variables, image, visible[:, ::-1], masked[:, ::-1])
    np.testing.assert_allclose(turned[:, ::-1], whole, atol=1e-5)


def test_places_matter():
    model, (image, visible, masked) = small(), inputs()
    variables = model.init(jax.random.key(0), image, visible, masked)
    predicted = model.apply(variables, image, visible, masked)
    assert float(jnp.std(predicted, axis=1).mean()) > 1e-3


def test_remat_changes_no_result():
    image, visible, masked = inputs()
    plain = small(rotary=True)
    variables = plain.init(jax.random.key(0), image, visible, masked)
    expected = plain.apply(variables, image, visible, masked)
    remat = small(rotary=True, compute=Compute(remat=True))
    np.testing.assert_allclose(remat.apply(variables, image, visible, masked), expected, atol=1e-6)


def test_sequential_attention_is_attention():
    # Two crops whose logits are more than what is worth splitting up.
    heads = jax.random.normal(jax.random.key(0), (3, 2, 400, 8, 16))

    def energy(heads, implementation):
        return jnp.sin(attend(*heads, implementation)).sum()

    for function in (energy, jax.grad(energy)):
        np.testing.assert_allclose(
            function(heads, "sequential"), function(heads, "xla"), rtol=1e-4, atol=1e-5
        )


def test_bfloat16_computes_with_float32_parameters():
    model, (image, visible, masked) = small(compute=Compute(jnp.bfloat16)), inputs()
    variables = model.init(jax.random.key(0), image, visible, masked)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    text = jax.jit(model.apply).lower(variables, image, visible, masked).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert products
    assert all("xbf16>" in line.split("->")[0] for line in products)
    assert model.apply(variables, image, visible, masked).dtype == jnp.float32


def test_any_crop_that_patches_tile():
    model, (image, visible, masked) = small(rotary=True), inputs()
    variables = model.init(jax.random.key(0), image, visible, masked)
    encoder = {"params": variables["params"]["encoder"]}
    larger = model.encoder.apply(encoder, jnp.zeros((1, 8, 32, 24, 1)))[-1].features
    assert larger.shape == (1, 8, 4, 3, 48)
