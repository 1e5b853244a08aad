"""Works, and gets SIGTERMs at the times that are named: lost, half_made, working, again."""

import asyncio
import os
import selectors
import signal
import sys
import time

from maemem.interrupts import ignore_sigterm, interrupt_at_sigterm, interrupted_status


class Lost:
    def __del__(self):  # What is raised here goes nowhere.
        os.kill(os.getpid(), signal.SIGTERM)
        sum(range(1000))


def interrupt_selector():  # The event loop that asks for it has no sockets yet.
    os.kill(os.getpid(), signal.SIGTERM)
    sum(range(1000))


class SlowExit:
    def __del__(self, again="again" in sys.argv, os=os, signal=signal, time=time):
        if again:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1.5)


if __name__ == "__main__":
    slow_exit = SlowExit()  # Goes when modules do, after Python has handed signals back.
    interrupt_at_sigterm()
    try:
        if "lost" in sys.argv:
            Lost()
        if "half_made" in sys.argv:
            selectors.DefaultSelector = interrupt_selector
            asyncio.new_event_loop()
        if "working" in sys.argv:
            time.sleep(10)
        ignore_sigterm()
        print("finished")
    except KeyboardInterrupt as interrupt:
        print("interrupted")
        sys.exit(interrupted_status(interrupt))
