"""The stages after training, killed in the midst of each: nothing finished is done again."""

import random
import shutil
import signal
import time

import pytest

from tests import runs

STAGES = ("predict", "segment", "evaluate", "report")
ALL = {"stages": str(STAGES)}

pytestmark = pytest.mark.slow


def end_in(stage, workdir, number):
    """Runs all stages until this one is at work, and ends the process."""
    process = runs.start(workdir, **ALL)
    for line in process.stdout:
        if f"stage {stage}, in" in line:
            break
    time.sleep(random.uniform(0, 0.2))
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    # Asked to, it closes what is open, and says how it ended; killed, it cannot.
    statuses = {143 if number == signal.SIGTERM else -number}
    if (workdir / "report" / "index.html").exists():  # It had finished, and was on its way out.
        statuses.add(0)
    assert process.returncode in statuses, output
    assert "Traceback" not in output
    assert ("interrupted; the same command goes on" in output) == (process.returncode == 143)


def results(workdir):
    """What the stages wrote, the page apart, which says how long they took."""
    found = [p for stage in STAGES[:-1] for p in (workdir / stage).rglob("*") if p.is_file()]
    # A draft of whoever was killed while writing is nobody's result, and is read by nobody.
    return {p.relative_to(workdir): p.read_bytes() for p in found if p.suffix != ".draft"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_each_stage_ends_as_if_it_had_not_been_killed(whole, tmp_path, number):
    workdir = shutil.copytree(whole[0], tmp_path / "killed")
    for stage in STAGES:
        shutil.rmtree(workdir / stage)
    wanted, finished = results(whole[0]), set()
    for stage in STAGES:
        end_in(stage, workdir, number)
        now = {name for name, content in results(workdir).items() if wanted.get(name) == content}
        assert now >= finished, "what was finished is as it was"
        finished = now
    runs.run(workdir, **ALL)
    assert results(workdir) == wanted
    assert (workdir / "report" / "index.html").exists()
