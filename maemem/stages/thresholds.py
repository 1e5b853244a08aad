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
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from maemem.assembly.networks import target
from maemem.assembly.volumes import open_raw, read_truth
from maemem.blockwise.store import Stored, open_prediction
from maemem.config import Config
from maemem.data.stores.damage import read_json
from maemem.data.stores.ledger import differences
from maemem.durable import write_durably
from maemem.geometry import Box
from maemem.learners.targets.affinity import Affinity
from maemem.reporting.page import NETWORK
from maemem.scores.contingency import contingency
from maemem.scores.summary import score_all
from maemem.segmentation.decoders import Thresholds, candidates
from maemem.segmentation.intensity import intensity_affinities
from maemem.stages.predict import network_digest, network_is_made, network_path
from maemem.training.model_folder import check_files, is_model
from maemem.training.progress import progress_bar
from maemem.workdir import check_network

log = logging.getLogger(__name__)

# What thresholds mean, beyond their names.
DECODING_FIELDS = (
    *("segment.method", "segment.fragments", "segment.sectionwise"),
    *("objective.kind", "objective.offsets", "objective.distance"),
)


def methods(config: Config) -> list[str]:
    """The network's segmentation, and the baselines beside it, where there are labels."""
    return [NETWORK, *config.segment.baselines]


def thresholds_path(network: pathlib.Path) -> pathlib.Path:
    """Where the thresholds of a network are, of a workdir or a model folder."""
    return network / ("tuned.json" if is_model(network) else "segment/tuned.json")


def decide_thresholds(config: Config, workdir: pathlib.Path) -> None:
    """Writes WORKDIR/segment/tuned.json, unless it is there.

    Raises:
      ValueError: if no validation volume has labels or anything to score, there is none and the
        network has no thresholds that fit, or the test set was decoded with others before.
      FileNotFoundError: if there is no prediction.
    """
    path = workdir / "segment" / "tuned.json"
    if not path.exists():
        _refuse_retuning(workdir)
        decide = _tune if config.data.validation else _take_thresholds
        write_durably(path, json.dumps(decide(config, workdir), indent=1))


def check_thresholds(config: Config, workdir: pathlib.Path) -> None:
    """Checks, before hours of work, that a run which predicts will have thresholds to decode by.

    Raises:
      ValueError: if there is no validation volume with labels to tune them on, and the network has
        none that fit.
      FileNotFoundError: if there is no network to take them from.
    """
    if "predict" not in config.stages or (workdir / "segment" / "tuned.json").exists():
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
    path = workdir / "segment" / "tuned.json"
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
    return hashlib.sha256((workdir / "segment" / "tuned.json").read_bytes()).hexdigest()[:16]


def _refuse_retuning(workdir: pathlib.Path) -> None:
    """Refuses to decide on thresholds once the test set was decoded or scored with some."""
    for result in (workdir / "segment" / "test", workdir / "evaluate" / "scores.json"):
        if result.exists():
            raise ValueError(
                f"{result} is there, but segment/tuned.json, whose thresholds made it, is gone; "
                f"tuning again after having seen the test set would not be honest: put the file "
                f"back, or begin a new workdir"
            )


def _tune(config: Config, workdir: pathlib.Path) -> dict[str, Any]:
    """The best thresholds of each method on the labelled validation volumes, and all that were."""
    labelled = _tuning_volumes(config)
    made_of = {name: stored_prediction(workdir, "validation", name).attributes for name in labelled}
    record = {"select_by": config.segment.select_by, "predictions": made_of}
    record |= {"thresholds": {}, "costs": {}, "tried": {}}
    for method in methods(config):
        if method == "fragments":  # Those that the network's segmentation was put together from.
            chosen = record["thresholds"][NETWORK]
            record["thresholds"][method] = {name: chosen[name] for name in ("low", "high")}
            continue
        costs: dict[str, list[float]] = {}
        empty: set[str] = set()
        for volume, entry in labelled.items():
            for thresholds, cost, objects in _costs(config, workdir, volume, entry, method):
                costs.setdefault(json.dumps(thresholds), []).append(cost)
                if not objects:
                    empty.add(json.dumps(thresholds))
        means = {key: _mean(values) for key, values in costs.items()}
        best = best_of(means, empty)
        if math.isnan(means[best]):
            raise ValueError(
                f"no volume of data.validation ({', '.join(labelled)}) has anything to score "
                f"{config.segment.select_by} by; choose regions whose labels show some objects"
            )
        record["thresholds"][method] = json.loads(best)
        record["costs"][method] = means[best]
        record["tried"][method] = [{**json.loads(key), "cost": cost} for key, cost in means.items()]
        log.info("tuned %s: %s, %s %.4f", method, best, config.segment.select_by, means[best])
    return record


def _costs(
    config: Config, workdir: pathlib.Path, volume: str, entry: Config, method: str
) -> Iterator[tuple[Thresholds, float, int]]:
    """Thresholds, what they cost, and how many objects they find."""
    grid = config.segment.grid.to_dict()
    truth, box = read_truth(config, workdir, entry)
    read, stored = open_decoded(config, workdir, "validation", volume, method)
    prediction = read(stored.region)
    z, y, x = (-n for n in stored.region.start_zyx)
    inside = box.moved((z, y, x)).slices
    total = math.prod(map(len, grid.values()))
    found = candidates(decoder(config, method), prediction, grid, **settings_of(config, method))
    with progress_bar(total, 0, "combination") as bar:
        for thresholds, labels in found:
            scores = score_all(contingency(truth, labels[inside]), **config.evaluate.to_dict())
            bar.update()
            yield thresholds, cost(scores, config.segment.select_by), int(labels.max())


def best_of(costs: dict[str, float], empty: set[str]) -> str:
    """The thresholds of the lowest cost; NaN is the highest.

    Those that leave a volume without objects come last: background alone can score a perfect Rand
    error and VOI where the truth has one object.

    Args:
      costs: by thresholds.
      empty: thresholds that find no object in some volume.
    """
    return min(costs, key=lambda key: (math.isnan(costs[key]), key in empty, costs[key]))


def _mean(values: list[float]) -> float:
    """Over the volumes that have anything to score."""
    scored = [value for value in values if not math.isnan(value)]
    return sum(scored) / len(scored) if scored else math.nan


def cost(scores: dict[str, float], select_by: str) -> float:
    """What tuning minimises."""
    if select_by == "voi":
        return scores["voi_split"] + scores["voi_merge"]
    return scores[select_by] if select_by == "adapted_rand" else -scores[select_by]


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


def decoder(config: Config, method: str) -> str:
    """What decodes a method; affinities of the image are decoded as the network's are."""
    return "fragments" if method == "fragments" else config.segment.method


def settings_of(config: Config, method: str) -> dict[str, Any]:
    """What a decoder is told beside its thresholds; see `maemem.segmentation.decoders.cutter`."""
    what = target(config.objective)
    offsets = what.offsets_zyx if isinstance(what, Affinity) else ()
    return {
        # Fragments are what they are; most are small.
        "smallest": 0 if method == "fragments" else config.segment.smallest,
        "sectionwise": config.segment.sectionwise,
        "fragments": config.segment.fragments,
        "offsets_zyx": offsets,
    }


def stored_prediction(workdir: pathlib.Path, name: str, volume: str) -> Stored:
    """What the network predicted of a volume of a set.

    Raises:
      FileNotFoundError: if it did not yet.
    """
    return open_prediction(workdir / "predict" / name / f"{volume}.zarr")


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
