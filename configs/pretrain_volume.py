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
`configs/pretrain_volume.py:isotropic` cuts cubes instead: crops 48³, patches 8³.
"""

from maemem.config import pretraining, volume


def get_config(tissue: str = "sections"):
    """The config; `tissue` is "sections" or "isotropic"."""
    config = pretraining()
    config.data.train.volume = volume("")
    config.data.validation.volume = volume("")
    for field in ("path", "voxel_size_nm"):
        config.data.validation.volume[field] = config.data.train.volume.get_oneway_ref(field)
    config.model.rotary = True
    if tissue == "isotropic":
        config.data.crop_zyx = (48, 48, 48)
        config.model.patch_zyx = (8, 8, 8)
    elif tissue != "sections":
        raise ValueError(f"tissue {tissue!r} is unknown; choose 'sections' or 'isotropic'")
    return config
