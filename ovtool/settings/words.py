"""The words that images are segmented by."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from ovtool.errors import UsageError
from ovtool.settings import protocols
from ovtool.settings.field import Option
from ovtool.settings.option import settings

Vocabulary = Literal[
    "voc20", "coco80", "coco171", "ade150", "pc59", "cityscapes19", "camvid11", "pc459", "ade847",
]  # fmt: skip
ClassesPerImage = Annotated[
    Path | None, Option("The words of each image: JSON, file name to list of words.")
]


Protocol = Annotated[
    protocols.Name | None,
    Option(
        "A published way to measure: its classes, what is done with background, sizes and thresholds, which a "
        "--recipe may have as its own; options that are given count more.",
        panel="Recipe",
    ),
]


@settings(panel="Words")
class Words:
    """The words that are looked for, and those that compete with them."""

    classes: Annotated[
        str | None,
        Option(
            'The words: "person|man,tv"; | stands between synonyms, \\, for a comma. Default: the '
            "classes of the data set, or of the file of --coco.",
            metavar="WORDS",
        ),
    ] = None
    classes_file: Annotated[
        Path | None, Option("The words of a file, a class a line; ; stands between synonyms.")
    ] = None
    vocabulary: Annotated[
        Vocabulary | None,
        Option("The words of a known data set; pc459 and ade847 are read from its own files."),
    ] = None
    names: Annotated[
        Literal["official", "clip"],
        Option(
            "The names of --vocabulary: official are those of the data set; clip those that published code shows "
            "to a CLIP in their place."
        ),
    ] = "official"
    classes_per_image: ClassesPerImage = None
    protocol: Protocol = None
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
        if self.protocol is not None and set(given) - {"--vocabulary"}:
            raise UsageError(f"--protocol {self.protocol} names the words; leave {given[0]} out")
        if self.names == "clip" and self.vocabulary is None:
            raise UsageError("--names is for the words of --vocabulary or --protocol; leave it out")
        if len(given) > 1:
            raise UsageError(f"{given[0]} and {given[1]} both name the words; give one of them")
