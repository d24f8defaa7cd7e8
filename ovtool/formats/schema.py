"""What parsed JSON must look like before it is used, as plain data.

A schema is a type (`float` takes integers too), a range of integers, a list with the schema of its entries,
or a dictionary with the schema of each key; a key that ends in `?` may be missing or null. Other keys of an
object are not looked at.
"""

from typing import Any, TypeAlias

from ovtool.errors import InputError, short

Schema: TypeAlias = Any  # type | range | list[Schema] | dict[str, Schema], which mypy cannot check

ID = range(1 << 63)
SIZE = range(1, 1 << 16)  # a width of a network, or the short side of what it sees
SIDE = range(1, 1 << 24)  # a side of an image in pixels
_NAMES = {
    str: "a text",
    bool: "true or false",
    int: "an integer",
    float: "a number",
    dict: "an object",
    list: "a list",
}


def check(value: Any, schema: Schema, place: str) -> None:
    """Raise InputError, in one line with the place, where a value is not as its schema says."""
    if isinstance(schema, dict):
        _check_type(value, dict, place)
        for name, inner in schema.items():
            key = name.removesuffix("?")
            if value.get(key) is None and key != name:
                continue
            if key not in value:
                raise InputError(f"{place}.{key} is missing; make the file again")
            check(value[key], inner, f"{place}.{key}")
    elif isinstance(schema, list):
        _check_type(value, list, place)
        for index, entry in enumerate(value):
            check(entry, schema[0], f"{place}[{index}]")
    elif isinstance(schema, range):
        _check_type(value, int, place)
        if value not in schema:
            raise InputError(
                f"{place} is {value}, not {schema.start} to {schema.stop - 1}; make the file again"
            )
    else:
        _check_type(value, schema, place)


def fits(value: Any, schema: Schema) -> bool:
    """Whether a value is as its schema says."""
    try:
        check(value, schema, "")
    except InputError:
        return False
    return True


def _check_type(value: Any, kind: type, place: str) -> None:
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise InputError(f"{place} is {short(value, 40)}, not {_NAMES[kind]}; make the file again")
