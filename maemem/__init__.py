"""maemem: masked autoencoders for electron microscopy of brain tissue.

The public API; everything else may change.

    load(path)             a fine-tuned network, from a workdir or a model folder: a `Predictor`
    Predictor              `.predict(volume)` and `.segment(volume)`, arrays in, arrays out
    open_volume(path)      zarr, N5 or precomputed, as a `Volume` `[z y x]` that is read in parts
    read_prediction(path)  a prediction of the stage predict, float32 `[c z y x]`
    read_labels(path)      labels of the stage segment, uint32 `[z y x]`

Importing maemem is quick: JAX and others are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maemem.blockwise.store import read_labels, read_prediction
    from maemem.data.stores.volumes import open_volume
    from maemem.predictor import Predictor, load

__version__ = "0.1.0"
__all__ = ["Predictor", "__version__", "load", "open_volume", "read_labels", "read_prediction"]

_HOMES = {
    "Predictor": "maemem.predictor",
    "load": "maemem.predictor",
    "open_volume": "maemem.data.stores.volumes",
    "read_labels": "maemem.blockwise.store",
    "read_prediction": "maemem.blockwise.store",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
