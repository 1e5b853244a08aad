"""Every config can be built, and its networks fit its crops."""

import itertools
import pathlib
import runpy
import sys

import jax
import pytest
from absl import flags
from ml_collections import config_flags

from maemem.assembly.checks import check_config
from maemem.assembly.learners import make_learner
from maemem.assembly.networks import intensity_range, target, tta_views
from maemem.assembly.trainings import make_training
from maemem.config import affinity, bcd, segmenting
from maemem.data.sets.catalogue import CATALOGUE
from maemem.data.sets.datasets import located
from maemem.models.encoders.vit import VIT_SIZES
from maemem.training.step import make_init
from tests.learners.made import like
from tests.runs import REPOSITORY

CONFIGS = sorted(path.stem for path in (REPOSITORY / "configs").glob("*.py"))
CONFIGS.remove("apply")  # Which is made of a model, see stages/test_apply.py.
VARIANTS = [
    *((name, None) for name in CONFIGS),
    *(("pretrain_snemi", variant) for variant in VIT_SIZES),
    *(("pretrain_volume", variant) for variant in ("isotropic", "small", "isotropic,small")),
    *(("finetune_snemi", variant) for variant in ("bcd", "large", "bcd,large", "ac3ac4")),
    ("finetune_vnc", "neurites"),
    ("finetune_fib25", "unet"),
    ("pretrain_fib25", "restoration"),
    *(
        ("finetune_volume", v)
        for v in ("isotropic", "mitochondria", "isotropic,mitochondria", "small")
    ),
    *(("finetune_mitoem", variant) for variant in ("large", "human", "human,large")),
    ("finetune_corpus_callosum", "base"),
]


def build(name, variant):
    get_config = runpy.run_path(str(REPOSITORY / "configs" / f"{name}.py"))["get_config"]
    return (get_config(variant) if variant else get_config()).lock()


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_config_builds_its_networks(name, variant):
    config = build(name, variant)
    check_config(config)
    stages = [stage for stage in ("pretrain", "finetune") if stage in config.stages]
    assert stages
    for stage in stages:
        learner = make_learner(config, stage, (10.0, 10.0, 10.0))
        run = make_training(config, stage, pathlib.Path())
        crops = like(config.data.crop_zyx, fields=learner.reads)
        state = jax.eval_shape(
            make_init(learner, run.optimizer, crops, steps=run.steps, ema=False), jax.random.key(0)
        )
        assert "encoder" in state.params
    if "finetune" in stages:
        assert all(entry.labels for entry in config.data.test.values() if entry.path)
    sets = (config.data.train, config.data.validation)
    assert all(volumes and all(v.weight > 0 for v in volumes.values()) for volumes in sets)


def parse(monkeypatch, *overrides):
    """The demo's config, with overrides as a command line gives them."""
    arguments = ["main", f"--config={REPOSITORY}/configs/demo.py", *overrides]
    monkeypatch.setattr(sys, "argv", arguments)  # Where config_flags looks for overrides.
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file("config", flag_values=values)
    values(arguments)
    return holder.value.lock()


@pytest.mark.parametrize(
    ("given", "used"), [("(0.,4000.)", (0, 4000)), ("(-5,70)", (-5, 70)), ("()", (0, 255))]
)
def test_a_command_line_may_give_the_intensity_range(monkeypatch, given, used):
    config = parse(monkeypatch, f"--config.data.intensity_range={given}")
    check_config(config)
    assert intensity_range(config) == used


@pytest.mark.parametrize("given", ["(5.,5.)", "(5.,)", "5", "(1,2,3)", "('a','b')", "(0.,1e999)"])
def test_an_intensity_range_that_is_not_two_numbers_is_refused(monkeypatch, given):
    config = parse(monkeypatch, f"--config.data.intensity_range={given}")
    with pytest.raises(ValueError, match=r"data\.intensity_range is .* a lower and a higher"):
        check_config(config)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["encoder=", "optimizer.frozen=('encoder',)"], "would keep its random weights"),
        (["optimizer.frozen=('encoder',)"], None),
        (["encoder="], None),
    ],
)
def test_an_encoder_from_scratch_is_not_frozen(monkeypatch, overrides, message):
    config = parse(monkeypatch, *(f"--config.finetune.{field}" for field in overrides))
    if message:
        with pytest.raises(ValueError, match=message):
            check_config(config)
    else:
        check_config(config)


@pytest.mark.parametrize(
    ("field", "kind"),
    [("model.encoder", "residual"), ("pretrain.learner", "supervised"), ("target", "bcd")],
)
def test_a_flag_cannot_exchange_a_kind_for_one_of_other_fields(monkeypatch, field, kind):
    config = parse(monkeypatch, f"--config.{field}.kind={kind}")
    message = rf"{field} has the fields .*, which kind {kind} does not know.* variant"
    with pytest.raises(ValueError, match=message):
        check_config(config)


@pytest.mark.parametrize(
    ("pretraining", "variant", "finetuning", "variants"),
    [
        ("snemi", "base", "snemi", (None, "bcd")),
        ("snemi", "large", "snemi", ("large", "bcd,large")),
        ("snemi", "base", "mitoem", (None,)),
        ("snemi", "large", "mitoem", ("large",)),
        ("snemi", "base", "corpus_callosum", ("base",)),
        ("snemi", "large", "corpus_callosum", (None,)),
        ("fib25", None, "fib25", (None,)),
        ("vnc", None, "vnc", (None, "neurites")),
        ("volume", None, "volume", (None, "mitochondria")),
        ("volume", "isotropic", "volume", ("isotropic", "isotropic,mitochondria")),
        ("volume", "small", "volume", ("small", "small,mitochondria")),
        ("volume", "isotropic,small", "volume", ("isotropic,small",)),
        ("volume", "isotropic", "lucchi", (None,)),
        ("volume", None, "cremi", (None,)),
    ],
)
def test_fine_tuning_takes_the_encoder_of_its_pre_training(
    pretraining, variant, finetuning, variants
):
    before = build(f"pretrain_{pretraining}", variant)
    for name in variants:
        config = build(f"finetune_{finetuning}", name)
        assert config.model.encoder.to_dict() == before.model.encoder.to_dict()


# What is in no public data set: the article's own volumes, and a truth that was derived here.
PRIVATE = {f"corpus_callosum/{s}-{k}.tif" for s in ("train", "test") for k in ("input", "labels")}
PRIVATE.add("vnc/train-neurites.zarr")


def test_configs_name_what_is_fetched():
    fetched = {
        f"{d.name}/{p.path}": d.voxel_size_nm for d in CATALOGUE.values() for p in d.products
    }
    named = set()
    for name, variant in VARIANTS:
        data = build(name, variant).data
        for entry in (e for s in ("train", "validation", "test") for e in data[s].values()):
            for path in (p for p in (entry.path, entry.labels) if p and ":" not in p):
                named.add(path)
                if path in fetched and entry.voxel_size_nm:
                    assert tuple(entry.voxel_size_nm) == fetched[path], (name, path)
    assert named - set(fetched) == PRIVATE
    assert set(fetched) - named == set()


@pytest.mark.parametrize(
    "name", ["pretrain_fib25", "finetune_fib25", "pretrain_vnc", "finetune_vnc"]
)
def test_configs_find_stacks_where_there_is_no_zarr(name, real_data):
    data = build(name, None).data
    for entry in (e for s in ("train", "validation", "test") for e in data[s].values()):
        for path in filter(None, (entry.path, entry.labels)):
            assert pathlib.Path(located(path, str(real_data))).exists()


def test_no_config_trains_on_what_it_tests():
    for name, variant in VARIANTS:
        data = build(name, variant).data
        sets = [[v for v in data[s].values() if v.path] for s in ("train", "validation", "test")]
        for first, second in itertools.combinations(sets, 2):
            for a, b in itertools.product(first, second):
                assert a.path != b.path or apart(a.region, b.region), (name, a.region, b.region)


def apart(region_a, region_b):
    """Whether two regions of one volume share no voxel."""
    pairs = zip(ranges(region_a), ranges(region_b), strict=True)
    return any(a[1] <= b[0] or b[1] <= a[0] for a, b in pairs)


def ranges(region):
    parts = (part.strip().split(":") for part in (region or ":,:,:").split(","))
    return [(int(start or 0), int(stop or 10**6)) for start, stop in parts]


def test_a_window_of_its_own_leaves_the_crop_alone():
    config = segmenting()
    config.data.crop_zyx = (8, 64, 64)
    assert config.predict.window_zyx == (8, 64, 64)
    config.predict.window_zyx = (4, 128, 128)
    assert config.data.crop_zyx == (8, 64, 64)


def test_sets_of_ones_own_volume_are_of_it_unless_told_otherwise():
    data = build("finetune_volume", None).data
    data.train.volume.path, data.train.volume.labels = "mine.zarr", "ids.zarr"
    data.test.volume.labels = ""
    assert data.validation.volume.path == data.test.volume.path == "mine.zarr"
    assert data.validation.volume.labels == data.train.volume.labels == "ids.zarr"


def test_no_baseline_of_ones_own_volume_holds_a_whole_region():
    assert build("finetune_volume", None).segment.baselines == ("fragments",)


def test_long_range_edges_weigh_what_the_config_says():
    config = segmenting()
    config.target.offsets = "lee"
    config.target.long_range_weight = 0.25
    assert target(config).long_range_weight == 0.25


@pytest.mark.parametrize("field", ["data.crop_zyx", "predict.window_zyx"])
def test_crops_and_windows_too_small_for_an_offset_are_refused(field):
    config = segmenting()
    config.target.offsets = "lee"
    check_config(config)
    config.predict.window_zyx = config.data.crop_zyx
    config.update_from_flattened_dict({field: (4, 96, 96)})
    with pytest.raises(ValueError, match=rf"{field} \(4, 96, 96\) is too small .* offset z-4"):
        check_config(config)


@pytest.mark.parametrize(
    ("views", "isotropic", "count"),
    [
        ("one", True, 1),
        ("flips", False, 4),
        ("turns", False, 8),
        ("all", False, 16),
        ("all", True, 48),
    ],
)
def test_views_are_those_that_voxels_and_windows_allow(views, isotropic, count):
    config = segmenting()
    config.predict.views = views
    config.data.crop_zyx = (48, 48, 48) if isotropic else (6, 96, 96)
    voxel = (10.0, 10.0, 10.0) if isotropic else (30.0, 6.0, 6.0)
    found = tta_views(config, voxel)
    assert len(set(found)) == len(found) == count
    config.target = bcd()
    assert all(view.axes_zyx[0] == 0 for view in tta_views(config, voxel))
    config.target = affinity()


def test_the_article_is_the_articles():
    get_config = runpy.run_path(str(REPOSITORY / "configs" / "pretrain_snemi.py"))["get_config"]
    config = get_config()
    assert config.data.crop_zyx == (6, 96, 96)
    encoder, learner = config.model.encoder, config.pretrain.learner
    assert encoder.patch_zyx == (1, 16, 16)
    assert (encoder.width, encoder.depth, encoder.heads) == (768, 12, 12)
    assert not encoder.rotary
    assert (learner.decoder.depth, learner.decoder.width) == (4, 512)
    assert (learner.strategy, learner.ratio, learner.decoded) == ("random", 0.9, 0)
    assert (config.pretrain.steps, config.pretrain.batch_size) == (400_000, 128)
    assert config.pretrain.optimizer.learning_rate == 1e-4
    assert config.pretrain.optimizer.warmup_steps == 100_000
    assert config.pretrain.optimizer.weight_decay == 0
    config = build("finetune_snemi", None)
    assert config.model.segmenter.channels == (64, 128, 256, 512)
    assert (config.finetune.steps, config.finetune.optimizer.name) == (150_000, "sgd")
    assert config.finetune.optimizer.learning_rate == 0.02
    assert config.finetune.optimizer.momentum == 0.9
    assert (config.target.bce, config.target.dice) == (1.0, 0.5)
    assert config.predict.window_zyx == (6, 96, 96)
    assert config.predict.stride_zyx == (3, 48, 48)
    assert config.data.test.ac3.scored == "25:75, 97:928, 97:928"
    assert build("finetune_snemi", "bcd").target.mse == 5.0
