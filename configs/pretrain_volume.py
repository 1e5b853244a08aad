"""Pre-training on a volume of your own.

    python -m maemem.main --config=configs/pretrain_volume.py --workdir=runs/mine \\
        --config.data.train.volume.path=mine.zarr --config.data.train.volume.region='0:900, :, :' \\
        --config.data.validation.volume.region='900:950, :, :'

The path is a store (zarr, N5, precomputed; a folder or a URL), a TIFF, an npy, a folder of sections
or `file.h5:/dataset`. If the volume does not say its voxel size, do:
`--config.data.train.volume.voxel_size_nm='(40.,4.,4.)'`. The held-out region only has to be as
large as a crop; it is of the same volume unless `--config.data.validation.volume.path` names
another. Keep what fine-tuning is tested on out of both: here, sections 960 to 999.

This is the article's recipe for sections (Cheng et al. 2023) with rotary position embedding.
`configs/pretrain_volume.py:isotropic` cuts cubes instead: crops 48³, patches 8³. `:small` and
`:isotropic,small` are sized for two cores: a small transformer and 5,000 steps of 16 crops.
"""

from maemem.config import adamw, pretraining, volume


def get_config(variant: str = ""):
    """The config; `variant` may name `isotropic` and `small`, comma-separated."""
    chosen = [name for name in variant.split(",") if name]
    if set(chosen) - {"isotropic", "small"}:
        raise ValueError(
            f"variant {variant!r} is unknown; choose from isotropic, small, or both, as in "
            f"isotropic,small"
        )
    config = pretraining()
    config.data.train.volume = volume("")
    config.data.validation.volume = volume("")
    for field in ("path", "voxel_size_nm"):
        config.data.validation.volume[field] = config.data.train.volume.get_oneway_ref(field)
    config.model.encoder.rotary = True
    if "isotropic" in chosen:
        config.data.crop_zyx = (48, 48, 48)
        config.model.encoder.patch_zyx = (8, 8, 8)
    if "small" in chosen:
        config.model.encoder.update(width=192, depth=8, heads=6)
        config.pretrain.learner.decoder.update(width=192, depth=2, heads=6)
        config.pretrain.steps = 5_000
        config.pretrain.batch_size = 16
        config.pretrain.optimizer = adamw(1e-3, 250, 0.05, clip_norm=1.0)
        config.pretrain.log_every = 20
        config.pretrain.eval_every = 500
        config.pretrain.eval_crops = 64
        config.pretrain.checkpoint_every = 500
    return config
