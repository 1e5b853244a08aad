"""Where everything lies in a workdir: the only file that names its files.

WORKDIR/
  config.json, timings.json    the record of the run
  pretrain/, finetune/         checkpoints/STEP, metrics.jsonl, a picture of held-out crops
  predict/SET/VOLUME.zarr      predictions
  segment/tuned.json           thresholds
  segment/SET/VOLUME.zarr      labels; those of a baseline: VOLUME.BASELINE.zarr
  evaluate/scores.json
  report/index.html
  doctor/checks.json           and pictures
  cache/                       converted volumes; compiled/ is XLA's
"""

import pathlib

WORKDIR = "{workdir}"  # In a path of a config: the workdir of the run itself.
CONFIG, TUNED = "config.json", "tuned.json"  # In model folders, too.
MODEL_CHECKSUMS = "SHA256SUMS"  # In model folders only, see `training.model_folder`.
CHECKPOINTS, METRICS = "checkpoints", "metrics.jsonl"  # In the folder of a training.
HELD_OUT, CURVE = "held_out.png", "curve.png"  # In it, too.
NETWORK = "network"  # Decodes the network's prediction; all other methods are baselines.


def config_path(folder: pathlib.Path) -> pathlib.Path:
    """The record of a run, in a workdir or a model folder."""
    return folder / CONFIG


def timings_path(workdir: pathlib.Path) -> pathlib.Path:
    """Seconds that each stage took."""
    return workdir / "timings.json"


def lock_path(workdir: pathlib.Path) -> pathlib.Path:
    """Locked by the process that works in the workdir."""
    return workdir / ".lock"


def cache_folder(workdir: pathlib.Path) -> pathlib.Path:
    """Copies of volumes that cannot be read in place."""
    return workdir / "cache"


def compiled_folder(workdir: pathlib.Path) -> pathlib.Path:
    """XLA's compilation cache."""
    return cache_folder(workdir) / "compiled"


def stage_folder(workdir: pathlib.Path, stage: str) -> pathlib.Path:
    """Everything that a stage, or the check-up (`doctor`), writes."""
    return workdir / stage


def checks_path(workdir: pathlib.Path) -> pathlib.Path:
    """What the check-up found."""
    return stage_folder(workdir, "doctor") / "checks.json"


def checkpoints_folder(workdir: pathlib.Path, stage: str) -> pathlib.Path:
    """Checkpoints of a training, a folder a step."""
    return stage_folder(workdir, stage) / CHECKPOINTS


def metrics_path(workdir: pathlib.Path, stage: str) -> pathlib.Path:
    """Metrics of a training, a row each time that they are logged."""
    return stage_folder(workdir, stage) / METRICS


def picture_path(workdir: pathlib.Path, stage: str) -> pathlib.Path:
    """Held-out crops at the last evaluation of a training."""
    return stage_folder(workdir, stage) / HELD_OUT


def prediction_path(workdir: pathlib.Path, name: str, volume: str) -> pathlib.Path:
    """The prediction of a volume of a set."""
    return stage_folder(workdir, "predict") / name / f"{volume}.zarr"


def predictions(workdir: pathlib.Path, name: str) -> list[pathlib.Path]:
    """The predictions that there are of a set."""
    return sorted((stage_folder(workdir, "predict") / name).glob("*.zarr"))


def tuned_path(workdir: pathlib.Path) -> pathlib.Path:
    """The thresholds that predictions are decoded with."""
    return stage_folder(workdir, "segment") / TUNED


def tuning_folder(workdir: pathlib.Path) -> pathlib.Path:
    """What was found of thresholds while they are tuned."""
    return stage_folder(workdir, "segment") / "tuning"


def labels_path(
    workdir: pathlib.Path, name: str, volume: str, method: str = NETWORK
) -> pathlib.Path:
    """The labels of a volume of a set, by the network or a baseline."""
    suffix = "" if method == NETWORK else f".{method}"
    return stage_folder(workdir, "segment") / name / f"{volume}{suffix}.zarr"


def scores_path(workdir: pathlib.Path) -> pathlib.Path:
    """Scores of the labels."""
    return stage_folder(workdir, "evaluate") / "scores.json"


def report_path(workdir: pathlib.Path) -> pathlib.Path:
    """The page that shows all results."""
    return stage_folder(workdir, "report") / "index.html"
