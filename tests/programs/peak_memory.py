"""Converts or exports, and prints the bytes by which memory grew: KIND, SOURCE, TARGET, MOST."""

import resource
import sys

from maemem.data.convert import convert
from maemem.data.export import export


def peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    kind, source, target, most = sys.argv[1:]
    before = peak()
    if kind == "convert":
        convert(source, target, voxel_size_nm=(30, 6, 6), memory_bytes=int(most))
    else:
        export(source, target, memory_bytes=int(most))
    print(peak() - before)
