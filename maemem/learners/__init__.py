"""What training minimises: one file a method.

What a learner is, is said in `learners.contract`. A config names one by its key in `LEARNERS`.
"""

from maemem.learners.contract import Learner
from maemem.learners.mae import MaskedReconstruction
from maemem.learners.restoration import Restoration
from maemem.learners.supervised import Supervised

LEARNERS: dict[str, type[Learner]] = {
    "mae": MaskedReconstruction,
    "restoration": Restoration,
    "supervised": Supervised,
}
