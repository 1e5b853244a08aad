import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from maemem.scores.average_precision import COCO_IOUS, average_precision
from maemem.scores.contingency import contingency

labels = npst.arrays(np.int32, (3, 4, 5), elements=st.integers(0, 6))


def scene(*objects):
    """Objects 1, 2, ... side by side, from their voxels in truth only, in both, predicted only."""
    truth, predicted = [], []
    for number, (missed, both, added) in enumerate(objects, 1):
        truth += [number] * (missed + both) + [0] * added
        predicted += [0] * missed + [number] * (both + added)
    return contingency(np.array([[truth]]), np.array([[predicted]]))


def test_coco_thresholds():
    assert COCO_IOUS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def test_average_precision_by_hand():
    # By confidence: hit, miss, hit, hit; three true objects are found of four.
    table = scene((0, 10, 0), (0, 0, 9), (0, 8, 0), (0, 7, 0), (5, 0, 0))
    # Recalls 0.25, 0.25, 0.5, 0.75 at precisions 1, 1/2, 2/3, 3/4; made to fall: 1, 3/4, 3/4, 3/4.
    # Of the 101 recalls, 0 to 0.25 are 26, above that to 0.75 are 50, and the rest is not reached.
    expected = (26 * 1 + 50 * 0.75) / 101
    assert average_precision(table, [0.5, 0.75]) == pytest.approx([expected] * 2)


def test_the_threshold_counts_as_reached():
    # IoU 6 / (2 + 6 + 0) = 0.75, and 5 / 10.
    table = scene((2, 6, 0), (0, 5, 5))
    assert average_precision(table, [0.5, 0.75, 0.8]).tolist() == pytest.approx(
        [1, 0.5 * 51 / 101, 0]
    )


def test_the_larger_prediction_goes_first():
    assert average_precision(scene((0, 4, 0), (0, 0, 9)), [0.5]) == pytest.approx([0.5])
    assert average_precision(scene((0, 9, 0), (0, 0, 4)), [0.5]) == pytest.approx([1])


def test_an_instance_is_matched_once():
    # Both halves have IoU 0.5 with the one true object; only the first takes it.
    table = contingency(np.ones((1, 1, 4), int), np.array([[[1, 1, 2, 2]]]))
    assert average_precision(table, [0.5]) == pytest.approx([1])
    # One prediction over two true objects, of which it takes the better: 3 / 5, not 2 / 5.
    table = contingency(np.array([[[1, 1, 2, 2, 2]]]), np.ones((1, 1, 5), int))
    assert average_precision(table, [0.4, 0.6]) == pytest.approx([51 / 101] * 2)


def test_nothing_true_or_nothing_predicted():
    assert np.isnan(average_precision(scene((0, 0, 4)), [0.5])).all()
    assert average_precision(scene((4, 0, 0)), [0.5]).tolist() == [0]


def test_unlabelled_truth_is_no_part_of_a_prediction():
    truth, predicted = np.array([[[1, 1, -1, -1, -1]]]), np.array([[[5, 5, 5, 6, 6]]])
    assert average_precision(contingency(truth, predicted)).tolist() == [1] * 10


@pytest.mark.parametrize("iou", [0.0, -0.5, 1.5])
def test_refuses_what_is_no_threshold(iou):
    with pytest.raises(ValueError, match=r"give \(0, 1\]"):
        average_precision(scene((0, 4, 0)), [iou])


@settings(max_examples=25, deadline=None)
@given(labels, labels)
def test_stricter_thresholds_never_score_higher(truth, predicted):
    scores = average_precision(contingency(truth, predicted))
    assert np.isnan(scores).all() or (np.diff(scores) <= 1e-12).all()


@settings(max_examples=25, deadline=None)
@given(labels)
def test_the_truth_itself_is_perfect(truth):
    scores = average_precision(contingency(truth, truth))
    assert scores.tolist() == [1] * 10 if truth.any() else np.isnan(scores).all()


def slow_precision(truth, predicted, iou):
    """The score again, by sets of voxels, and by whole numbers where a recall is reached."""
    truths, guesses = (
        {int(i): set(np.flatnonzero(ids == i).tolist()) for i in np.unique(ids) if i}
        for ids in (truth, predicted)
    )
    found, free = [], dict(truths)
    for name in sorted(guesses, key=lambda i: (-len(guesses[i]), i)):
        guess = guesses[name]
        overlaps = {i: len(guess & body) / len(guess | body) for i, body in free.items()}
        best = max(overlaps, key=lambda i: overlaps[i], default=0)
        found.append(best > 0 and overlaps[best] >= iou)
        if found[-1]:
            del free[best]
    hits = np.cumsum(found, dtype=int).tolist()
    total = 0.0
    for percent in range(101):
        reached = [h / n for n, h in enumerate(hits, 1) if 100 * h >= percent * len(truths)]
        total += max(reached, default=0.0)
    return total / 101


@settings(max_examples=60, deadline=None)
@given(labels, labels, st.floats(0, 1), st.sampled_from([0.1, 0.3, 0.5, 0.75]))
def test_equals_a_slow_version(truth, other, share, iou):
    """Of predictions that are partly the truth, so that some of them match."""
    assume(truth.any())
    mixed = np.random.default_rng(0).uniform(size=truth.shape) < share
    predicted = np.where(mixed, truth, other)
    expected = slow_precision(truth, predicted, iou)
    table = contingency(truth, predicted)
    assert average_precision(table, [iou]) == pytest.approx([expected], abs=1e-12)
