"""The loop, with a step that adds up numbers in place of a network."""

import itertools
import os
import signal

import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from jaxtyping import Array

from maemem.training import loop
from maemem.training.checkpoint import Checkpoints
from maemem.training.mesh import make_mesh
from maemem.training.metrics import MetricWriter, read_metrics

SCHEDULE = loop.Schedule(steps=7, log_every=2, eval_every=3, checkpoint_every=4)


@struct.dataclass
class State:
    """What the loop asks of a state is its step."""

    step: Array
    total: Array


def state_after(steps):
    total = sum(map(value_of, range(1, steps + 1)))
    return State(jnp.int32(steps), jnp.float32(total))


def value_of(step) -> float:
    return float(step * step)


def step_fn(state, batch):
    loss = jnp.mean(batch)
    return State(state.step + 1, state.total + loss), {"loss": loss}


def batches(first, **instead):
    """Those of steps `first + 1`, ...; `step_5=value` exchanges what one of them holds."""
    for step in itertools.count(first + 1):
        yield np.full((8, 1), instead.get(f"step_{step}", value_of(step)), np.float32)


def train(folder, first: int = 0, step=step_fn, seen=None, **instead):
    """Trains from a step to the schedule's end; the last state."""
    evaluated = [] if seen is None else seen

    def evaluate(state, step):
        evaluated.append(step)
        return {"eval_total": float(state.total)}

    folder.mkdir(exist_ok=True)
    with (
        Checkpoints(folder / "checkpoints", keep=9) as checkpoints,
        MetricWriter(folder, first) as writer,
    ):
        return loop.train(
            state_after(first),
            step,
            batches(first, **instead),
            evaluate,
            schedule=SCHEDULE,
            mesh=make_mesh(),
            checkpoints=checkpoints,
            writer=writer,
        )


def rows(folder):
    found = read_metrics(folder / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k != "crops_per_second"} for row in found]


def saved(folder):
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir())


def test_everything_is_done_when_due_and_after_the_last_step(tmp_path):
    evaluated = []
    state = train(tmp_path / "run", seen=evaluated)
    assert state == state_after(7)
    assert evaluated == [3, 6, 7]
    assert saved(tmp_path / "run") == [4, 7]
    found = rows(tmp_path / "run")
    assert [row["step"] for row in found] == [2, 3, 4, 6, 7]
    for row in found:
        assert row["loss"] == value_of(row["step"])
        assert ("eval_total" in row) == (row["step"] in evaluated)
    assert found[1]["eval_total"] == 1 + 4 + 9


def test_a_run_that_goes_on_writes_the_same_rows(tmp_path):
    train(tmp_path / "whole")
    train(tmp_path / "parts", first=4)
    whole = rows(tmp_path / "whole")
    assert rows(tmp_path / "parts") == [row for row in whole if row["step"] > 4]


def test_a_finished_run_does_nothing(tmp_path):
    state = train(tmp_path / "run", first=7)
    assert int(state.step) == 7
    assert rows(tmp_path / "run") == []
    assert saved(tmp_path / "run") == []


@pytest.mark.parametrize("bad", [3, 5, 7])
def test_a_loss_that_is_not_finite_ends_the_run(tmp_path, bad):
    last = "step 4 in" if bad > 4 else "none yet"
    with pytest.raises(loop.NonFiniteLoss, match=rf"step {bad} is not finite.*{last}"):
        train(tmp_path / "run", **{f"step_{bad}": np.nan})
    assert saved(tmp_path / "run") == ([4] if bad > 4 else [])
    assert all(row["step"] < bad for row in rows(tmp_path / "run"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_the_run(tmp_path, number, caplog):
    before = signal.getsignal(number)

    def interrupted(state, batch):
        if int(state.step) == 4:
            os.kill(os.getpid(), number)
        return step_fn(state, batch)

    with pytest.raises(SystemExit) as ended:
        train(tmp_path / "run", step=interrupted)
    assert ended.value.code == 128 + number
    assert saved(tmp_path / "run") == [4, 5]
    assert "saved step 5" in caplog.text
    assert signal.getsignal(number) is before


def test_a_second_interrupt_ends_at_once(tmp_path):
    def interrupted(state, batch):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        return step_fn(state, batch)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", step=interrupted)
    assert saved(tmp_path / "run") == []


@pytest.mark.parametrize("field", ["steps", "log_every", "eval_every", "checkpoint_every"])
def test_a_schedule_needs_whole_steps(field):
    with pytest.raises(ValueError, match=f"{field} is 0"):
        loop.Schedule(**{**SCHEDULE.__dict__, field: 0})
