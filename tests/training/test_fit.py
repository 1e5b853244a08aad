"""Whole trainings of the fake learner."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maemem.learners.contract import At, drawing
from maemem.training.checkpoint import Checkpoints, read_network
from maemem.training.fit import Training, fit
from maemem.training.optimizer import Optimizer
from maemem.training.step import batch_key, sample_keys
from maemem.training.transfer import transfer
from tests.training.fake import Fake

LIKE = {"image": jax.ShapeDtypeStruct((8, 3), np.uint8)}


class Killed(Exception):
    pass


def batches(first, killed_at=None):
    for step in range(first, 8):
        if step == killed_at:
            raise Killed
        yield {"image": np.random.default_rng(step).integers(0, 5, (8, 3), np.uint8)}


def training(folder, **changes):
    fields = {"steps": 8, "batch_size": 8, "eval_every": 4, "checkpoint_every": 3, "log_every": 1}
    fields |= {"optimizer": Optimizer(learning_rate=0.1, warmup_steps=2), "ema_decay": 0.5}
    return Training(**(fields | changes), folder=folder, seed=3)


def run(folder, killed_at=None, start=lambda params: params, **changes):
    learner = Fake()

    def make_evaluate(mesh, writer):
        def evaluate(state, step):
            measured = learner.evaluate(state.best_params, state.learner, next(batches(0)), None)
            return {"eval_distance": float(measured["distance"].mean())}

        return evaluate

    read = functools.partial(batches, killed_at=killed_at)
    fit(learner, training(folder, **changes), LIKE, read, make_evaluate, start)
    return read_network(folder / "checkpoints", "pretrain")[0]


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_killed_it_goes_on_from_the_last_checkpoint_and_ends_the_same(tmp_path):
    whole = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "killed", killed_at=5)
    same(run(tmp_path / "killed"), whole)
    rows = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "killed")]
    kept = [[json.loads(line) for line in text.splitlines()] for text in rows]
    for row in (*kept[0], *kept[1]):
        row.pop("crops_per_second", None)
    assert kept[0] == kept[1]
    assert [row["step"] for row in kept[0] if "eval_distance" in row] == [4, 8]


def test_what_it_starts_from_is_in_parameters_average_and_the_learners_state(tmp_path):
    seen = []

    def start(params):
        seen.append(jax.device_get(params))
        return jax.tree.map(lambda leaf: leaf + 1, params)

    with pytest.raises(Killed):
        run(tmp_path / "run", start=start, killed_at=1, checkpoint_every=1)
    (params, state), _ = read_network(tmp_path / "run" / "checkpoints", "pretrain")
    started = jax.tree.map(lambda leaf: leaf + 1, seen[0])
    # With warm-up the first step's rate is 0, so nothing has moved.
    same(params, started)
    same(state["teacher"], started)
    assert len(seen) == 1


def test_a_run_with_a_checkpoint_does_not_start_again(tmp_path):
    run(tmp_path, steps=3)
    run(tmp_path, start=lambda params: pytest.fail("started"))


def test_the_state_of_the_learner_is_restored(tmp_path):
    run(tmp_path, steps=3)
    with Checkpoints(tmp_path / "checkpoints", 3) as checkpoints:
        assert checkpoints.describe_last().startswith("step 3 in ")
    state = read_network(tmp_path / "checkpoints", "pretrain")[0][1]
    assert set(state) == {"mean", "teacher"}
    assert state["mean"] != 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps is 0; expected: from 1"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0; expected"),
        ({"min_foreground": 1.5}, "min_foreground is 1.5; expected: from 0 to 1"),
        ({"steps": 2}, "warmup_steps is 2; expected: at least 0 and less than steps 2"),
        ({"encoder": "gs://bucket/run"}, "expected: a folder, not a URL"),
        ({"optimizer": Optimizer(frozen=("encoder",))}, "would keep its random weights"),
    ],
)
def test_impossible_trainings_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        training(tmp_path, **changes)


def test_what_a_learner_hands_on_starts_the_next_link(tmp_path):
    run(tmp_path / "first")
    params, state = read_network(tmp_path / "first" / "checkpoints", "pretrain")[0]
    handed = Fake.transfer(params, state)
    seen = []

    def start(made):
        seen.append(jax.device_get(transfer(made, handed, "first")))
        return transfer(made, handed, "first")

    with pytest.raises(Killed):
        run(tmp_path / "second", start=start, killed_at=1, checkpoint_every=1)
    same(seen[0]["encoder"], state["teacher"]["encoder"])
    assert (seen[0]["head"]["kernel"] != params["head"]["kernel"]).any()


def test_columns_keep_their_order_and_need_no_stage():
    learner = Fake()
    params = learner.init(jax.random.key(0), LIKE)
    state = learner.begin(params, LIKE)
    columns = drawing(learner.pictures)(params, state, next(batches(0)), None)
    assert list(columns) == ["network", "teacher"]
    np.testing.assert_array_equal(columns["network"], columns["teacher"])
    at = At(jnp.asarray(0), jnp.asarray(8), batch_key(0, 0), sample_keys(0, 0, 8))
    assert drawing(learner.inputs)(next(batches(0)), at)["rows"].shape == (8, 1, 1, 3)
