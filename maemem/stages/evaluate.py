"""Scores the labels of the validation and the test set against the truth.

Writes WORKDIR/evaluate/scores.json: the scores, with the thresholds and the hash of the network's
parameters that they are of.
"""

from __future__ import annotations

import functools
import json
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from maemem import layout
from maemem.assembly.checks import check_config
from maemem.assembly.volumes import open_scored
from maemem.blockwise.engine import Map
from maemem.blockwise.store import Stored
from maemem.blockwise.workers import open_workers
from maemem.config import Config
from maemem.data.stores.damage import read_json
from maemem.durable import write_durably
from maemem.geometry import Box, blocks
from maemem.layout import NETWORK
from maemem.learners.targets.contract import Thresholds
from maemem.logs import showing_progress
from maemem.scores.contract import Evidence, Score
from maemem.scores.registry import columns, make_scores, values
from maemem.stages.predict import SETS
from maemem.stages.segment import finished_labels
from maemem.stages.thresholds import (
    fingerprint,
    methods,
    stored_prediction,
    tuned_thresholds,
)

log = logging.getLogger(__name__)


def run(config: Config, workdir: pathlib.Path) -> None:
    """Runs the stage. Volumes without labels are left out, and named.

    Args:
      config: see `maemem.config.segmenting`.
      workdir: where results go.

    Raises:
      ValueError: if thresholds or labels were made of other predictions than those that are there,
        labels with other thresholds, or the test set was scored with others before.
      FileNotFoundError: if there are no predictions, thresholds or labels; it says what to run.
    """
    check_config(config)
    path = layout.scores_path(workdir)
    if not layout.tuned_path(workdir).exists():
        raise FileNotFoundError(
            f"there is no {layout.tuned_path(workdir)}: run the stage segment first, which "
            f"decides the thresholds on the validation set"
        )
    tuned = fingerprint(workdir)
    if path.exists() and read_json(path).get("tuned") != tuned:
        raise ValueError(
            f"{path} was made with other thresholds than those in segment/tuned.json; the test set "
            f"is scored once: put that file back as it was, or begin a new workdir"
        )
    thresholds, scores = tuned_thresholds(config, workdir), make_scores(config.evaluate)
    sets: dict[str, Any] = {name: {} for name in SETS}
    with open_workers(config.runtime.workers) as workers:
        for name, volume, entry in ((s, *item) for s in SETS for item in config.data[s].items()):
            if entry.labels:
                sets[name][volume] = _score(
                    config, workdir, name, volume, entry, thresholds, scores, workers
                )
            else:
                log.warning("%s volume %s has no labels, so it has no scores", name, volume)
    path.parent.mkdir(exist_ok=True)
    networks = {
        stored_prediction(workdir, name, volume).attributes.get("network", "unknown")
        for name, volumes in sets.items()
        for volume in volumes
    }
    made_of = {"networks": sorted(networks), "tuned": tuned, "thresholds": thresholds}
    result = {**made_of, "sets": sets}
    write_durably(path, json.dumps(result, indent=1))
    log.info("scores, in %s:\n%s", path, table(sets))


def _score(
    config: Config,
    workdir: pathlib.Path,
    name: str,
    volume: str,
    entry: Config,
    thresholds: Mapping[str, Thresholds],
    scores: Mapping[str, Score],
    workers: Map,
) -> dict[str, Any]:
    """The values of a volume: the network's, and under `baselines` those of others."""
    read_truth, box = open_scored(config, workdir, entry)
    parts = [part.moved(box.start_zyx) for part in blocks(box.shape_zyx, config.segment.block_zyx)]
    found = {}
    for method in methods(config):
        labels = finished_labels(config, workdir, name, volume, method, thresholds[method])
        gather = functools.partial(_gather, read_truth, labels, parts, workers)
        found[method] = values(scores, gather)
    own = found.pop(NETWORK)
    return {**own, "baselines": found}


def _gather(
    read_truth: Callable[[Box], np.ndarray],
    labels: Stored,
    parts: Sequence[Box],
    workers: Map,
    evidence: Evidence,
) -> Any:
    """The evidence of all blocks; few of their parts are held at a time."""
    count = functools.partial(_count, evidence, read_truth, labels)
    return evidence.merge(_counted(count, parts, workers))


def _counted(count: Callable[[Box], Any], parts: Sequence[Box], workers: Map) -> Iterator[Any]:
    """The evidence of each block, in any order; the progress is shown."""
    with showing_progress(
        log, "counted", total=len(parts), missing=len(parts), shown=True
    ) as advance:
        for counted in workers(count, parts):
            yield counted
            advance()


def _count(
    evidence: Evidence, read_truth: Callable[[Box], np.ndarray], labels: Stored, part: Box
) -> Any:
    return evidence.part(read_truth(part), labels.read(part))


def table(sets: dict[str, Any]) -> str:
    """The scores as aligned text, a line for each set, volume and method."""
    named = columns()
    lines: list[list[str]] = []
    for name, volumes in sets.items():
        for volume, scores in volumes.items():
            own = {key: value for key, value in scores.items() if key != "baselines"}
            for method, row in {NETWORK: own, **scores["baselines"]}.items():
                if not lines:
                    headings = [named[key].heading if key in named else key for key in row]
                    lines.append(["set", "volume", "method", *headings])
                lines.append([name, volume, method, *(f"{value:.4f}" for value in row.values())])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )
