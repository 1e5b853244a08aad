"""Pre-training on isotropic FIB-SEM: FIB-25, 10 nm voxels, sized for two CPU cores.

    python -m maemem.main --config=configs/pretrain_fib25.py --config.data.root=DATA \\
        --workdir=runs/fib25

DATA/fib25 holds train-input, unlabeled-1 and unlabeled-2, which
`python -m maemem.data.fetch fib25 --root=DATA` gets. Of the labelled volume, sections 0 to 119 are
trained on and the held-out crops are from sections 120 to 169; the rest belongs to the test: no
crop is ever taken from it.

Cost and score: 16 minutes on two cores of a new AMD EPYC; 37 to 48 on older ones, at the pace that
`benchmarks.recipes` and the check-up measured there. `eval_masked_mse` is 0.844 at step 2,500 and
0.814 at the end.

`configs/pretrain_fib25.py:restoration` trains the whole segmenter of `finetune_fib25.py` instead,
by blocks of voxels that are hidden.
"""

from maemem.config import pretraining, volume
from maemem.fields import section
from maemem.learners import LEARNERS
from maemem.learners.restoration import Restoration


def get_config(learner: str = "mae"):
    """The config; `learner` is `mae` or `restoration`."""
    config = pretraining()
    nm = (10.0, 10.0, 10.0)
    config.data.train.labelled = volume(
        "fib25/train-input.zarr", voxel_size_nm=nm, region="0:120, :, :", weight=0.5
    )
    config.data.train.unlabelled_1 = volume("fib25/unlabeled-1.zarr", voxel_size_nm=nm)
    config.data.train.unlabelled_2 = volume("fib25/unlabeled-2.zarr", voxel_size_nm=nm, weight=9.0)
    config.data.validation.labelled = volume(
        "fib25/train-input.zarr", voxel_size_nm=nm, region="120:170, :, :"
    )
    config.data.crop_zyx = (48, 48, 48)
    config.model.encoder.update(patch_zyx=(8, 8, 8), width=192, depth=8, heads=6, rotary=True)
    config.model.segmenter.channels = (8, 16, 32)
    config.pretrain.steps = 5_000
    config.pretrain.batch_size = 16
    if learner == "restoration":
        config.pretrain.learner = section(
            Restoration, LEARNERS, blocks_zyx=((8, 8, 8), (16, 16, 16))
        )
        config.pretrain.batch_size = 4
    elif learner == "mae":
        config.pretrain.learner.decoder.update(width=192, depth=2, heads=6)
    else:
        raise ValueError(f"learner {learner!r} is unknown; choose 'mae' or 'restoration'")
    config.pretrain.optimizer.learning_rate = 1e-3
    config.pretrain.optimizer.warmup_steps = 200
    config.pretrain.optimizer.weight_decay = 0.05
    config.pretrain.optimizer.clip_norm = 1.0
    config.pretrain.log_every = 20
    config.pretrain.eval_every = 500
    config.pretrain.checkpoint_every = 500
    return config
