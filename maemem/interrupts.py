"""SIGTERM, which schedulers send before SIGKILL, ends a stage like Ctrl-C."""

from __future__ import annotations

import signal
import sys


def interrupt_at_sigterm() -> None:
    """Makes SIGTERM raise KeyboardInterrupt: contexts exit, and jobs of a cluster are cancelled.

    A second SIGTERM does not disturb that. An exception raised in a callback, such as JAX's of the
    garbage collector, is lost: so it is raised again each second until it is handled. After the
    first, errors that Python can only print are not printed: they are the interrupt itself, or come
    from finalizers of objects that it left half made, such as an event loop.
    """
    came = False

    def interrupt(*_) -> None:
        nonlocal came
        came = True
        handled = sys.exception()
        while handled and not isinstance(handled, KeyboardInterrupt):
            handled = handled.__context__
        if not handled:
            signal.setitimer(signal.ITIMER_REAL, 1)
            raise KeyboardInterrupt(signal.SIGTERM)

    def print_unless_interrupted(error: sys.UnraisableHookArgs) -> None:
        if not came:
            print_error(error)

    print_error, sys.unraisablehook = sys.unraisablehook, print_unless_interrupted
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, interrupt)


def ignore_sigterm() -> None:
    """Ignores SIGTERM from now on, also one that was not yet handled.

    For a process that ends: Python restores the default handlers before it exits, and a repeated
    signal would then change the exit status.
    """
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)


def interrupted_status(interrupt: KeyboardInterrupt) -> int:
    """The exit status after an interrupt; from now on SIGTERM is ignored."""
    ignore_sigterm()
    return 128 + (interrupt.args or (signal.SIGINT,))[0]
