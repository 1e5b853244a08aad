"""What a command says while it works."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator

from absl import logging as absl_logging
from tqdm import tqdm

_LOG_EVERY_SECONDS = 30


def log_to_terminal() -> None:
    """Shows maemem's own messages, and those alone, as `HH:MM:SS text` on standard error.

    Libraries say warnings and errors only.
    """
    absl_logging.set_verbosity(absl_logging.WARNING)
    log = logging.getLogger("maemem")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


@contextlib.contextmanager
def showing_progress(
    log: logging.Logger, verb: str, unit: str, *, total: int, left: int, shown: bool
) -> Iterator[Callable[[int], None]]:
    """What is to be told how much more was done: a bar on a terminal, lines in the log elsewhere.

    Args:
      log: where the lines go.
      verb: what is done, such as "predicted".
      unit: of the amounts.
      total: the whole amount.
      left: what of it was not done before.
      shown: whether to say anything at all.
    """
    on_terminal = shown and sys.stderr.isatty()
    done, begun = total - left, time.monotonic()
    logged, before = begun, done

    def advance(amount: int) -> None:
        nonlocal done, logged
        done += amount
        bar.update(amount)
        now = time.monotonic()
        if shown and not on_terminal and now - logged > _LOG_EVERY_SECONDS:
            logged = now
            rate = (done - before) / (now - begun)
            amounts = f"{done / 1e6:.1f} of {total / 1e6:.1f} M{unit}"
            log.info("%s %s, %.3g %s/s", verb, amounts, rate, unit)

    with tqdm(
        total=total, initial=done, unit=unit, unit_scale=True, disable=not on_terminal
    ) as bar:
        yield advance
