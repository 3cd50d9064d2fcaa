"""Settings: strict, frozen, without unknown keys; and unions that know every subclass."""

from typing import Annotated, Literal

import pytest
from pydantic import ValidationError

from utils.settings import AnySubclass, Count, Positive, Settings


class Shape(Settings):
    size: Positive


class Circle(Shape):
    type: Literal["circle"] = "circle"


class Square(Shape):
    type: Literal["square"] = "square"
    corners: Count = 4


class Rounded(Square):
    type: Literal["rounded"] = "rounded"


class Drawing(Settings):
    shape: Annotated[Shape, AnySubclass(default="circle")]
    frame: Annotated[Shape, AnySubclass()] | None = None


def test_type_chooses_the_subclass_and_a_default_stands_in_for_none():
    for name, kind in ((None, Circle), ("circle", Circle), ("square", Square), ("rounded", Rounded)):
        drawing = Drawing.model_validate({"shape": {"size": 1} | ({"type": name} if name else {})})
        assert type(drawing.shape) is kind and drawing.frame is None
        assert Drawing.model_validate(drawing.model_dump()) == drawing and hash(drawing)
        with pytest.raises(ValidationError, match="frozen"):
            drawing.shape.size = 2.0


@pytest.mark.parametrize(
    ("content", "where", "fault"),
    [
        ({"shape": {"type": "hexagon", "size": 1.0}}, ("shape",), "union_tag_invalid"),
        ({"shape": {"size": 1.0}, "frame": {"size": 1.0}}, ("frame",), "union_tag_not_found"),  # it has no default
        ({"shape": {"size": 1.0, "corners": 4}}, ("shape", "circle", "corners"), "extra_forbidden"),  # of another type
        ({"shape": {"type": "square", "size": 1.0, "corners": 4.0}}, ("shape", "square", "corners"), "int_type"),
        ({"shape": {"size": "1"}}, ("shape", "circle", "size"), "float_type"),
        ({"shape": {"size": float("inf")}}, ("shape", "circle", "size"), "finite_number"),
    ],
)
def test_fault_is_found_with_its_key(content, where, fault):
    with pytest.raises(ValidationError) as caught:
        Drawing.model_validate(content)
    assert [(error["loc"], error["type"]) for error in caught.value.errors()] == [(where, fault)]
