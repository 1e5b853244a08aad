"""SIGTERM, which clusters send before they kill, ends a stage as Ctrl-C does."""

from __future__ import annotations

import signal
import sys


def interrupt_at_sigterm() -> None:
    """Makes SIGTERM interrupt as Ctrl-C does: contexts are left, and jobs of a cluster cancelled.

    Some schedulers say it twice; the second does not disturb that. What is raised in a callback,
    such as JAX's of the garbage collector, is lost: so it is raised each second until it is not.
    """

    def interrupt(*_) -> None:
        handled = sys.exception()
        while handled and not isinstance(handled, KeyboardInterrupt):
            handled = handled.__context__
        if not handled:
            signal.setitimer(signal.ITIMER_REAL, 1)
            raise KeyboardInterrupt(signal.SIGTERM)

    def say_lost(lost: sys.UnraisableHookArgs) -> None:
        if not isinstance(lost.exc_value, KeyboardInterrupt):
            say_others(lost)

    say_others, sys.unraisablehook = sys.unraisablehook, say_lost
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, interrupt)


def ignore_sigterm() -> None:
    """From now on a SIGTERM changes nothing, nor does one that was not yet heeded.

    For a process on its way out: Python hands signals back to the system before it is gone, so
    what is asked again then would end it as an alarm does, and not as its work did.
    """
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)


def interrupted_status(interrupt: KeyboardInterrupt) -> int:
    """The exit status after an interrupt, which the same signal no longer disturbs from now on."""
    ignore_sigterm()
    return 128 + (interrupt.args or (signal.SIGINT,))[0]
