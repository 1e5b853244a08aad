"""Segments the mitochondria of isotropic FIB-SEM: Lucchi++, 5 nm voxels.

    python -m maemem.main --config=configs/finetune_lucchi.py --config.data.root=DATA \\
        --config.finetune.encoder=runs/lucchi --workdir=runs/lucchi_mitochondria

`python -m maemem.data.fetch lucchi --root=DATA` makes DATA/lucchi: train-input.zarr,
train-labels.zarr, test-input.zarr and test-labels.zarr, 165×768×1024 voxels each. Its masks have no
ids; a connected component counts as one mitochondrion. Sections 0 to 131 of the first volume are
trained on, 132 to 164 tune the thresholds, and the second volume is scored.

The encoder comes from `configs/pretrain_volume.py:isotropic`, with these regions of DATA/lucchi or
with a volume of your own; without `--config.finetune.encoder`, training is from scratch. It has not
been run here.
"""

from maemem.config import bcd, isotropic_augmentation, markers, segmenting, volume


def get_config():
    """The config."""
    config = segmenting()
    for name, region in (("train", "0:132, :, :"), ("validation", "132:165, :, :")):
        config.data[name].lucchi = volume(
            "lucchi/train-input.zarr", labels="lucchi/train-labels.zarr", region=region
        )
    config.data.test.lucchi = volume("lucchi/test-input.zarr", labels="lucchi/test-labels.zarr")
    config.data.crop_zyx = (48, 48, 48)
    config.model.encoder.patch_zyx = (8, 8, 8)
    config.model.segmenter.channels = (64, 128, 256)
    config.model.encoder.rotary = True
    config.target = bcd(distance=False)
    config.finetune.augmentation = isotropic_augmentation()
    config.finetune.min_foreground = 0.02
    config.predict.stride_zyx = (24, 24, 24)
    config.segment = markers(distance=False)
    config.segment.halo_zyx = (32, 32, 32)
    config.segment.smallest = 1024
    config.segment.select_by = "ap75"
    return config
