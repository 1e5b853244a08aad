"""Batches of crops, read ahead by threads.

What step n reads follows from the seed and n alone (see `maemem.data.crops`), so resuming needs no
state but the step, and the number of hosts and threads changes nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import grain
import numpy as np
import tensorstore as ts

from maemem.data.crops import check_crops, draw_crops
from maemem.data.volumes import Volume
from maemem.geometry import Zyx


def batches(
    volumes: Sequence[Volume],
    weights: Sequence[float],
    *,
    crop_zyx: Zyx,
    batch_size: int,
    seed: int,
    first_step: int,
    last_step: int,
    process_index: int = 0,
    process_count: int = 1,
    read_threads: int = 2,
    prefetch: int = 8,
) -> Iterator[np.ndarray]:
    """This process's share of the batches of the steps `first_step` to `last_step - 1`.

    Row r of the global batch of step s is sample s * batch_size + r; process p of P gets the rows
    from p * batch_size / P. A read that fails raises in whoever asks for that batch.

    Args:
      volumes: what to crop from, all of one dtype.
      weights: one a volume; a volume's share of the crops is weight / sum(weights).
      crop_zyx: the crops' shape, in voxels.
      batch_size: of the global batch, in crops.
      seed: of the crops' positions.
      first_step: the first step to read.
      last_step: the step to stop before.
      process_index: which of the processes this is.
      process_count: how many processes share a batch.
      read_threads: how many batches are read at the same time.
      prefetch: how many batches are read or held ready; not fewer than the threads.

    Returns:
      an iterator over arrays `[batch_size / process_count, z y x]` in the volumes' dtype.

    Raises:
      ValueError: if the batch cannot be shared evenly, or `check_crops` refuses the mix.
    """
    if batch_size % process_count:
        raise ValueError(
            f"batch size {batch_size} is not divisible by {process_count} processes; nearest: "
            f"{-(-batch_size // process_count) * process_count}"
        )
    check_crops(volumes, weights, crop_zyx)
    if first_step >= last_step:
        return iter(())
    share = batch_size // process_count
    rows = range(process_index * share, (process_index + 1) * share)
    source = _Batches(volumes, weights, crop_zyx, batch_size, seed, rows, last_step)
    options = grain.ReadOptions(num_threads=read_threads, prefetch_buffer_size=prefetch)
    return iter(grain.MapDataset.source(source)[first_step:].to_iter_dataset(options))


def fixed_crops(
    volumes: Sequence[Volume], weights: Sequence[float], crop_zyx: Zyx, count: int, seed: int
) -> np.ndarray:
    """The first `count` crops of a seed `[count z y x]`, in the volumes' dtype: for evaluation.

    Raises:
      ValueError: if `check_crops` refuses the mix.
    """
    check_crops(volumes, weights, crop_zyx)
    return _read_samples(volumes, weights, crop_zyx, seed, range(count))


@dataclasses.dataclass(frozen=True)
class _Batches:
    """A source for grain, whose item at an index is the local batch `[b z y x]` of that step."""

    volumes: Sequence[Volume]
    weights: Sequence[float]
    crop_zyx: Zyx
    batch_size: int
    seed: int
    rows: range
    last_step: int

    def __len__(self) -> int:
        return self.last_step

    def __getitem__(self, index: int) -> np.ndarray:
        first = int(index) * self.batch_size
        samples = range(first + self.rows.start, first + self.rows.stop)
        return _read_samples(self.volumes, self.weights, self.crop_zyx, self.seed, samples)


def _read_samples(
    volumes: Sequence[Volume],
    weights: Sequence[float],
    crop_zyx: Zyx,
    seed: int,
    samples: range,
) -> np.ndarray:
    """The crops `[n z y x]` of n samples, in the volumes' dtype."""
    shapes_zyx = [volume.shape_zyx for volume in volumes]
    numbers, starts_zyx = draw_crops(seed, samples, shapes_zyx, weights, crop_zyx)
    depth, height, width = crop_zyx
    # All reads go out as one ts.Batch, which merges requests for neighbouring chunks of a shard.
    # Only closing it submits them, so they are awaited after it.
    with ts.Batch() as batch:
        reads = [
            volumes[n].store[z : z + depth, y : y + height, x : x + width].read(batch=batch)
            for n, (z, y, x) in zip(numbers.tolist(), starts_zyx.tolist(), strict=True)
        ]
    crops = np.empty((len(samples), *crop_zyx), volumes[0].dtype)
    for crop, read in zip(crops, reads, strict=True):
        crop[...] = read.result()
    return crops
