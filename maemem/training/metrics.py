"""Where the numbers of a run go: JSON lines, the log, and TensorBoard where it is installed."""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import pathlib
from collections.abc import Mapping

import jax
import numpy as np

from maemem import layout
from maemem.durable import write_durably

log = logging.getLogger(__name__)


def read_metrics(path: pathlib.Path) -> list[dict[str, float]]:
    """The rows of a metrics file; a line that is damaged, or that a crash cut off, is left out."""
    rows = []
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


class MetricWriter:
    """Writes scalars and pictures; the method names are those of `clu.metric_writers`.

    Only the first process writes. Use it as a context, or close it.
    """

    def __init__(self, folder: pathlib.Path, first_step: int):
        """Opens FOLDER/metrics.jsonl, and forgets what it holds from after `first_step`.

        Those rows are of steps that a resumed run does again.
        """
        self._file = self._board = None
        if jax.process_index() != 0:
            return
        path = folder / layout.METRICS
        rows = read_metrics(path) if path.exists() else []
        kept = [row for row in rows if row["step"] <= first_step]
        write_durably(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = path.open("a")
        if importlib.util.find_spec("tensorboardX"):
            board = importlib.import_module("tensorboardX")
            self._board = board.SummaryWriter(str(folder), purge_step=first_step + 1)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """One row: to the file, to TensorBoard and, as one line, to the log."""
        if not self._file:
            return
        self._file.write(json.dumps({"step": step, **scalars}) + "\n")
        self._file.flush()
        if self._board:
            for name, value in scalars.items():
                self._board.add_scalar(name, value, step)
        log.info("step %d: %s", step, ", ".join(f"{k} {v:.4g}" for k, v in scalars.items()))

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Pictures `[y x rgb]`, uint8, to TensorBoard."""
        if self._board:
            for name, image in images.items():
                self._board.add_image(name, image, step, dataformats="HWC")

    def __enter__(self) -> MetricWriter:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Ends all files."""
        for sink in (self._file, self._board):
            if sink:
                sink.close()
