"""Prints the bytes that a thread faults in that takes again what another freed: keep, MEBIBYTES."""

import resource
import sys
import threading

from maemem.blockwise import cluster


def take(mebibytes: int) -> None:
    for _ in range(3):
        bytearray(mebibytes << 20)  # numpy's may lie in few, large pages.


def faults() -> int:
    return resource.getpagesize() * resource.getrusage(resource.RUSAGE_SELF).ru_minflt


if __name__ == "__main__":
    does, mebibytes = sys.argv[1], int(sys.argv[2])
    if does == "keep":
        cluster._keep_freed_memory()
    take(mebibytes)
    before = faults()
    thread = threading.Thread(target=take, args=[mebibytes])  # Whose own heap could not hold it.
    thread.start()
    thread.join()
    print(faults() - before)
