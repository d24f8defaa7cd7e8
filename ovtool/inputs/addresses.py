"""The arguments of a command that are addresses of object stores (`s3://...`), as places of this machine.

An input is fetched before the command runs. An output is made in the cache, and copied when the command has ended
well; the parts and locks of a run stay on this machine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, wraps
from inspect import signature
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from ovtool.errors import UsageError
from ovtool.formats import remote, shards
from ovtool.settings import arguments as checked
from ovtool.settings.field import OUTPUT
from ovtool.settings.option import fields, is_settings, panel_of
from ovtool.settings.shared import Run

P = ParamSpec("P")
R = TypeVar("R")
WRITTEN = (
    "out",
    "plot",
)  # parameters that name what a command writes, beside the fields under `OUTPUT`
SHARDS = "captions"  # may name shards, which are fetched one by one
SOME_FAILED = 3  # the exit status of a command that wrote its output without some images
_logger = logging.getLogger("ovtool")


@contextmanager
def on_this_machine(
    arguments: Mapping[str, Any], say: Callable[[str], None] = _logger.info
) -> Iterator[dict[str, Any]]:
    """The arguments of a command, by name, with places of this machine for addresses; `say` is told what was
    copied to one.

    Raises:
        UsageError: an update of an output that is elsewhere, or a folder to be made there.
        OutputExistsError: an output is there already.
        InputError: an address cannot be read or written.
    """
    run = arguments.get("run")
    made: dict[str, Path] = {}
    place = partial(_place, made=made, run=run if isinstance(run, Run) else Run())
    local = {
        name: value if name == SHARDS and _is_shards(value) else place(value, name in WRITTEN)
        for name, value in arguments.items()
    }
    try:
        yield local
    except Exception as error:
        if getattr(error, "exit_code", None) == SOME_FAILED:
            _deliver(made, say)
        raise
    _deliver(made, say)


def with_addresses(stage: Callable[P, R]) -> Callable[P, R]:
    """A stage that takes addresses for files and folders, and says what is wrong with arguments of another type."""
    declared = signature(stage, eval_str=True)

    @wraps(stage)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        given = declared.bind(*args, **kwargs)
        checked.check(given.arguments, declared.parameters)
        with on_this_machine(given.arguments) as local:
            is_here = all(local[name] is value for name, value in given.arguments.items())
            given.arguments.update(local)
            result = stage(*given.args, **given.kwargs)
            return result if is_here else _held(result)

    return run


def _held(result: R) -> R:
    """The result of a stage without need of the file that it wrote, which is moved."""
    from ovtool.runtime.outcome import Outcome  # slow to import, and few need it

    return cast(R, result.held()) if isinstance(result, Outcome) else result


def _is_shards(value: Any) -> bool:
    return isinstance(value, str) and shards.is_shards(value)


def _deliver(made: Mapping[str, Path], say: Callable[[str], None]) -> None:
    for name, place in made.items():
        if place.exists():
            count = remote.deliver(name, place)
            say(f"written to {name}" + (f", {count} files" if count > 1 else ""))


def _place(value: Any, is_written: bool, *, made: dict[str, Path], run: Run) -> Any:
    """A value with a place of this machine for each address in it; `made` gets those that are written."""
    place = partial(_place, made=made, run=run)
    if is_settings(type(value)):
        local = {}
        for name, field in fields(type(value)).items():
            panel = field.option.panel or panel_of(type(value))
            local[name] = place(getattr(value, name), panel == OUTPUT)
        changed = {name: new for name, new in local.items() if new is not getattr(value, name)}
        return replace(value, **changed) if changed else value
    if isinstance(value, tuple | list) and any(remote.address(item) for item in value):
        return type(value)(place(item, is_written) for item in value)
    address = remote.address(value)
    if address is None:
        return value
    if not is_written:
        return type(value)(remote.local(address))
    if run.update:
        raise UsageError(
            f"--update compares the times of files here; give --overwrite for {address}"
        )
    made[address] = remote.staged(address, run.overwrite)
    return type(value)(made[address])
