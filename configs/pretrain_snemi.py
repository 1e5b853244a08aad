"""Pre-training on SNEMI3D as in Cheng et al. (2023): ViT-B, crops 6×96×96, 90 % masked.

    python -m maemem.main --config=configs/pretrain_snemi.py --config.data.root=DATA \\
        --workdir=runs/snemi

`configs/pretrain_snemi.py:large` is the article's large encoder; give it a workdir of its own,
runs/snemi_large. The article's other experiments are overrides:
`--config.pretrain.learner.strategy=space --config.pretrain.learner.ratio=0.88` (24 of 216 patches
visible), `--config.pretrain.learner.strategy=section --config.pretrain.learner.ratio=0.83` (36
visible), `--config.model.decoder.depth=8`, `--config.model.decoder.width=256`.

DATA/snemi3d/train-input.zarr is the raw training volume of SNEMI3D (AC4), 100×1024×1024 voxels of
30×6×6 nm, which `python -m maemem.data.fetch snemi3d --root=DATA` gets. The article trains on all
100 sections. Here the last ten are held out, so that the curve of the evaluation is an honest one.

Cost: 1.5e9 GFLOP (400,000 steps of 128 crops, 28.4 GFLOP each) for ViT-B. It has not been run to
its end yet, so there is no score here.
"""

from maemem.config import pretraining, volume
from maemem.models.encoders.vit import VIT_SIZES


def get_config(variant: str = "base"):
    """The config; `variant` is a name in `maemem.models.encoders.vit.VIT_SIZES`."""
    config = pretraining()
    if variant not in VIT_SIZES:
        raise ValueError(f"variant {variant!r} is unknown; choose one of {list(VIT_SIZES)}")
    config.model.encoder.update(VIT_SIZES[variant])
    config.data.train.ac4 = volume(
        "snemi3d/train-input.zarr", voxel_size_nm=(30.0, 6.0, 6.0), region="0:90, :, :"
    )
    config.data.validation.ac4 = volume(
        "snemi3d/train-input.zarr", voxel_size_nm=(30.0, 6.0, 6.0), region="90:100, :, :"
    )
    return config
