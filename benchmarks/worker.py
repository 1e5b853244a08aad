"""One side of a comparison, as a process: does its work each time that it is told to.

    python -m benchmarks.worker MODULE WORK

`MODULE.prepare(**WORK)`, WORK being JSON, gives two functions: `step()` does the work once, to its
end, and may return figures; `facts()` tells afterwards what it was. `MODULE.LIBRARIES` are those
whose versions matter. On stdout goes a JSON line when all is prepared and warm, one for each line
that comes on stdin, with the seconds that a step took after one to warm up, and a last one when
stdin ends. This file runs in peers' environments, too, so it needs nothing but the standard
library.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import resource
import sys
import time


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # What libraries print must not come between.
    limit_cores(int(os.environ["OMP_NUM_THREADS"]))
    module = importlib.import_module(sys.argv[1])
    step, facts = module.prepare(**json.loads(sys.argv[2]))
    step()
    print(json.dumps({"ready": True}), file=replies)
    for _ in sys.stdin:
        # Once untimed: what a process has freed, a virtual machine's host may have taken while the
        # other side had its turn, and the first step after it fetches it again, page by page.
        step()
        began = time.perf_counter()
        figures = step()
        seconds = time.perf_counter() - began
        print(json.dumps({"seconds": seconds, **(figures or {})}), file=replies)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    versions = {name: importlib.metadata.version(name) for name in module.LIBRARIES}
    print(json.dumps({"peak_gib": peak, "versions": versions, **facts()}), file=replies)


def limit_cores(count: int) -> None:
    """Leaves this process so many cores; thread pools that ask the system make no more threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


if __name__ == "__main__":
    main()
