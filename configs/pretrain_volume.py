"""Pre-training on a volume of your own.

    python -m maemem.main --config=configs/pretrain_volume.py --workdir=runs/mine \\
        --config.data.train.volume.path=mine.zarr --config.data.train.volume.region='0:900, :, :' \\
        --config.data.validation.volume.path=mine.zarr \\
        --config.data.validation.volume.region='900:1000, :, :'

The path is a store (zarr, N5, precomputed; a folder or a URL), a TIFF, an npy, a folder of sections
or `file.h5:/dataset`. If the volume does not say its voxel size, do, for both sets:
`--config.data.train.volume.voxel_size_nm='(40.,4.,4.)'`. The held-out region only has to be as
large as a crop.

This is the article's recipe for sections (Cheng et al. 2023) with rotary position embedding.
`configs/pretrain_volume.py:isotropic` cuts cubes instead: crops 48³, patches 8³.
"""

from maemem.config import pretraining, volume


def get_config(tissue: str = "sections"):
    """The config; `tissue` is "sections" or "isotropic"."""
    config = pretraining()
    config.data.train.volume = volume("")
    config.data.validation.volume = volume("")
    config.model.rotary = True
    if tissue == "isotropic":
        config.data.crop_zyx = (48, 48, 48)
        config.model.patch_zyx = (8, 8, 8)
    elif tissue != "sections":
        raise ValueError(f"tissue {tissue!r} is unknown; choose 'sections' or 'isotropic'")
    return config
