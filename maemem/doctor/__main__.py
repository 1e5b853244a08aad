"""A check-up before hours of compute: what the run would stumble over, and how long it will take.

python -m maemem.doctor --config=configs/demo.py --workdir=runs/demo [--config.FIELD=VALUE ...]

With the flags of the run. Prints a line a check, `ok`, `warn` or `fail`, and how to mend what is
wrong; writes WORKDIR/doctor: `checks.json`, the lines, and pictures of crops with what is to be
predicted of them. The exit status is 1 where a check has failed. What is converted and compiled
meanwhile is kept in WORKDIR/cache, where the run finds it; the workdir is not claimed by this.
"""

from __future__ import annotations

import json
import sys
from collections import Counter

from absl import app, flags

from maemem.logs import log_to_terminal
from maemem.main import parse_flags


def main(argv: list[str]) -> None:
    """Makes all checks, prints what they say, and writes it down."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    log_to_terminal()

    # Imported late: a misspelt flag should not have to wait for JAX.
    from maemem import layout
    from maemem.doctor.examination import Line, examine
    from maemem.doctor.verdict import LEVELS
    from maemem.workdir import cache_compilations, workdir_folder

    def say(line: Line) -> None:
        verdict = line.verdict
        mend = f". To mend it: {verdict.mend}" if verdict.mend else ""
        print(f"{verdict.level:4}  {line.check}: {verdict.found}{mend}", flush=True)

    try:
        workdir = workdir_folder(flags.FLAGS.workdir)
        layout.checks_path(workdir).parent.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    cache_compilations(workdir)
    lines = examine(flags.FLAGS.config.lock(), workdir, say)
    record = [
        {
            "check": line.check,
            "level": line.verdict.level,
            "found": line.verdict.found,
            "mend": line.verdict.mend,
        }
        for line in lines
    ]
    layout.checks_path(workdir).write_text(json.dumps(record, indent=1) + "\n")
    counts = Counter(line.verdict.level for line in lines)
    print(", ".join(f"{counts[level]} {level}" for level in LEVELS))
    sys.exit(1 if counts["fail"] else 0)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=parse_flags)
