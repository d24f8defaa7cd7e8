"""The words of a run: one vocabulary for all images, or one for each."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ovtool.datasets import registry, vocabularies
from ovtool.datasets.vocabularies import DEFAULT_BACKGROUND, Vocabulary
from ovtool.errors import InputError, UsageError
from ovtool.formats import coco, coco_checks
from ovtool.formats.images import ImageItem


@dataclass(frozen=True)
class Words:
    """What to look for.

    classes: all classes of the run, each with its synonyms; their order is that of the category ids.
    background: the words that compete and are dropped, in every image.
    per_image: for each image's name the indices into `classes` that it is segmented with; None where
        every image takes all.
    default_background: whether nobody chose the background.
    """

    classes: tuple[tuple[str, ...], ...]
    background: tuple[str, ...] = ()
    per_image: Mapping[str, tuple[int, ...]] | None = None
    default_background: bool = False

    def learned_by(self, known: Collection[str] | None) -> "Words":
        """The same words; where the background is the default one, without those that a small model,
        which learned only the words `known`, cannot tell from noise."""
        if known is None or not self.default_background:
            return self
        return replace(self, background=tuple(word for word in self.background if word in known))

    def of_image(self, name: str) -> tuple[int, ...]:
        """The class indices of one image."""
        return tuple(range(len(self.classes))) if self.per_image is None else self.per_image[name]

    def vocabulary(self, indices: Sequence[int]) -> Vocabulary:
        """Some of the classes against the background."""
        return Vocabulary(tuple(self.classes[index] for index in indices), self.background)

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
    those. `background` is a list of words, `none`, or None for the default: the stuff list beside
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
        found, default = vocabularies.named(vocabulary), ()
    elif classes_file is not None:
        found, default = vocabularies.read_classes_file(classes_file), DEFAULT_BACKGROUND
    else:
        found, default = vocabularies.parse_classes(classes or ""), DEFAULT_BACKGROUND
    competing = vocabularies.background_words(background, default)
    whole = vocabularies.with_background(found, competing)
    return Words(whole.classes, whole.background, default_background=background is None)


def _words_of_data_set(inputs: Sequence[str]) -> Path:
    if len(inputs) == 1 and registry.is_name(inputs[0]) and not Path(inputs[0]).exists():
        words = registry.locate(inputs[0]).classes_per_image
        if words is not None:
            return words
    raise UsageError(
        'no words to look for: give --classes "teapot,apple", --classes-file, --vocabulary or '
        "--classes-per-image"
    )


def _per_image(items: Sequence[ImageItem], source: Path, background: tuple[str, ...]) -> Words:
    _, listed = coco_checks.load_json(source)
    if not isinstance(listed, dict):
        raise InputError(f"{source} is no JSON object of file names with their lists of words")
    index: dict[str, int] = {}
    classes: list[tuple[str, ...]] = []
    per_image: dict[str, tuple[int, ...]] = {}
    for item in items:
        words = listed.get(item.name)
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise InputError(f"{source} has no list of words for {item.name}: add one")
        chosen = []
        for names in vocabularies.parse_names(words).classes:
            if names[0].casefold() not in index:
                index[names[0].casefold()] = len(classes)
                classes.append(names)
            chosen.append(index[names[0].casefold()])
        per_image[item.name] = tuple(chosen)
    kept = vocabularies.with_background(Vocabulary(tuple(classes)), background)
    return Words(kept.classes, kept.background, per_image)
