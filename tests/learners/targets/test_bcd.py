import functools
import itertools

import edt
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from maemem.geometry import View, views
from maemem.learners.targets.bcd import Bcd
from maemem.learners.targets.labels import distance_to_other
from maemem.learners.targets.losses import balanced_bce, soft_dice

BC = Bcd(distance=False)

some = settings(max_examples=25, deadline=None)
# One shape, so that each function compiles once.
SHAPE = (2, 2, 5, 6)
crops = hnp.arrays(np.int32, SHAPE, elements=st.sampled_from([-1, 0, 0, 1, 1, 2]))


@functools.partial(jax.jit, static_argnums=0)
def targets(target, labels):
    maps, weight = target.targets({"labels": labels})
    return maps, weight > 0


@functools.partial(jax.jit, static_argnums=0)
def loss(target, logits, labels):
    return target.loss(logits, *target.targets({"labels": labels}))


gradient_of = jax.jit(jax.value_and_grad(lambda x, labels: loss(Bcd(), x, labels).sum()))


def row(*labels):
    """Labels along x, as one crop."""
    return np.array(labels, np.int32)[None, None, None]


def slow_contour(section, width):
    """Edge by edge; unlabelled voxels are labels like others."""
    edge = np.zeros(section.shape, bool)
    for y, x in np.ndindex(section.shape):
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= v < section.shape[0] and 0 <= u < section.shape[1]:
                edge[y, x] |= section[y, x] != section[v, u]
    dilated = np.zeros_like(edge)
    for y, x in np.argwhere(edge):
        dilated[max(0, y - width) : y + width + 1, max(0, x - width) : x + width + 1] = True
    return dilated


def slow_distance(section):
    """Voxel by voxel, for sections without unlabelled ones."""
    distance = np.zeros(section.shape)
    for place in np.ndindex(section.shape):
        inside = section[place] > 0
        others = np.argwhere((section > 0) != inside)
        nearest = min((np.hypot(*(other - place)) for other in others), default=np.inf)
        distance[place] = np.tanh(nearest / 8) if inside else -np.tanh(nearest / 50)
    return distance


def test_three_maps_by_hand():
    values, known = targets(Bcd(contour_width=0), row(0, 0, 1, 1, 1, 2, 2))
    assert known.all()
    binary, edge, distance = np.moveaxis(values[0, 0, 0], -1, 0)
    np.testing.assert_array_equal(binary, [0, 0, 1, 1, 1, 1, 1])
    np.testing.assert_array_equal(edge, [0, 1, 1, 0, 1, 1, 0])
    voxels = np.array([-2 / 50, -1 / 50, 1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8])
    np.testing.assert_allclose(2 * distance - 1, np.tanh(voxels), atol=1e-6)


def test_a_contour_is_dilated_in_plane():
    labels = np.zeros((1, 3, 9, 9), np.int32)
    labels[0, 1, 4, 4] = 3
    edge = np.asarray(targets(BC, labels)[0][..., 1])
    # The voxel and its four neighbours, dilated: a square of 5 without its corners.
    expected = np.zeros((9, 9), bool)
    expected[2:7, 2:7] = True
    expected[2:7:4, 2:7:4] = False
    np.testing.assert_array_equal(edge[0, 1], expected)
    assert not edge[0, ::2].any()


def test_nothing_is_known_that_missing_labels_could_change():
    _, known = targets(Bcd(contour_width=1), row(1, 1, 1, 1, 0, 0, 0, -1, 0))
    binary, edge, distance = np.moveaxis(np.asarray(known[0, 0, 0]), -1, 0)
    np.testing.assert_array_equal(binary, [1] * 7 + [0, 1])
    # The certain edge is seen from 2 to 5, one at the unlabelled voxel perhaps from 5 on.
    np.testing.assert_array_equal(edge, [1] * 6 + [0] * 3)
    # The nearest instance voxel is 3, so 5 is as near to it as to 7.
    np.testing.assert_array_equal(distance, [1] * 6 + [0] * 3)


@some
@given(crops, st.integers(0, 2))
def test_known_contours_and_distances_hold_for_every_completion(labels, width):
    objective = Bcd(contour_width=width)
    values, known = map(np.asarray, targets(objective, labels))
    # Missing labels are what could be there: each alike, or an instance of its own.
    filled = [np.where(labels == -1, fill, labels) for fill in (0, 1, 2, 9)]
    alone = np.where(labels == -1, 10 + np.arange(labels.size).reshape(SHAPE), labels)
    for whole in (*filled, alone):
        again, all_known = targets(objective, whole)
        assert all_known.all()
        np.testing.assert_allclose(np.asarray(again)[known], values[known], atol=1e-6)
    np.testing.assert_array_equal(known[..., 0], labels != -1)


@some
@given(crops, st.integers(0, 2))
def test_targets_equal_the_slow_way(labels, width):
    labels = np.abs(labels)
    values, known = targets(Bcd(contour_width=width), labels)
    assert known.all()
    for b, z in np.ndindex(SHAPE[:2]):
        section = labels[b, z]
        binary, edge, distance = np.moveaxis(np.asarray(values[b, z]), -1, 0)
        np.testing.assert_array_equal(binary, section > 0)
        np.testing.assert_array_equal(edge, slow_contour(section, width))
        np.testing.assert_allclose(2 * distance - 1, slow_distance(section), atol=1e-6)


@pytest.mark.parametrize("unlabelled", [0.0, 0.01, 0.5])
@pytest.mark.parametrize("share", [0.0, 0.002, 0.05, 0.5])
def test_distances_equal_the_edt_library(share, unlabelled):
    draw = np.random.default_rng(0)
    labels = (draw.random((2, 3, 61, 47)) < share).astype(np.int32)
    labels[draw.random(labels.shape) < unlabelled] = -1
    distance, known = map(np.asarray, jax.jit(distance_to_other)(labels))

    def to(kind):
        away = np.ascontiguousarray(labels[b, z] != kind)
        return edt.edt(away, black_border=False) if not away.all() else np.full(away.shape, np.inf)

    for b, z in np.ndindex(2, 3):
        other = np.where(labels[b, z] > 0, to(0), to(1))
        certain = (labels[b, z] >= 0) & (other <= to(-1))
        np.testing.assert_array_equal(known[b, z], certain)
        expected = np.where(labels[b, z] < 0, 0, np.minimum(other, to(-1)))
        np.testing.assert_allclose(distance[b, z], expected, rtol=1e-6)


@pytest.mark.parametrize("extents", [(1, 3), (9, 8), (9, 9), (128, 129), (129, 129), (2, 300)])
@pytest.mark.parametrize("corners", [(1, 0), (1, -1), (0, -1)])
def test_distances_reach_from_corner_to_corner(extents, corners):
    labels = np.zeros((1, 1, *extents), np.int32)
    labels[..., 0, 0], labels[..., -1, -1] = corners
    away = np.hypot(*np.indices(extents))
    to_instance = away if corners[0] == 1 else np.inf
    to_unlabelled = away[::-1, ::-1] if corners[1] == -1 else np.inf
    nearest, certain = np.minimum(to_instance, to_unlabelled), to_instance <= to_unlabelled
    background = labels[0, 0] == 0
    for turn in (np.s_[...], np.s_[..., ::-1, ::-1]):
        distance, known = (np.asarray(of)[turn] for of in jax.jit(distance_to_other)(labels[turn]))
        np.testing.assert_allclose(distance[0, 0][background], nearest[background], rtol=1e-6)
        np.testing.assert_array_equal(
            known[0, 0][background], np.broadcast_to(certain, extents)[background]
        )


def test_nothing_is_known_of_what_is_unlabelled_altogether():
    values, known = targets(Bcd(), np.full(SHAPE, -1, np.int32))
    np.testing.assert_array_equal(2 * values[..., 2] - 1, 0)
    assert not known.any()


@pytest.mark.parametrize(("label", "expected"), [(0, -1), (4, 1)])
def test_a_section_of_one_kind_is_infinitely_far_from_the_other(label, expected):
    values, known = targets(Bcd(), np.full(SHAPE, label, np.int32))
    np.testing.assert_array_equal(2 * values[..., 2] - 1, expected)
    assert known.all()


def test_borders_part_touching_instances_first():
    labels = row(1, 1, 1, 1, 2, 2, 2)
    got = targets(Bcd(remove_borders=True), labels)
    for one, other in zip(got, targets(Bcd(), row(1, 1, 1, 0, 0, 2, 2)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_bc_is_bcd_without_distance():
    labels = np.random.default_rng(0).integers(-1, 3, SHAPE, np.int32)
    assert BC.channels == ("binary", "contour")
    assert Bcd().channels == ("binary", "contour", "distance")
    for two, three in zip(targets(BC, labels), targets(Bcd(), labels), strict=True):
        np.testing.assert_array_equal(two, three[..., :2])


def test_undo_turns_the_targets_of_a_view_into_those_of_the_crop():
    objective = Bcd(remove_borders=True)
    labels = np.random.default_rng(0).integers(-1, 3, SHAPE, np.int32)
    expected, known = targets(objective, labels)
    for view in views():
        values, known_in_view = targets(objective, view.apply(labels))
        back, inside = objective.undo(values, view)
        assert inside.all()
        np.testing.assert_array_equal(back, expected)
        known_back, _ = objective.undo(known_in_view.astype(jnp.float32), view)
        np.testing.assert_array_equal(known_back, known)


def test_undo_refuses_views_of_other_planes():
    for view in views(list(itertools.permutations(range(3)))):
        assert Bcd().admits(view) == (view.axes_zyx[0] == 0)
    with pytest.raises(ValueError, match="moves the z axis"):
        Bcd().undo(jnp.ones((1, 2, 2, 2, 3)), View((2, 1, 0)))


def test_a_negative_width_is_refused():
    with pytest.raises(ValueError, match="contour_width -1 must be 0"):
        Bcd(contour_width=-1)


@pytest.mark.parametrize("objective", [BC, Bcd()], ids=["bc", "bcd"])
def test_loss_is_the_weighted_sum_of_its_parts(objective):
    random = np.random.default_rng(0)
    labels = random.integers(-1, 3, SHAPE, np.int32)
    logits = random.normal(size=(*SHAPE, len(objective.channels))).astype(np.float32)
    values, known = map(np.asarray, targets(objective, labels))
    masks = [jnp.array(array[..., :2], jnp.float32) for array in (logits, values, known)]
    expected = np.array(balanced_bce(*masks) + 0.5 * soft_dice(*masks)).sum(-1)
    if objective.distance:
        errors = np.square(np.tanh(logits[..., 2]) - (2 * values[..., 2] - 1))
        expected += [5 * e[k].mean() for e, k in zip(errors, known[..., 2], strict=True)]
    np.testing.assert_allclose(loss(objective, logits, labels), expected, rtol=1e-5)


@pytest.mark.parametrize("label", [-1, 0, 5])
@pytest.mark.parametrize("logit", [-1e4, 0.0, 1e4])
def test_gradients_are_finite_where_a_class_or_everything_is_missing(label, logit):
    labels = np.full(SHAPE, label, np.int32)
    logits = np.full((*SHAPE, 3), logit, jnp.bfloat16)
    value, gradient = gradient_of(logits, labels)
    assert np.isfinite(value)
    assert np.isfinite(np.asarray(gradient, np.float32)).all()
    if label == -1:
        assert value == 0
        assert not np.asarray(gradient, np.float32).any()


def test_activate_puts_all_channels_between_0_and_1():
    logits = jnp.array([[-40.0, 0, 0], [0, 40, 0.7], [40, 0, -40]])[None, None, None]
    expected = [[0, 0.5, 0.5], [0.5, 1, (np.tanh(0.7) + 1) / 2], [1, 0.5, 0]]
    np.testing.assert_allclose(Bcd().activate(logits)[0, 0, 0], expected, atol=1e-6)
    np.testing.assert_allclose(BC.activate(logits[..., :2]), Bcd().activate(logits)[..., :2])
