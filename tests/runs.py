"""Whole runs on tiny data, through the command line."""

import ast
import functools
import json
import operator
import os
import pathlib
import runpy
import socket
import subprocess
import sys
import time

import jax
import numpy as np
from orbax import checkpoint as ocp

from maemem.config import Config

REPOSITORY = pathlib.Path(__file__).parents[1]

# The demo, but so small that a step takes milliseconds.
TINY = {
    "stages": "('pretrain',)",
    "data.train.unlabelled.path": "synthetic:?shape_zyx=12,64,64&seed=0",
    "data.train.labelled.path": "synthetic:?shape_zyx=12,64,64&seed=1",
    "data.train.labelled.labels": "synthetic:?shape_zyx=12,64,64&seed=1&show=neurites",
    "data.validation.labelled.path": "synthetic:?shape_zyx=8,64,64&seed=2",
    "data.validation.labelled.labels": "synthetic:?shape_zyx=8,64,64&seed=2&show=neurites",
    "data.test.labelled.path": "synthetic:?shape_zyx=8,64,64&seed=3",
    "data.test.labelled.labels": "synthetic:?shape_zyx=8,64,64&seed=3&show=neurites",
    "data.crop_zyx": "(4,32,32)",
    "model.encoder.patch_zyx": "(1,8,8)",
    "model.encoder.width": 24,
    "model.encoder.depth": 1,
    "model.encoder.heads": 2,
    "pretrain.learner.decoder.width": 24,
    "pretrain.learner.decoder.heads": 2,
    "pretrain.steps": 12,
    "pretrain.learner.ratio": 0.75,
    "pretrain.batch_size": 8,
    "pretrain.learner.decoded": 8,
    "pretrain.optimizer.warmup_steps": 3,
    "pretrain.log_every": 1,
    "pretrain.eval_every": 4,
    "pretrain.eval_crops": 8,
    "pretrain.checkpoint_every": 4,
    "model.segmenter.channels": "(4,4,8)",
    "finetune.steps": 4,
    "finetune.batch_size": 2,
    "finetune.optimizer.warmup_steps": 1,
    "finetune.log_every": 1,
    "finetune.eval_every": 2,
    "finetune.eval_crops": 2,
    "finetune.checkpoint_every": 1,
    "finetune.keep_checkpoints": 4,
    "predict.stride_zyx": "(4,32,32)",
    "predict.batch_size": 2,
    "segment.grid.low": "(0.0,0.1)",
    "segment.grid.score": "('mean','median')",
    "segment.smallest": 8,
}


ALL = "('pretrain','finetune','predict','segment','evaluate','report')"

# A run of a stage that is long enough to be caught in the midst of it.
LONG = {
    "pretrain": {"pretrain__steps": 120, "pretrain__eval_every": 40},
    "finetune": {
        "stages": "('finetune',)",
        "finetune__encoder": "",
        "finetune__steps": 120,
        "finetune__eval_every": 40,
        "finetune__checkpoint_every": 4,
    },
}


def config(**overrides) -> Config:
    """The config of a tiny run, for stages that are called from Python."""
    found = runpy.run_path(str(REPOSITORY / "configs" / "demo.py"))["get_config"]()
    fields = TINY | {name.replace("__", "."): value for name, value in overrides.items()}
    for name, value in fields.items():
        *folders, last = name.split(".")
        section = functools.reduce(operator.getitem, folders, found)
        if isinstance(value, str) and not isinstance(section[last], str):
            value = ast.literal_eval(value)
        section[last] = value
    return found.lock()


def command(workdir: pathlib.Path, **overrides) -> list[str]:
    """The command line of a tiny run; `a__b=1` overrides the field `a.b`."""
    return [sys.executable, "-m", "maemem.main", *arguments(workdir, **overrides)]


def program(name: str, *words: object) -> list[str]:
    """The command line of one of `tests/programs`; to be run in the repository."""
    return [sys.executable, "-m", f"tests.programs.{name}", *map(str, words)]


def arguments(workdir: pathlib.Path, **overrides) -> list[str]:
    """Those of `command`, for whatever passes them on to maemem."""
    fields = TINY | {name.replace("__", "."): value for name, value in overrides.items()}
    return [
        *("--config=configs/demo.py", f"--workdir={workdir}"),
        *(f"--config.{name}={value}" for name, value in fields.items()),
    ]


def environment(devices: int, **variables: str) -> dict[str, str]:
    """The environment of a process that sees so many (fake) devices."""
    flags = os.environ.get("XLA_FLAGS", "")
    return os.environ | {
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}",
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


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return server.getsockname()[1]


def metrics(workdir: pathlib.Path, stage: str = "pretrain") -> list[dict[str, float]]:
    """The rows of a training's metrics."""
    lines = (workdir / stage / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def rows_written(workdir: pathlib.Path, stage: str = "pretrain") -> int:
    """How many rows of metrics a training has written."""
    path = workdir / stage / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def wait_for_rows(
    process: subprocess.Popen, workdir: pathlib.Path, count: int, stage: str = "pretrain"
) -> None:
    """Returns once a run has written so many rows, while it goes on."""
    deadline = time.monotonic() + 120
    while rows_written(workdir, stage) < count:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.002)


def parameters(
    workdir: pathlib.Path, step: int = 12, stage: str = "pretrain"
) -> dict[str, np.ndarray]:
    """All arrays of a checkpoint, as read from disk, on however many devices they were."""
    path = (workdir / stage / "checkpoints" / str(step) / "default").absolute()
    tree = ocp.PyTreeCheckpointHandler().metadata(path).tree
    kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    state = ocp.PyTreeCheckpointer().restore(path, args=ocp.args.PyTreeRestore(restore_args=kinds))
    return {
        "/".join(map(str, path)): np.asarray(leaf)
        for path, leaf in ocp.tree.to_flat_dict(state).items()
    }


def assert_same_arrays(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    """Bit for bit."""
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
