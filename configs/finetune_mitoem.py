"""Segments the mitochondria of MitoEM-R or -H as in Cheng et al. (2023): BC targets, AP-75.

    python -m maemem.main --config=configs/finetune_mitoem.py --config.data.root=DATA \\
        --config.finetune.encoder=runs/snemi --workdir=runs/mitoem

`python -m maemem.data.fetch mitoem_r --root=DATA` makes DATA/mitoem_r/im.zarr and labels.zarr,
500×4096×4096 voxels of 30×8×8 nm: sections 0 to 399 are for training, 400 to 499 for validation.
The challenge keeps the labels of its test set to itself, so the article scores the validation set.
So does this config: thresholds are tuned on its upper half and the lower half is scored. As in the
authors' code, voxels are binned to half of the resolution in plane (regions count binned voxels),
borders of mitochondria are widened, and the learning rate is 0.04 for 400,000 steps. `:human` does
the same on MitoEM-H (`python -m maemem.data.fetch mitoem_h --root=DATA`), volumes of the same shape
and voxel size.

`:large` uses the article's large encoder: pre-train it with
`--config=configs/pretrain_snemi.py:large --workdir=runs/snemi_large`, and fine-tune with
`--config.finetune.encoder=runs/snemi_large`; `:human,large` likewise.

On MitoEM-R the article scores 0.679 (AP-75) with the pre-trained large encoder. It has not been run
here.
"""

from maemem.config import bcd, markers, segmenting, volume
from maemem.models.encoders.vit import VIT_SIZES


def get_config(variant: str = ""):
    """The config; `variant` may name `human` and `large`, comma-separated."""
    chosen = [name for name in variant.split(",") if name]
    if set(chosen) - {"human", "large"}:
        raise ValueError(f"variant {variant!r} is unknown; choose human, large, or human,large")
    config = segmenting()
    tissue, folder = ("human", "mitoem_h") if "human" in chosen else ("rat", "mitoem_r")
    fields = {"labels": f"{folder}/labels.zarr", "voxel_size_nm": (30.0, 8.0, 8.0)}
    regions = {
        "train": "0:400, :, :",
        "validation": "400:500, 0:1024, :",
        "test": "400:500, 1024:2048, :",
    }
    for name, region in regions.items():
        config.data[name][tissue] = volume(f"{folder}/im.zarr", region=region, **fields)
    if "large" in chosen:
        config.model.encoder.update(VIT_SIZES["large"])
    config.data.bin_zyx = (1, 2, 2)
    config.target = bcd(distance=False)
    config.target.remove_borders = True
    config.finetune.steps = 400_000
    config.finetune.optimizer.learning_rate = 0.04
    config.finetune.min_foreground = 0.01
    config.segment = markers(distance=False)
    config.segment.grid = {
        "seed_binary": (0.85, 0.9),
        "seed_contour": (0.6, 0.8),
        "mask_binary": (0.7, 0.8, 0.85),
    }
    config.segment.smallest = 1024
    config.segment.select_by = "ap75"
    return config
