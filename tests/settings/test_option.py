"""`@settings`: what a field says once, what is refused, and settings as layers and as data."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest

from ovtool.errors import UsageError
from ovtool.settings import option, recipes
from ovtool.settings.field import Option
from ovtool.settings.layers import as_data, known, layered
from ovtool.settings.option import settings

Side = Annotated[int | None, Option("A side. Default: the model's.", min=8)]


@settings(panel="Method")
class Way:
    """One way.

    More about it.
    """

    side: Side = None
    share: Annotated[float, Option("A share.", min=0, max=1)] = 0.5
    kind: Annotated[Literal["plain", "fancy"], Option("A kind.")] = "plain"
    scales: Annotated[tuple[float, ...], Option("Sizes.", min=0.1)] = (1.0,)
    file: Annotated[Path | Literal["none"] | None, Option("A file, or none.")] = None
    name: Annotated[str, Option("A name.", flag="--called", shapes=False)] = "x"
    fast: Annotated[bool, Option("Fast.", shapes=False)] = False

    def check(self) -> None:
        """Raises UsageError for a fancy way with a side."""
        if self.kind == "fancy" and self.side is not None:
            raise UsageError("--side belongs to --kind plain; leave it out")


def test_it_is_frozen_and_takes_keywords_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Way().side = 9
    with pytest.raises(TypeError):
        Way(9)
    assert Way(side=9) == Way(side=9) != Way() and len({Way(), Way()}) == 1


def test_its_name_is_the_class_and_what_differs_from_the_default():
    assert repr(Way()) == "Way()"
    assert repr(Way(side=9, kind="plain")) == "Way(side=9)"


def test_the_annotations_that_people_read_are_plain():
    assert Way.__annotations__["side"] == int | None
    assert option.fields(Way)["side"].option.help.startswith("A side.")


def test_a_field_without_an_option_is_an_error():
    with pytest.raises(TypeError, match="Bare.side has no Option"):

        @settings
        class Bare:
            side: int = 3


def test_an_option_inside_the_union_is_an_error():
    inner = Annotated[int, Option("Not seen.")]
    with pytest.raises(TypeError, match="has no Option"):

        @settings
        class Inside:
            side: inner | None = None


def test_a_class_has_the_fields_of_the_one_that_it_inherits():
    @settings(panel="Shared")
    class Base:
        steps: Annotated[int, Option("Steps.", min=1)] = 10
        rate: Annotated[float, Option("Rate.")] = 0.5

    @settings(panel="Own")
    class Child(Base):
        rate: Annotated[float, Option("Rate.", max=1)] = 0.1
        depth: Annotated[int, Option("Depth.")] = 3

    read = option.fields(Child)
    assert [(name, field.default, field.option.panel) for name, field in read.items()] == [
        ("steps", 10, "Shared"), ("rate", 0.1, "Shared"), ("depth", 3, "Own"),
    ]  # fmt: skip
    assert repr(Child(steps=4)) == "Child(steps=4)" and Child(steps=4).depth == 3
    assert option.fields(Base)["rate"].default == 0.5
    with pytest.raises(UsageError, match="--steps 0 is out of range"):
        Child(steps=0)
    with pytest.raises(UsageError, match="--rate 2"):
        Child(rate=2.0)


def test_inheriting_two_classes_is_an_error():
    @settings
    class Other:
        pass

    with pytest.raises(TypeError, match="more than one class of settings"):

        @settings
        class Child(Way, Other):
            pass


@pytest.mark.parametrize(
    "values, said",
    [
        ({"side": 7}, "--side 7 is out of range; give 8 or more"),
        ({"share": 1.5}, "--share 1.5 is out of range; give 0 to 1"),
        ({"share": float("nan")}, "--share nan is out of range"),
        ({"kind": "odd"}, "--kind 'odd' is not one of 'plain', 'fancy'; give one of them"),
        ({"scales": (1.0, 0.0)}, "--scales 0.0 is out of range; give 0.1 or more"),
        ({"scales": "1,2"}, "--scales takes a list"),
        ({"name": 3}, "--called '3' is not allowed; give a text"),
        ({"side": True}, "--side 'True' is not allowed"),
        ({"side": "9"}, "--side '9' is not allowed; give a whole number"),
        ({"share": None}, "--share 'None' is not allowed"),
        ({"kind": "fancy", "side": 9}, "--side belongs to --kind plain"),
    ],
)
def test_what_is_not_allowed_is_refused_by_the_flag(values, said):
    with pytest.raises(UsageError, match="^" + said.replace("(", r"\(")):
        Way(**values)


def test_values_are_kept_as_the_field_wants_them():
    way = Way(file="a/b", scales=[1, 2], name=Path("x/y"), share=1)
    assert way.file == Path("a/b") and way.name == "x/y"
    assert way.scales == (1.0, 2.0) and isinstance(way.share, float)
    assert Way(file="none").file == "none"


@pytest.mark.parametrize(
    "field, texts, value",
    [
        ("side", ["9"], 9),
        ("share", ["1"], 1.0),
        ("scales", ["1, 0.5"], (1.0, 0.5)),
        ("file", ["none"], "none"),
        ("file", ["a"], Path("a")),
        ("kind", ["plain", "fancy"], "fancy"),
    ],
)
def test_texts_become_values(field, texts, value):
    parsed = option.fields(Way)[field].parsed(texts)
    assert parsed == value and type(parsed) is type(value)


def test_a_field_shows_itself():
    shown = option.fields(Way)
    assert [shown[name].metavar for name in ("side", "kind", "scales", "file")] == [
        "N",
        "plain|fancy",
        "X,...",
        "none|FILE",
    ]
    assert shown["name"].flag == "--called" and shown["side"].range == "8 or more"


# --- layers --------------------------------------------------------------------------------------


def test_the_command_line_is_above_the_recipe_and_that_above_the_model_and_the_default(
    monkeypatch,
):
    values = {name: recipes.Published(30, "a paper") for name in "abf"}
    monkeypatch.setattr(recipes, "RECIPES", {"paper": {"Four": values}})

    @settings
    class Four:
        recipe: Annotated[Literal["paper"] | None, Option("Way.")] = None
        a: Side = None
        b: Side = None
        c: Side = None
        d: Side = None
        e: Side = None
        f: Annotated[int, Option("Real.")] = 1

    asked = Four(a=10, recipe="paper")
    assert asked == Four(recipe="paper", a=10, b=30, f=30)  # once made, a recipe sets nothing more
    assert dataclasses.replace(asked, b=None) == Four(recipe="paper", a=10, b=None, f=30)
    filled, origins = layered(
        asked,
        published=dict.fromkeys("abcd", 40),
        recommended={"a": 20, "b": 20, "c": 20, "d": None},
    )
    assert filled == Four(recipe="paper", a=10, b=30, c=20, d=40, f=30)
    assert origins == {
        "recipe": "given",
        "a": "given",
        "b": "recipe",
        "c": "model",
        "d": "default",
        "e": "default",
        "f": "recipe",
    }
    assert "recipe" not in as_data(Four()) and as_data(asked)["recipe"] == "paper"


@pytest.mark.parametrize("layer", [{"share": 0.1}, {"size": 3}])
def test_a_layer_fills_only_what_may_be_left_open(layer):
    with pytest.raises(UsageError, match="cannot set in Way"):
        layered(Way(), recommended=layer)


def test_the_value_of_a_layer_is_checked():
    with pytest.raises(UsageError, match="--side 2 is out of range"):
        layered(Way(), recommended={"side": 2})


def test_a_value_that_is_still_open_is_an_error_of_ours():
    assert known(0) == 0
    with pytest.raises(TypeError, match="filled by now"):
        known(None)


# --- data ----------------------------------------------------------------------------------------


def test_settings_are_plain_data_without_what_does_not_shape_the_result():
    data = as_data({"method": Way(side=9, name="y", fast=True), "words": ("a", "b")})
    assert data == {
        "method": {
            "class": "Way",
            "side": 9,
            "share": 0.5,
            "kind": "plain",
            "scales": [1.0],
            "file": None,
        },
        "words": ["a", "b"],
    }
    assert json.loads(json.dumps(data)) == data
    assert as_data(Way(name="y", fast=True)) == as_data(Way())


def test_a_path_is_no_data_since_its_content_counts():
    with pytest.raises(TypeError, match="digest of its content"):
        as_data(Way(file="/some/where"))
    assert as_data(Way(file="/some/where"), {"file": "abc"})["file"] == "abc"
    with pytest.raises(TypeError, match="no plain data"):
        as_data({"x": object()})


def test_settings_are_light():
    program = (
        "import sys; from ovtool.settings import option, layers, shared, words, segment, pacl;"
        "print([m for m in ('torch', 'numpy', 'typer', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
