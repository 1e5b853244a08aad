"""A workdir as the stages leave it, without running them."""

import json
import pathlib

import numpy as np

from maemem.assembly.volumes import open_raw, read_truth
from maemem.blockwise.predict import predict_volume
from maemem.config import Config, everything, volume
from maemem.geometry import Box
from tests.blockwise.volumes import write_labels

TISSUE = "synthetic:?shape_zyx=8,64,64&voxel_size_nm=30,6,6&seed=0"


def config() -> Config:
    """One test volume, of which a part is used, and a part of that is scored."""
    config = everything()
    config.data.test.tissue = volume(
        TISSUE, labels=f"{TISSUE}&show=neurites", region="1:8, :, 8:", scored="2:8, :, 8:60"
    )
    return config


def leave(config: Config, workdir: pathlib.Path) -> tuple[int, int, int]:
    """What the other stages leave; returns a merge: two objects, and the voxels of the smaller."""
    entry = config.data.test.tissue
    truth, scored = read_truth(config, workdir, entry)
    ids, counts = np.unique(truth[truth > 0], return_counts=True)
    large, small = (int(ids[i]) for i in np.argsort(-counts)[:2])
    raw = open_raw(config, entry, workdir)
    region = Box.parse(entry.region, raw.shape_zyx)
    labels = np.zeros(region.shape_zyx, np.uint32)
    labels[1:, :, :52] = np.where(truth == small, large, truth)
    written = {"voxel_size_nm": (30.0, 6.0, 6.0), "region": region, "attributes": {}}
    for name in ("segment", "predict", "evaluate"):
        (workdir / name / "test").mkdir(parents=True)
    write_labels(workdir / "segment" / "test" / "tissue.zarr", labels, **written)
    predict_volume(
        lambda crops: np.repeat(crops[..., None] / np.float32(255), 3, -1),
        raw,
        workdir / "predict" / "test" / "tissue.zarr",
        region=region,
        window_zyx=(4, 32, 32),
        stride_zyx=(4, 32, 32),
        batch_size=4,
        channels=("z-1", "y-1", "x-1"),
        identity={},
        progress=False,
    )
    scores = {"sets": {"test": {"tissue": {"adapted_rand": 0.25, "baselines": {}}}}}
    (workdir / "evaluate" / "scores.json").write_text(json.dumps(scores))
    thresholds = {"thresholds": {"network": {"threshold": 0.375}}}
    (workdir / "segment" / "tuned.json").write_text(json.dumps(thresholds))
    (workdir / "timings.json").write_text(json.dumps({"predict": 2.5}))
    rows = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "eval_loss": 1.5, "eval_x": 0.5}]
    (workdir / "finetune").mkdir()
    lines = [*map(json.dumps, rows), '{"step": 3, "lo']
    (workdir / "finetune" / "metrics.jsonl").write_text("\n".join(lines))
    assert scored.start_zyx == (2, 0, 8)
    return large, small, int(np.sort(counts)[-2])
