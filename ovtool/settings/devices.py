"""Names of devices, which can be judged without torch."""

import re

from ovtool.errors import UsageError

_NAME = re.compile(r"auto|(cuda|mps|cpu)(:[0-9]+)?")


def check(name: str) -> None:
    """Raises UsageError for a name of no device, such as ``gpu``; whether this machine has it is for torch to say."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"unknown device {name!r}; choose auto, cuda, cuda:N, mps or cpu")
