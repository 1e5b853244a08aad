"""What every learner must do, of each key of LEARNERS by itself."""

import json
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maemem.config import Config
from maemem.doctor import sheet, trials
from maemem.fields import section
from maemem.learners import LEARNERS
from maemem.learners.contract import At, Group, drawing
from maemem.stages import train
from maemem.training.step import accumulated_gradient, batch_key, sample_keys
from maemem.training.transfer import transfer
from tests import runs

# What differs from a kind's defaults, to fit crops of 4 x 32 x 32 voxels.
FIELDS = {"mae": {"ratio": 0.75, "decoder": {"width": 24, "depth": 1, "heads": 2}}}
SMALL = {"steps": 4, "batch_size": 2, "eval_crops": 2, "eval_every": 2, "checkpoint_every": 2}


def config_of(kind: str) -> tuple[Config, str]:
    """A tiny run of a learner, and the stage that it suits."""
    config = runs.config().unlock()
    made = section(LEARNERS[kind], LEARNERS)
    made.update(FIELDS.get(kind, {}))
    needs_truth = kind == "supervised"
    stage = "finetune" if needs_truth else "pretrain"
    config[stage].learner = made
    config[stage].update(SMALL, encoder="")
    return config.lock(), stage


@pytest.fixture(scope="module", params=LEARNERS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def ready(kind, tmp_path_factory):
    """A learner of this kind, opened as its stage opens it."""
    config, stage = config_of(kind)
    return train.prepare(config, tmp_path_factory.mktemp(kind), stage)


@pytest.fixture(scope="module")
def network(ready):
    """Its first parameters and state."""
    params = jax.jit(lambda key: ready.learner.init(key, ready.like))(jax.random.key(0))
    return params, ready.learner.begin(params, ready.like)


@pytest.fixture(scope="module")
def batch(ready):
    return ready.read(range(2))


def at(step=0, count=2):
    keys = sample_keys(0, step, count)
    return At(jnp.asarray(step), jnp.asarray(4), batch_key(0, step), keys)


def test_parameters_are_finite_float32_and_each_has_a_group(ready, network):
    params, _ = network
    groups = ready.learner.groups(params)
    assert jax.tree.structure(groups) == jax.tree.structure(params)
    assert all(isinstance(group, Group) for group in jax.tree.leaves(groups))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_first_parameters_follow_from_the_key(ready, network):
    again = jax.jit(lambda key: ready.learner.init(key, ready.like))(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, network[0], again)
    other = jax.jit(lambda key: ready.learner.init(key, ready.like))(jax.random.key(1))
    same = [(a == b).all() for a, b in zip(*map(jax.tree.leaves, (again, other)), strict=True)]
    assert not all(same)


def test_the_loss_is_a_finite_scalar_that_keys_decide(ready, network, batch):
    loss = jax.jit(ready.learner.loss)
    value, aux = loss(*network, batch, at())
    assert value.shape == ()
    assert np.isfinite(value)
    assert loss(*network, batch, at())[0] == value
    assert loss(*network, batch, at(step=1))[0] != value
    assert all(np.shape(metric) == () for metric in aux.metrics.values())


def test_every_part_is_trained(ready, network, batch):
    params, state = network
    gradient = jax.jit(jax.grad(lambda p: ready.learner.loss(p, state, batch, at())[0]))(params)
    moved = {}
    for group, leaf in zip(
        jax.tree.leaves(ready.learner.groups(params)), jax.tree.leaves(gradient), strict=True
    ):
        assert np.isfinite(leaf).all()
        moved[group.part] = moved.get(group.part, False) or bool((leaf != 0).any())
    assert all(moved.values()), moved


def test_the_state_keeps_its_shape(ready, network, batch):
    params, state = network
    _, aux = jax.jit(ready.learner.loss)(params, state, batch, at())
    after = ready.learner.advance(state, params, aux, at())
    shapes = [jax.tree.map(lambda leaf: (jnp.shape(leaf), leaf.dtype), s) for s in (state, after)]
    assert shapes[0] == shapes[1]


def test_a_batch_in_parts_means_the_same_or_is_refused(ready, network, batch):
    learner, (params, state) = ready.learner, network
    if learner.whole_batch:
        return  # `make_train_step` refuses it: tests/training/test_step.py

    def loss(params, rows, keys):
        return learner.loss(params, state, rows, at()._replace(keys=keys))

    whole, parts = (
        jax.jit(accumulated_gradient, static_argnums=(0, 4))(loss, params, batch, at().keys, n)
        for n in (1, 2)
    )
    for a, b in zip(*map(jax.tree.leaves, (whole, parts)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_measures_are_one_number_a_crop(ready, network, batch):
    measured = jax.jit(ready.learner.evaluate)(*network, batch, at().keys)
    assert measured
    for values in measured.values():
        assert values.shape == (2,)
        assert np.isfinite(values).all()


@pytest.mark.parametrize("which", ["inputs", "pictures"])
def test_columns_are_grey_values_or_ids(ready, network, batch, which):
    given = (batch, at()) if which == "inputs" else (*network, batch, at().keys)
    columns = drawing(getattr(ready.learner, which))(*given)
    first = next(iter(columns.values()))
    assert np.issubdtype(first.dtype, np.floating)
    for values in columns.values():
        assert values.shape == batch["image"].shape
        if np.issubdtype(values.dtype, np.floating):
            assert np.nanmin(values) < np.nanmax(values)
            assert -1.001 <= np.nanmin(first) <= np.nanmax(first) <= 1.001


def test_what_it_transfers_starts_the_same_network(ready, network):
    params, state = network
    handed = jax.device_get(LEARNERS_of(ready).transfer(params, state))
    started = transfer(params, handed, "there")
    assert jax.tree.structure(started) == jax.tree.structure(params)
    assert "encoder" in handed


def LEARNERS_of(ready):
    return type(ready.learner)


def test_doctor_examines_it(kind, tmp_path):
    config, stage = config_of(kind)
    trial = trials.open_trial(config, stage, tmp_path)
    assert trials.describe(trial).level == "ok"
    verdict = sheet.contact_sheet(trial, tmp_path)
    assert (tmp_path / f"contact_{stage}.png").stat().st_size > 1000
    assert " | " in verdict.found


def test_it_resumes_bit_for_bit(kind, tmp_path):
    config, stage = config_of(kind)
    train.run(config, tmp_path / "whole", stage)
    killed = shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    shutil.rmtree(killed / stage / "checkpoints" / "4")
    train.run(config, killed, stage)
    whole, again = (runs.parameters(tmp_path / name, 4, stage) for name in ("whole", "killed"))
    runs.assert_same_arrays(whole, again)
    assert (killed / stage / "held_out.png").read_bytes()
    row = json.loads((killed / stage / "metrics.jsonl").read_text().splitlines()[-1])
    assert any(name.startswith("eval_") for name in row)


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [False, True])
def test_devices_do_not_change_the_loss(kind, fsdp, tmp_path):
    """The same loss on 1, 2 and 8 devices."""
    losses = [
        json.loads(
            subprocess.run(
                runs.program("losses_of_learner", kind, fsdp, tmp_path),
                env=runs.environment(devices),
                cwd=runs.REPOSITORY,
                capture_output=True,
                check=True,
                text=True,
            ).stdout.splitlines()[-1]
        )
        for devices in (1, 2, 8)
    ]
    np.testing.assert_allclose(losses[1:], losses[:1] * 2, rtol=2e-4)
