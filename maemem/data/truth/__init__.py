"""What is known of a volume beside its image: the contract, and one file for each kind of truth.

`TRUTHS` has the kinds by the scheme of their path; a path of none of these schemes is a volume of
labels. How a network learns from truth is in `maemem.learners.targets`.
"""

from __future__ import annotations

from maemem.data.truth.contract import Origin, Truth
from maemem.data.truth.labels import LabelVolume

__all__ = ["TRUTHS", "LabelVolume", "Origin", "Truth", "open_truth"]

TRUTHS: dict[str, type[Truth]] = {"": LabelVolume}


def open_truth(origin: Origin) -> Truth:
    """Opens truth of the kind that the scheme of its path names, such as `swc` in `swc:folder`.

    Raises:
      ValueError: if it does not fit its image.
      FileNotFoundError: if its path does not exist.
    """
    scheme = origin.path.partition(":")[0]
    return TRUTHS[scheme if scheme in TRUTHS else ""].open(origin)
