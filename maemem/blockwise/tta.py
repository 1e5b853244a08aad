"""Test-time augmentation: the mean of a network's predictions for several views of a crop."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from maemem.geometry import View, Zyx

# Turns a view's prediction [b z y x c] back, and says where it is known: bool [z y x c].
Undo = Callable[[jax.Array, View], tuple[jax.Array, jax.Array]]

# Weight of the plain view where it is not known, such as for an affinity whose other end is outside
# of the window, which the loss never trains. Known predictions weigh at least 2e-12 (in a corner,
# see `windows.blend_weights`) and win; without overlap, an affinity that no window knows still gets
# the plain view's prediction.
_LAST_RESORT = 1e-20


def average_over_views(
    apply: Callable[[np.ndarray], jax.Array], undo: Undo, views: Sequence[View]
) -> Callable[[np.ndarray], jax.Array]:
    """A function that predicts a crop as the mean over its views, each where it is known.

    Views are computed one after another, so memory does not grow with their number. `apply` is
    jitted on its own, so it compiles once for each shape of a view.

    Args:
      apply: raw crops `[b z y x]` to predictions `[b z y x c]`; jitted.
      undo: such as a target's. Where no view is known, the plain one counts.
      views: must contain the plain one.

    Returns:
      A function of crops `[b z y x]` to predictions float32 `[b z y x c]`.

    Raises:
      ValueError: if the plain view is not among them.
    """
    _check_plain(views)

    @functools.partial(jax.jit, static_argnames="view")
    def add(sums, counts, prediction: jax.Array, view: View):
        turned, weights = _turn_back(undo, prediction, view)
        values = jnp.where(weights > 0, turned.astype(jnp.float32), 0)
        return sums + values * weights, counts + weights

    def predict(crops: np.ndarray) -> jax.Array:
        sums, counts = jnp.float32(0), jnp.float32(0)
        for view in views:
            sums, counts = add(sums, counts, apply(view.apply(crops)), view)
        return sums / counts

    return predict


def share_known(undo: Undo, views: Sequence[View], window_zyx: Zyx, channels: int) -> np.ndarray:
    """The share of views that know a voxel's channel: the weight of `average_over_views`.

    Where no view knows it, the share is tiny, not 0: it counts where no other window knows it.

    Args:
      undo: as in `average_over_views`.
      views: as in `average_over_views`.
      window_zyx: the shape of a crop.
      channels: of the prediction.

    Returns:
      float32 `[z y x c]`, in (0, 1].

    Raises:
      ValueError: if the plain view is not among them.
    """
    _check_plain(views)

    @jax.jit
    def count():
        counts = jnp.zeros((*window_zyx, channels))
        for view in views:
            z, y, x = (window_zyx[axis] for axis in view.axes_zyx)
            counts += _turn_back(undo, jnp.zeros((1, z, y, x, channels)), view)[1]
        return counts

    return np.asarray(count()) / np.float32(len(views))


def _turn_back(undo: Undo, prediction: jax.Array, view: View) -> tuple[jax.Array, jax.Array]:
    """A view's prediction, turned back, `[b z y x c]`, and its weight, float32 `[z y x c]`."""
    turned, known = undo(prediction, view)
    return turned, jnp.where(known, 1, _LAST_RESORT if view == View() else 0).astype(jnp.float32)


def _check_plain(views: Sequence[View]) -> None:
    if View() not in views:
        raise ValueError(
            f"the plain view is not among the {len(views)} views, so edges that leave a window "
            f"would have no prediction; add geometry.View()"
        )
