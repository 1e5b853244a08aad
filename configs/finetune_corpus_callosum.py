"""Segments myelinated axons of white matter as in Cheng et al. (2023): BCD targets, few sections.

    python -m maemem.main --config=configs/finetune_corpus_callosum.py --config.data.root=DATA \\
        --config.finetune.encoder=runs/snemi_large --workdir=runs/corpus_callosum

The default is the article's large encoder, which comes from
`--config=configs/pretrain_snemi.py:large --workdir=runs/snemi_large`; `:base` takes the encoder of
`configs/pretrain_snemi.py`, runs/snemi.

The article's volumes (50 and 59 sections of 3000×3000 pixels, 4 nm) are its authors' own. Put yours
to DATA/corpus_callosum: train-input.tif, train-labels.tif, test-input.tif and test-labels.tif; and
say how thick the sections are, if they are not 40 nm. The last five sections of the training volume
are kept for tuning.

The article scores (A-Rand, large encoder pre-trained on SNEMI3D) 0.197, and 0.316 from scratch. It
has not been run here.
"""

from maemem.config import bcd, markers, segmenting, volume
from maemem.models.encoders.vit import VIT_SIZES


def get_config(variant: str = "large"):
    """The config; `variant` is base or large."""
    if variant not in ("base", "large"):
        raise ValueError(f"variant {variant!r} is unknown; choose base or large")
    config = segmenting()
    nm = (40.0, 4.0, 4.0)
    train = {"labels": "corpus_callosum/train-labels.tif", "voxel_size_nm": nm}
    path = "corpus_callosum/train-input.tif"
    config.data.train.first = volume(path, region="0:45, :, :", **train)
    config.data.validation.first = volume(path, region="45:50, :, :", **train)
    config.data.test.second = volume(
        "corpus_callosum/test-input.tif",
        labels="corpus_callosum/test-labels.tif",
        voxel_size_nm=nm,
    )
    config.model.encoder.update(VIT_SIZES[variant])
    config.target = bcd()
    config.finetune.steps = 200_000
    config.segment = markers()
    return config
