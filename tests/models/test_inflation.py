"""2-D weights in the encoder of volumes: features are those of the 2-D network."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maemem.models.inflation import inflate
from tests.models.networks import vit
from tests.models.vit import (
    DEPTH,
    HEADS,
    MEAN,
    PATCH,
    SIDE,
    SIZE,
    STD,
    WIDTH,
    features,
    renamed,
    weights,
)

# Names and shapes in a file that transformers 5.24 saved: ViTMAEForPreTraining of these sizes.
PUBLISHED = json.loads((pathlib.Path(__file__).parent / "vit_mae.json").read_text())
DECODER = {
    **{"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1},
    **{"decoder_num_attention_heads": 2, "decoder_intermediate_size": 32},
}


def encode(tensors, volume: np.ndarray, depth: int = 1, inflation="centre"):
    """What the encoder makes of a volume in [0, 1], in patches of so many sections."""
    patch = (depth, PATCH, PATCH)
    params = inflate(tensors, patch, inflation, mean=MEAN, std=STD)
    encoder = vit(patch, (WIDTH, DEPTH, HEADS), positions_yx=(SIDE, SIDE))
    image = jnp.asarray(2 * volume - 1, jnp.float32)[None, ..., None]
    return tokens(jax.jit(encoder.apply)({"params": params}, image))[0]


def tokens(levels):
    """The last level as `[b n d]`."""
    last = levels[-1].features
    return last.reshape(len(last), -1, last.shape[-1])  # [b z y x d] -> [b n d]


@pytest.fixture
def grey() -> np.ndarray:
    """An image in [0, 1]."""
    return np.random.default_rng(1).uniform(size=(SIZE, SIZE))


@pytest.mark.parametrize("rename", [dict, renamed], ids=["timm", "transformers"])
def test_a_section_has_the_features_of_the_2d_network(rename, grey):
    found = encode(rename(weights()), grey[None])
    np.testing.assert_allclose(found, features(weights(), grey), atol=1e-4)


def test_a_file_of_transformers_is_taken_by_its_names(grey):
    encoder = {n: v for n, v in renamed(weights()).items() if not n.startswith("head.")}
    beside = {n: shape for n, shape in PUBLISHED.items() if n.startswith("decoder.")}
    assert {n: list(v.shape) for n, v in encoder.items()} | beside == PUBLISHED
    found = encode(encoder | {n: np.ones(shape) for n, shape in beside.items()}, grey[None])
    np.testing.assert_allclose(found, features(weights(), grey), atol=1e-4)


@pytest.mark.parametrize("inflation", ["centre", "average"])
def test_equal_sections_in_one_patch_are_as_one(inflation, grey):
    found = encode(weights(), np.repeat(grey[None], 4, axis=0), 4, inflation)
    np.testing.assert_allclose(found, features(weights(), grey), atol=1e-4)


def test_what_a_deep_patch_sees(grey):
    volume = np.random.default_rng(2).uniform(size=(4, SIZE, SIZE))
    for inflation, seen in (("centre", volume[2]), ("average", volume.mean(0))):
        found = encode(weights(), volume, 4, inflation)
        np.testing.assert_allclose(found, features(weights(), seen), atol=1e-4)


def test_only_one_section_of_tokens_has_the_features_of_the_2d_network(grey):
    """Equal sections stay alike, but the class token weighs less beside more tokens."""
    several = encode(weights(), np.repeat(grey[None], 3, axis=0))
    first, *others = np.split(np.asarray(several), 3)
    for section in others:
        np.testing.assert_allclose(section, first, atol=1e-5)
    expected = features(weights(), grey)
    off = np.linalg.norm(first - expected) / np.linalg.norm(expected)
    assert 1e-3 < off < 0.1


def test_sections_are_alike_until_the_gain_of_depth_is_learnt(grey):
    patch, image = (1, PATCH, PATCH), jnp.asarray(np.repeat(grey[None], 2, 0))[None, ..., None]
    params = inflate(weights(), patch, "centre")
    apply = jax.jit(vit(patch, (WIDTH, DEPTH, HEADS), positions_yx=(SIDE, SIDE)).apply)

    def difference(gain):
        plane = {**params["positions"], "depth_gain": gain}
        first, second = jnp.split(
            tokens(apply({"params": {**params, "positions": plane}}, image))[0], 2
        )
        return first - second

    zero = jnp.zeros(WIDTH)
    np.testing.assert_allclose(difference(zero), 0, atol=1e-5)
    learnt = jax.jacobian(lambda gain: difference(gain).ravel())(zero)
    assert jnp.abs(learnt).max() > 0.01


def test_places_are_resampled_to_the_grid_and_taken_with_their_tokens():
    volume = np.random.default_rng(3).uniform(size=(2, 2 * SIZE, SIZE))
    ids = jnp.array([[5, 0, 11]])
    encoder = vit((1, PATCH, PATCH), (WIDTH, DEPTH, HEADS), positions_yx=(SIDE, SIDE))
    params = inflate(weights(), (1, PATCH, PATCH), "centre")
    # Along x the grid is the table's, and along y twice as fine.
    table = jax.image.resize(params["positions"]["table"], (2 * SIDE, SIDE, WIDTH), "cubic")
    finer = vit((1, PATCH, PATCH), (WIDTH, DEPTH, HEADS), positions_yx=(2 * SIDE, SIDE))
    image = jnp.asarray(volume)[None, ..., None]
    expected = {**params, "positions": {**params["positions"], "table": table}}
    for chosen in (None, ids):
        found = tokens(jax.jit(encoder.apply)({"params": params}, image, chosen))
        same = tokens(jax.jit(finer.apply)({"params": expected}, image, chosen))
        assert found.shape[1] == (36 if chosen is None else 3)
        np.testing.assert_allclose(found, same, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks.0.ls1.gamma": np.ones(WIDTH)}, r"it has blocks\.0\.ls1\.gamma beyond"),
        ({"norm_pre.weight": np.ones(WIDTH)}, r"it has norm_pre\.weight beyond"),
        ({"cls_token": None}, "it has no cls_token"),
        ({"blocks.1.attn.qkv.bias": None}, r"it has no blocks\.1\.attn\.qkv\.bias"),
        ({"pos_embed": np.ones((1, 9, WIDTH))}, "has 9 places"),
        ({"patch_embed.proj.weight": np.ones((WIDTH, 3, 8, 8))}, "patches of 8x8 pixels"),
        ({"patch_embed.proj.weight": None}, "not the weights of a vision transformer"),
    ],
)
def test_what_is_no_plain_vision_transformer_is_refused(change, message):
    tensors = {n: v for n, v in (weights() | change).items() if v is not None}
    with pytest.raises(ValueError, match=message):
        inflate(tensors, (1, PATCH, PATCH), "centre")


def test_features_of_transformers(tmp_path, grey):
    torch = pytest.importorskip("torch", reason="transformers needs torch")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    from safetensors.numpy import load_file

    torch.manual_seed(0)
    size = {
        **{"image_size": SIZE, "patch_size": PATCH, "hidden_size": WIDTH},
        **{"num_hidden_layers": DEPTH, "num_attention_heads": HEADS},
        **{"intermediate_size": 4 * WIDTH, "initializer_range": 0.3},
    }
    image = (torch.tensor(grey).expand(1, 3, SIZE, SIZE) - torch.tensor(MEAN).view(3, 1, 1)).float()
    image = image / torch.tensor(STD).view(3, 1, 1)
    order = torch.arange(SIDE**2)[None].float()  # MAE shuffles tokens by it.
    for name, options in (("ViT", {}), ("ViTMAE", {"noise": order})):
        config = getattr(transformers, f"{name}Config")(**size)
        if name == "ViTMAE":
            config.mask_ratio = 0.0
        model = getattr(transformers, f"{name}Model")(config).eval()
        model.save_pretrained(tmp_path / name)
        with torch.no_grad():
            expected = model(image, **options).last_hidden_state[0, 1:].numpy()
        tensors = load_file(tmp_path / name / "model.safetensors")
        np.testing.assert_allclose(encode(tensors, grey[None]), expected, atol=1e-4, err_msg=name)
    model = transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**size, **DECODER))
    model.save_pretrained(tmp_path / "whole")
    saved = load_file(tmp_path / "whole" / "model.safetensors")
    assert {name: list(value.shape) for name, value in saved.items()} == PUBLISHED
