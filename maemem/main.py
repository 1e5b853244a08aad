"""Runs the stages of a config, in order.

maemem --config=maemem:demo --workdir=runs/demo [--config.FIELD=VALUE ...]

`python -m maemem.main` is the same. `maemem:NAME` is a config that comes with maemem; a file, such
as configs/demo.py, is given as its path.
"""

from __future__ import annotations

import functools
import logging
import os
import sys

from absl import app, flags
from ml_collections import config_flags

from maemem.interrupts import ignore_sigterm, interrupt_at_sigterm, interrupted_status
from maemem.logs import log_to_terminal
from maemem.packaged import with_config_path

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The experiment, maemem:NAME or a file; its fields can be overridden."
)
_TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where an error was raised, too.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The folder that results go to.")

log = logging.getLogger("maemem")


def main(argv: list[str]) -> None:
    """Locks the config, joins the cluster if there is one, claims the workdir and runs."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    log_to_terminal()

    # Imported late: a misspelt flag should not have to wait for JAX.
    import jax
    from jax.errors import JaxRuntimeError

    from maemem.stages import evaluate, predict, report, segment, train
    from maemem.stages.thresholds import check_thresholds
    from maemem.training.loop import NonFiniteLoss
    from maemem.training.mesh import join_cluster, lost_others, on_first_process
    from maemem.workdir import cache_compilations, claim_workdir, timed, workdir_folder

    stages = {
        **{stage: functools.partial(train.run, stage=stage) for stage in train.STAGES},
        "predict": predict.run,
        "segment": segment.run,
        "evaluate": evaluate.run,
        "report": report.run,
    }
    try:
        config = _CONFIG.value.lock()
        workdir = workdir_folder(_WORKDIR.value or "")
        unknown = [name for name in config.stages if name not in stages]
        if unknown:
            raise ValueError(
                f"unknown stages {unknown}; choose from {list(stages)}, and write several as in "
                f"--config.stages=\"('predict','segment')\""
            )
        join_cluster()
        alone = [name for name in config.stages if name not in train.STAGES]
        if alone and jax.process_count() > 1:
            raise ValueError(
                f"stages {alone} run as one process, and there are {jax.process_count()}; train "
                f"here, with --config.stages=\"('finetune',)\", and run the others by themselves"
            )
        if jax.process_count() == 1:  # Of several, JAX makes all stop at the same step.
            interrupt_at_sigterm()
        on_first_process(lambda: claim_workdir(config, workdir, stages))
        cache_compilations(workdir)
        if "segment" in config.stages:
            check_thresholds(config, workdir)
        for name in config.stages:
            log.info("stage %s, in %s", name, workdir)
            with timed(name, workdir):
                stages[name](config, workdir)
        if jax.process_count() == 1:
            ignore_sigterm()
    except (ValueError, OSError, NonFiniteLoss) as error:
        log.error("error: %s", error, exc_info=_TRACEBACK.value)
        sys.exit(1)
    except JaxRuntimeError as error:
        if not lost_others(type(error)):
            raise
        log.error("error: %s", error, exc_info=_TRACEBACK.value)
        log.error(
            "process %d of %d stops; if it has lost another, that one's output says why. The same "
            "command, started again for all, goes on from the last checkpoint",
            *(jax.process_index(), jax.process_count()),
        )
        os._exit(os.EX_TEMPFAIL)
    except KeyboardInterrupt as interrupt:
        log.error("interrupted; the same command goes on from what is on disk")
        sys.exit(interrupted_status(interrupt))


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line; a field that a config does not have is one line, not a traceback."""
    try:
        rest = app.parse_flags_with_usage(with_config_path(argv))
        _CONFIG.value.lock()  # A config that could not be made says so when it is first used.
        return rest
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        sys.exit(f"error: {_unwrapped(error)}")


def _unwrapped(error: Exception) -> object:
    """What an error of the command line has to say, without what ml_collections wraps it in."""
    if isinstance(error, OSError):  # What the config's file raised is its cause.
        return error.__cause__ or error
    missing = error if isinstance(error, KeyError) else next(iter(error.args), None)
    if isinstance(missing, KeyError):
        field, *advice = str(missing.args[0]).splitlines()
        return ". ".join([f"the config has no such field: {field}", *advice])
    return error


def run() -> None:
    """Parses the flags and runs `main`."""
    flags.mark_flags_as_required(["config", "workdir"])
    for name in ("config", "traceback", "workdir"):  # What `maemem --helpshort` shows.
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
    app.run(main, flags_parser=parse_flags)


if __name__ == "__main__":
    run()
