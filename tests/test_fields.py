"""Config sections from dataclasses."""

import dataclasses

import pytest

from maemem.fields import build, build_kind, given, section


@dataclasses.dataclass(frozen=True)
class Size:
    width: int = 4


@dataclasses.dataclass(frozen=True)
class Shape:
    crop_zyx: tuple[int, int, int] = (1, 2, 3)
    ratio: float = 0.5
    size: Size = Size()
    memory_bytes: int = 1 << 40
    mesh: object = given(default=None)

    def __post_init__(self):
        if self.ratio > 1:
            raise ValueError(f"ratio is {self.ratio}; expected: at most 1")


@dataclasses.dataclass(frozen=True)
class Line:
    length: int


KINDS = {"shape": Shape, "line": Line}


def test_a_section_holds_the_fields_but_not_what_the_code_gives():
    expected = {"crop_zyx": (1, 2, 3), "ratio": 0.5, "size": {"width": 4}, "memory_bytes": 1 << 40}
    assert section(Shape).to_dict() == expected
    assert section(Shape(ratio=1.0), KINDS).to_dict() == {"kind": "shape", **expected, "ratio": 1.0}


def test_what_a_section_describes_is_built():
    made = build_kind(KINDS, section(Shape(ratio=0.25), KINDS), "a", mesh="mesh")
    assert made == Shape(ratio=0.25, mesh="mesh")
    assert build(Line, section(Line, length=3), "a") == Line(3)


def test_lists_become_tuples_and_whole_numbers_floats():
    made = build(Shape, {**section(Shape), "crop_zyx": [4, 5, 6], "ratio": 1}, "a")
    assert made.crop_zyx == (4, 5, 6)
    assert isinstance(made.ratio, float)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ratio": 2.0}, "a.ratio is 2.0; expected: at most 1"),
        ({"ratio": "much"}, "a.ratio is 'much'; expected: a number"),
        ({"ratio": float("nan")}, "a.ratio is nan; expected: a number, finite"),
        ({"crop_zyx": (1, 2)}, "a.crop_zyx is .*; expected: .a whole number, a whole number, a"),
        ({"crop_zyx": (1, 2, -3)}, "a.crop_zyx is .*; expected: 0 or more"),
        ({"size": {"width": True}}, "a.size.width is True; expected: a whole number"),
        ({"length": 3}, "a has the fields length, which Shape does not know"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        build(Shape, {**section(Shape), **changes}, "a")


def test_a_kind_with_the_fields_of_another_is_refused():
    found = {**section(Shape, KINDS), "kind": "line"}
    with pytest.raises(ValueError, match=r"which kind line does not know"):
        build_kind(KINDS, found, "finetune.learner")


def test_an_unknown_kind_and_a_missing_field_are_named():
    with pytest.raises(ValueError, match=r"a.kind is 'cube'; expected: one of shape, line"):
        build_kind(KINDS, {"kind": "cube"}, "a")
    with pytest.raises(ValueError, match=r"a has no value of length"):
        build(Line, {}, "a")
    with pytest.raises(ValueError, match=r"Line needs a value of length"):
        section(Line)
