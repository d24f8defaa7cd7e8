"""The words of a run: one vocabulary for all images, or one for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ovtool.datasets import label_files, registry, related_words, vocabularies
from ovtool.datasets.vocabularies import DEFAULT_BACKGROUND, Vocabulary
from ovtool.errors import InputError, UsageError
from ovtool.formats import coco, labelled
from ovtool.formats.images import ImageItem
from ovtool.inputs import images as image_inputs
from ovtool.settings.words import Words

if TYPE_CHECKING:
    from ovtool.models.word_table import WordTable

_NO_WORDS = Words()


@dataclass(frozen=True)
class WordSet:
    """The words of a run, read and checked.

    Attributes:
        classes: All classes of the run, each with its synonyms; their order is that of category ids.
        background: The words that compete and are dropped, in every image where they are no class.
        per_image: For each image's name the indices into `classes` that it is segmented with; None
            where every image takes all.
        default_background: Whether the background is the default, since no other was asked for.
        ids: The official ids of the classes, where their source has any.
        only: The indices of the classes that are written; None where all are.
    """

    classes: tuple[tuple[str, ...], ...]
    background: tuple[str, ...] = ()
    per_image: Mapping[str, tuple[int, ...]] | None = None
    default_background: bool = False
    ids: tuple[int, ...] | None = None
    only: frozenset[int] | None = None

    def writing(self, words: Sequence[str]) -> WordSet:
        """The same classes, of which those of these words are written; all without any. Raises UsageError for a
        word that is none of them."""
        if not words:
            return self
        index = {vocabularies.folded(n): k for k, names in enumerate(self.classes) for n in names}
        for word in words:
            if vocabularies.folded(word) not in index:
                listed = labelled.shortened([names[0] for names in self.classes])
                raise UsageError(
                    f"--only '{word}' is none of the words that are looked for; they are {listed}"
                )
        return replace(self, only=frozenset(index[vocabularies.folded(word)] for word in words))

    def before(self, own: tuple[str, ...], table: WordTable | None = None) -> WordSet:
        """The same classes; a default background gives way to that of a model which has one of its own, less
        the words that mean the same as one of the classes, a kind of it, or something more general.

        Args:
            own: The background words of the model, none for one without.
            table: The model's table of words, in which words of one row mean the same.
        """
        if not self.default_background:
            return self
        kept = []
        for word in own or self.background:
            is_related = any(related_words.are_related(name, word) for name in self.names)
            if not is_related and not (table and table.is_same(word, self.names)):
                kept.append(word)
        return replace(self, background=tuple(kept))

    def of_image(self, name: str) -> tuple[int, ...]:
        """The class indices of one image."""
        return tuple(range(len(self.classes))) if self.per_image is None else self.per_image[name]

    def rows(self, name: str) -> tuple[list[str], list[int]]:
        """The names that compete in an image, and of each the place of its class among those of the image. The
        background words that are no class of the image are one more class, the last."""
        classes = [self.classes[index] for index in self.of_image(name)]
        own = {vocabularies.folded(word) for names in classes for word in names}
        classes.append(tuple(w for w in self.background if vocabularies.folded(w) not in own))
        names = [word for names in classes for word in names]
        return names, [place for place, names in enumerate(classes) for _ in names]

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of every class, each once."""
        return tuple(dict.fromkeys(name for synonyms in self.classes for name in synonyms))

    @property
    def categories(self) -> tuple[coco.Category, ...]:
        """The classes as COCO categories."""
        return tuple(
            coco.Category(number, names[0], synonyms=names[1:])
            for number, names in zip(self.category_ids, self.classes, strict=True)
        )

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The id of each class: its official id, else its place from 1 on."""
        return tuple(range(1, len(self.classes) + 1)) if self.ids is None else self.ids


def as_settings(words: Words | str | Sequence[str]) -> Words:
    """The settings that words stand for: a text as of --classes, or a list with a class an item.

    Raises:
        UsageError: It is neither of them.
    """
    if isinstance(words, Words):
        return words
    if isinstance(words, str):
        return Words(classes=words)
    if isinstance(words, Sequence) and all(isinstance(word, str) for word in words):
        return Words(classes=vocabularies.joined(words))
    kind = type(words).__name__
    if isinstance(words, Sequence):
        kind += f" with {next(word for word in words if not isinstance(word, str))!r} in it"
    raise UsageError(
        f"the words are {kind}; give a text such as 'teapot,apple', a list of texts, or "
        "ovtool.Words(...)"
    )


def gather(
    items: Sequence[ImageItem],
    inputs: image_inputs.Inputs = (),
    words: Words = _NO_WORDS,
    coco_file: Path | None = None,
) -> WordSet:
    """The words of a run, from the one field of `words` that is given.

    Without any, a data set is segmented with its list of words for each image (`collage`), else with its own
    classes, and images of a COCO JSON with the categories of that. Beside `classes` and `classes_file` the default background is the stuff list (or the list that
    belongs to the model's weights), beside the others nothing.

    Args:
        items: The images.
        inputs: What the images were named by, which may be a data set.
        words: What was asked for.
        coco_file: A COCO JSON that lists the images.

    Raises:
        UsageError: No words are given, or a class is empty or named twice.
        InputError: A file cannot be read.
    """
    per_image = words.classes_per_image
    own: Vocabulary | None = None
    if (words.classes, words.classes_file, words.vocabulary, per_image) == 4 * (None,):
        per_image, own = _words_of_data_set(inputs, coco_file)
    if per_image is not None:
        background = vocabularies.background_words(words.background)
        return _per_image(items, per_image, background).writing(words.only)
    default: tuple[str, ...] = ()
    if own is not None:
        vocabulary = own
    elif words.vocabulary is not None:
        vocabulary = label_files.vocabulary(words.vocabulary, words.names)
    else:
        vocabulary, default = of_classes(words), DEFAULT_BACKGROUND
    competing = vocabularies.background_words(words.background, default)
    whole = vocabularies.with_background(vocabulary, competing)
    by_default = words.background is None and bool(default)
    made = WordSet(whole.classes, whole.background, default_background=by_default, ids=whole.ids)
    return made.writing(words.only)


def of_classes(words: Words) -> Vocabulary:
    """The classes of `classes`, or of `classes_file`. Raises UsageError, InputError."""
    if words.classes_file is not None:
        return vocabularies.read_classes_file(words.classes_file)
    return vocabularies.parse_classes(words.classes or "")


def _words_of_data_set(
    inputs: image_inputs.Inputs, coco_file: Path | None
) -> tuple[Path | None, Vocabulary | None]:
    """The list of words for each image of a data set, or the classes of all. Raises UsageError for other images."""
    if image_inputs.is_data_set(inputs):
        files = registry.locate(image_inputs.names_of(inputs)[0])
        if files.classes_per_image is not None:
            return files.classes_per_image, None
        return None, label_files.words_of(files)
    if coco_file is not None and str(coco_file) != "-":
        return None, label_files.of_categories(coco_file)
    raise UsageError(
        'no words to look for; give --classes "teapot,apple", --classes-file, --vocabulary or '
        "--classes-per-image"
    )


def words_per_image(source: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """The lists of words of a JSON file. Raises InputError where it is broken, or an image has no list."""
    table = labelled.read_classes_per_image(source)
    missing = [name for name in names if name not in table]
    if missing:
        raise InputError(
            f"{source} has no list of words for {labelled.shortened(missing, 1)}; add one for each "
            "image"
        )
    return table


def _per_image(items: Sequence[ImageItem], source: Path, background: tuple[str, ...]) -> WordSet:
    """The words of a JSON file of lists. A class that several images share is one class of the run,
    and has the same synonyms in all of them."""
    listed = words_per_image(source, [item.name for item in items])
    number: dict[str, int] = {}
    classes: list[tuple[str, ...]] = []
    per_image: dict[str, tuple[int, ...]] = {}
    for item in items:
        try:
            vocabulary = vocabularies.parse_names(listed[item.name])
        except UsageError as error:
            raise UsageError(f"{source}: the words of {item.name}: {error}") from None
        for synonyms in vocabulary.classes:
            index = number.setdefault(synonyms[0].casefold(), len(classes))
            if index == len(classes):
                classes.append(synonyms)
            if _folded(classes[index]) != _folded(synonyms):
                raise UsageError(
                    f"{source}: '{synonyms[0]}' has other synonyms for {item.name} than for an "
                    "image before it; write them alike"
                )
        per_image[item.name] = tuple(
            number[synonyms[0].casefold()] for synonyms in vocabulary.classes
        )
    return WordSet(tuple(classes), background, per_image)


def _folded(names: Sequence[str]) -> list[str]:
    return [name.casefold() for name in names]
