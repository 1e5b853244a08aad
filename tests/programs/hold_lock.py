"""Holds a lock for a while: PATH, the name of a machine or nothing, SECONDS."""

import sys
import time

from maemem import locks

if __name__ == "__main__":
    path, machine, seconds = sys.argv[1:]
    if machine:
        locks._machine = lambda: machine
    held = locks.lock(locks.Path(path))
    print("held", flush=True)
    time.sleep(float(seconds))
