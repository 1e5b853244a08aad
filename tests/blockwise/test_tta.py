"""Test-time augmentation changes nothing of what is the same in every view."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maemem.blockwise.predict import predict_volume
from maemem.blockwise.store import read_prediction
from maemem.blockwise.tta import average_over_views, share_known
from maemem.geometry import View, views
from tests.blockwise.volumes import stored_volume

OFFSETS = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, -3, 0), (0, 0, -3))
WINDOW = (4, 8, 8)
FOUR = views()[::5]  # the plain one, and three that flip, two of which exchange y and x


def shifted(array, offset):
    """The array whose value at voxel v is that at v + offset, and where there is one."""
    rolled = jnp.roll(array, [-n for n in offset], (1, 2, 3))
    inside = np.ones(array.shape[1:4], bool)
    for axis, n in enumerate(offset):
        there = np.arange(array.shape[1 + axis]) + n
        index = [slice(None)] * 3
        index[axis] = np.flatnonzero((there < 0) | (there >= len(there)))
        inside[tuple(index)] = False
    return rolled, inside


@jax.jit
def true_affinities(labels):
    """Whether both ends of an edge have one label; edges that leave the crop have affinity 0.25."""
    channels = []
    for offset in OFFSETS:
        other, inside = shifted(labels, offset)
        channels.append(jnp.where(inside, other == labels, 0.25))
    return jnp.stack(channels, -1)


def undo(prediction, view):
    """A view's affinities as those of the crop; an edge is known where it lies in the window."""
    prediction = view.invert(prediction, trailing=1)
    channels, known = [], []
    for offset in OFFSETS:
        turned = view.offset(offset)
        forward = sum(turned) > 0  # The view names this edge after its other end.
        channel = prediction[..., OFFSETS.index(tuple(-abs(n) for n in turned))]
        moved, inside = shifted(channel, offset)
        channels.append(moved if forward else channel)
        known.append(inside)
    return jnp.stack(channels, -1), jnp.stack([jnp.asarray(k) for k in known], -1)


def tissue(shape):
    return np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8)


def test_true_affinities_are_the_same_in_every_view():
    crops = tissue((2, *WINDOW))
    predict = average_over_views(true_affinities, undo, views())
    np.testing.assert_allclose(predict(crops), true_affinities(crops), atol=1e-6)


def test_scalar_channels_are_the_same_in_every_view():
    def apply(crops):
        return jnp.stack([crops / 255, 1 - crops / 255], -1)

    def turn_back(prediction, view):
        return view.invert(prediction, trailing=1), jnp.ones(prediction.shape[1:], bool)

    crops = tissue((2, 4, 4, 4)) * 100
    some = views([(0, 1, 2), (0, 2, 1), (1, 0, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)])[::5]
    predict = average_over_views(jax.jit(apply), turn_back, some)
    np.testing.assert_allclose(predict(crops), apply(jnp.asarray(crops)), atol=1e-6)


def test_mean_by_hand():
    # What a network adds along x comes out even, once the view along −x is turned back.
    def apply(crops):
        return (crops + jnp.arange(4.0))[..., None]

    def turn_back(prediction, view):
        return view.invert(prediction, trailing=1), jnp.arange(4).reshape(1, 1, 4, 1) > 0

    pair = [View(), View(flips_zyx=(False, False, True))]
    predict = average_over_views(jax.jit(apply), turn_back, pair)
    said = np.asarray(predict(np.zeros((1, 1, 1, 4), np.uint8))).ravel()
    assert said.tolist() == [0, 1.5, 1.5, 1.5]
    share = share_known(turn_back, pair, (1, 1, 4), 1)
    assert share.ravel()[1:].tolist() == [1, 1, 1]
    assert 0 < share[0, 0, 0, 0] < 1e-19  # The plain view serves, since no other does.


def test_share_known_of_affinities():
    share = share_known(undo, views(), WINDOW, len(OFFSETS))
    assert share.shape == (*WINDOW, len(OFFSETS))
    assert (share[1:, 3:, 3:] == 1).all()
    for unknown in (share[0, :, :, 0], share[:, :3, :, 3]):
        assert (unknown > 0).all()
        assert (unknown < 1e-20).all()


def test_network_is_compiled_once():
    traced = []

    @jax.jit
    def apply(crops):
        traced.append(crops.shape)
        return crops[..., None] / 255

    predict = average_over_views(
        apply,
        lambda said, view: (view.invert(said, trailing=1), jnp.ones(said.shape[1:], bool)),
        FOUR,
    )
    for _ in range(2):
        predict(np.zeros((1, 2, 4, 4), np.uint8))
    assert traced == [(1, 2, 4, 4)]


def test_plain_view_is_needed():
    flipped = [View(flips_zyx=(True, False, False))]
    with pytest.raises(ValueError, match="plain view is not among the 1 views"):
        average_over_views(true_affinities, undo, flipped)
    with pytest.raises(ValueError, match="plain view"):
        share_known(undo, flipped, WINDOW, 5)


@pytest.mark.parametrize("seen", [[View()], FOUR], ids=["one", "four"])
@pytest.mark.parametrize("stride", [(2, 4, 4), (3, 5, 5), WINDOW])
def test_edges_that_leave_a_window_count_where_no_window_knows_them(tmp_path, stride, seen):
    volume = stored_volume(tmp_path / "raw.zarr", tissue((8, 24, 24)))
    truth = np.moveaxis(np.asarray(true_affinities(volume.store.read().result()[None]))[0], -1, 0)
    predict_volume(
        *(average_over_views(true_affinities, undo, seen), volume, tmp_path / "a.zarr"),
        region=volume.region,
        window_zyx=WINDOW,
        stride_zyx=stride,
        batch_size=8,
        channels=[str(offset) for offset in OFFSETS],
        identity={},
        dtype="float32",
        known=share_known(undo, seen, WINDOW, len(OFFSETS)),
    )
    found = read_prediction(tmp_path / "a.zarr")
    expected = truth.copy()
    if stride == WINDOW:  # Then those of each window's first voxels are known in none.
        for channel, offset in zip(expected, OFFSETS, strict=True):
            (axis,) = np.flatnonzero(offset)
            places = np.arange(channel.shape[axis]) % WINDOW[axis] < abs(offset[axis])
            np.moveaxis(channel, axis, 0)[places] = 0.25
        np.testing.assert_allclose(found, expected, atol=1e-5)
    else:
        inside = (slice(None), slice(1, None), slice(3, None), slice(3, None))
        np.testing.assert_allclose(found[inside], expected[inside], atol=1e-5)
