"""The same scores by scikit-image."""

from __future__ import annotations

from skimage.metrics import adapted_rand_error, variation_of_information

from benchmarks.labels import label_pair

LIBRARIES = ("scikit-image", "numpy")


def prepare(size, bodies):
    truth, predicted = label_pair(size, bodies)
    scores = []

    def step():
        # It ignores true background by default; what it calls precision we call recall.
        error, recall, precision = adapted_rand_error(truth, predicted)
        split, merge = variation_of_information(truth, predicted, ignore_labels=(0,))
        scores[:] = [error, precision, recall, split, merge]

    return step, lambda: {"amount": truth.size, "result": [float(score) for score in scores]}
