import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maemem.models.masking import mask_tokens, visible_count

GRID = (6, 6, 6)


@pytest.mark.parametrize(
    ("strategy", "ratio", "visible"),
    [("random", 0.9, 21), ("space", 0.88, 24), ("section", 0.83, 36), ("random", 0.75, 54)],
)
def test_the_article_counts_of_visible_tokens(strategy, ratio, visible):
    assert visible_count(GRID, strategy, ratio) == visible


@pytest.mark.parametrize("tenths", range(1, 10))
def test_rounding_of_the_ratio_costs_no_token(tenths):
    assert visible_count((1, 10, 10), "random", tenths / 10) == 100 - 10 * tenths


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(2, 4), st.integers(2, 4), st.integers(2, 4)),
    st.sampled_from(["random", "space", "section"]),
    st.integers(0, 2**31),
)
def test_masks_split_the_tokens(grid, strategy, seed):
    visible, masked = mask_tokens(jax.random.key(seed), grid, strategy, 0.5)
    assert len(visible) == visible_count(grid, strategy, 0.5)
    everything = np.concatenate([visible, masked])
    np.testing.assert_array_equal(np.sort(everything), np.arange(np.prod(grid)))


def test_space_masks_the_same_places_in_every_section():
    visible, _ = mask_tokens(jax.random.key(0), GRID, "space", 0.88)
    places = np.zeros(GRID, bool)
    places.ravel()[np.asarray(visible)] = True
    assert (places == places[0]).all()
    assert places[0].sum() == 4


def test_section_masks_whole_sections():
    visible, _ = mask_tokens(jax.random.key(0), GRID, "section", 0.83)
    places = np.zeros(GRID, bool)
    places.ravel()[np.asarray(visible)] = True
    assert sorted(places.sum((1, 2)).tolist()) == [0, 0, 0, 0, 0, 36]


def test_random_masks_every_token_equally_often():
    keys = jax.random.split(jax.random.key(0), 4000)
    visible, _ = jax.vmap(lambda key: mask_tokens(key, GRID, "random", 0.9))(keys)
    count = np.bincount(np.asarray(visible).ravel(), minlength=216)
    expected = 4000 * 21 / 216
    # Five standard deviations of a binomial count: about one false alarm in 10,000 seeds.
    assert np.abs(count - expected).max() < 5 * np.sqrt(expected)


def test_another_key_gives_another_mask():
    a, _ = mask_tokens(jax.random.key(0), GRID, "random", 0.9)
    b, _ = mask_tokens(jax.random.key(1), GRID, "random", 0.9)
    assert set(a.tolist()) != set(b.tolist())


@pytest.mark.parametrize(
    ("strategy", "ratio"), [("section", 0.9), ("random", 0.0), ("random", 1.0), ("space", 0.99)]
)
def test_a_ratio_that_leaves_nothing_is_refused(strategy, ratio):
    with pytest.raises(ValueError, match="must stay visible"):
        visible_count(GRID, strategy, ratio)


def test_an_unknown_strategy_is_refused():
    with pytest.raises(ValueError, match=r"'tube' is unknown; choose one of .*'random'"):
        visible_count(GRID, "tube", 0.9)
