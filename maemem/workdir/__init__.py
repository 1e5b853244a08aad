"""The folder of a run: what is recorded of it, and who may work there.

Where its files lie is said in `maemem.layout`.
"""

from maemem.workdir.claim import claim_workdir, workdir_folder
from maemem.workdir.comparison import check_network, describe_differences, recorded_config
from maemem.workdir.compilations import cache_compilations
from maemem.workdir.record import read_config, read_record
from maemem.workdir.timings import timed

__all__ = [
    "cache_compilations",
    "check_network",
    "claim_workdir",
    "describe_differences",
    "read_config",
    "read_record",
    "recorded_config",
    "timed",
    "workdir_folder",
]
