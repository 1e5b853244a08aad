"""What a command says while it works."""

import logging

from absl import logging as absl_logging


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
