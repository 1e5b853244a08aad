"""Every config can be built, and its network fits its crops."""

import runpy

import jax
import pytest

from maemem.build import optimizer_settings, reconstruction
from maemem.models.variants import ENCODERS
from tests.runs import REPOSITORY

CONFIGS = sorted(path.stem for path in (REPOSITORY / "configs").glob("*.py"))
VARIANTS = [
    *((name, None) for name in CONFIGS),
    *(("pretrain_snemi", variant) for variant in ENCODERS),
    ("pretrain_volume", "isotropic"),
]


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_config_builds_its_network(name, variant):
    get_config = runpy.run_path(str(REPOSITORY / "configs" / f"{name}.py"))["get_config"]
    config = (get_config(variant) if variant else get_config()).lock()
    objective = reconstruction(config)
    init = jax.eval_shape(lambda key: objective.init(key, config.data.crop_zyx), jax.random.key(0))
    assert init["encoder"]["patch_embedding"]["kernel"].shape[1] == config.model.encoder.width
    optimizer_settings(config.pretrain.optimizer, config.pretrain.steps)
    sets = (config.data.train, config.data.validation)
    assert all(volumes and all(v.weight > 0 for v in volumes.values()) for volumes in sets)


def test_the_article_is_the_articles():
    get_config = runpy.run_path(str(REPOSITORY / "configs" / "pretrain_snemi.py"))["get_config"]
    config = get_config()
    assert config.data.crop_zyx == (6, 96, 96)
    assert config.model.patch_zyx == (1, 16, 16)
    assert config.model.encoder.to_dict() == {"width": 768, "depth": 12, "heads": 12}
    assert (config.model.decoder.depth, config.model.decoder.width) == (4, 512)
    assert not config.model.rotary
    assert config.pretrain.masking.to_dict() == {"strategy": "random", "ratio": 0.9, "decoded": 0}
    assert (config.pretrain.steps, config.pretrain.batch_size) == (400_000, 128)
    assert config.pretrain.optimizer.learning_rate == 1e-4
    assert config.pretrain.optimizer.warmup_steps == 100_000
    assert config.pretrain.optimizer.weight_decay == 0
