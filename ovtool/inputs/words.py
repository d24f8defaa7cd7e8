"""The words of a run: one vocabulary for all images, or one for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ovtool.datasets import registry, vocabularies
from ovtool.datasets.vocabularies import DEFAULT_BACKGROUND, Vocabulary
from ovtool.errors import InputError, UsageError
from ovtool.formats import coco, labelled
from ovtool.formats.images import ImageItem
from ovtool.inputs import images as sources


@dataclass(frozen=True)
class Words:
    """What to look for.

    classes: all classes of the run, each with its synonyms; their order is that of the category ids.
    background: the words that compete and are dropped, in every image where they are no class.
    per_image: for each image's name the indices into `classes` that it is segmented with; None where
        every image takes all.
    default_background: whether the background is the default one, which nobody asked for.
    """

    classes: tuple[tuple[str, ...], ...]
    background: tuple[str, ...] = ()
    per_image: Mapping[str, tuple[int, ...]] | None = None
    default_background: bool = False

    def before(self, stuff: tuple[str, ...]) -> Words:
        """The same classes; a default background gives way to the stuff words of a model that has
        learned only a few, and cannot tell the others from noise."""
        return replace(self, background=stuff) if stuff and self.default_background else self

    def of_image(self, name: str) -> tuple[int, ...]:
        """The class indices of one image."""
        return tuple(range(len(self.classes))) if self.per_image is None else self.per_image[name]

    def vocabulary(self, indices: Sequence[int]) -> Vocabulary:
        """Some of the classes against the background."""
        chosen = Vocabulary(tuple(self.classes[index] for index in indices))
        return vocabularies.with_background(chosen, self.background)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of every class, each once."""
        return tuple(dict.fromkeys(name for synonyms in self.classes for name in synonyms))

    @property
    def categories(self) -> tuple[coco.Category, ...]:
        """The classes as COCO categories."""
        return tuple(
            coco.Category(number, names[0], synonyms=names[1:])
            for number, names in enumerate(self.classes, start=1)
        )


def gather(
    items: Sequence[ImageItem],
    inputs: Sequence[str] = (),
    *,
    classes: str | None = None,
    classes_file: Path | None = None,
    vocabulary: str | None = None,
    classes_per_image: Path | None = None,
    background: str | None = None,
) -> Words:
    """The words of a run, from the one option of the four that is given.

    Without any, a data set that brings a list of words for each image (`collage`) is segmented with
    those. `background` is a list of words, `none`, or None for the default: the stuff list (or that of
    the model, if its weights have one) beside
    `classes` and `classes_file`, nothing beside the others.

    Raises UsageError for none or several of them and for words that cannot be meant, InputError for
    files that cannot be read.
    """
    given = {
        "--classes": classes,
        "--classes-file": classes_file,
        "--vocabulary": vocabulary,
        "--classes-per-image": classes_per_image,
    }
    named = [option for option, value in given.items() if value is not None]
    if len(named) > 1:
        raise UsageError(f"{named[0]} and {named[1]} both name the words: give one of them")
    if not named:
        classes_per_image = _words_of_data_set(inputs)
    if classes_per_image is not None:
        competing = vocabularies.background_words(background)
        return _per_image(items, classes_per_image, competing)
    if vocabulary is not None:
        found = vocabularies.named(vocabulary)
    elif classes_file is not None:
        found = vocabularies.read_classes_file(classes_file)
    else:
        found = vocabularies.parse_classes(classes or "")
    default = DEFAULT_BACKGROUND if vocabulary is None else ()
    competing = vocabularies.background_words(background, default)
    whole = vocabularies.with_background(found, competing)
    by_default = background is None and bool(default)
    return Words(whole.classes, whole.background, default_background=by_default)


def _words_of_data_set(inputs: Sequence[str]) -> Path:
    if sources.is_data_set(inputs):
        words = registry.locate(inputs[0]).classes_per_image
        if words is not None:
            return words
    raise UsageError(
        'no words to look for: give --classes "teapot,apple", --classes-file, --vocabulary or '
        "--classes-per-image"
    )


def _per_image(items: Sequence[ImageItem], source: Path, background: tuple[str, ...]) -> Words:
    """The words of a JSON file of lists. A class that several images share is one class of the run,
    and has the same synonyms in all of them."""
    listed = labelled.read_classes_per_image(source)
    missing = [item.name for item in items if item.name not in listed]
    if missing:
        raise InputError(
            f"{source} has no list of words for {labelled.shortened(missing, 1)}: add one for each "
            "image"
        )
    number: dict[str, int] = {}
    classes: list[tuple[str, ...]] = []
    per_image: dict[str, tuple[int, ...]] = {}
    for item in items:
        try:
            found = vocabularies.parse_names(listed[item.name])
        except UsageError as error:
            raise UsageError(f"{source}: the words of {item.name}: {error}") from None
        for synonyms in found.classes:
            index = number.setdefault(synonyms[0].casefold(), len(classes))
            if index == len(classes):
                classes.append(synonyms)
            if _folded(classes[index]) != _folded(synonyms):
                raise UsageError(
                    f"{source}: '{synonyms[0]}' has other synonyms for {item.name} than for an "
                    "image before it: write them alike"
                )
        per_image[item.name] = tuple(number[synonyms[0].casefold()] for synonyms in found.classes)
    return Words(tuple(classes), background, per_image)


def _folded(names: Sequence[str]) -> list[str]:
    return [name.casefold() for name in names]
