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


@pytest.mark.parametrize(
    ("block", "kind"),
    [
        ({"size": 1.0}, Circle),
        ({"type": "circle", "size": 1}, Circle),
        ({"type": "square", "size": 1.0}, Square),
        ({"type": "rounded", "size": 1.0, "corners": 5}, Rounded),  # a subclass of a subclass
    ],
)
def test_type_chooses_the_subclass_and_a_default_stands_in_for_none(block, kind):
    drawing = Drawing.model_validate({"shape": block})
    assert type(drawing.shape) is kind and drawing.frame is None
    assert Drawing.model_validate(drawing.model_dump()) == drawing
    assert Drawing(shape=drawing.shape, frame=drawing.shape).frame is drawing.shape


@pytest.mark.parametrize(
    ("content", "where", "fault"),
    [
        ({"shape": {"type": "hexagon", "size": 1.0}}, ("shape",), "union_tag_invalid"),
        ({"shape": {"size": 1.0}, "frame": {"size": 1.0}}, ("frame",), "union_tag_not_found"),  # it has no default
        ({"shape": {"size": 1.0, "corners": 4}}, ("shape", "circle", "corners"), "extra_forbidden"),  # of another type
        ({"shape": {"type": "square", "size": 1.0, "corners": True}}, ("shape", "square", "corners"), "int_type"),
        ({"shape": {"type": "square", "size": 1.0, "corners": 4.0}}, ("shape", "square", "corners"), "int_type"),
        ({"shape": {"size": "1"}}, ("shape", "circle", "size"), "float_type"),
        ({"shape": {"size": float("inf")}}, ("shape", "circle", "size"), "finite_number"),
        ({"shape": {"size": 0.0}}, ("shape", "circle", "size"), "greater_than"),
        ({"shape": 3}, ("shape",), "model_attributes_type"),
    ],
)
def test_fault_is_found_with_its_key(content, where, fault):
    with pytest.raises(ValidationError) as caught:
        Drawing.model_validate(content)
    assert [(error["loc"], error["type"]) for error in caught.value.errors()] == [(where, fault)]


def test_settings_are_frozen_and_can_be_keys():
    circle = Circle(size=1.0)
    with pytest.raises(ValidationError, match="frozen"):
        circle.size = 2.0
    assert {circle: 1}[Circle(size=1)] == 1


def test_subclass_is_known_to_what_is_built_after_it():
    class Triangle(Shape):
        type: Literal["triangle"] = "triangle"

    class Gallery(Drawing):
        """The same fields, with the subclasses that there are now."""

    content = {"shape": {"type": "triangle", "size": 2.0}}
    assert isinstance(Gallery.model_validate(content).shape, Triangle)
    with pytest.raises(ValidationError, match="triangle"):
        Drawing.model_validate(content)
