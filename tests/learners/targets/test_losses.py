import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maemem.learners.targets.losses import balanced_bce, soft_dice, squared_error

SHAPE = (2, 3, 4, 5, 2)


@pytest.fixture
def case():
    """Logits, targets and known voxels; positives are rare in the second channel."""
    random = np.random.default_rng(0)
    targets = (random.random(SHAPE) < (0.4, 0.05)).astype(np.float32)
    return random.normal(size=SHAPE).astype(np.float32) * 2, targets, random.random(SHAPE) < 0.7


def slowly(formula, case):
    """A formula of known values alone, crop by crop and channel by channel."""
    return [
        [formula(*(a[b, ..., c][case[2][b, ..., c]].astype(np.float64) for a in case[:2]))]
        for b in range(SHAPE[0])
        for c in range(SHAPE[-1])
    ]


def weighted(case):
    """With weights of 0 and 1 for unknown and known."""
    logits, targets, known = case
    return jnp.array(logits), jnp.array(targets), jnp.array(known, jnp.float32)


def fast(loss, case, **settings):
    return np.reshape(loss(*weighted(case), **settings), (-1, 1))


def test_balanced_bce_equals_its_formula(case):
    for bound in (10.0, 2.0):

        def formula(logits, targets, bound=bound):
            guess = 1 / (1 + np.exp(-logits))
            positive = targets == 1
            cost = -np.where(positive, np.log(guess), np.log(1 - guess))
            weight = np.zeros(len(logits))
            for members in (positive, ~positive):
                if members.any():
                    weight[members] = min(bound, len(logits) / (2 * members.sum()))
            return (weight * cost).mean()

        np.testing.assert_allclose(
            fast(balanced_bce, case, bound=bound), slowly(formula, case), rtol=1e-5
        )


def test_both_classes_give_half_of_the_loss():
    # Nine zeros guessed with cost log 2, and a one with cost log 4.
    targets = jnp.zeros((1, 1, 1, 10, 1)).at[..., 0, 0].set(1)
    logits = jnp.zeros_like(targets).at[..., 0, 0].set(-np.log(3))
    known = jnp.ones(targets.shape)
    half = (np.log(2) + np.log(4)) / 2
    assert float(balanced_bce(logits, targets, known)[0, 0]) == pytest.approx(half)
    # A weight of 1 instead of 5 for the one.
    bounded = (5 * np.log(2) + np.log(4)) / 10
    assert float(balanced_bce(logits, targets, known, bound=1.0)[0, 0]) == pytest.approx(bounded)


def test_soft_dice_equals_its_formula(case):
    for smooth in (1.0, 100.0):

        def formula(logits, targets, smooth=smooth):
            guess = 1 / (1 + np.exp(-logits))
            overlap = 2 * (guess * targets).sum() + smooth
            return 1 - overlap / (guess.sum() + targets.sum() + smooth)

        got = fast(soft_dice, case, smooth=smooth)
        np.testing.assert_allclose(got, slowly(formula, case), rtol=1e-5, atol=1e-7)


def test_squared_error_equals_its_formula(case):
    expected = slowly(lambda guess, targets: np.square(guess - targets).mean(), case)
    np.testing.assert_allclose(fast(squared_error, case), expected, rtol=1e-5)


@pytest.mark.parametrize("loss", [balanced_bce, soft_dice, squared_error])
def test_unknown_voxels_reach_neither_loss_nor_gradient(loss, case):
    logits, targets, known = map(jnp.array, case)
    wild = jnp.where(known, logits, jnp.inf)

    def total(logits, targets, known):
        return loss(logits, targets, known.astype(jnp.float32)).sum()

    expected, gradient = jax.value_and_grad(total)(logits, targets, known)
    wildly, wild_gradient = jax.value_and_grad(total)(wild, jnp.where(known, targets, 1), known)
    assert float(wildly) == float(expected)
    np.testing.assert_array_equal(wild_gradient, gradient)
    assert jnp.abs(gradient[known]).min() > 0
    assert (gradient[~known] == 0).all()
    nothing, gradient = jax.value_and_grad(total)(wild, targets, jnp.zeros_like(known))
    assert float(nothing) == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("loss", [balanced_bce, soft_dice, squared_error])
def test_half_precision_logits_are_summed_in_full(loss):
    # 2 ** 13 voxels: in bfloat16 a count would stop at 256.
    logits = jnp.full((1, 8, 32, 32, 1), 0.5, jnp.bfloat16)
    targets = jnp.zeros((1, 8, 32, 32, 1)).at[:, :4].set(1)
    known = jnp.ones(targets.shape)
    half = loss(logits, targets, known)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, loss(logits.astype(jnp.float32), targets, known), rtol=1e-6)


@pytest.mark.parametrize("loss", [balanced_bce, soft_dice, squared_error])
def test_a_weight_of_two_counts_as_two_voxels(loss, case):
    logits, targets, _ = map(jnp.array, case)
    twice = [jnp.concatenate([a, a], axis=1) for a in (logits, targets)]
    options = {"smooth": 0.0} if loss is soft_dice else {}
    expected = loss(*twice, jnp.ones(twice[0].shape), **options)
    found = loss(logits, targets, jnp.full(SHAPE, 2.0), **options)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
