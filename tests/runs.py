"""Whole runs on tiny data, through the command line."""

import json
import os
import pathlib
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).parents[1]

# The demo, but so small that a step takes milliseconds.
TINY = {
    "data.train.tissue.path": "synthetic:?shape_zyx=12,64,64&seed=0",
    "data.validation.tissue.path": "synthetic:?shape_zyx=8,48,48&seed=1",
    "data.crop_zyx": "(4,32,32)",
    "model.patch_zyx": "(1,8,8)",
    "model.encoder.width": 24,
    "model.encoder.depth": 1,
    "model.encoder.heads": 2,
    "model.decoder.width": 24,
    "model.decoder.heads": 2,
    "pretrain.steps": 12,
    "pretrain.batch_size": 8,
    "pretrain.masking.decoded": 8,
    "pretrain.optimizer.warmup_steps": 3,
    "pretrain.log_every": 1,
    "pretrain.eval_every": 4,
    "pretrain.eval_crops": 8,
    "pretrain.checkpoint_every": 4,
}


def command(workdir: pathlib.Path, **overrides) -> list[str]:
    """The command line of a tiny run; `a__b=1` overrides the field `a.b`."""
    fields = TINY | {name.replace("__", "."): value for name, value in overrides.items()}
    return [
        *(sys.executable, "-m", "maemem.main", "--config=configs/demo.py", f"--workdir={workdir}"),
        *(f"--config.{name}={value}" for name, value in fields.items()),
    ]


def environment(devices: int, **variables: str) -> dict[str, str]:
    """The environment of a process that sees so many (fake) devices."""
    return os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "NPROC": "8",  # Else eight devices on two cores can starve each other.
        "JAX_PLATFORMS": "cpu",
        **variables,
    }


def start(
    workdir: pathlib.Path, devices: int = 1, variables: dict[str, str] | None = None, **overrides
) -> subprocess.Popen:
    """Starts a tiny run on so many (fake) devices."""
    return subprocess.Popen(
        command(workdir, **overrides),
        cwd=REPOSITORY,
        env=environment(devices, **(variables or {})),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(workdir: pathlib.Path, *, status: int = 0, devices: int = 1, **overrides) -> str:
    """Runs to the end, expects the exit status, and returns what was printed."""
    process = start(workdir, devices, **overrides)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == status, output
    return output


def metrics(workdir: pathlib.Path) -> list[dict[str, float]]:
    """The rows of the run's metrics."""
    lines = (workdir / "pretrain" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
