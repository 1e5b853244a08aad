"""Checks, whatever they raise."""

from maemem.doctor.examination import Examination
from maemem.doctor.verdict import Verdict


def raising(error: Exception) -> Verdict:
    raise error


def test_a_check_that_raises_anything_has_failed_and_the_others_go_on():
    said = []
    examination = Examination(said.append)
    examination.check("mistake", raising, ValueError("there is no a.tif"))
    examination.check("library", raising, KeyError("typo"))
    examination.check("again", raising, ValueError("there is no a.tif"))
    examination.check("fine", lambda: Verdict("ok", "all is well"))
    assert [(line.verdict.level, line.verdict.found) for line in said] == [
        ("fail", "there is no a.tif"),
        ("fail", "KeyError: 'typo'"),
        ("warn", "not checked: see mistake"),
        ("ok", "all is well"),
    ]
