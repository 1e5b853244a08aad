import numpy as np
import pytest

from maemem.data.sets import artefacts


@pytest.mark.parametrize("sections", [3, 4, 8, 9, 40, 41, 200])
def test_damaged_sections_lie_between_good_ones(sections):
    for seed in range(20):
        damaged = sorted(artefacts.plan(sections, seed))
        assert damaged
        assert damaged[0] > 0
        assert damaged[-1] < sections - 1
        assert np.all(np.diff(damaged) > 1)


def test_every_kind_occurs_where_there_is_room():
    kinds = {"missing", "shifted", "blurred", "brightened"}
    assert set(artefacts.plan(9, seed=0).values()) == kinds
    assert len(artefacts.plan(100, seed=0)) == 12


def test_a_plan_depends_on_its_seed_only():
    assert artefacts.plan(60, seed=1) == artefacts.plan(60, seed=1)
    assert artefacts.plan(60, seed=1) != artefacts.plan(60, seed=2)


def test_too_few_sections_are_an_error():
    with pytest.raises(ValueError, match="at least 3"):
        artefacts.plan(2, seed=0)


def test_each_artefact_does_what_its_name_says():
    image = np.random.default_rng(0).integers(50, 200, (6, 32, 48), np.uint8)
    plan: dict[int, artefacts.Artefact] = {
        1: "missing",
        2: "shifted",
        3: "blurred",
        4: "brightened",
    }
    damaged = artefacts.apply(image, plan)
    assert not damaged[1].any()
    np.testing.assert_array_equal(damaged[2, 2:, 3:], image[2, :-2, :-3])
    assert damaged[3].std() < image[3].std() / 3
    assert damaged[4].mean() > image[4].mean() + 30
    np.testing.assert_array_equal(damaged[[0, 5]], image[[0, 5]])
