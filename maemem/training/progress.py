"""How a long run shows itself: a bar on a terminal, lines elsewhere."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import jax
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm


@contextmanager
def progress_bar(total: int, done: int, unit: str) -> Iterator[tqdm]:
    """A bar with rate and time left, that log lines pass above; silent where nobody watches."""
    watched = sys.stderr.isatty() and jax.process_index() == 0
    with (
        logging_redirect_tqdm([logging.getLogger("maemem")]),
        tqdm(total=total, initial=done, unit=unit, disable=not watched, dynamic_ncols=True) as bar,
    ):
        yield bar
