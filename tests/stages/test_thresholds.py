import math

from maemem.stages.thresholds import best_of


def test_thresholds_that_find_no_object_are_the_last_choice():
    costs = {"empty": 0.0, "good": 0.3, "better": 0.2, "unknown": math.nan}
    assert best_of(costs, {"empty"}) == "better"
    assert best_of({"empty": 0.0, "unknown": math.nan}, {"empty"}) == "empty"
