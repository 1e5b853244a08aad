"""Segments serial sections: larval VNC, 50×4.6×4.6 nm, sized for two CPU cores.

    python -m maemem.main --config=configs/finetune_vnc.py --config.data.root=DATA \\
        --config.finetune.encoder=runs/vnc --workdir=runs/vnc_mitochondria

Fine-tunes the encoder of `pretrain_vnc.py` to the binary mask and contour of mitochondria
(`configs/finetune_vnc.py:neurites`: to affinities of neurites) on rows 0 to 511 of
DATA/vnc/train-input, tunes the thresholds on rows 512 to 639, and scores rows 656 to 1023. The
truth of the neurites was derived by linking regions of sections, and splits more than it should; it
is not among what `python -m maemem.data.fetch vnc` gets.

Cost and score: 18 minutes on two cores, 16 of them training. Test, mitochondria, one seed: Dice
0.619 (from scratch 0.506), AP-50 0.073 (0.041), AP-75 0 (0.013, one object); loss of held-out crops
1.22 (1.35). So pre-training helps, and the network is far from trained: it still learns at the end.
"""

from maemem.config import adamw, affinity, bcd, markers, segmenting, volume, waterz

TISSUES = ("mitochondria", "neurites")


def get_config(tissue: str = "mitochondria"):
    """The config; `tissue` is mitochondria or neurites."""
    if tissue not in TISSUES:
        raise ValueError(f"tissue {tissue!r} is unknown; choose one of {TISSUES}")
    config = segmenting()
    fields = {"labels": f"vnc/train-{tissue}.zarr", "voxel_size_nm": (50.0, 4.6, 4.6)}
    regions = {"train": ":, 0:512, :", "validation": ":, 512:640, :", "test": ":, 656:1024, :"}
    for name, region in regions.items():
        config.data[name].vnc = volume("vnc/train-input.zarr", region=region, **fields)
    config.model.encoder.update(width=192, depth=8, heads=6, rotary=True)
    config.model.segmenter.channels = (8, 16, 32, 64)
    config.finetune.steps = 800
    config.finetune.batch_size = 4
    config.finetune.optimizer = adamw(1e-3, 50, 0.05)
    config.finetune.optimizer.clip_norm = 1.0
    config.finetune.log_every = 10
    config.finetune.eval_every = 100
    config.finetune.eval_crops = 32
    config.finetune.checkpoint_every = 100
    config.predict.stride_zyx = (3, 64, 64)
    config.predict.views = "one"
    if tissue == "mitochondria":
        config.target = bcd(distance=False)
        config.finetune.min_foreground = 0.02
        config.segment = markers(distance=False)
        config.segment.smallest = 1024
        config.segment.select_by = "ap"
    else:
        config.target = affinity()
        config.target.remove_borders = True
        config.segment = waterz()
        config.segment.baselines = ("fragments", "intensity")
    return config
