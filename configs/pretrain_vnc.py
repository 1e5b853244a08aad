"""Pre-training on anisotropic serial sections: larval VNC, 50×4.6×4.6 nm, sized for two CPU cores.

    python -m maemem.main --config=configs/pretrain_vnc.py --config.data.root=DATA \\
        --workdir=runs/vnc

DATA/vnc holds train-input and unlabeled, 20×1024×1024 voxels each, which
`python -m maemem.data.fetch vnc --root=DATA` gets. Of the labelled volume,
rows 0 to 511 are trained on and the held-out crops are from rows 512 to 639; the rest belongs to
the test: no crop is ever taken from it.

Cost and score: 31 minutes on two cores that other work shared; `eval_masked_mse` 0.895, at 75 %
masking.
"""

from maemem.config import pretraining, volume


def get_config():
    """The config."""
    config = pretraining()
    nm = (50.0, 4.6, 4.6)
    config.data.train.labelled = volume(
        "vnc/train-input.zarr", voxel_size_nm=nm, region=":, 0:512, :"
    )
    config.data.train.unlabelled = volume("vnc/unlabeled.zarr", voxel_size_nm=nm, weight=2.0)
    config.data.validation.labelled = volume(
        "vnc/train-input.zarr", voxel_size_nm=nm, region=":, 512:640, :"
    )
    config.model.encoder.update(width=192, depth=8, heads=6, rotary=True)
    config.pretrain.learner.decoder.update(width=192, depth=2, heads=6)
    config.pretrain.steps = 3_000
    config.pretrain.batch_size = 16
    # At 90 % it had learnt hardly anything after 2,500 steps: an error of 0.983.
    config.pretrain.learner.ratio = 0.75
    config.pretrain.learner.decoded = 64
    config.pretrain.optimizer.learning_rate = 1e-3
    config.pretrain.optimizer.warmup_steps = 200
    config.pretrain.optimizer.weight_decay = 0.05
    config.pretrain.optimizer.clip_norm = 1.0
    config.pretrain.log_every = 20
    config.pretrain.eval_every = 500
    config.pretrain.checkpoint_every = 500
    return config
