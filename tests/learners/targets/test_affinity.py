import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from maemem.geometry import View, views
from maemem.learners.targets.affinity import LEE, NEAREST, Affinity
from maemem.learners.targets.labels import erode, remove_borders

some = settings(max_examples=25, deadline=None)
# One shape, so that each function compiles once.
SHAPE = (2, 3, 5, 6)
crops = hnp.arrays(np.int32, SHAPE, elements=st.integers(-1, 3))
DIAGONAL = ((-1, -1, 0), (0, -1, 1), (0, 0, -2))

parted = jax.jit(remove_borders, static_argnums=1)
eroded = jax.jit(erode, static_argnums=(1, 2))


@functools.partial(jax.jit, static_argnums=0)
def targets(target, labels):
    maps, weight = target.targets({"labels": labels})
    return maps, weight > 0


@functools.partial(jax.jit, static_argnums=0)
def loss(target, logits, labels):
    return target.loss(logits, *target.targets({"labels": labels}))


lee_gradient = jax.jit(jax.value_and_grad(lambda x, labels: loss(Affinity(LEE), x, labels).sum()))


def row(*labels):
    """Labels along x, as one crop."""
    return np.array(labels, np.int32)[None, None, None]


def slow_targets(labels, offsets):
    """Edge by edge."""
    shape = (*labels.shape, len(offsets))
    same, known = np.zeros(shape, np.float32), np.zeros(shape, bool)
    for b, z, y, x in np.ndindex(labels.shape):
        for k, offset in enumerate(offsets):
            end = np.add((z, y, x), offset)
            if (end < 0).any() or (end >= labels.shape[1:]).any():
                continue
            one, two = labels[b, z, y, x], labels[(b, *end)]
            known[b, z, y, x, k] = one != -1 and two != -1
            same[b, z, y, x, k] = one == two and one > 0
    return same, known


def slow_zero(labels, radius, in_plane, clears):
    """Zeroes an instance voxel if its id and a label in its window satisfy `clears`."""
    cleared = labels.copy()
    for b, *place in np.ndindex(labels.shape):
        reach = (0 if in_plane else radius, radius, radius)
        starts = [max(0, at - r) for at, r in zip(place, reach, strict=True)]
        stops = [at + r + 1 for at, r in zip(place, reach, strict=True)]
        window = labels[(b, *map(slice, starts, stops))]
        own = labels[(b, *place)]
        if own > 0 and any(clears(own, other) for other in window.ravel()):
            cleared[(b, *place)] = 0
    return cleared


def test_an_edge_joins_a_voxel_and_the_one_before():
    values, known = targets(Affinity(), row(7, 7, 8, 8, 0, 0, -1, 8))
    x = values[0, 0, 0, :, 2]
    np.testing.assert_array_equal(x, [0, 1, 0, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(known[0, 0, 0, :, 2], [0, 1, 1, 1, 1, 1, 0, 0])
    assert not known[..., :2].any()


def test_channels_are_named_by_their_offset():
    assert Affinity(LEE).channels[:4] == ("z-1", "y-1", "x-1", "z-2")
    assert len(LEE) == 12
    assert Affinity(DIAGONAL).channels == ("z-1y-1", "y-1x+1", "x-2")


@some
@given(crops, st.sampled_from([NEAREST, LEE, DIAGONAL]))
def test_targets_equal_the_slow_way(labels, offsets):
    fast = targets(Affinity(offsets), labels)
    for got, expected in zip(fast, slow_targets(labels, offsets), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_borders_and_erosion_by_hand():
    labels = row(1, 1, 1, 2, 2, 2, 0, 3, 3, 3, -1, 4)
    expected = [1, 1, 0, 0, 2, 2, 0, 3, 3, 3, -1, 4]
    np.testing.assert_array_equal(parted(labels)[0, 0, 0], expected)
    expected = [1, 1, 0, 0, 2, 0, 0, 0, 3, 3, -1, 4]
    np.testing.assert_array_equal(eroded(labels, 1)[0, 0, 0], expected)


@some
@given(crops, st.integers(0, 2), st.booleans())
def test_borders_and_erosion_equal_the_slow_way(labels, radius, in_plane):
    expected = slow_zero(labels, 1, in_plane, lambda own, other: other > 0 and other != own)
    np.testing.assert_array_equal(parted(labels, in_plane), expected)
    expected = slow_zero(labels, radius, in_plane, lambda own, other: other not in (-1, own))
    np.testing.assert_array_equal(eroded(labels, radius, in_plane), expected)


@some
@given(crops)
def test_targets_come_after_borders_and_erosion(labels):
    both = targets(Affinity(erosion=1, remove_borders=True), labels)
    alone = targets(Affinity(), eroded(parted(labels), 1))
    for got, expected in zip(both, alone, strict=True):
        np.testing.assert_array_equal(got, expected)


ALL_VIEWS = views(list(itertools.permutations(range(3))))


@pytest.mark.parametrize(
    ("offsets", "shape", "allowed"),
    [
        (NEAREST, (1, 4, 4, 4), ALL_VIEWS),
        (LEE, (1, 3, 30, 31), views()),
        (DIAGONAL, SHAPE, [View(), View(flips_zyx=(True,) * 3)]),
    ],
    ids=["nearest", "lee", "diagonal"],
)
def test_undo_turns_the_targets_of_a_view_into_those_of_the_crop(offsets, shape, allowed):
    objective = Affinity(offsets)
    labels = np.random.default_rng(0).integers(-1, 3, shape, np.int32)
    expected, known = map(np.asarray, targets(objective, labels))
    for view in allowed:
        values, known_in_view = targets(objective, view.apply(labels))
        back, inside = map(np.asarray, objective.undo(values, view))
        np.testing.assert_array_equal(back[known], expected[known])
        # Every known edge of the crop is known again, at its own voxel, and was so in the view.
        assert np.broadcast_to(inside, known.shape)[known].all()
        known_back, _ = objective.undo(known_in_view.astype(jnp.float32), view)
        np.testing.assert_array_equal(np.asarray(known_back) * inside, known)


def test_undo_of_a_flip_by_hand_under_jit():
    view = View((0, 2, 1), (False, True, False))
    # A crop of one row along x is a column in the view, and reversed.
    seen = jnp.zeros((1, 1, 4, 1, 3)).at[0, 0, :, 0, 1].set(jnp.array([0, 3, 2, 1]))
    back, known = jax.jit(Affinity().undo, static_argnums=1)(seen, view)
    # The view's edge from 1 to 0 is the crop's from 3 to 2, seen from its other end.
    np.testing.assert_array_equal(back[0, 0, 0, 1:, 2], [1, 2, 3])
    np.testing.assert_array_equal(known[0, 0, :, 2], [False, True, True, True])
    assert not known[..., :2].any()


def test_undo_refuses_views_that_need_other_channels():
    turned = View((1, 0, 2))
    lee, gaps = Affinity(LEE), Affinity(remove_borders=True)
    assert [lee.admits(view) for view in ALL_VIEWS] == [v.axes_zyx[0] == 0 for v in ALL_VIEWS]
    assert Affinity().admits(turned)
    assert gaps.admits(View((0, 2, 1)))
    assert Affinity(remove_borders=True, in_plane=False).admits(turned)
    for objective in (lee, gaps):
        prediction = jnp.ones((1, 2, 2, 2, len(objective.channels)))
        with pytest.raises(ValueError, match="use views that keep the z axis"):
            objective.undo(prediction, turned)


@pytest.mark.parametrize(
    "offsets", [(), ((0, 0, 0),), ((-1, 0, 0), (1, 0, 0)), ((0, 0, -1), (0, 0, -1))]
)
def test_offsets_that_name_no_edge_or_one_twice_are_refused(offsets):
    with pytest.raises(ValueError, match="name each edge once"):
        Affinity(offsets)


def test_other_bad_settings_are_refused():
    with pytest.raises(ValueError, match=r"erosion -1 not below 0"):
        Affinity(erosion=-1)
    with pytest.raises(ValueError, match=r"long_range_weight 0\.0 must be above 0"):
        Affinity(long_range_weight=0.0)


def test_right_logits_lose_nothing_and_wrong_ones_much():
    labels = jnp.array(np.random.default_rng(0).integers(0, 2, (2, 6, 16, 16), np.int32))
    values, _ = targets(Affinity(), labels)
    logits = 20 * (2 * values - 1)
    np.testing.assert_allclose(loss(Affinity(), logits, labels), 0, atol=1e-6)
    assert (loss(Affinity(), -logits, labels) > 20).all()


def test_long_range_channels_have_their_weight():
    labels = jnp.array(np.random.default_rng(0).integers(0, 2, (1, 4, 8, 8), np.int32))
    logits = jax.random.normal(jax.random.key(0), (1, 4, 8, 8, 4))
    near, far = ((0, 0, -1), (0, -1, 0), (-1, 0, 0)), ((0, 0, -3),)
    together = loss(Affinity(near + far, long_range_weight=0.5), logits, labels)
    one = loss(Affinity(near), logits[..., :3], labels)
    other = loss(Affinity(far), logits[..., 3:], labels)
    np.testing.assert_allclose(together, (3 * one + 0.5 * other) / 3.5, rtol=1e-5)


@pytest.mark.parametrize("label", [-1, 0, 5])
@pytest.mark.parametrize("logit", [-1e4, 0.0, 1e4])
def test_gradients_are_finite_where_a_class_or_everything_is_missing(label, logit):
    labels = np.full((2, 2, 4, 4), label, np.int32)
    logits = np.full((2, 2, 4, 4, 12), logit, jnp.bfloat16)
    value, gradient = lee_gradient(logits, labels)
    assert np.isfinite(value)
    assert np.isfinite(np.asarray(gradient, np.float32)).all()
    if label == -1:
        assert value == 0
        assert not np.asarray(gradient, np.float32).any()


def test_activate_gives_probabilities():
    logits = jnp.array([-40, 0, 40], jnp.bfloat16)[None, None, None, None]
    np.testing.assert_allclose(Affinity().activate(logits).ravel(), [0, 0.5, 1], atol=1e-6)


def test_crops_have_an_edge_of_every_channel():
    Affinity(LEE).check_crop("data.crop_zyx", (5, 28, 28))
    Affinity(NEAREST).check_crop("data.crop_zyx", (2, 2, 2))
    for crop, channel in (((4, 96, 96), "z-4"), ((6, 27, 96), "y-27"), ((6, 96, 16), "x-27")):
        with pytest.raises(
            ValueError, match=rf"data\.crop_zyx .* too small for the offset {channel}"
        ):
            Affinity(LEE).check_crop("data.crop_zyx", crop)
