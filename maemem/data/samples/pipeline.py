"""Batches of crops, read ahead by threads.

What step n reads follows from the seed and n alone (see `crops`), so resuming needs no state but
the step, and the number of hosts and threads changes nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeAlias, TypeVar

import grain
import numpy as np
import tensorstore as ts

from maemem.data.samples.crops import check_crops, draw_crops
from maemem.data.stores.volumes import Volume
from maemem.data.truth.contract import Truth
from maemem.geometry import Box, Zyx, format_zyx

Batch = TypeVar("Batch")
# (number of the volume, crop, batch of reads) -> what waits for the crop.
_Begin: TypeAlias = Callable[[int, Box, ts.Batch], Callable[[], dict[str, np.ndarray]]]

# So often a crop with too little foreground is drawn.
_ATTEMPTS = 10


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
      read: what reads a range of samples: see `reader`.
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


def reader(
    volumes: Sequence[Volume],
    weights: Sequence[float],
    crop_zyx: Zyx,
    seed: int,
    truths: Sequence[Truth] = (),
    fields: Sequence[str] = (),
    min_foreground: float = 0.0,
) -> Callable[[range], dict[str, np.ndarray]]:
    """What reads samples: raw crops as `image` `[n z y x]`, in the volumes' dtype, and their truth.

    A sample of which a smaller share than `min_foreground` is labelled as an object is drawn again,
    up to ten times; the last draw is taken as it is. So it still depends on the seed and its index
    alone.

    Args:
      volumes: what to crop from, all of one dtype.
      weights: one a volume; a volume's share of the crops is weight / sum(weights).
      crop_zyx: the crops' shape, in voxels.
      seed: of the crops' positions.
      truths: of each volume, of its shape; none is needed without `fields`.
      fields: of truth, to read beside the image, such as `labels`; see `Truth.begin`.
      min_foreground: from 0 to 1; more than 0 needs the field `labels`.

    Raises:
      ValueError: if `check_crops` refuses the mix, or truth is missing.
    """
    check_crops(volumes, weights, crop_zyx)
    _check_truths(volumes, truths, fields, min_foreground)
    shapes_zyx = [volume.shape_zyx for volume in volumes]

    def begin_image(number: int, box: Box, batch: ts.Batch) -> Callable[[], dict[str, np.ndarray]]:
        finish = volumes[number].begin(box, batch)
        return lambda: {"image": finish()}

    def begin_truth(number: int, box: Box, batch: ts.Batch) -> Callable[[], dict[str, np.ndarray]]:
        return truths[number].begin(box, fields, batch)

    def read(samples: range) -> dict[str, np.ndarray]:
        numbers, starts_zyx = draw_crops(seed, samples, shapes_zyx, weights, crop_zyx)
        if not min_foreground:
            begins = [begin_image, begin_truth] if fields else [begin_image]
            return _gather(begins, numbers, starts_zyx, crop_zyx)
        found = _gather([begin_truth], numbers, starts_zyx, crop_zyx)
        for attempt in range(1, _ATTEMPTS):
            poor = (found["labels"] > 0).mean((1, 2, 3)) < min_foreground
            if not poor.any():
                break
            again = draw_crops(seed, samples, shapes_zyx, weights, crop_zyx, attempt)
            numbers[poor], starts_zyx[poor] = again[0][poor], again[1][poor]
            drawn = _gather([begin_truth], numbers[poor], starts_zyx[poor], crop_zyx)
            for name, values in drawn.items():
                found[name][poor] = values
        return _gather([begin_image], numbers, starts_zyx, crop_zyx) | found

    return read


def _gather(
    begins: Sequence[_Begin], numbers: np.ndarray, starts_zyx: np.ndarray, crop_zyx: Zyx
) -> dict[str, np.ndarray]:
    """The crops that begin at these voxels of these volumes, `[n z y x]` by name."""
    whole = Box((0, 0, 0), crop_zyx)
    boxes = [whole.moved((z, y, x)) for z, y, x in starts_zyx.tolist()]
    # All reads go out as one ts.Batch, which merges requests for neighbouring chunks of a shard.
    # Only closing it submits them, so they are awaited after it.
    with ts.Batch() as batch:
        begun = [
            [begin(number, box, batch) for begin in begins]
            for number, box in zip(numbers.tolist(), boxes, strict=True)
        ]
    crops = [{k: v for finish in one for k, v in finish().items()} for one in begun]
    return {name: np.stack([crop[name] for crop in crops]) for name in crops[0]}


def _check_truths(
    volumes: Sequence[Volume],
    truths: Sequence[Truth],
    fields: Sequence[str],
    min_foreground: float,
) -> None:
    """Refuses fields that no truth gives, and truth that does not lie on its volume."""
    if fields and len(truths) != len(volumes):
        raise ValueError(
            f"{len(volumes)} volumes have {len(truths)} truths; give one to each volume"
        )
    for volume, truth in zip(volumes, truths, strict=False):
        if missing := [field for field in fields if field not in truth.fields]:
            raise ValueError(
                f"the truth of {volume.source} gives {', '.join(truth.fields)}; expected also "
                f"{', '.join(missing)}: leave the volume out of the mix"
            )
        if truth.shape_zyx != volume.shape_zyx:
            raise ValueError(
                f"the truth of {volume.source} has shape zyx {format_zyx(truth.shape_zyx)}, and "
                f"the volume {format_zyx(volume.shape_zyx)}; cut both to the same region"
            )
    if min_foreground and "labels" not in fields:
        raise ValueError(
            f"min_foreground is {min_foreground}, but labels are not read; set it to 0, or add "
            f"labels to the fields"
        )
