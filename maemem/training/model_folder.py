"""A trained model as one folder, to be handed on: weights, what they mean, and their checksums.

`weights.safetensors` has every parameter under its path, `encoder/patch_embedding/kernel`;
`SHA256SUMS` is what `sha256sum --check` reads. See `maemem.export_model` for the files beside them.
"""

from __future__ import annotations

import hashlib
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy
from flax import traverse_util
from jaxtyping import PyTree

from maemem.layout import CONFIG, MODEL_CHECKSUMS

WEIGHTS = "weights.safetensors"


def write_model(folder: pathlib.Path, params: PyTree, texts: Mapping[str, str]) -> None:
    """Writes a model folder; it has its name only once it is whole.

    Args:
      folder: that does not exist.
      params: the network's parameters.
      texts: the other files, by name.

    Raises:
      FileExistsError: if there is something already.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists; delete it, or choose another folder")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    flat: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
    arrays = {name: np.ascontiguousarray(value) for name, value in flat.items()}
    (partial / WEIGHTS).write_bytes(safetensors.numpy.save(arrays))
    for name, text in texts.items():
        (partial / name).write_text(text)
    files = sorted(partial.iterdir())
    lines = [f"{_checksum(file)}  {file.name}\n" for file in files]
    (partial / MODEL_CHECKSUMS).write_text("".join(lines))
    partial.rename(folder)


def is_model(folder: pathlib.Path) -> bool:
    """Whether a folder was meant to be a model."""
    return (folder / MODEL_CHECKSUMS).exists() or (folder / WEIGHTS).exists()


def read_weights(folder: pathlib.Path) -> PyTree:
    """The parameters in a model folder, as numpy arrays.

    Raises:
      ValueError: if a file is not what it was when the folder was written.
    """
    check_files(folder)
    return traverse_util.unflatten_dict(safetensors.numpy.load_file(folder / WEIGHTS), sep="/")


def check_files(folder: pathlib.Path) -> None:
    """Checks all files of a model folder against its checksums.

    Raises:
      ValueError: if one is missing or was changed; it names it.
    """
    try:
        lines = (folder / MODEL_CHECKSUMS).read_text().splitlines()
    except FileNotFoundError:
        raise ValueError(f"the model {folder} has no {MODEL_CHECKSUMS}; fetch it again") from None
    sums = {name: checksum for checksum, _, name in (line.partition("  ") for line in lines)}
    missing = [n for n in {WEIGHTS, CONFIG, *sums} if not (folder / n).is_file()]
    unlisted = [n for n in (WEIGHTS, CONFIG) if n not in sums]
    changed = [n for n in sums if n not in missing and _checksum(folder / n) != sums[n]]
    for names, what in (
        (missing, "is missing"),
        (unlisted, f"is not in {MODEL_CHECKSUMS}"),
        (changed, f"is not what {MODEL_CHECKSUMS} says: it was damaged or changed"),
    ):
        if names:
            raise ValueError(
                f"the model {folder} is not whole: {', '.join(sorted(names))} {what}; fetch or "
                f"export it again"
            )


def _checksum(file: pathlib.Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
