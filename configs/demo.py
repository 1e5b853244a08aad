"""The whole job in minutes, on synthetic tissue made on the spot: nothing to download.

    python -m maemem.main --config=configs/demo.py --workdir=runs/demo

Pre-trains an encoder without labels, fine-tunes it to affinities, and predicts, segments and scores
tissue that it never saw. Ends by naming the report to open.

Cost and score: under 2 minutes on two cores of an Intel Xeon (Emerald Rapids); adapted Rand error
0.068 on test tissue (its own fragments 1.000, a watershed of the raw intensities 0.175). Results
vary by processor; see docs/results.md.
"""

from maemem.config import adamw, everything, volume


def tissue(shape_zyx: str, seed: int, artefacts: int = 0, labelled: bool = True):
    """Synthetic tissue, and its neurites."""
    path = f"synthetic:?shape_zyx={shape_zyx}&voxel_size_nm=30,6,6&seed={seed}"
    path += "&artefacts=1" if artefacts else ""
    return volume(path, labels=f"{path}&show=neurites" if labelled else "")


def get_config():
    """The config."""
    config = everything()
    config.data.train.unlabelled = tissue("48,320,320", seed=0, artefacts=1, labelled=False)
    config.data.train.labelled = tissue("12,256,256", seed=1)
    config.data.validation.labelled = tissue("12,192,192", seed=2)
    config.data.test.labelled = tissue("12,256,256", seed=3)
    config.data.crop_zyx = (4, 64, 64)  # Small crops, so that many are seen in minutes.
    config.model.encoder.update(width=96, depth=4, heads=4, rotary=True)
    config.pretrain.learner.decoder.update(width=96, depth=1, heads=4)
    config.model.segmenter.channels = (8, 16, 16, 32)
    config.pretrain.steps = 500
    config.pretrain.batch_size = 16
    config.pretrain.learner.ratio = 0.5
    config.pretrain.learner.decoded = 32
    config.pretrain.optimizer = adamw(2e-3, 50, 0.05)
    config.pretrain.optimizer.clip_norm = 1.0
    config.pretrain.log_every = 50
    config.pretrain.eval_every = 250
    config.pretrain.eval_crops = 64
    config.pretrain.checkpoint_every = 250
    config.finetune.steps = 200
    config.finetune.batch_size = 4
    config.finetune.optimizer = adamw(2e-3, 20, 0.05)
    config.finetune.optimizer.clip_norm = 1.0
    config.finetune.log_every = 10
    config.finetune.eval_every = 100
    config.finetune.eval_crops = 16
    config.finetune.checkpoint_every = 100
    config.predict.stride_zyx = (4, 32, 32)
    config.predict.views = "one"
    config.segment.grid.score = ("quantile85",)  # One graph is made, for the sake of time.
    config.segment.grid.low = (0.05,)
    config.segment.baselines = ("fragments", "intensity")
    return config
