"""Segments a volume of any size, without labels, with a network that is trained already.

    python -m maemem.main --config=configs/apply.py:MODEL --workdir=runs/large \\
        --config.data.test.volume.path=large.zarr

MODEL is the workdir of a fine-tuning, or a model folder of `maemem.export_model`. All fields are
those that its network was fine-tuned with, and the thresholds those that were tuned with it, so it
must have been through the stage `segment`. Its volumes are left out, and where and how it was
computed: `data.root` and `runtime` are the defaults.

More volumes take more runs. One that says nothing of its voxel size is told it
(`--config.data.test.volume.voxel_size_nm=30.,6.,6.`), and one with labels is scored, too:
`--config.data.test.volume.labels=ids.zarr --config.stages="('predict','segment','evaluate')"`.
"""

import pathlib

from ml_collections import ConfigDict

from maemem.config import segmenting, volume


def get_config(model: str = ""):
    """The config of the network of a workdir or a model folder."""
    from maemem.workdir import read_config, read_record  # Late: JAX is slow to import.

    if not model:
        raise FileNotFoundError("no model is named; give its folder, as in maemem:apply:runs/demo")
    folder = pathlib.Path(model).expanduser().absolute()
    try:
        config, defaults = read_config(folder).unlock(), segmenting()
    except ValueError as error:
        raise OSError(error) from None  # Of these, ml_collections shows the message alone.
    if "finetune" not in config or read_record(folder).get("stage") == "pretrain":
        raise FileNotFoundError(f"{model} is of pre-training only, and segments nothing")
    config.stages = ("predict", "segment")
    config.predict.network = str(folder)
    config.segment.baselines = ()
    config.data.root, config.runtime = defaults.data.root, defaults.runtime
    config.data.train, config.data.validation = ConfigDict(), ConfigDict()
    config.data.test = ConfigDict({"volume": volume("")})
    return config
