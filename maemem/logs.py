"""Messages and progress of commands."""

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
    """Shows maemem's messages as `HH:MM:SS text` on standard error.

    Of libraries, only warnings and errors are shown, without tracebacks: they also raise them.
    """
    absl_logging.set_verbosity(absl_logging.WARNING)
    absl_logging.get_absl_handler().setLevel(logging.WARNING)  # Dask's loggers have their own.
    absl_logging.get_absl_logger().addFilter(_without_traceback)
    logging.getLogger("asyncio").addFilter(_is_news)
    print_error = sys.unraisablehook
    sys.unraisablehook = lambda error: _is_closed_loop(error) or print_error(error)
    log = logging.getLogger("maemem")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


# When one of Orbax's reads or writes fails, that is raised; errors of the others are only printed.


def _is_news(record: logging.LogRecord) -> bool:
    return "exception was never retrieved" not in record.getMessage()


def _is_closed_loop(error: sys.UnraisableHookArgs) -> bool:
    return str(error.exc_value) == "Event loop is closed"


def _without_traceback(record: logging.LogRecord) -> bool:
    record.exc_info = record.exc_text = None
    return True


@contextlib.contextmanager
def showing_progress(
    log: logging.Logger, verb: str, *, total: int, missing: int, shown: bool, unit: str = "block"
) -> Iterator[Callable[[], None]]:
    """Shows progress: a bar on a terminal, lines in the log elsewhere.

    Yields a function to call after each block. Both show the blocks done, the rate and the time
    left. A nested bar vanishes at its end.

    Args:
      log: for the lines.
      verb: what is done, such as "predicted".
      total: the number of blocks.
      missing: how many are not done yet.
      shown: whether to show anything.
      unit: the name of a block.
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
