"""The words that images are segmented by."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from ovtool.errors import UsageError
from ovtool.settings.field import Option
from ovtool.settings.option import settings

ClassesPerImage = Annotated[
    Path | None, Option("The words of each image: JSON, file name to list of words.")
]


@settings(panel="Words")
class Words:
    """The words that are looked for, and those that compete with them."""

    classes: Annotated[
        str | None,
        Option(
            'The words: "person|man,tv"; | stands between synonyms, \\, for a comma. Default: those of '
            "the data set.",
            metavar="WORDS",
        ),
    ] = None
    classes_file: Annotated[
        Path | None, Option("The words of a file, a class a line; ; stands between synonyms.")
    ] = None
    vocabulary: Annotated[
        Literal["voc20", "coco80", "coco171", "ade150"] | None,
        Option("The words of a known data set."),
    ] = None
    classes_per_image: ClassesPerImage = None
    background: Annotated[
        str | None,
        Option(
            "Words that compete and are dropped, or none. Default with --classes: a list of stuff words.",
            metavar="WORDS",
        ),
    ] = None

    only: Annotated[
        tuple[str, ...],
        Option(
            "Write masks of this word only, while the others compete with it. Default: all.",
            metavar="WORD",
            repeat=True,
        ),
    ] = ()

    def check(self) -> None:
        """Raises UsageError for words that are named in two ways."""
        names = ("classes", "classes_file", "vocabulary", "classes_per_image")
        given = [f"--{name.replace('_', '-')}" for name in names if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"{given[0]} and {given[1]} both name the words; give one of them")
