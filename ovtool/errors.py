"""What can go wrong, as classes: each message is one line that says what, where, and how to mend it.

Library code raises these and never exits or prints; `ovtool.cli.errors` turns them into exit codes. What they quote
of an input, whose names may be of any length, is shortened here for all.
"""

import re

_LONG_WORD = re.compile(r"\S{251,}")  # no path of people is as long
_LONGEST = 1500  # letters of a message


def short(value: object, most: int = 60) -> str:
    """A value as one short line for a message, as Python writes it; of an exception its message."""
    line = str(value) if isinstance(value, BaseException) else repr(value)
    end = line[-1:] if isinstance(value, str) else ""  # the quotation mark
    return line if len(line) <= most else f"{line[: most - 3 - len(end)]}...{end}"


def brief(message: str) -> str:
    """A message without the middle of words without end, and of itself where it has none: what is wrong stands at the
    begin of it, and the mend at the end."""
    line = _LONG_WORD.sub(lambda word: f"{word[0][:120]}...{word[0][-100:]}", message)
    return line if len(line) <= _LONGEST else f"{line[:1000]} ... {line[-400:]}"


class OvtoolError(Exception):
    """Anything that ovtool itself reports; the message is one line for people."""

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        super().__init__(brief(str(message)))


class InputError(OvtoolError):
    """A missing, broken or unreadable input, or a place that cannot be written."""


class OutputExistsError(OvtoolError):
    """The output is there already and ``--overwrite`` was not given."""


class UpToDate(OvtoolError):
    """There is nothing to do: with ``--update`` an output is newer than all that it is made from.

    Attributes:
        output: The file that is up to date.
    """

    exit_code = 0

    def __init__(self, output: object) -> None:
        super().__init__(f"{output} is up to date")
        self.output = str(output)


class UsageError(OvtoolError):
    """A request that cannot be meant: an unknown name, an empty class, options that exclude each other."""

    exit_code = 2


class ModelError(UsageError):
    """A model that is unknown, or whose weights are not at hand."""


class MismatchError(UsageError):
    """Artefacts that do not belong together, such as a head trained for another model."""
