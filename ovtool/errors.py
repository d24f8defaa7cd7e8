"""What can go wrong, as classes: each message is one line that says what, where, and how to mend it.

Library code raises these and never exits or prints; `ovtool.cli.errors` turns them into exit codes.
"""


class OvtoolError(Exception):
    """Anything that ovtool itself reports; the message is one line for people."""

    exit_code = 1


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
