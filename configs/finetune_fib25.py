"""Segments neurons of isotropic FIB-SEM: FIB-25, 10 nm voxels, sized for two CPU cores.

    python -m maemem.main --config=configs/finetune_fib25.py --config.data.root=DATA \\
        --config.finetune.encoder=runs/fib25 --workdir=runs/fib25_neurons

Fine-tunes the encoder of `pretrain_fib25.py` to affinities (without `--config.finetune.encoder`:
from scratch) on sections 0 to 119 of DATA/fib25/train-input, tunes the thresholds on sections
120 to 169, and scores sections 180 to 249.

`configs/finetune_fib25.py:unet` trains a residual U-Net with as many channels, from scratch.

Cost and score: 14 minutes on two cores, 11 of them training. Test, two seeds: VOI split + merge
1.53 + 0.66 and 1.01 + 1.35 (from scratch 1.22 + 1.07 and 1.04 + 1.06), adapted Rand error 0.134 and
0.295 (from scratch 0.321 and 0.143): after 500 steps pre-training shows no gain here. A watershed
of the raw intensities, tuned in the same way: 2.08 + 0.84 and 0.408. The largest body fills a
quarter of the volume, so one merger decides the Rand error: see VOI beside it.
"""

from maemem.config import adamw, isotropic_augmentation, segmenting, unet, volume


def get_config(network: str = "unetr"):
    """The config; `network` is `unetr` or `unet`."""
    config = segmenting()
    fields = {"labels": "fib25/train-labels.zarr", "voxel_size_nm": (10.0, 10.0, 10.0)}
    regions = {"train": "0:120, :, :", "validation": "120:170, :, :", "test": "180:250, :, :"}
    for name, region in regions.items():
        config.data[name].fib25 = volume("fib25/train-input.zarr", region=region, **fields)
    config.data.crop_zyx = (48, 48, 48)
    config.model.encoder.update(patch_zyx=(8, 8, 8), width=192, depth=8, heads=6, rotary=True)
    config.model.segmenter.channels = (8, 16, 32)
    if network == "unet":
        config.model = unet((8, 8, 8), (8, 16, 32))
    elif network != "unetr":
        raise ValueError(f"network {network!r} is unknown; choose 'unetr' or 'unet'")
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
    config.segment.decoder.fragments = "distance"
    config.segment.block_zyx = (96, 256, 256)  # The test region as a whole.
    config.segment.halo_zyx = (32, 32, 32)
    config.segment.grid.low = (0.0,)  # All of this tissue is labelled: nothing is background.
    config.segment.grid.high = (0.4, 0.5, 0.6, 0.7, 0.8)
    config.segment.baselines = ("fragments", "intensity")
    return config
