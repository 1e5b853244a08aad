import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maemem.training.optimizer import OptimizerSettings


def settings(**changes) -> OptimizerSettings:
    fields = {
        "learning_rate": 0.1,
        "warmup_steps": 4,
        "steps": 20,
        "betas": (0.9, 0.95),
        "weight_decay": 0.5,
        "clip_norm": 0.0,
    }
    return OptimizerSettings(**(fields | changes))


def test_schedule_warms_up_then_falls_along_a_cosine():
    schedule = settings().schedule()
    np.testing.assert_allclose([schedule(i) for i in range(5)], [0, 0.025, 0.05, 0.075, 0.1])
    assert float(schedule(12)) == pytest.approx(0.05)
    assert float(schedule(20)) == pytest.approx(0, abs=1e-8)


def test_without_warmup_it_starts_at_the_peak():
    assert float(settings(warmup_steps=0).schedule()(0)) == pytest.approx(0.1)


@pytest.mark.parametrize("stacked", [False, True])
def test_weight_decay_spares_all_but_kernels(stacked):
    """Without a gradient only decay moves a parameter; stacked norms have two axes as well."""
    shape = (3,) if stacked else ()
    params = {
        "dense": {"kernel": jnp.ones((*shape, 4, 4)), "bias": jnp.ones((*shape, 4))},
        "norm": {"scale": jnp.ones((*shape, 4)), "bias": jnp.ones((*shape, 4))},
        "mask_token": jnp.ones(4),
    }
    optimizer = settings(warmup_steps=0).transformation()
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_allclose(updates["dense"]["kernel"], -0.1 * 0.5)
    updates["dense"].pop("kernel")
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(updates))


def test_clipping_bounds_the_gradient_not_its_direction():
    params = {"kernel": jnp.zeros(2)}
    gradient = {"kernel": jnp.array([30.0, 40.0])}
    clipped = settings(clip_norm=1.0).transformation()
    _, state = clipped.update(gradient, clipped.init(params), params)
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == (2,)]
    np.testing.assert_allclose(moments[0], 0.1 * np.array([0.6, 0.8]), rtol=1e-5)


def test_a_warmup_as_long_as_the_run_is_refused():
    with pytest.raises(ValueError, match="warmup_steps 20 must be at least 0 and less than"):
        settings(warmup_steps=20)
