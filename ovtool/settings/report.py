"""How a report looks."""

from __future__ import annotations

from typing import Annotated

from ovtool.settings.field import Option
from ovtool.settings.option import settings


@settings(panel="Page")
class Page:
    """One page of HTML."""

    title: Annotated[str | None, Option("The heading. Default: the names of the files.")] = None
    side: Annotated[
        int, Option("Longest side of an image in the page, in pixels.", min=64, max=2048)
    ] = 640
