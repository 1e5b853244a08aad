import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from maemem.training.mesh import make_mesh, place
from maemem.training.optimizer import Optimizer
from maemem.training.step import (
    accumulated_gradient,
    batch_key,
    compile_beside,
    make_init,
    make_state,
    make_train_step,
    sample_keys,
    state_like,
)
from tests.training.fake import Fake

LIKE = {"image": jax.ShapeDtypeStruct((8, 3), np.uint8)}
SGD = Optimizer(name="sgd", learning_rate=0.01, momentum=0.0)


def batch(step=0):
    return {"image": np.random.default_rng(step).integers(0, 5, (8, 3), np.uint8)}


def begun(learner, optimizer=SGD, ema=False):
    mesh = make_mesh()
    init = make_init(learner, optimizer, LIKE, steps=100, ema=ema)
    like = state_like(init, mesh, fsdp=False)
    return mesh, like, lambda: make_state(init, like, 0)


def step_of(learner, like, mesh, optimizer=SGD, ema_decay=0.0, accumulation=1):
    return make_train_step(
        learner,
        optimizer,
        like,
        steps=100,
        seed=0,
        ema_decay=ema_decay,
        accumulation=accumulation,
        mesh=mesh,
        fsdp=False,
    )


def train(steps, learner=None, optimizer=SGD, accumulation=1, ema_decay=0.0):
    learner = learner or Fake()
    mesh, like, make = begun(learner, optimizer, ema_decay > 0)
    step, state = step_of(learner, like, mesh, optimizer, ema_decay, accumulation), make()
    states, history = [jax.device_get(state)], []
    for i in range(steps):
        state, metrics = step(state, place(batch(i), mesh))
        states.append(jax.device_get(state))
        history.append(jax.device_get(metrics))
    return states, history


def test_a_step_descends_the_gradient_and_reports_it():
    (before, after), (metrics,) = train(1)
    learner = Fake()

    def loss(params):
        keys = sample_keys(0, 0, 8)
        noise = jax.vmap(jax.random.normal)(keys) + jax.random.normal(batch_key(0, 0))
        return jnp.square(learner.predict(params, batch()) + noise).mean()

    value, gradient = jax.value_and_grad(loss)(before.params)
    rate = float(SGD.schedule(100)(0))
    expected = jax.tree.map(lambda p, g: p - rate * g, before.params, gradient)
    expected["encoder"]["bias"] = (
        before.params["encoder"]["bias"] - rate / 2 * gradient["encoder"]["bias"]
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), after.params, expected)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-6)
    np.testing.assert_allclose(metrics["gradient_norm"], optax.tree.norm(gradient), rtol=1e-5)
    np.testing.assert_allclose(metrics["learning_rate"], rate, rtol=1e-6)
    np.testing.assert_allclose(metrics["parameter_norm"], optax.tree.norm(after.params), rtol=1e-5)
    assert int(after.step) == 1


def test_the_learners_metrics_are_reported():
    _, history = train(3)
    np.testing.assert_allclose([row["progress"] for row in history], [0, 0.01, 0.02], rtol=1e-6)
    assert all(np.isfinite(row["predicted"]) for row in history)


def test_the_learners_state_begins_with_the_parameters_and_advances_after_the_optimizer():
    states, history = train(2)
    first, second = states[:2]
    np.testing.assert_array_equal(
        first.learner["teacher"]["head"]["kernel"], first.params["head"]["kernel"]
    )
    teacher = 0.75 * first.params["head"]["kernel"] + 0.25 * second.params["head"]["kernel"]
    np.testing.assert_allclose(second.learner["teacher"]["head"]["kernel"], teacher, rtol=1e-6)
    np.testing.assert_allclose(second.learner["mean"], history[0]["predicted"] / 2, rtol=1e-6)


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_accumulation_is_the_same_step(parts):
    whole, reported = train(2)
    split, reported_split = train(2, accumulation=parts)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6)  # noqa: E731
    jax.tree.map(close, whole[-1], split[-1])
    jax.tree.map(close, reported[-1], reported_split[-1])


def test_accumulation_gives_the_gradient_of_the_whole_batch():
    def loss(params, rows, keys):
        noise = jax.vmap(jax.random.normal)(keys)
        value = jnp.mean((rows @ params + noise) ** 2)
        return value, {"twice": 2 * value}

    params, keys = jax.random.normal(jax.random.key(0), (3,)), sample_keys(0, 0, 8)
    rows = jnp.asarray(batch()["image"], jnp.float32)
    whole = accumulated_gradient(loss, params, rows, keys, 1)
    for parts in (2, 4, 8):
        in_parts = accumulated_gradient(loss, params, rows, keys, parts)
        for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(in_parts), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)


def test_accumulation_that_would_change_what_is_learnt_is_refused_with_the_reason():
    learner = Fake(whole_batch="it contrasts every crop with all others")
    mesh, like, _ = begun(learner)
    step_of(learner, like, mesh)
    with pytest.raises(ValueError, match="accumulation is 2; expected: 1, because it contrasts"):
        step_of(learner, like, mesh, accumulation=2)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_what_is_frozen_does_not_move_and_has_neither_gradient_nor_moments(name):
    frozen = Optimizer(name=name, learning_rate=0.1, weight_decay=0.1, frozen=("encoder",))
    states, history = train(2, optimizer=frozen)
    jax.tree.map(
        np.testing.assert_array_equal, states[0].params["encoder"], states[-1].params["encoder"]
    )
    assert (states[0].params["head"]["kernel"] != states[-1].params["head"]["kernel"]).all()
    moments = {leaf.shape for leaf in jax.tree.leaves(states[0].opt_state)}
    assert moments <= {(), (2,)}  # The head alone.
    assert np.isfinite(history[-1]["gradient_norm"])


def test_what_is_frozen_is_not_differentiated():
    learner = Fake()
    frozen = Optimizer(name="sgd", learning_rate=0.1, frozen=("encoder",))
    products = {}
    for optimizer in (SGD, frozen):
        mesh, like, _ = begun(learner, optimizer)
        text = step_of(learner, like, mesh, optimizer).lower(like, place(batch(), mesh)).as_text()
        products[optimizer.frozen] = text.count("dot_general")
    # Forward 2; backward 1 for each of the two kernels, and 1 from the head to the encoder.
    assert products == {(): 5, ("encoder",): 3}


def test_the_average_follows_the_parameters():
    (before, after), _ = train(1, ema_decay=0.75)
    expected = 0.75 * before.params["head"]["kernel"] + 0.25 * after.params["head"]["kernel"]
    np.testing.assert_allclose(after.best_params["head"]["kernel"], expected, rtol=1e-6)


def test_keys_depend_on_seed_step_and_row_alone():
    data = jax.random.key_data(sample_keys(0, 5, 8))
    np.testing.assert_array_equal(data, jax.random.key_data(sample_keys(0, 5, 16))[:8])
    others = [sample_keys(1, 5, 8), sample_keys(0, 6, 8), batch_key(0, 5)[None]]
    rows = np.concatenate([data, *(jax.random.key_data(k) for k in others)])
    assert len(np.unique(rows, axis=0)) == 25


def test_the_step_is_compiled_beside_the_first_state_and_not_again(caplog):
    learner = Fake()
    mesh, like, make = begun(learner)
    step, first = step_of(learner, like, mesh), place(batch(), mesh)
    # It tells what this thread compiles.
    with jax.log_compiles():
        state = compile_beside(step, like, first, make)
        step(state, first)
    compiled = [line for line in caplog.messages if line.startswith("Compiling jit(")]
    assert any("jit(init)" in line for line in compiled)
    assert not any("jit(train_step)" in line for line in compiled)


def test_what_the_compilation_and_the_making_raise_is_raised():
    learner = Fake()
    mesh, like, make = begun(learner)
    step = step_of(learner, like, mesh)

    def fail():
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        compile_beside(step, like, place(batch(), mesh), fail)
    other = {"image": np.zeros((8, 4), np.uint8)}
    with pytest.raises(TypeError):
        compile_beside(step, like, place(other, mesh), make)
