"""A command and its function in Python have the same parameters and defaults."""

import importlib
import inspect

import pytest

from ovtool.cli.app import COMMANDS, imported

STAGES = {
    "propose": "propose",
    "mine-pairs": "mine_pairs",
    "cam": "cam",
    "refine": "refine",
    "merge": "merge",
    "convert": "convert",
    "evaluate": "evaluate",
    "probe oracle": "probe_oracle",
    "probe alignment": "probe_alignment",
    "probe coherence": "probe_coherence",
    "probe classify": "probe_classify",
    "info": "info",
    "check": "check",
    "doctor": "doctor",
    "data list": "data_list",
    "data make": "data_make",
}


def function_of(name):
    """The typed function of a command, such as `probe oracle`."""
    rows = COMMANDS
    for word in name.split():
        (row,) = [row for row in rows if row.name == word]
        rows = row.target
    return imported(row.target)


@pytest.mark.parametrize("name", STAGES)
def test_the_command_and_its_function_have_the_same_parameters(name):
    stage = importlib.import_module(f"ovtool.stages.{STAGES[name]}")
    own = inspect.signature(stage.run).parameters
    command = inspect.signature(function_of(name)).parameters
    assert [key for key in own if key != "progress"] == [key for key in command if key != "json"]
    for key in command.keys() & own.keys():
        assert command[key].default == own[key].default, key
        assert (command[key].kind == inspect.Parameter.KEYWORD_ONLY) == (
            own[key].kind == inspect.Parameter.KEYWORD_ONLY
        ), key
    assert len(own) <= 10
    assert "progress" not in own or list(own)[-1] == "progress"
