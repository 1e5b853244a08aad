"""Segments a volume of your own, from the encoder of `pretrain_volume.py` and the labels of a part.

    python -m maemem.main --config=configs/finetune_volume.py --workdir=runs/mine_neurites \\
        --config.finetune.encoder=runs/mine \\
        --config.data.train.volume.path=mine.zarr \\
        --config.data.train.volume.labels=mine_labels.zarr \\
        --config.data.train.volume.region='800:900, :, :' \\
        --config.data.validation.volume.region='900:950, :, :' \\
        --config.data.test.volume.region='960:1000, :, :'

Learns from the labels in the first region, tunes the thresholds in the second, and segments and
scores the third. Choose the last two outside of what `pretrain_volume.py` trained on. Labels are
ids, 0 is background; they are as large as the volume, and what nobody labelled has an id of its
own: `--config.data.train.volume.unlabelled=255`. The other two sets take path, labels, that id and
the voxel size from the first, unless they are told otherwise; a test region without labels
(`--config.data.test.volume.labels=`) is segmented and not scored.

The defaults learn affinities of neurites in sections, as the article does (Cheng et al. 2023).
`configs/finetune_volume.py:mitochondria` learns mask and contour of mitochondria instead,
`:isotropic` goes with `pretrain_volume.py:isotropic`, and `:isotropic,mitochondria` is both.
`:small`, alone or with these, is sized for two cores and goes with `pretrain_volume.py:small`.
"""

from maemem.config import adamw, bcd, isotropic_augmentation, markers, segmenting, volume


def get_config(variant: str = ""):
    """The config; `variant` may name `isotropic`, `mitochondria` and `small`, comma-separated."""
    chosen = [name for name in variant.split(",") if name]
    if set(chosen) - {"isotropic", "mitochondria", "small"}:
        raise ValueError(
            f"variant {variant!r} is unknown; choose from isotropic, mitochondria, small, or "
            f"several, as in isotropic,small"
        )
    config = segmenting()
    config.data.train.volume = volume("")
    for name in ("validation", "test"):
        config.data[name].volume = volume("")
        for field in ("path", "labels", "unlabelled", "voxel_size_nm"):
            config.data[name].volume[field] = config.data.train.volume.get_oneway_ref(field)
    config.model.encoder.rotary = True
    if "isotropic" in chosen:
        config.data.crop_zyx = (48, 48, 48)
        config.model.encoder.patch_zyx = (8, 8, 8)
        config.model.segmenter.channels = (64, 128, 256)
        config.finetune.augmentation = isotropic_augmentation()
        config.predict.stride_zyx = (24, 24, 24)
    if "mitochondria" in chosen:
        config.target = bcd(distance=False)
        config.finetune.min_foreground = 0.02
        config.segment = markers(distance=False)
        config.segment.select_by = "ap75"
    else:
        # Not "intensity", which holds a whole region in memory: a volume may have any size.
        config.segment.baselines = ("fragments",)
    if "isotropic" in chosen:
        config.segment.halo_zyx = (32, 32, 32)
    if "small" in chosen:
        config.model.encoder.update(width=192, depth=8, heads=6)
        levels = len(config.model.segmenter.channels)
        config.model.segmenter.channels = (8, 16, 32, 64)[:levels]
        config.finetune.steps = 1_000
        config.finetune.batch_size = 4
        config.finetune.optimizer = adamw(1e-3, 50, 0.05, clip_norm=1.0)
        config.finetune.log_every = 10
        config.finetune.eval_every = 200
        config.finetune.eval_crops = 16
        config.finetune.checkpoint_every = 200
        config.predict.batch_size = 4
        config.predict.views = "one"
    return config
