"""What is compared with whom, on what work; see `benchmarks.run`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two modules and the work that both are given.

    Attributes:
      ours: a module of `benchmarks.ours`.
      peer: a module of `benchmarks.peers`.
      versus: who that is, for the table.
      unit: what is counted a second.
      work: the arguments of both, by what to call them in the table; a `folder` becomes one that
        they share.
      smoke: what to change in them for a try that takes seconds.
      gpu: the arguments on a GPU, which wants more to do at a time; none: it is not compared there.
      parameters_within: by how much parameters may differ, of the peer's; None: by any.
    """

    ours: str
    peer: str
    versus: str
    unit: str
    work: Mapping[str, Mapping[str, Any]]
    smoke: Mapping[str, Any]
    gpu: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    parameters_within: float | None = None


BASE = (768, 12, 12)  # ViT-B: width, blocks, heads.

_NEAREST = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
_LEE = (
    *_NEAREST,
    *((-step, 0, 0) for step in (2, 3, 4)),
    *((0, -step, 0) for step in (3, 9, 27)),
    *((0, 0, -step) for step in (3, 9, 27)),
)
_UNETR = {
    "patch": (16, 16, 16),
    "encoder": BASE,
    "channels": (16, 32, 64, 128),
    "outputs": 3,
}
_MAE_2D = {
    "crop": (1, 224, 224),
    "patch": (1, 16, 16),
    "encoder": BASE,
    "decoder": (512, 8, 16),
    "ratio": 0.75,
}
_MAE_3D = {
    "crop": (6, 96, 96),
    "patch": (1, 16, 16),
    "encoder": BASE,
    "decoder": (512, 4, 16),
    "ratio": 0.9,
}
_ARTICLE = {
    "crop": (6, 96, 96),
    "patch": (1, 16, 16),
    "encoder": (192, 8, 6),
    "channels": (8, 16, 32, 64),
    "outputs": 3,
}
_PREDICTION = {
    **_UNETR,
    "folder": "",
    "size": 250,
    "window": (96,) * 3,
    "stride": (72,) * 3,  # An overlap of a quarter, MONAI's own default.
    "batch": 4,
}
_SMALL_UNETR = {"encoder": (24, 12, 2), "channels": (2, 4, 8, 16)}


def _eager_and_compiled(name: str, work: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The same work twice: the peer as it is, and by `torch.compile`."""
    peers = {"": False, ", peer by torch.compile": True}
    return {f"{name}{how}": {**work, "compiled": compiled} for how, compiled in peers.items()}


def _targets() -> dict[str, dict[str, Any]]:
    shapes = {"6×96×96": ((6, 96, 96), 5.0), "48×48×48": ((48, 48, 48), 1.0)}
    kinds = {"nearest affinities": _NEAREST, "Lee's twelve affinities": _LEE, "BCD": None}
    return {
        f"{kind}, 8 crops {name}": {
            "crops": 8,
            "shape": shape,
            "thickness": thickness,
            "offsets": offsets,
            "times": 20,
        }
        for name, (shape, thickness) in shapes.items()
        for kind, offsets in kinds.items()
    }


COMPARISONS = {
    "mae_2d": Comparison(
        ours="mae",
        peer="mae_2d",
        versus="transformers' ViTMAEForPreTraining",
        unit="crops",
        work={
            "MAE step, ViT-B, 224×224, patch 16×16, 75 % masked, batch 16": {**_MAE_2D, "batch": 16}
        },
        smoke={"crop": (1, 64, 64), "encoder": (48, 1, 2), "decoder": (48, 1, 2), "batch": 2},
        gpu={
            "MAE step, ViT-B, 224×224, patch 16×16, 75 % masked, batch 256": {
                **_MAE_2D,
                "batch": 256,
                "steps": 10,
            }
        },
        parameters_within=0.01,  # It has a class token.
    ),
    "mae_3d": Comparison(
        ours="mae",
        peer="mae_3d",
        versus="the same in plain PyTorch",
        unit="crops",
        work={
            "MAE step, ViT-B, 6×96×96, patch 1×16×16, 90 % masked, batch 16": {
                **_MAE_3D,
                "batch": 16,
            }
        },
        smoke={"crop": (2, 64, 64), "encoder": (48, 1, 2), "decoder": (48, 1, 2), "batch": 2},
        gpu=_eager_and_compiled(
            "MAE step, ViT-B, 6×96×96, patch 1×16×16, 90 % masked, batch 128",
            {**_MAE_3D, "batch": 128, "steps": 20},
        ),
        parameters_within=0.0,
    ),
    "unetr_monai": Comparison(
        ours="unetr",
        peer="unetr_monai",
        versus="MONAI's UNETR",
        unit="crops",
        work={"UNETR step, ViT-B, 96×96×96, batch 1": {**_UNETR, "crop": (96,) * 3, "batch": 1}},
        smoke={"crop": (32,) * 3, **_SMALL_UNETR},
        gpu={
            "UNETR step, ViT-B, 96×96×96, batch 4": {
                **_UNETR,
                "crop": (96,) * 3,
                "batch": 4,
                "steps": 5,
            }
        },
    ),
    "unetr_article": Comparison(
        ours="unetr",
        peer="unetr_article",
        versus="the same in plain PyTorch",
        unit="crops",
        work={"UNETR step, encoder 192 wide, 6×96×96, batch 4": {**_ARTICLE, "batch": 4}},
        smoke={"crop": (2, 32, 32), "encoder": (24, 4, 2), "channels": (2, 4, 8, 16), "batch": 1},
        gpu={
            "UNETR step, ViT-B, 6×96×96, 32 to 256 channels, batch 16": {
                **_ARTICLE,
                "encoder": BASE,
                "channels": (32, 64, 128, 256),
                "batch": 16,
                "steps": 5,
            }
        },
        parameters_within=0.0,
    ),
    "prediction": Comparison(
        ours="prediction",
        peer="prediction",
        versus="MONAI's sliding_window_inference and UNETR",
        unit="voxels",
        work={"UNETR over 250×250×250, windows 96×96×96, stride 72, zarr to zarr": _PREDICTION},
        smoke={"size": 48, "window": (32,) * 3, "stride": (16,) * 3, **_SMALL_UNETR},
        gpu={
            "UNETR over 250×250×250, windows 96×96×96, stride 72, zarr to zarr": _PREDICTION,
            "the same over 500×500×500": {**_PREDICTION, "size": 500},
            "the same over 500×500×500, maemem by `threads:4`": {
                **_PREDICTION,
                "size": 500,
                "workers": "threads:4",
            },
        },
    ),
    "input": Comparison(
        ours="input",
        peer="input",
        versus="torch DataLoader and zarr-python",
        unit="crops",
        work={
            "crops of 6×96×96 from a zarr of 100 MB, two readers": {
                "folder": "",
                "volume": (96, 1024, 1024),
                "crop": (6, 96, 96),
                "batch": 128,
                "count": 4096,
                "workers": 2,
            }
        },
        smoke={"volume": (12, 128, 128), "batch": 4, "count": 8},
    ),
    "scores": Comparison(
        ours="scores",
        peer="scores",
        versus="scikit-image",
        unit="voxels",
        work={
            "adapted Rand error and variation of information, 250×250×250": {
                "size": 250,
                "bodies": 500,
            }
        },
        smoke={"size": 32, "bodies": 20},
    ),
    "targets": Comparison(
        ours="targets",
        peer="targets",
        versus="numpy, scipy and edt",
        unit="crops",
        work=_targets(),
        smoke={"crops": 2, "shape": (2, 32, 32), "times": 1},
    ),
}
