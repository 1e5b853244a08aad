"""Batches of crops, read ahead by threads.

What step n reads follows from the seed and n alone (see `crops`), so resuming needs no state but
the step, and the number of hosts and threads changes nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

import fastremap
import grain
import numpy as np
import tensorstore as ts

from maemem.data.samples.crops import Crops, check_crops, draw_crops
from maemem.data.stores.volumes import Volume
from maemem.geometry import Zyx

Batch = TypeVar("Batch")

# So often a crop with too little foreground is drawn.
_ATTEMPTS = 10


class Labels(NamedTuple):
    """The labels of a volume, of its shape; the id `unlabelled` marks what nobody labelled."""

    volume: Volume
    unlabelled: int


def batches(
    read: Callable[[range], Batch],
    *,
    batch_size: int,
    first_step: int,
    last_step: int,
    process_index: int = 0,
    process_count: int = 1,
    read_threads: int = 2,
    prefetch: int = 8,
) -> Iterator[Batch]:
    """This process's share of the batches of the steps `first_step` to `last_step - 1`.

    Row r of the global batch of step s is sample s * batch_size + r; process p of P gets the rows
    from p * batch_size / P. A read that fails raises in whoever asks for that batch.

    Args:
      read: what reads a range of samples: of `crop_reader` or `labelled_reader`.
      batch_size: of the global batch, in crops.
      first_step: the first step to read.
      last_step: the step to stop before.
      process_index: which of the processes this is.
      process_count: how many processes share a batch.
      read_threads: how many batches are read at the same time.
      prefetch: how many batches are read or held ready; not fewer than the threads.

    Raises:
      ValueError: if the batch cannot be shared evenly.
    """
    if batch_size % process_count:
        raise ValueError(
            f"batch size {batch_size} is not divisible by {process_count} processes; nearest: "
            f"{-(-batch_size // process_count) * process_count}"
        )
    if first_step >= last_step:
        return iter(())
    share = batch_size // process_count
    rows = range(process_index * share, (process_index + 1) * share)
    source = _Batches(read, batch_size, rows, last_step)
    options = grain.ReadOptions(num_threads=read_threads, prefetch_buffer_size=prefetch)
    return iter(grain.MapDataset.source(source)[first_step:].to_iter_dataset(options))


@dataclasses.dataclass(frozen=True)
class _Batches(Generic[Batch]):
    """A source for grain, whose item at an index is the local batch of that step."""

    read: Callable[[range], Batch]
    batch_size: int
    rows: range
    last_step: int

    def __len__(self) -> int:
        return self.last_step

    def __getitem__(self, index: int) -> Batch:
        first = int(index) * self.batch_size
        return self.read(range(first + self.rows.start, first + self.rows.stop))


def crop_reader(
    volumes: Sequence[Volume], weights: Sequence[float], crop_zyx: Zyx, seed: int
) -> Callable[[range], np.ndarray]:
    """What reads samples as raw crops `[n z y x]`, in the volumes' dtype.

    Args:
      volumes: what to crop from, all of one dtype.
      weights: one a volume; a volume's share of the crops is weight / sum(weights).
      crop_zyx: the crops' shape, in voxels.
      seed: of the crops' positions.

    Raises:
      ValueError: if `check_crops` refuses the mix.
    """
    check_crops(volumes, weights, crop_zyx)
    shapes_zyx = [volume.shape_zyx for volume in volumes]

    def read(samples: range) -> np.ndarray:
        numbers, starts_zyx = draw_crops(seed, samples, shapes_zyx, weights, crop_zyx)
        return np.stack(_read_crops(volumes, numbers, starts_zyx, crop_zyx))

    return read


def labelled_reader(
    volumes: Sequence[Volume],
    labels: Sequence[Labels],
    weights: Sequence[float],
    crop_zyx: Zyx,
    seed: int,
    min_foreground: float = 0.0,
) -> Callable[[range], Crops]:
    """What reads samples with their labels.

    A sample of which a smaller share than `min_foreground` is labelled as an object is drawn again,
    up to ten times; the last draw is taken as it is. So it still depends on the seed and its index
    alone.

    Args:
      volumes: what to crop from, all of one dtype.
      labels: of each volume, of the same shape.
      weights: one a volume; a volume's share of the crops is weight / sum(weights).
      crop_zyx: the crops' shape, in voxels.
      seed: of the crops' positions.
      min_foreground: from 0 to 1.

    Raises:
      ValueError: if `check_crops` refuses the mix.
    """
    check_crops(volumes, weights, crop_zyx)
    shapes_zyx = [volume.shape_zyx for volume in volumes]
    ids = [each.volume for each in labels]

    def read_labels(numbers: np.ndarray, starts_zyx: np.ndarray) -> np.ndarray:
        crops = _read_crops(ids, numbers, starts_zyx, crop_zyx)
        pairs = zip(crops, numbers, strict=True)
        return np.stack([renumber(crop, labels[n].unlabelled) for crop, n in pairs])

    def read(samples: range) -> Crops:
        numbers, starts_zyx = draw_crops(seed, samples, shapes_zyx, weights, crop_zyx)
        found = read_labels(numbers, starts_zyx)
        for attempt in range(1, _ATTEMPTS):
            poor = (found > 0).mean((1, 2, 3)) < min_foreground
            if not poor.any():
                break
            again = draw_crops(seed, samples, shapes_zyx, weights, crop_zyx, attempt)
            numbers[poor], starts_zyx[poor] = again[0][poor], again[1][poor]
            found[poor] = read_labels(numbers[poor], starts_zyx[poor])
        return Crops(np.stack(_read_crops(volumes, numbers, starts_zyx, crop_zyx)), found)

    return read


def renumber(labels: np.ndarray, unlabelled: int) -> np.ndarray:
    """Ids of any dtype as int32.

    0 stays 0, the id `unlabelled` and all negative ids become −1, others become numbers from 1 on.
    """
    renumbered, _ = fastremap.renumber(labels, preserve_zero=True, in_place=False)
    renumbered = renumbered.astype(np.int32)
    if unlabelled >= 0:
        renumbered[labels == unlabelled] = -1
    if np.issubdtype(labels.dtype, np.signedinteger):
        renumbered[labels < 0] = -1
    return renumbered


def _read_crops(
    volumes: Sequence[Volume], numbers: np.ndarray, starts_zyx: np.ndarray, crop_zyx: Zyx
) -> list[np.ndarray]:
    """Crops `[z y x]`, each in the dtype of its volume; labels need not share one."""
    depth, height, width = crop_zyx
    # All reads go out as one ts.Batch, which merges requests for neighbouring chunks of a shard.
    # Only closing it submits them, so they are awaited after it.
    with ts.Batch() as batch:
        reads = [
            volumes[n].store[z : z + depth, y : y + height, x : x + width].read(batch=batch)
            for n, (z, y, x) in zip(numbers.tolist(), starts_zyx.tolist(), strict=True)
        ]
    begun = zip(numbers, reads, starts_zyx, strict=True)
    return [volumes[n].finish(read, start_zyx) for n, read, start_zyx in begun]
