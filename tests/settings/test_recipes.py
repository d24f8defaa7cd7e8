"""Every recipe fits the classes that it sets, and the command line takes it, refuses it and names it."""

import pytest

import ovtool
from ovtool.cli import cam, declare, mine_pairs, refine, segment, train_pacl, tune_prompts
from ovtool.errors import UsageError
from ovtool.settings import option, recipes
from ovtool.settings.cam import LabelMatching
from ovtool.settings.layers import layered
from ovtool.settings.segment import Fused, Patch, TwoStage

COMMANDS = {
    "segment": segment.segment,
    "mine-pairs": mine_pairs.mine_pairs,
    "tune-prompts": tune_prompts.tune_prompts,
    "train-pacl": train_pacl.train_pacl,
    "cam": cam.cam,
    "refine": refine.refine,
}
PAIRS = [(recipe, name) for recipe, classes in recipes.RECIPES.items() for name in classes]


def groups(command, **given):
    """The objects that a command gets of options by their parameters, `recipe` being all groups' one."""
    parts = [part for part in declare.read(COMMANDS[command]) if isinstance(part, declare.Group)]
    return [part.value(given) for part in parts if part.name not in ("source", "words")]


@pytest.mark.parametrize(("recipe", "name"), PAIRS)
def test_a_recipe_sets_fields_of_its_class_and_says_where_each_value_is_from(recipe, name):
    values = recipes.RECIPES[recipe][name]
    made = getattr(ovtool, name)(recipe=recipe)
    for field, published in values.items():
        assert getattr(made, field) == published.value and published.source
    _, origins = layered(made)
    assert {field for field, origin in origins.items() if origin == "recipe"} == set(values)


@pytest.mark.parametrize(("recipe", "name"), PAIRS)
def test_a_recipe_alone_chooses_its_class_on_the_command_line(recipe, name):
    taken = groups(recipes.COMMANDS[name], recipe=recipe)
    assert getattr(ovtool, name)(recipe=recipe) in taken


def test_an_option_that_is_given_counts_more_than_the_recipe():
    (method,) = [
        one
        for one in groups("segment", recipe="naclip", method__window=0)
        if isinstance(one, Patch)
    ]
    assert (method.window, method.short_side) == (0, 336)


def test_a_recipe_of_another_member_or_command_is_refused_in_one_line():
    with pytest.raises(UsageError, match="--recipe ovseg is none of patch, which has pacl, naclip"):
        groups("segment", recipe="ovseg", method__="patch")
    with pytest.raises(UsageError, match="--recipe belongs to --method patch or two-stage"):
        groups("segment", recipe="naclip", method__="fused")
    field = option.fields(Patch)["recipe"]
    with pytest.raises(UsageError, match="--recipe semples belongs to cam, tune-prompts, refine; "):
        field.parsed(["semples"])
    with pytest.raises(UsageError, match="did you mean 'naclip'?"):
        field.parsed(["nacip"])


def test_a_recipe_has_no_part_in_a_generator_that_is_trained():
    with pytest.raises(UsageError, match="--recipe belongs to the training of a generator"):
        LabelMatching(recipe="semples", generator="g.safetensors")


def test_the_published_way_of_two_stage_takes_the_masks_of_a_file():
    assert TwoStage(recipe="ovseg", proposals="p.json").region_features == "crops"
    with pytest.raises(TypeError):
        Fused(recipe="naclip")
