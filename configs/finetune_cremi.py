"""Segments the neurons of serial sections of a fly's brain: CREMI A, B and C, 40×4×4 nm.

    python -m maemem.main --config=configs/finetune_cremi.py --config.data.root=DATA \\
        --config.finetune.encoder=runs/cremi --workdir=runs/cremi_neurons

`python -m maemem.data.fetch cremi_a --root=DATA` makes DATA/cremi_a/image.zarr and labels.zarr,
125×1250×1250 voxels; `cremi_b` and `cremi_c` likewise. The challenge keeps the labels of its test
volumes to itself. So here, of each of the three, sections 0 to 74 are trained on, 75 to 99 tune the
thresholds, and 100 to 124 are scored.

The encoder comes from `configs/pretrain_volume.py`, on sections 0 to 74 of one of them or on a
volume of your own; without `--config.finetune.encoder`, training is from scratch. It has not been
run here.
"""

from maemem.config import segmenting, volume


def get_config():
    """The config."""
    config = segmenting()
    regions = {"train": "0:75, :, :", "validation": "75:100, :, :", "test": "100:125, :, :"}
    for name, region in regions.items():
        for sample in ("cremi_a", "cremi_b", "cremi_c"):
            config.data[name][sample] = volume(
                f"{sample}/image.zarr", labels=f"{sample}/labels.zarr", region=region
            )
    config.model.encoder.rotary = True
    config.target.remove_borders = True
    config.segment.baselines = ("fragments", "intensity")
    return config
