import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from maemem.training.mesh import make_mesh, place
from maemem.training.step import (
    accumulated_gradient,
    compile_beside,
    make_train_step,
    sample_keys,
    state_maker,
)


def loss(params, batch, keys):
    noise = jax.vmap(jax.random.normal)(keys)
    return jnp.mean((batch.astype(jnp.float32) @ params["kernel"] + noise) ** 2)


def init(key):
    return {"kernel": jax.random.normal(key, (3,))}


def batch(step=0):
    return np.random.default_rng(step).integers(0, 5, (8, 3), np.uint8)


def step_of(like, optimizer, mesh, ema_decay=0.0, loss=loss):
    return make_train_step(
        loss,
        optimizer,
        lambda count: 0.01 * (count + 1),
        like,
        seed=0,
        ema_decay=ema_decay,
        accumulation=1,
        mesh=mesh,
        fsdp=False,
    )


def train(steps, state=None, first=0, ema_decay=0.0):
    mesh, optimizer = make_mesh(), optax.sgd(0.01)
    if state is None:
        _, make = state_maker(init, optimizer, seed=0, ema=ema_decay > 0, mesh=mesh, fsdp=False)
        state = make()
    step = step_of(state, optimizer, mesh, ema_decay)
    history = []
    for i in range(first, first + steps):
        state, metrics = step(state, place(batch(i), mesh))
        history.append(metrics)
    return state, history


def test_a_step_descends_the_gradient_and_reports_it():
    start = init(jax.random.key(0))
    keys = sample_keys(0, 0, 8)
    value, gradient = jax.value_and_grad(loss)(start, jnp.asarray(batch()), keys)
    state, (metrics,) = train(1)
    np.testing.assert_allclose(state.params["kernel"], start["kernel"] - 0.01 * gradient["kernel"])
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-6)
    np.testing.assert_allclose(metrics["gradient_norm"], jnp.linalg.norm(gradient["kernel"]), 1e-6)
    np.testing.assert_allclose(metrics["learning_rate"], 0.01)
    after = jnp.linalg.norm(state.params["kernel"])
    np.testing.assert_allclose(metrics["parameter_norm"], after, rtol=1e-6)
    assert int(state.step) == 1


def test_accumulation_gives_the_gradient_of_the_whole_batch():
    params, keys = init(jax.random.key(0)), sample_keys(0, 0, 8)
    whole = accumulated_gradient(loss, params, jnp.asarray(batch()), keys, 1)
    for parts in (2, 4, 8):
        in_parts = accumulated_gradient(loss, params, jnp.asarray(batch()), keys, parts)
        for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(in_parts), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)


def test_the_average_follows_the_parameters():
    state, _ = train(1, ema_decay=0.75)
    expected = 0.75 * init(jax.random.key(0))["kernel"] + 0.25 * state.params["kernel"]
    np.testing.assert_allclose(state.best_params["kernel"], expected, rtol=1e-6)


def test_keys_depend_on_seed_step_and_row_alone():
    data = jax.random.key_data(sample_keys(0, 5, 8))
    np.testing.assert_array_equal(data, jax.random.key_data(sample_keys(0, 5, 16))[:8])
    others = [sample_keys(1, 5, 8), sample_keys(0, 6, 8)]
    rows = np.concatenate([data, *(jax.random.key_data(k) for k in others)])
    assert len(np.unique(rows, axis=0)) == 24


def test_the_step_is_compiled_beside_the_first_state_and_not_again(caplog):
    mesh, optimizer = make_mesh(), optax.sgd(0.01)
    like, make = state_maker(init, optimizer, seed=0, ema=False, mesh=mesh, fsdp=False)
    step, first = step_of(like, optimizer, mesh), place(batch(), mesh)
    # It tells what this thread compiles.
    with jax.log_compiles():
        state = compile_beside(step, like, first, make)
        np.testing.assert_array_equal(state.params["kernel"], init(jax.random.key(0))["kernel"])
        step(state, first)
    compiled = [line for line in caplog.messages if line.startswith("Compiling jit(")]
    assert any("jit(make)" in line for line in compiled)
    assert not any("jit(train_step)" in line for line in compiled)


def test_what_the_compilation_and_the_making_raise_is_raised():
    mesh, optimizer = make_mesh(), optax.sgd(0.01)
    like, make = state_maker(init, optimizer, seed=0, ema=False, mesh=mesh, fsdp=False)

    def broken(*_):
        raise ValueError("no such loss")

    good, bad = step_of(like, optimizer, mesh), step_of(like, optimizer, mesh, loss=broken)
    first = place(batch(), mesh)
    with pytest.raises(ValueError, match="no such loss"):
        compile_beside(bad, like, first, make)
    with pytest.raises(ValueError, match="no such loss"):
        compile_beside(good, like, first, broken)
