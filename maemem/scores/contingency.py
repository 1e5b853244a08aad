"""How many voxels each pair of a true and a predicted object shares: all that a score needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int64, Integer


@dataclasses.dataclass(frozen=True)
class Contingency:
    """A sparse table, sorted by truth, then by prediction, in which each pair comes once.

    In both, 0 is background. Unlabelled truth (-1) is not in it.
    """

    truth: Int64[np.ndarray, " pairs"]  # ids
    predicted: Int64[np.ndarray, " pairs"]  # ids
    voxels: Int64[np.ndarray, " pairs"]  # how many voxels have both; exact, and at least 1

    def select(self, rows: np.ndarray) -> Contingency:
        """The table of the rows that a mask `[pairs]` selects."""
        return Contingency(self.truth[rows], self.predicted[rows], self.voxels[rows])


def renamed(table: Contingency, names: Int64[np.ndarray, " ids"]) -> Contingency:
    """The table where predicted objects have other names; equal ones become one.

    Args:
      table: whose predicted ids are places in `names`.
      names: the new id of each.
    """
    return _summed(table.truth, names[table.predicted], table.voxels)


def contingency(
    truth: Integer[np.ndarray, "*_shape"],
    predicted: Integer[np.ndarray, "*_shape"],
    chunk_voxels: int = 2**18,
) -> Contingency:
    """Counts the pairs of labels in one pass, in chunks along the first axis.

    Memory is what a chunk takes, which best fits the cache, so memory-mapped volumes can be of any
    size. Equal pairs mostly lie side by side, so whole runs are counted, not voxels.

    Args:
      truth: labels; -1 is unlabelled, and not counted.
      predicted: labels, not negative, of the same shape.
      chunk_voxels: how many voxels to take at a time, rounded to whole sections.

    Raises:
      ValueError: if the shapes differ, a label is 2**63 or above, truth is below -1, or
        a prediction is negative.
    """
    if truth.shape != predicted.shape:
        raise ValueError(
            f"truth has shape {truth.shape} and the prediction {predicted.shape}; "
            f"give both of the same region"
        )
    sections = max(1, chunk_voxels * len(truth) // max(1, truth.size))
    return merge(
        _count_runs(truth[start : start + sections], predicted[start : start + sections])
        for start in range(0, len(truth), sections)
    )


def merge(tables: Iterable[Contingency]) -> Contingency:
    """The table of several regions together, from theirs.

    They are added up as they come: what is held at once does not grow with their number.
    """
    whole, waiting = Contingency(*[np.zeros(0, np.int64)] * 3), []
    for table in tables:
        waiting.append(table)
        # Not each by itself, or the whole would be sorted anew for it.
        if sum(len(each.voxels) for each in waiting) >= len(whole.voxels):
            whole, waiting = _joined([whole, *waiting]), []
    return _joined([whole, *waiting])


def _joined(tables: Sequence[Contingency]) -> Contingency:
    rows = zip(*((each.truth, each.predicted, each.voxels) for each in tables), strict=True)
    return _summed(*map(np.concatenate, rows))


def _count_runs(truth: np.ndarray, predicted: np.ndarray) -> Contingency:
    """The table of one chunk."""
    truth, predicted = (np.ascontiguousarray(labels).reshape(-1) for labels in (truth, predicted))
    begins = np.empty(truth.size, bool)
    begins[:1] = True
    np.not_equal(truth[1:], truth[:-1], out=begins[1:])
    begins[1:] |= predicted[1:] != predicted[:-1]
    starts = np.flatnonzero(begins)
    voxels = np.diff(starts, append=truth.size)
    runs = _ids(truth[starts], "truth", lowest=-1), _ids(predicted[starts], "prediction", lowest=0)
    table = _summed(*runs, voxels)
    return table.select(table.truth >= 0)


def _ids(labels: np.ndarray, name: str, lowest: int) -> np.ndarray:
    """Labels as int64, checked."""
    if labels.size and (labels.min() < lowest or labels.max() >= 2**63):
        raise ValueError(
            f"{name} labels go from {labels.min()} to {labels.max()}; give {lowest} to 2**63 - 1"
        )
    return labels.astype(np.int64)


def _summed(truth: np.ndarray, predicted: np.ndarray, voxels: np.ndarray) -> Contingency:
    """Sorts rows, and adds up those of the same pair."""
    order = np.lexsort((predicted, truth))
    truth, predicted = truth[order], predicted[order]
    begins = np.ones(truth.size, bool)
    begins[1:] = (truth[1:] != truth[:-1]) | (predicted[1:] != predicted[:-1])
    starts = np.flatnonzero(begins)
    sums = np.add.reduceat(voxels[order], starts) if starts.size else voxels
    return Contingency(truth[starts], predicted[starts], sums)
