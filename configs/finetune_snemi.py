"""Segments the neurites of SNEMI3D as in Cheng et al. (2023), from `pretrain_snemi.py`.

    python -m maemem.main --config=configs/finetune_snemi.py --config.data.root=DATA \\
        --config.finetune.encoder=runs/snemi --workdir=runs/snemi_affinity

As the authors' are, affinities are of labels with widened borders (`objective.remove_borders`).
`:bcd` learns binary mask, contour and distance instead of affinities, for 200,000 steps. `:large`
and `:bcd,large` use the article's large encoder: pre-train it with
`--config=configs/pretrain_snemi.py:large --workdir=runs/snemi_large`, and fine-tune with
`--config.finetune.encoder=runs/snemi_large`.

`python -m maemem.data.fetch snemi3d --root=DATA` makes DATA/snemi3d: train-input.zarr and
train-labels.zarr (AC4, 100×1024×1024 voxels of 30×6×6 nm), test-input.zarr and test-labels.zarr
(the first 100 sections of AC3). The article trains on all of AC4 and does not say on what it tunes;
here the last ten sections are for that. Sections 25 to 74, rows and columns 97 to 927 of AC3 are
scored. The article does not state its batch size either. `:ac3ac4`, alone or with the others, takes
both volumes from `python -m maemem.data.fetch ac3ac4 --root=DATA`, where AC3 has 256 sections.

The article scores (A-Rand, affinities): 0.071 with ViT-B, 0.063 with the large encoder. It has not
been run here to its end yet.
"""

from maemem.config import bcd, markers, segmenting, volume
from maemem.models.encoders.vit import VIT_SIZES


def get_config(variant: str = ""):
    """The config; `variant` may name `ac3ac4`, `bcd` and `large`, comma-separated."""
    chosen = [name for name in variant.split(",") if name]
    if set(chosen) - {"ac3ac4", "bcd", "large"}:
        raise ValueError(
            f"variant {variant!r} is unknown; choose from ac3ac4, bcd, large, such as bcd,large"
        )
    learnt, scored = ("snemi3d/train", "snemi3d/test")
    if "ac3ac4" in chosen:
        learnt, scored = ("ac3ac4/ac4", "ac3ac4/ac3")
    config = segmenting()
    nm = (30.0, 6.0, 6.0)
    train = {"labels": f"{learnt}-labels.zarr", "voxel_size_nm": nm}
    config.data.train.ac4 = volume(f"{learnt}-input.zarr", region="0:90, :, :", **train)
    config.data.validation.ac4 = volume(f"{learnt}-input.zarr", region="90:100, :, :", **train)
    config.data.test.ac3 = volume(
        f"{scored}-input.zarr",
        labels=f"{scored}-labels.zarr",
        voxel_size_nm=nm,
        region="0:100, :, :",
        scored="25:75, 97:928, 97:928",
    )
    config.evaluate.adapted_rand.lone_background = True
    config.target.remove_borders = True
    if "large" in chosen:
        config.model.encoder.update(VIT_SIZES["large"])
    if "bcd" in chosen:
        config.target = bcd()
        config.target.remove_borders = True
        config.finetune.steps = 200_000
        config.segment = markers()
    else:
        config.segment.baselines = ("fragments", "intensity")
    return config
