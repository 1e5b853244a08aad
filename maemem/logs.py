"""What a command says while it works."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

from absl import logging as absl_logging
from tqdm import tqdm

_LOG_EVERY_SECONDS = 30


def log_to_terminal() -> None:
    """Shows maemem's own messages, and those alone, as `HH:MM:SS text` on standard error.

    Libraries say warnings and errors only, without tracebacks: they also raise what they log.
    """
    absl_logging.set_verbosity(absl_logging.WARNING)
    absl_logging.get_absl_handler().setLevel(logging.WARNING)  # Dask's loggers have their own.
    absl_logging.get_absl_logger().addFilter(_without_traceback)
    logging.getLogger("asyncio").addFilter(_is_news)
    show_unraisable = sys.unraisablehook
    sys.unraisablehook = lambda lost: _is_closed_loop(lost) or show_unraisable(lost)
    log = logging.getLogger("maemem")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


# Where one of Orbax's reads or writes fails, it is raised; the others find nobody to report to.


def _is_news(record: logging.LogRecord) -> bool:
    return "exception was never retrieved" not in record.getMessage()


def _is_closed_loop(lost: sys.UnraisableHookArgs) -> bool:
    return str(lost.exc_value) == "Event loop is closed"


def _without_traceback(record: logging.LogRecord) -> bool:
    record.exc_info = record.exc_text = None
    return True


@contextlib.contextmanager
def showing_progress(
    log: logging.Logger, verb: str, *, total: int, missing: int, shown: bool, unit: str = "block"
) -> Iterator[Callable[[], None]]:
    """What is to be called after each block: a bar on a terminal, lines in the log elsewhere.

    Both say how many blocks are done, how fast it goes, and how long the rest will take. A bar
    inside of another one vanishes at its end.

    Args:
      log: where the lines go.
      verb: what is done, such as "predicted".
      total: how many blocks there are.
      missing: how many of them were not done before.
      shown: whether to say anything at all.
      unit: what is counted.
    """
    on_terminal = shown and sys.stderr.isatty()
    left, begun = missing, time.monotonic()
    logged = begun
    if shown and missing < total:
        log.info("going on: %d of %d %ss are missing", missing, total, unit)

    def advance() -> None:
        nonlocal left, logged
        left -= 1
        bar.update()
        now = time.monotonic()
        if shown and not on_terminal and now - logged > _LOG_EVERY_SECONDS:
            logged = now
            rate = (missing - left) / (now - begun)
            log.info(
                "%s %d of %d %ss, %.3g %ss/s, %s left",
                *(verb, total - left, total, unit, rate, unit),
                timedelta(seconds=round(left / rate)),
            )

    amounts = {"total": total, "initial": total - missing, "unit": unit}
    with tqdm(desc=verb, **amounts, leave=None, disable=not on_terminal) as bar:
        yield advance
