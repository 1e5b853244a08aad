import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maemem.training.optimizer import OptimizerSettings, layer_scales, tree_norm


def settings(**changes) -> OptimizerSettings:
    fields = {
        "name": "adamw",
        "learning_rate": 0.1,
        "warmup_steps": 4,
        "steps": 20,
        "betas": (0.9, 0.95),
        "momentum": 0.9,
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


def test_weight_decay_spares_all_but_kernels():
    """Without a gradient only decay moves a parameter."""
    params = {
        "dense": {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)},
        "norm": {"scale": jnp.ones(4), "bias": jnp.ones(4)},
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


@pytest.mark.parametrize(("size", "factor"), [(10, 0.1), (1, 1), (0.1, 1), (0, 1)])
def test_only_a_gradient_that_is_too_long_is_clipped(size, factor):
    gradient = {"kernel": jnp.full((2, 2), 0.4 * size), "bias": jnp.full(1, 0.6 * size)}
    fields = {"name": "sgd", "warmup_steps": 0, "weight_decay": 0.0, "momentum": 0.0}
    optimizer = settings(**fields, clip_norm=1.0).transformation()
    updates, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
    for name, leaf in gradient.items():
        np.testing.assert_allclose(updates[name], -0.1 * factor * leaf, rtol=1e-6)


@pytest.mark.parametrize("shapes", [[(3, 4), (5,), (), (2, 1, 3)], [(7,)], [(2, 2)]])
def test_the_norm_of_a_tree_is_that_of_all_its_leaves(shapes):
    rng = np.random.default_rng(0)
    leaves = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    expected = np.linalg.norm(np.concatenate([leaf.ravel() for leaf in leaves]))
    np.testing.assert_allclose(tree_norm(dict(enumerate(leaves))), expected, rtol=1e-6)


def test_a_warmup_as_long_as_the_run_is_refused():
    with pytest.raises(ValueError, match="warmup_steps 20 must be at least 0 and less than"):
        settings(warmup_steps=20)


def test_sgd_follows_the_gradient_with_momentum_and_decays_kernels():
    params = {"kernel": jnp.full(2, 2.0), "bias": jnp.full(2, 2.0)}
    gradient = {"kernel": jnp.array([1.0, -1.0]), "bias": jnp.array([1.0, -1.0])}
    optimizer = settings(name="sgd", warmup_steps=0, weight_decay=0.25).transformation()
    state = optimizer.init(params)
    first, state = optimizer.update(gradient, state, params)
    np.testing.assert_allclose(first["bias"], [-0.1, 0.1], rtol=1e-6)
    np.testing.assert_allclose(first["kernel"], [-0.15, 0.05], rtol=1e-6)
    second, _ = optimizer.update(gradient, state, params)
    rate = float(settings(warmup_steps=0).schedule()(1))
    np.testing.assert_allclose(second["bias"], [-1.9 * rate, 1.9 * rate], rtol=1e-5)


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match="optimizer 'adam' is unknown; choose adamw or sgd"):
        settings(name="adam")


def segmenter():
    """The encoder of two blocks has the names that networks give."""
    block = {"attention": {"qkv": {"kernel": jnp.ones((2, 2))}}}
    blocks = {"block_00": block, "block_01": block}
    return {
        "encoder": {
            "patch_embedding": {"kernel": jnp.ones((2, 2))},
            "transformer": {**blocks, "norm": {"scale": jnp.ones(2)}},
        },
        "head": {"kernel": jnp.ones((2, 2))},
    }


def test_layer_decay_slows_what_is_further_from_the_head():
    params = segmenter()
    scaled = jax.tree.map(jnp.multiply, params, layer_scales(params, 0.5))
    encoder = scaled["encoder"]
    assert (encoder["patch_embedding"]["kernel"] == 0.125).all()
    assert (encoder["transformer"]["norm"]["scale"] == 1).all()
    assert (scaled["head"]["kernel"] == 1).all()
    lower, upper = (
        encoder["transformer"][name]["attention"]["qkv"]["kernel"]
        for name in ("block_00", "block_01")
    )
    assert (lower == 0.25).all()
    assert (upper == 0.5).all()


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_frozen_encoder_does_not_move_even_by_weight_decay(name):
    params = segmenter()
    optimizer = settings(name=name, warmup_steps=0, freeze_encoder=True).transformation()
    updates, _ = jax.jit(optimizer.update)(params, optimizer.init(params), params)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(updates["encoder"]))
    assert all((leaf != 0).all() for leaf in jax.tree.leaves(updates["head"]))


def test_clipping_does_not_see_a_frozen_encoder():
    params = segmenter()
    gradient = jax.tree.map(jnp.ones_like, params)
    gradient["encoder"] = jax.tree.map(lambda leaf: 1000 * leaf, gradient["encoder"])
    fields = {"name": "sgd", "warmup_steps": 0, "weight_decay": 0.0, "freeze_encoder": True}
    optimizer = settings(**fields, clip_norm=1.0).transformation()
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    # Four ones have the norm 2.
    np.testing.assert_allclose(updates["head"]["kernel"], -0.1 * 0.5, rtol=1e-5)
