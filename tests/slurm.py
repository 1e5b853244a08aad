"""A SLURM of one node on this machine, for as long as a test wants it."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import Iterator

from tests import runs

# What is not said here is Debian's default. Requeued jobs wait until their old credentials expire.
_CONFIG = """
ClusterName=tests
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=batch_sched_delay=0,sched_interval=1
NodeName=localhost NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000
PartitionName=low Nodes=localhost Default=YES PriorityTier=1 GraceTime=60
PartitionName=high Nodes=localhost PriorityTier=2 PreemptMode=OFF
"""


def why_not() -> str:
    """Why this machine cannot run SLURM's daemons; nothing, if it can."""
    programs = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
    missing = [name for name in programs if not shutil.which(name)]
    if missing:
        return f"no {', '.join(missing)} here; on Debian: apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "SLURM's daemons are started as root only"


@contextlib.contextmanager
def cluster(folder: pathlib.Path) -> Iterator[dict[str, str]]:
    """Starts munge and SLURM with all of their files in a folder, and ends them afterwards.

    Its one node has two cores. Jobs of the partition `high` pre-empt those of `low`, the default,
    which are told so a minute before.

    Yields:
      The environment variables that SLURM's commands need.
    """
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key, settings = folder / "munge.key", folder / "slurm.conf"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    settings.write_text(
        _CONFIG.format(folder=folder, controller_port=runs.free_port(), node_port=runs.free_port())
    )
    variables = {"SLURM_CONF": str(settings)}
    munge = [f"--{kind}-file={folder}/munged.{kind}" for kind in ("pid", "log", "seed")]
    munge += [f"--key-file={key}", f"--socket={folder}/munge.socket"]
    with contextlib.ExitStack() as daemons:
        for command in (
            ["munged", "--foreground", "--force", *munge],
            ["slurmctld", "-D", "-c", "-f", str(settings)],
            ["slurmd", "-D", "-f", str(settings), "-N", "localhost"],
        ):
            daemons.enter_context(_running(command, folder / f"{command[0]}.out"))
        _wait_until(lambda: ask("sinfo", "-h", "-o", "%t", variables=variables) == "idle", folder)
        try:
            yield variables
        finally:
            ask("scancel", "--user=root", variables=variables)
            _wait_until(lambda: not ask("squeue", "-h", variables=variables), folder)


def ask(*command: str, variables: dict[str, str]) -> str:
    """What a command of SLURM's prints; nothing, where it fails."""
    run = subprocess.run(
        command, env=os.environ | variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    return run.stdout.decode().strip()


@contextlib.contextmanager
def _running(command: list[str], output: pathlib.Path) -> Iterator[None]:
    with output.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_until(reached, folder: pathlib.Path) -> None:
    deadline = time.monotonic() + 60
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError("\n".join(path.read_text() for path in folder.glob("*.out")))
        time.sleep(0.1)
