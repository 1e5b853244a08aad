"""Thresholds by which predictions are decoded, and what each method decodes with them.

The validation set alone decides them, once, before anything of the test set is decoded. Without a
validation set they are those that were tuned where `predict.network` was fine-tuned.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from maemem import layout
from maemem.assembly.networks import decoder
from maemem.assembly.volumes import open_raw, open_scored
from maemem.blockwise.engine import Map
from maemem.blockwise.segment import CutRegion, cut_region
from maemem.blockwise.store import Stored, open_prediction
from maemem.config import Config
from maemem.data.stores.damage import read_json
from maemem.data.stores.ledger import differences
from maemem.durable import write_durably
from maemem.geometry import Box
from maemem.layout import NETWORK
from maemem.learners.targets.contract import Thresholds, combinations
from maemem.scores.contract import Column, Score
from maemem.scores.registry import make_selected
from maemem.segmentation.intensity import intensity_affinities
from maemem.stages.predict import network_digest, network_is_made, network_path
from maemem.training.model_folder import check_files, is_model
from maemem.workdir import check_network

log = logging.getLogger(__name__)

# What thresholds mean, beyond their names.
DECODING_FIELDS = ("target", "segment.decoder")


def methods(config: Config) -> list[str]:
    """The network's segmentation, and the baselines beside it, where there are labels."""
    return [NETWORK, *config.segment.baselines]


def thresholds_path(network: pathlib.Path) -> pathlib.Path:
    """Where the thresholds of a network are, of a workdir or a model folder."""
    return network / layout.TUNED if is_model(network) else layout.tuned_path(network)


def decide_thresholds(config: Config, workdir: pathlib.Path, workers: Map = map) -> None:
    """Writes WORKDIR/segment/tuned.json, unless it is there.

    Raises:
      ValueError: if no validation volume has labels or anything to score, there is none and the
        network has no thresholds that fit, or the test set was decoded with others before.
      FileNotFoundError: if there is no prediction.
    """
    path = layout.tuned_path(workdir)
    if not path.exists():
        _refuse_retuning(workdir)
        if config.data.validation:
            record = _tune(config, workdir, workers)
        else:
            record = _take_thresholds(config, workdir)
        write_durably(path, json.dumps(record, indent=1))


def check_thresholds(config: Config, workdir: pathlib.Path) -> None:
    """Checks, before hours of work, that a run which predicts will have thresholds to decode by.

    Raises:
      ValueError: if there is no validation volume with labels to tune them on, and the network has
        none that fit.
      FileNotFoundError: if there is no network to take them from.
    """
    if "predict" not in config.stages or layout.tuned_path(workdir).exists():
        return
    if config.data.validation or network_is_made(config):
        _tuning_volumes(config)
    else:
        _usable_thresholds(config, workdir, {network_digest(network_path(config, workdir))})


def tuned_thresholds(config: Config, workdir: pathlib.Path) -> dict[str, Thresholds]:
    """The frozen thresholds, by method.

    Raises:
      ValueError: if they cannot be read, or were tuned on other predictions than those of now.
      FileNotFoundError: if these are not there.
    """
    path = layout.tuned_path(workdir)
    record = read_json(path)
    thresholds = record.get("thresholds")
    if not isinstance(thresholds, dict) or NETWORK not in thresholds:
        raise ValueError(f"{path} holds no thresholds; put back a copy of it")
    for volume in _labelled(config):
        before = record.get("predictions", {}).get(volume)
        now = stored_prediction(workdir, "validation", volume).attributes
        refuse_others(path, before, now, "begin a new workdir")
    return thresholds


def refuse_others(
    path: pathlib.Path, before: dict[str, Any] | None, now: dict[str, Any], instead: str
) -> None:
    """Refuses a result that was made of another prediction, or otherwise, than would be now."""
    if before is None:
        raise ValueError(
            f"{path} does not say which prediction it was made of, as those of earlier versions of "
            f"maemem do not; {instead}"
        )
    if differing := differences(before, now):
        raise ValueError(
            f"{path} was made of another prediction, or otherwise: {differing}. Bring that "
            f"prediction back as it was, or {instead}"
        )


def fingerprint(workdir: pathlib.Path) -> str:
    """What tells the frozen thresholds from others."""
    return hashlib.sha256(layout.tuned_path(workdir).read_bytes()).hexdigest()[:16]


def _refuse_retuning(workdir: pathlib.Path) -> None:
    """Refuses to decide on thresholds once the test set was decoded or scored with some."""
    for result in (layout.stage_folder(workdir, "segment") / "test", layout.scores_path(workdir)):
        if result.exists():
            raise ValueError(
                f"{result} is there, but segment/tuned.json, whose thresholds made it, is gone; "
                f"tuning again after having seen the test set would not be honest: put the file "
                f"back, or begin a new workdir"
            )


def _tune(config: Config, workdir: pathlib.Path, workers: Map) -> dict[str, Any]:
    """The best thresholds of each method on the labelled validation volumes, and all that were."""
    labelled = _tuning_volumes(config)
    made_of = {name: stored_prediction(workdir, "validation", name).attributes for name in labelled}
    record = {"select_by": config.segment.select_by, "predictions": made_of}
    record |= {"thresholds": {}, "scores": {}, "tried": {}}
    column = make_selected(config.evaluate, config.segment.select_by)[1]
    for method in methods(config):
        if method == "fragments":  # Those that the network's segmentation was put together from.
            chosen = record["thresholds"][NETWORK]
            record["thresholds"][method] = {name: chosen[name] for name in decoder(config).cuts}
            continue
        scores: dict[str, list[float]] = {}
        empty: set[str] = set()
        for volume in labelled:
            for tried in _tried(config, workdir, volume, method, workers):
                key = json.dumps(tried["thresholds"])
                scores.setdefault(key, []).append(tried["score"])
                if not tried["objects"]:
                    empty.add(key)
        means = {key: _mean(values) for key, values in scores.items()}
        best = best_of(means, empty, column)
        if math.isnan(means[best]):
            raise ValueError(
                f"no volume of data.validation ({', '.join(labelled)}) has anything to score "
                f"{config.segment.select_by} by; choose regions whose labels show some objects"
            )
        record["thresholds"][method] = json.loads(best)
        record["scores"][method] = means[best]
        record["tried"][method] = [
            {**json.loads(key), column.name: mean} for key, mean in means.items()
        ]
        log.info("tuned %s: %s, %s %.4f", method, best, column.heading, means[best])
    shutil.rmtree(layout.tuning_folder(workdir), ignore_errors=True)
    return record


def _tried(
    config: Config, workdir: pathlib.Path, volume: str, method: str, workers: Map
) -> Iterator[dict[str, Any]]:
    """All combinations of the grid, with the score and the number of objects that each gives.

    A volume is cut, block by block, once for all ways to merge its pieces; what was found is kept
    until all is tuned, so that a run that was killed goes on.
    """
    grid, how = config.segment.grid.to_dict(), decoder(config)
    every = list(combinations(grid, how.cuts))
    folder = layout.tuning_folder(workdir) / f"{volume}.{method}"
    read, stored = open_decoded(config, workdir, "validation", volume, method)
    sections = (config.segment, config.evaluate, config.data.validation[volume])
    asked = [section.to_dict() for section in sections]
    for number, cuts in enumerate(every, 1):
        identity = [asked, cuts, stored.attributes]
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        path, scratch = folder / f"{digest}.json", folder / digest
        if not path.exists():
            log.info("tuning %s on %s: cut %d of %d", method, volume, number, len(every))
            tried = list(_merged(config, workdir, volume, cuts, read, stored, scratch, workers))
            write_durably(path, json.dumps({"tried": tried}))
            shutil.rmtree(scratch)
        yield from read_json(path)["tried"]


def _merged(
    config: Config,
    workdir: pathlib.Path,
    volume: str,
    cuts: Thresholds,
    read: Callable[[Box], np.ndarray],
    stored: Stored,
    scratch: pathlib.Path,
    workers: Map,
) -> Iterator[dict[str, Any]]:
    """A volume cut in one way, and all ways to merge its pieces."""
    grid, how = config.segment.grid.to_dict(), decoder(config)
    score, column = make_selected(config.evaluate, config.segment.select_by)
    region = cut_region(
        read,
        functools.partial(how.cut, **cuts),
        scratch,
        region=stored.region,
        voxel_size_nm=stored.voxel_size_nm,
        block_zyx=config.segment.block_zyx,
        halo_zyx=config.segment.halo_zyx,
        scores=grid.get("score", ()),
        identity={"thresholds": cuts},
        workers=workers,
    )
    read_truth, box = open_scored(config, workdir, config.data.validation[volume])
    count = functools.partial(_count, score, region, read_truth, stored.region, box)
    evidence = score.evidence.merge(workers(count, region.blocks))
    merges = {how.merging(**each): each for each in combinations(grid, how.merges)}
    for merging, objects in region.objects(list(merges), config.segment.smallest):
        values = score.values(score.evidence.rename(evidence, objects))
        thresholds = {**cuts, **merges[merging]}
        found = {"score": values[column.name], "objects": int(objects.max())}
        yield {"thresholds": thresholds, **found}


def _count(
    score: Score,
    region: CutRegion,
    read_truth: Callable[[Box], np.ndarray],
    predicted: Box,
    scored: Box,
    block: Box,
) -> Any:
    """What is known of a block, in the part that scores count."""
    part = block.moved(predicted.start_zyx).intersection(scored)
    if part is None:
        return score.evidence.part(np.zeros((0, 1, 1), int), np.zeros((0, 1, 1), int))
    z, y, x = (-a - b for a, b in zip(predicted.start_zyx, block.start_zyx, strict=True))
    pieces = region.read(block)[part.moved((z, y, x)).slices]
    return score.evidence.part(read_truth(part), pieces)


def best_of(scores: dict[str, float], empty: set[str], column: Column) -> str:
    """The thresholds of the best score; NaN is the worst.

    Those that leave a volume without objects come last: background alone can score a perfect Rand
    error and VOI where the truth has one object.

    Args:
      scores: by thresholds.
      empty: thresholds that find no object in some volume.
      column: what the scores are; it says which are better.
    """
    return min(
        scores, key=lambda key: (math.isnan(scores[key]), key in empty, column.rank(scores[key]))
    )


def _mean(values: list[float]) -> float:
    """Over the volumes that have anything to score."""
    scored = [value for value in values if not math.isnan(value)]
    return sum(scored) / len(scored) if scored else math.nan


def _take_thresholds(config: Config, workdir: pathlib.Path) -> dict[str, Any]:
    """Those that were tuned with the network, on predictions of it that are decoded as here."""
    predicted = [stored_prediction(workdir, "test", volume) for volume in config.data.test]
    networks = {prediction.attributes["network"] for prediction in predicted}
    return _usable_thresholds(config, workdir, networks)


def _usable_thresholds(config: Config, workdir: pathlib.Path, networks: set[str]) -> dict[str, Any]:
    """Those that were tuned on predictions of all these networks, given as their digests."""
    network = network_path(config, workdir)
    path = thresholds_path(network)
    if not path.exists():
        raise ValueError(
            f"there is no {path}, so the network has no tuned thresholds, and data.validation is "
            f"empty; run the stage segment in the workdir that the network was fine-tuned in, and "
            f"name that workdir or a model exported from it in predict.network, or name a volume "
            f"with labels in data.validation"
        )
    if is_model(network):
        check_files(network)
    check_network(config, path, DECODING_FIELDS)
    before = read_json(path)
    thresholds = before.get("thresholds", {})
    if missing := [method for method in methods(config) if method not in thresholds]:
        raise ValueError(
            f"{path} holds no thresholds of {', '.join(missing)}; expected those of the network, "
            f"and of each of segment.baselines"
        )
    tuned_on = before.get("predictions", {}).values()
    if not networks <= {made_of["network"] for made_of in tuned_on}:
        raise ValueError(
            f"{path} was not tuned on predictions of the network {network} as it is now, or does "
            f"not say so; tune anew: give data.validation volumes with labels, such as those in "
            f"the config that the network was fine-tuned with"
        )
    if any(made_of.get("views") != config.predict.views for made_of in tuned_on):
        log.warning("%s was tuned on predictions of other predict.views than these", path)
    log.info("thresholds are those in %s", path)
    taken = {method: thresholds[method] for method in methods(config)}
    return {"taken_from": str(path), "predictions": {}, "thresholds": taken}


def _labelled(config: Config) -> dict[str, Config]:
    """The validation volumes that have labels."""
    return {name: entry for name, entry in config.data.validation.items() if entry.labels}


def _tuning_volumes(config: Config) -> dict[str, Config]:
    """The validation volumes that thresholds are tuned on."""
    labelled = _labelled(config)
    if not labelled:
        raise ValueError(
            "no volume of data.validation has labels, so thresholds cannot be tuned; name labels "
            "of a held-out region in its field `labels`"
        )
    return labelled


def stored_prediction(workdir: pathlib.Path, name: str, volume: str) -> Stored:
    """What the network predicted of a volume of a set.

    Raises:
      FileNotFoundError: if it did not yet.
    """
    return open_prediction(layout.prediction_path(workdir, name, volume))


def open_decoded(
    config: Config, workdir: pathlib.Path, name: str, volume: str, method: str
) -> tuple[Callable[[Box], np.ndarray], Stored]:
    """What reads the prediction that a method decodes in a box, and the network's as it is stored.

    Affinities of the image are made of the whole region at once, and held in memory.
    """
    stored = stored_prediction(workdir, name, volume)
    if method != "intensity":
        return stored.read_probabilities, stored
    raw = open_raw(config, config.data[name][volume], workdir)
    affinities = intensity_affinities(raw.read(stored.region))
    return functools.partial(_read_array, affinities, stored.region), stored


def _read_array(values: np.ndarray, region: Box, box: Box) -> np.ndarray:
    z, y, x = (-n for n in region.start_zyx)
    return values[(slice(None), *box.moved((z, y, x)).slices)]
