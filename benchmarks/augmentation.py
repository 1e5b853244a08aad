"""What augmentation costs, and how it looks.

    python -m benchmarks.augmentation
    python -m benchmarks.augmentation --sheet=docs/augmentation.png

Times each kind alone, with a probability of 1, and all together as they are by default: milliseconds
a crop, for a batch of serial sections and for one of isotropic crops. `vectorised` is
`augment_batch`; `mapped` goes from crop to crop and computes only what a crop draws. The sheet shows
each kind on synthetic tissue instead.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from absl import app, flags
from jax import lax
from matplotlib.figure import Figure
from PIL import Image
from skimage.segmentation import find_boundaries

from maemem.data.augment import Augmentation, augment, augment_batch
from maemem.data.synthetic import make_tissue
from maemem.geometry import Zyx, alike_axes, format_zyx

_SHEET = flags.DEFINE_string("sheet", None, "Draw the kinds into this PNG instead of timing them.")
_REPEATS = flags.DEFINE_integer("repeats", 20, "Batches to time of each kind.", lower_bound=1)

_PROBABILITIES = (
    *("warp", "rotation", "translation", "slip", "missing_section", "blurred_section"),
    *("brightness", "contrast", "gamma", "noise", "cut_out"),
)
_OFF = Augmentation(((0, 1, 2),), flip=False, **dict.fromkeys(_PROBABILITIES, 0.0))
_ISOTROPIC = Augmentation(
    tuple(itertools.permutations(range(3))),
    **dict.fromkeys(("translation", "slip", "missing_section", "blurred_section"), 0.0),
    warp_voxels_zyx=(8.0, 8.0, 8.0),
    warp_spacing_zyx=(32.0, 32.0, 32.0),
)


def main(argv: list[str]) -> None:
    if _SHEET.value:
        draw_sheet(pathlib.Path(_SHEET.value))
        return
    batches = {(16, 6, 96, 96): Augmentation(), (4, 48, 48, 48): _ISOTROPIC}
    for shape, settings in batches.items():
        images = jax.random.uniform(jax.random.key(0), shape, minval=-1)
        labels = jax.random.randint(jax.random.key(1), shape, -1, 50)
        for name, kind in {"all": settings, **kinds(settings)}.items():
            row = {"crops": format_zyx(shape), "kind": name}
            for way, run in {"vectorised": augment_batch, "mapped": mapped}.items():
                row[way] = milliseconds(run, kind, images, labels)
            print(json.dumps(row))


def kinds(settings: Augmentation) -> dict[str, Augmentation]:
    """Each kind alone, always acting, as strong as in these settings."""
    off = {name: getattr(_OFF, name) for name in _PROBABILITIES}
    off = dataclasses.replace(settings, **off, orders_zyx=_OFF.orders_zyx, flip=False)
    turned = dataclasses.replace(off, orders_zyx=settings.orders_zyx, flip=True)
    alone = {name: dataclasses.replace(off, **{name: 1.0}) for name in _PROBABILITIES}
    return {"flips and axes": turned, **alone}


def mapped(settings, keys, images, labels):
    """What `augment_batch` computes, one crop after another."""
    return lax.map(lambda crop: augment(settings, *crop), (keys, images, labels))


def milliseconds(run, settings: Augmentation, images, labels) -> float:
    """Of one crop: the median batch, each from keys of its own."""
    step = jax.jit(run, static_argnums=0)
    times = []
    for i in range(_REPEATS.value + 1):
        keys = jax.block_until_ready(jax.random.split(jax.random.key(i), len(images)))
        began = time.perf_counter()
        jax.block_until_ready(step(settings, keys, images, labels))
        times.append(time.perf_counter() - began)
    return round(1000 * statistics.median(times[1:]) / len(images), 3)


def draw_sheet(path: pathlib.Path, crop_zyx: Zyx = (3, 128, 128)) -> None:
    """Draws a crop of tissue as each kind leaves it, with the outlines of its labels.

    Args:
      path: the PNG to write.
      crop_zyx: its shape, in voxels.
    """
    voxel_size_nm = (30.0, 6.0, 6.0)
    tissue = make_tissue(crop_zyx, voxel_size_nm, seed=3)
    image = jnp.asarray(tissue.image, jnp.float32) / 127.5 - 1
    labels = jnp.asarray(tissue.neurites.astype(np.int32))
    rows = examples(tuple(alike_axes(voxel_size_nm, crop_zyx)))
    depth = crop_zyx[0]
    figure = Figure(figsize=(2 * depth * 1.06 + 1.5, 1.04 * len(rows) + 0.4), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    axes = figure.subplots(len(rows), 2 * depth, squeeze=False)
    colours = np.random.default_rng(0).permutation(int(labels.max()) + 1)
    for row, (name, settings) in zip(axes, rows.items(), strict=True):
        after = jax.jit(augment, static_argnums=0)(settings, jax.random.key(8), image, labels)
        shown = [*zip(image, labels, strict=True), *zip(*after, strict=True)]
        for axis, (section, ids) in zip(row, shown, strict=True):
            axis.imshow(overlay(np.asarray(section), np.asarray(ids), colours))
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
    for z in range(depth):
        axes[0, z].set_title(f"before, z = {z}", fontsize=8)
        axes[0, depth + z].set_title(f"after, z = {z}", fontsize=8)
    figure.savefig(path, format="png", dpi=120)
    # Greys and a few hues need no more than a palette, which is a third of the size.
    Image.open(path).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(
        path, optimize=True
    )


def examples(orders_zyx: tuple[Zyx, ...]) -> dict[str, Augmentation]:
    """The rows of the sheet: a title, and one kind that always acts."""

    def only(**fields) -> Augmentation:
        return dataclasses.replace(_OFF, by_section=1.0, **fields)

    part = {"missing_section": 1.0, "missing_section_count": 1}
    return {
        "flips, axes": only(flip=True, orders_zyx=orders_zyx),
        "warp": only(warp=1.0, warp_voxels_zyx=(0.0, 14.0, 14.0)),
        "rotation": only(rotation=1.0),
        "translation": only(translation=1.0),
        "slip": only(slip=1.0),
        "missing\nsection": only(**part, missing_section_part=0.0),
        "missing\nin part": only(**part, missing_section_part=1.0),
        "blurred\nsection": only(blurred_section=1.0),
        "brightness": only(brightness=1.0),
        "contrast": only(contrast=1.0),
        "gamma": only(gamma=1.0),
        "noise": only(noise=1.0),
        "cut-out": only(cut_out=1.0),
        "all, as by\ndefault": Augmentation(orders_zyx),
    }


def overlay(section: np.ndarray, labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """A section in grey `[y x rgb]`, labels outlined in hues of their own."""
    grey = np.repeat((section[..., None] + 1) / 2, 3, axis=-1)
    hues = matplotlib.colormaps["hsv"](colours[labels] / len(colours))[..., :3]
    outlines = find_boundaries(labels, mode="inner") & (labels > 0)
    return np.where(outlines[..., None], hues, grey)


if __name__ == "__main__":
    app.run(main)
