import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maemem.learners.contract import Group
from maemem.training.optimizer import Optimizer, freeze, learning_rate_scales, tree_norm

STEPS = 20


def settings(**changes) -> Optimizer:
    fields = {"learning_rate": 0.1, "warmup_steps": 4, "weight_decay": 0.5}
    return Optimizer(**(fields | changes))


def grouped(params):
    """Kernels decay; all are of one part."""
    return {
        name: grouped(leaf) if isinstance(leaf, dict) else Group("net", decays=name == "kernel")
        for name, leaf in params.items()
    }


def transformation(params, **changes):
    return settings(**changes).transformation(STEPS, grouped(params))


def test_schedule_warms_up_then_falls_along_a_cosine():
    schedule = settings().schedule(STEPS)
    np.testing.assert_allclose([schedule(i) for i in range(5)], [0, 0.025, 0.05, 0.075, 0.1])
    assert float(schedule(12)) == pytest.approx(0.05)
    assert float(schedule(20)) == pytest.approx(0, abs=1e-8)


def test_without_warmup_it_starts_at_the_peak():
    assert float(settings(warmup_steps=0).schedule(STEPS)(0)) == pytest.approx(0.1)


def test_weight_decay_spares_all_but_kernels():
    """Without a gradient only decay moves a parameter."""
    params = {
        "dense": {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)},
        "norm": {"scale": jnp.ones(4), "bias": jnp.ones(4)},
        "mask_token": jnp.ones(4),
    }
    optimizer = transformation(params, warmup_steps=0)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_allclose(updates["dense"]["kernel"], -0.1 * 0.5)
    updates["dense"].pop("kernel")
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(updates))


def test_clipping_bounds_the_gradient_not_its_direction():
    params = {"kernel": jnp.zeros(2)}
    gradient = {"kernel": jnp.array([30.0, 40.0])}
    clipped = transformation(params, clip_norm=1.0)
    _, state = clipped.update(gradient, clipped.init(params), params)
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == (2,)]
    np.testing.assert_allclose(moments[0], 0.1 * np.array([0.6, 0.8]), rtol=1e-5)


@pytest.mark.parametrize(("size", "factor"), [(10, 0.1), (1, 1), (0.1, 1), (0, 1)])
def test_only_a_gradient_that_is_too_long_is_clipped(size, factor):
    gradient = {"kernel": jnp.full((2, 2), 0.4 * size), "bias": jnp.full(1, 0.6 * size)}
    fields = {"name": "sgd", "warmup_steps": 0, "weight_decay": 0.0, "momentum": 0.0}
    optimizer = transformation(gradient, **fields, clip_norm=1.0)
    updates, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
    for name, leaf in gradient.items():
        np.testing.assert_allclose(updates[name], -0.1 * factor * leaf, rtol=1e-6)


@pytest.mark.parametrize("shapes", [[(3, 4), (5,), (), (2, 1, 3)], [(7,)], [(2, 2)]])
def test_the_norm_of_a_tree_is_that_of_all_its_leaves(shapes):
    rng = np.random.default_rng(0)
    leaves = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    expected = np.linalg.norm(np.concatenate([leaf.ravel() for leaf in leaves]))
    np.testing.assert_allclose(tree_norm(dict(enumerate(leaves))), expected, rtol=1e-6)


PARAMS = {
    "encoder": {"kernel": jnp.ones((2, 2)), "norm": jnp.ones(2)},
    "head": {"kernel": jnp.ones((2, 2))},
}
GROUPS = {
    "encoder": {"kernel": Group("encoder", below=3, decays=True), "norm": Group("encoder")},
    "head": {"kernel": Group("head", below=2, decays=True, rate=0.5)},
}


def test_layer_decay_slows_what_is_deeper_in_the_encoder():
    assert learning_rate_scales(GROUPS, 0.5) == {
        "encoder": {"kernel": 0.125, "norm": 1.0},
        "head": {"kernel": 0.5},
    }


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_rates_of_groups_scale_updates(name):
    fields = {"name": name, "warmup_steps": 0}
    alike = jax.tree.map(lambda group: Group("net", decays=group.decays), GROUPS)
    plain = settings(**fields).transformation(STEPS, alike)
    scaled = settings(**fields, layer_decay=0.5).transformation(STEPS, GROUPS)
    a, _ = plain.update(PARAMS, plain.init(PARAMS), PARAMS)
    b, _ = scaled.update(PARAMS, scaled.init(PARAMS), PARAMS)
    factors = {"encoder": {"kernel": 0.125, "norm": 1.0}, "head": {"kernel": 0.5}}
    jax.tree.map(lambda x, y, f: np.testing.assert_allclose(x * f, y, rtol=1e-6), a, b, factors)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_frozen_encoder_does_not_move_even_by_weight_decay(name):
    frozen = settings(name=name, warmup_steps=0, layer_decay=0.5, frozen=("encoder",))
    optimizer = frozen.transformation(STEPS, GROUPS)
    updates, _ = jax.jit(optimizer.update)(PARAMS, optimizer.init(PARAMS), PARAMS)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(updates["encoder"]))
    assert all((leaf != 0).all() for leaf in jax.tree.leaves(updates["head"]))


def test_clipping_does_not_see_a_frozen_encoder():
    gradient = jax.tree.map(jnp.ones_like, PARAMS)
    gradient["encoder"] = jax.tree.map(lambda leaf: 1000 * leaf, gradient["encoder"])
    fields = {"name": "sgd", "warmup_steps": 0, "weight_decay": 0.0, "frozen": ("encoder",)}
    optimizer = settings(**fields, clip_norm=1.0).transformation(STEPS, GROUPS)
    updates, _ = optimizer.update(gradient, optimizer.init(PARAMS), PARAMS)
    # Four ones have the norm 2; the head learns at half the rate.
    np.testing.assert_allclose(updates["head"]["kernel"], -0.05 * 0.5, rtol=1e-5)


def test_frozen_parts_have_no_gradient():
    def loss(params):
        frozen = freeze(params, GROUPS, ("encoder",))
        return sum(leaf.sum() for leaf in jax.tree.leaves(frozen))

    gradient = jax.grad(loss)(PARAMS)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient["encoder"]))
    assert (gradient["head"]["kernel"] == 1).all()


@pytest.mark.parametrize("frozen", [("decoder",), ("encoder", "head")])
def test_parts_that_are_not_there_and_all_parts_cannot_be_frozen(frozen):
    with pytest.raises(ValueError, match="some of the network's parts encoder, head, but not all"):
        settings(frozen=frozen).transformation(STEPS, GROUPS)


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "adam"), ("betas", (0.9, 1.0)), ("momentum", 1.0), ("layer_decay", 0.0)],
)
def test_impossible_values_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"^{field} is .*; expected"):
        settings(**{field: value})
