"""What the networks learnt from that a training starts from, link by link."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from maemem import layout
from maemem.assembly.volumes import open_raw
from maemem.config import Config
from maemem.data.sets.datasets import located
from maemem.geometry import Box, Zyx


def check_unseen(config: Config, encoder: str, workdir: pathlib.Path) -> None:
    """Checks that no network in the chain was trained on voxels of the test set.

    Links without a readable record, and such as are still to be made, are passed over.

    Args:
      config: with the test set.
      encoder: what the training starts from, see `training.fit.Training`; "": nothing.
      workdir: of the run.

    Raises:
      ValueError: naming the volume, its region, and the workdir that was trained on it.
    """
    for folder, before in _links(encoder, workdir):
        for name, entry in config.data.test.items():
            whole = open_raw(config, entry, workdir)
            tested = _voxels(entry.region, whole.shape_zyx, config.data.bin_zyx)
            for seen in before["data"]["train"].values():
                if _source(seen["path"], before) != _source(entry.path, config.to_dict()):
                    continue
                bins = before["data"]["bin_zyx"]
                shape = tuple(
                    n * b // c
                    for n, b, c in zip(whole.shape_zyx, config.data.bin_zyx, bins, strict=True)
                )
                if _voxels(seen["region"], shape, bins).overlaps(tested):
                    raise ValueError(
                        f"data.test.{name} is [{entry.region}] of {entry.path}, and the network "
                        f"that the training starts from was trained on [{seen['region']}] of it "
                        f"({folder}); test on a region that no network of the chain has seen"
                    )


def _links(encoder: str, workdir: pathlib.Path) -> Iterator[tuple[pathlib.Path, dict[str, Any]]]:
    """The workdirs or model folders of a chain, and their configs."""
    met: set[pathlib.Path] = set()
    while encoder:
        path = pathlib.Path(encoder.replace(layout.WORKDIR, str(workdir))).expanduser().absolute()
        folder = next(
            (f for f in (path, *path.parents[:3]) if layout.config_path(f).exists()), None
        )
        if folder is None or folder in met:
            return
        met.add(folder)
        try:
            config = dict(json.loads(layout.config_path(folder).read_text())["config"])
            encoder, workdir = config.get("pretrain", {}).get("encoder", ""), folder
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return
        yield folder, config


def _voxels(region: str, shape_zyx: tuple[int, ...], bin_zyx: Zyx) -> Box:
    """A region in voxels as they are stored."""
    z, y, x = shape_zyx
    box = Box.parse(region, (z, y, x))
    (a, b, c), (d, e, f) = (
        [n * size for n, size in zip(end, bin_zyx, strict=True)]
        for end in (box.start_zyx, box.stop_zyx)
    )
    return Box((a, b, c), (d, e, f))


def _source(path: str, config: dict[str, Any]) -> str:
    """What tells one volume from another."""
    if ":" in path:  # A URL, synthetic tissue, or an array in an HDF5 file.
        return path
    return os.path.realpath(located(path, config["data"]["root"]))
