"""Turns predictions into objects, with thresholds that the validation set alone decides.

Writes WORKDIR/segment: `tuned.json`, the thresholds, and SET/NAME.zarr, labels; with a baseline's
name between the two, SET/NAME.fragments.zarr, the baselines', of volumes that have labels to score
them by. Labels and scores carry the fingerprint of the `tuned.json` that they were made with.
"""

from __future__ import annotations

import functools
import json
import logging
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from maemem import layout
from maemem.assembly.checks import check_config
from maemem.assembly.networks import decoder
from maemem.blockwise.engine import Map
from maemem.blockwise.segment import segment_volume
from maemem.blockwise.store import Stored, open_labels
from maemem.blockwise.workers import open_workers
from maemem.config import Config
from maemem.data.stores.ledger import tidy
from maemem.geometry import Box
from maemem.layout import NETWORK
from maemem.learners.targets.contract import Thresholds
from maemem.stages.predict import SETS
from maemem.stages.thresholds import (
    decide_thresholds,
    fingerprint,
    open_decoded,
    refuse_others,
    stored_prediction,
    tuned_thresholds,
)

log = logging.getLogger(__name__)


def run(config: Config, workdir: pathlib.Path) -> None:
    """Runs the stage; labels that are there already, made of the same in the same way, are kept.

    Args:
      config: see `maemem.config.segmenting`.
      workdir: where results go.

    Raises:
      ValueError: if the config is inconsistent, no validation volume has labels, there is none and
        the network has no thresholds that fit, or what is there was made of other predictions than
        those that are there, or with other thresholds.
      FileNotFoundError: if there is no prediction.
    """
    check_config(config)
    layout.stage_folder(workdir, "segment").mkdir(parents=True, exist_ok=True)
    with open_workers(config.runtime.workers) as workers:
        decide_thresholds(config, workdir, workers)
        tuned = tuned_thresholds(config, workdir)
        log.info("thresholds: %s", tuned)
        for name, volume, entry in ((s, *item) for s in SETS for item in config.data[s].items()):
            # Baselines are there to be scored beside the network, which takes labels.
            for method in tuned if entry.labels else (NETWORK,):
                _segment(config, workdir, name, volume, method, tuned[method], workers)


def _segment(
    config: Config,
    workdir: pathlib.Path,
    name: str,
    volume: str,
    method: str,
    thresholds: Thresholds,
    workers: Map,
) -> None:
    """Decodes one volume by one method, unless that is done."""
    path = layout.labels_path(workdir, name, volume, method)
    if path.exists():
        finished_labels(config, workdir, name, volume, method, thresholds)
        tidy(path)
        log.info("%s is there already, of the same prediction and thresholds; it is kept", path)
        return
    read, stored = open_decoded(config, workdir, name, volume, method)
    tuned = fingerprint(workdir)
    objects = write_labels(config, method, thresholds, read, stored, path, tuned, workers)
    log.info("%s: %d objects", path, objects)


def write_labels(
    config: Config,
    method: str,
    thresholds: Thresholds,
    read: Callable[[Box], np.ndarray],
    stored: Stored,
    path: pathlib.Path,
    tuned: str = "",
    workers: Map = map,
) -> int:
    """Writes the objects of a whole prediction, and returns how many there are.

    Args:
      config: with `target` and `segment`.
      method: one of `methods`.
      thresholds: of the method.
      read: of a box, the prediction that the method decodes.
      stored: what the network predicted; its region is segmented.
      path: the label volume to write.
      tuned: the fingerprint of the thresholds, kept with the labels.
      workers: who does the blocks.
    """
    how, alone = decoder(config), method == "fragments"
    cuts = {name: thresholds[name] for name in how.cuts}
    merges = {name: thresholds[name] for name in how.merges if not alone}
    return segment_volume(
        read,
        functools.partial(how.cut, **cuts),
        path,
        region=stored.region,
        voxel_size_nm=stored.voxel_size_nm,
        block_zyx=config.segment.block_zyx,
        halo_zyx=config.segment.halo_zyx,
        smallest=_smallest(config, method),
        identity=_identity(config, method, thresholds, stored, tuned),
        merging=None if alone else how.merging(**merges),
        workers=workers,
    )


def _smallest(config: Config, method: str) -> int:
    """In voxels; fragments are what they are, and most are small."""
    return 0 if method == "fragments" else config.segment.smallest


def _identity(
    config: Config, method: str, thresholds: Thresholds, stored: Stored, tuned: str
) -> dict[str, Any]:
    """All that decides labels but the blocks, as it is read back from JSON."""
    own = {"method": method, "thresholds": thresholds, "tuned": tuned}
    own["settings"] = config.segment.decoder.to_dict() | {"smallest": _smallest(config, method)}
    return json.loads(json.dumps({**own, "prediction": stored.attributes}))


def finished_labels(
    config: Config,
    workdir: pathlib.Path,
    name: str,
    volume: str,
    method: str,
    thresholds: Thresholds,
) -> Stored:
    """Labels that are there, made of the prediction that is there by the thresholds on record.

    Raises:
      ValueError: if they were made of another one, or otherwise; it names the differences.
      FileNotFoundError: if there are none, or no prediction.
    """
    path, tuned = layout.labels_path(workdir, name, volume, method), fingerprint(workdir)
    labels = open_labels(path)
    found = labels.attributes
    if found.get("tuned") != tuned:
        raise ValueError(
            f"{path} was made with other thresholds than those in segment/tuned.json; put that "
            f"file back as it was, or begin a new workdir"
        )
    stored = stored_prediction(workdir, name, volume)
    wanted = _identity(config, method, thresholds, stored, tuned)
    # Entry by entry, so that the difference is named and not two whole predictions.
    before, now = ({**each.pop("prediction", {}), **each} for each in (dict(found), wanted))
    before = {key: value for key, value in before.items() if key in now}
    instead = "delete it, and run the stage segment again"
    refuse_others(path, before if "prediction" in found else None, now, instead)
    return labels
