"""The arguments of a command in Python, against the types that it declares."""

from collections.abc import Mapping
from inspect import Parameter
from typing import Any, Literal, get_args, get_origin

from ovtool.errors import UsageError
from ovtool.settings.field import union_members
from ovtool.settings.option import is_settings, split


def check(arguments: Mapping[str, Any], declared: Mapping[str, Parameter]) -> None:
    """Refuses what is of another class of settings, and what is none of the values to choose from.

    Args:
        arguments: By name.
        declared: The parameters of the command, by name, with their types.

    Raises:
        UsageError: An argument is of another type; what to give is named.
    """
    for name, value in arguments.items():
        kind, _ = split(declared[name].annotation)
        members = union_members(kind)
        choices = [
            own
            for member in (kind, *members)
            if get_origin(member) is Literal
            for own in get_args(member)
        ]
        classes = tuple(member for member in members if is_settings(member))
        if classes and str not in members and not isinstance(value, classes):
            given = (
                f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
            )
            wanted = " or ".join(f"ovtool.{member.__name__}(...)" for member in classes)
            raise UsageError(f"{name} is {given}; give {wanted}")
        if choices and value is not None and value not in choices:
            wanted = " or ".join(repr(choice) for choice in dict.fromkeys(choices))
            raise UsageError(f"{name} is {value!r}; give {wanted}")
