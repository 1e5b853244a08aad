"""Targets: what a network predicts of every voxel, one file each.

What a target is, is said in `targets.contract`. A config names one by its key in `TARGETS`.
"""

from maemem.learners.targets.affinity import Affinity
from maemem.learners.targets.bcd import Bcd

TARGETS = {"affinity": Affinity, "bcd": Bcd}
