"""Segments neurons of isotropic FIB-SEM: FIB-25, 10 nm voxels, sized for two CPU cores.

    python -m maemem.main --config=configs/finetune_fib25.py --config.data.root=DATA \\
        --config.finetune.encoder=runs/fib25 --workdir=runs/fib25_neurons

Fine-tunes the encoder of `pretrain_fib25.py` to affinities (without `--config.finetune.encoder`:
from scratch) on sections 0 to 119 of DATA/fib25/train-input, tunes the thresholds on sections
120 to 169, and scores sections 180 to 249.

Cost and score: 14 minutes on two cores, 11 of them training. Test, two seeds: VOI split + merge
1.33 + 0.87 and 0.69 + 2.24 (from scratch 1.09 + 1.15 and 0.94 + 1.14), adapted Rand error 0.148 and
0.382 (from scratch 0.283 and 0.145): after 500 steps pre-training shows no gain here. A residual
U-Net of similar cost, from scratch, is no worse: 0.91 + 1.04 and 0.151 (one seed). A watershed of
the raw intensities, tuned in the same way, is: 1.84 + 0.96 and 0.373. The largest body fills a
quarter of the volume, so one merger decides the Rand error: see VOI beside it.
"""

from maemem.config import adamw, isotropic_augmentation, segmenting, transformer, volume


def get_config():
    """The config."""
    config = segmenting()
    fields = {"labels": "fib25/train-labels.zarr", "voxel_size_nm": (10.0, 10.0, 10.0)}
    regions = {"train": "0:120, :, :", "validation": "120:170, :, :", "test": "180:250, :, :"}
    for name, region in regions.items():
        config.data[name].fib25 = volume("fib25/train-input.zarr", region=region, **fields)
    config.data.crop_zyx = (48, 48, 48)
    config.model.patch_zyx = (8, 8, 8)
    config.model.encoder = transformer(192, 8, 6)
    config.model.rotary = True
    config.model.channels = (8, 16, 32)
    config.finetune.steps = 500
    config.finetune.batch_size = 4
    config.finetune.optimizer = adamw(1e-3, 50, 0.05)
    config.finetune.optimizer.clip_norm = 1.0
    config.finetune.augmentation = isotropic_augmentation()
    config.finetune.log_every = 10
    config.finetune.eval_every = 100
    config.finetune.eval_crops = 16
    config.finetune.checkpoint_every = 100
    config.predict.stride_zyx = (32, 32, 32)
    config.predict.batch_size = 4
    config.predict.views = "one"
    config.segment.fragments = "distance"
    config.segment.block_zyx = (96, 256, 256)  # The test region as a whole.
    config.segment.halo_zyx = (32, 32, 32)
    config.segment.grid.low = (0.0,)  # All of this tissue is labelled: nothing is background.
    config.segment.grid.high = (0.4, 0.5, 0.6, 0.7, 0.8)
    config.segment.baselines = ("fragments", "intensity")
    return config
