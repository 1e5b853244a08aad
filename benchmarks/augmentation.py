"""What augmentation costs, and how it looks.

    python -m benchmarks.augmentation
    python -m benchmarks.augmentation --sheet=docs/augmentation.png

Times each kind alone, with a probability of 1, and all together as they are by default, on crops of
serial sections and on isotropic ones: milliseconds a crop. `vectorised` is `Augmentation.apply`;
`mapped` goes from crop to crop and computes only what a crop draws. The sheet shows each kind on
synthetic tissue instead.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from absl import app, flags
from jax import lax
from matplotlib.figure import Figure
from PIL import Image
from skimage.segmentation import find_boundaries

from maemem.data.samples.augment import Augmentation, Batch
from maemem.data.sets.synthetic import make_tissue
from maemem.geometry import Zyx, alike_axes, format_zyx

_SHEET = flags.DEFINE_string("sheet", None, "Draw the kinds into this PNG instead of timing them.")
_REPEATS = flags.DEFINE_integer("repeats", 20, "Batches to time of each kind.", lower_bound=1)

_PROBABILITIES = (
    *("warp", "rotation", "translation", "slip", "missing_section", "blurred_section"),
    *("brightness", "contrast", "gamma", "noise", "cut_out"),
)
_ISOTROPIC = Augmentation(
    orders_zyx=tuple(alike_axes((1, 1, 1))),
    warp_voxels_zyx=(8.0, 8.0, 8.0),
    warp_spacing_zyx=(32.0, 32.0, 32.0),
    translation=0.0,
    slip=0.0,
    missing_section=0.0,
    blurred_section=0.0,
)


def main(argv: list[str]) -> None:
    if _SHEET.value:
        draw_sheet(pathlib.Path(_SHEET.value))
        return
    batches = {(16, 6, 96, 96): Augmentation(), (4, 48, 48, 48): _ISOTROPIC}
    for shape, settings in batches.items():
        batch = {
            "image": jax.random.uniform(jax.random.key(0), shape, minval=-1),
            "labels": jax.random.randint(jax.random.key(1), shape, -1, 50),
        }
        for name, kind in {"all": settings, **kinds(settings)}.items():
            row: dict[str, Any] = {"crops": format_zyx(shape), "kind": name}
            for way, run in {"vectorised": Augmentation.apply, "mapped": mapped}.items():
                row[way] = milliseconds(run, kind, batch)
            print(json.dumps(row))


def only(settings: Augmentation, **fields: Any) -> Augmentation:
    """These settings with all kinds switched off, except as `fields` say."""
    off: dict[str, Any] = dict.fromkeys(_PROBABILITIES, 0.0)
    off |= {"orders_zyx": ((0, 1, 2),), "flip": False}
    return dataclasses.replace(settings, **(off | fields))


def kinds(settings: Augmentation) -> dict[str, Augmentation]:
    """Each kind alone, always acting, as strong as in these settings."""
    turned = only(settings, orders_zyx=settings.orders_zyx, flip=True)
    alone: dict[str, Any] = {name: {name: 1.0} for name in _PROBABILITIES}
    return {"flips and axes": turned} | {
        name: only(settings, **fields) for name, fields in alone.items()
    }


def augment(settings: Augmentation, key, crop):
    """Both halves, of one crop."""
    return settings.expose_crop(key, settings.move_crop(key, crop))


def mapped(settings: Augmentation, keys, batch: Batch) -> Batch:
    """What `Augmentation.apply` computes, one crop after another."""
    return lax.map(lambda crop: augment(settings, *crop), (keys, batch))


def milliseconds(run, settings: Augmentation, batch: Batch) -> float:
    """Of one crop: the median batch, each from keys of its own."""
    step = jax.jit(run, static_argnums=0)
    times = []
    for i in range(_REPEATS.value + 1):
        keys = jax.block_until_ready(jax.random.split(jax.random.key(i), len(batch["image"])))
        began = time.perf_counter()
        jax.block_until_ready(step(settings, keys, batch))
        times.append(time.perf_counter() - began)
    return round(1000 * statistics.median(times[1:]) / len(batch["image"]), 3)


def draw_sheet(path: pathlib.Path, crop_zyx: Zyx = (3, 96, 96)) -> None:
    """Draws a crop of tissue as each kind leaves it, with the outlines of its labels.

    Of 32 draws of a kind, the one that changes the image most is shown.

    Args:
      path: the PNG to write.
      crop_zyx: the crop's shape, in voxels.
    """
    voxel_size_nm = (30.0, 6.0, 6.0)
    tissue = make_tissue((8, 128, 128), voxel_size_nm, seed=5)
    z, y, x = (slice(n) for n in crop_zyx)
    image = jnp.asarray(tissue.image[z, y, x], jnp.float32) / 127.5 - 1
    labels = jnp.asarray(tissue.neurites[z, y, x].astype(np.int32))
    rows = examples(tuple(alike_axes(voxel_size_nm, crop_zyx)))
    depth = crop_zyx[0]
    figure = Figure(figsize=(2 * depth + 1.2, len(rows) + 0.3))
    figure.subplots_adjust(0.14, 0.005, 0.995, 0.98, wspace=0.04, hspace=0.04)
    axes = figure.subplots(len(rows), 2 * depth, squeeze=False)
    colours = np.random.default_rng(0).permutation(int(labels.max()) + 1)
    for row, (name, settings) in zip(axes, rows.items(), strict=True):
        after = strongest(settings, image, labels)
        shown = [*zip(image, labels, strict=True), *zip(*after, strict=True)]
        for axis, (section, ids) in zip(row, shown, strict=True):
            axis.imshow(overlay(np.asarray(section), np.asarray(ids), colours))
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
    for z in range(depth):
        axes[0, z].set_title(f"before, z = {z}", fontsize=8)
        axes[0, depth + z].set_title(f"after, z = {z}", fontsize=8)
    figure.savefig(path, format="png", dpi=110)
    # Greys and a few hues need no more than a palette, which is a third of the size.
    Image.open(path).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(
        path, optimize=True
    )


def strongest(settings: Augmentation, image, labels):
    """Image and labels of the draw, of 32, that changes the image most."""
    crop = {"image": image, "labels": labels}
    run = jax.jit(jax.vmap(lambda key: augment(settings, key, crop)))
    after = run(jax.random.split(jax.random.key(0), 32))
    best = jnp.abs(after["image"] - image).mean((1, 2, 3)).argmax()
    return after["image"][best], after["labels"][best]


def examples(orders_zyx: tuple[Zyx, ...]) -> dict[str, Augmentation]:
    """The rows of the sheet: a title, and one kind that always acts."""

    settings = Augmentation(orders_zyx=orders_zyx, by_section=1.0)
    part = {"missing_section": 1.0, "missing_section_count": 1}
    return {
        "flips, axes": only(settings, flip=True, orders_zyx=orders_zyx),
        "warp": only(settings, warp=1.0, warp_voxels_zyx=(0.0, 14.0, 14.0)),
        "rotation": only(settings, rotation=1.0),
        "translation": only(settings, translation=1.0),
        "slip": only(settings, slip=1.0),
        "missing\nsection": only(settings, **part, missing_section_part=0.0),
        "missing\nin part": only(settings, **part, missing_section_part=1.0),
        "blurred\nsection": only(settings, blurred_section=1.0),
        "brightness": only(settings, brightness=1.0),
        "contrast": only(settings, contrast=1.0),
        "gamma": only(settings, gamma=1.0),
        "noise": only(settings, noise=1.0),
        "cut-out": only(settings, cut_out=1.0),
        "all, as by\ndefault": Augmentation(orders_zyx=orders_zyx),
    }


def overlay(section: np.ndarray, labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """A section in grey `[y x rgb]`, labels outlined in hues of their own."""
    grey = np.repeat((section[..., None] + 1) / 2, 3, axis=-1)
    hues = matplotlib.colormaps["hsv"](colours[labels] / len(colours))[..., :3]
    outlines = find_boundaries(labels, mode="inner") & (labels > 0)
    return np.where(outlines[..., None], hues, grey)


if __name__ == "__main__":
    app.run(main)
