"""The table of words of `photo`: what is a row, which words name it, which ImageNet classes are under it.

The 133 names of COCO's panoptic classes come first (`photo_words.tsv`: a name, the words of WordNet whose classes
it has, its synonyms); then every noun of WordNet that has an ImageNet class among its kinds; then words that are
between others.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from photo_wordnet import WordNet

FILE = Path(__file__).with_name("photo_words.tsv")
_MOST_CLASSES = 130  # a noun over more classes than those of dogs says too little ("entity")
# words without a class, and the words that they are between: a saucer is a plate that comes with a cup. The class
# that ImageNet calls plate is, in WordNet, a main course
_BETWEEN = {"saucer": ("entree", "cup")}


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        words: what names it, in small letters; no other row has them.
        classes: the ImageNet classes under it, in [0, 1000).
        between: the rows of whose embeddings it has the mean, for a word without classes.
    """

    words: tuple[str, ...]
    classes: tuple[int, ...]
    between: tuple[int, ...] = ()


def rows(wordnet: WordNet) -> list[Row]:
    """The table: COCO's names first, in COCO's order; a word belongs to the first row that claims it."""
    claimed: set[str] = set()
    table = []
    for words, classes in (*_coco(wordnet), *_nouns(wordnet)):
        own = [word for word in dict.fromkeys(words) if word not in claimed]
        if own:
            own += [w for w in dict.fromkeys(_plurals(wordnet, own)) if w not in {*claimed, *own}]
            claimed.update(own)
            table.append(Row(tuple(own), classes))
    place = {word: index for index, row in enumerate(table) for word in row.words}
    between = [
        Row((word,), (), tuple(place[other] for other in others))
        for word, others in _BETWEEN.items()
    ]
    return [*table, *between]


def coco_names() -> list[str]:
    """The 133 names, in COCO's order."""
    return [line.split("\t")[0] for line in FILE.read_text(encoding="utf-8").splitlines()]


def _coco(wordnet: WordNet) -> Iterable[tuple[Sequence[str], tuple[int, ...]]]:
    for line in FILE.read_text(encoding="utf-8").splitlines():
        name, under, synonyms = line.split("\t")
        classes: set[int] = set()
        for word in filter(None, under.split(", ")):
            offset = wordnet.sense(word)
            if offset is None or offset not in wordnet.classes:
                raise ValueError(f"{FILE.name}: {name} has {word}, which has no class of ImageNet")
            classes.update(wordnet.classes[offset])
        yield (name, *filter(None, synonyms.split(", "))), tuple(sorted(classes))


def _nouns(wordnet: WordNet) -> Iterable[tuple[Sequence[str], tuple[int, ...]]]:
    # of the senses of a word the first that has classes; fewer classes first, so that a word which two
    # synsets share as their first sense stays with the narrower
    order = sorted(wordnet.classes, key=lambda offset: (len(wordnet.classes[offset]), offset))
    for offset in order:
        classes = wordnet.classes[offset]
        if len(classes) > _MOST_CLASSES:
            continue
        words = [word.lower() for word in wordnet.synsets[offset].words]
        yield [word for word in words if wordnet.sense(word) == offset], classes


def _plurals(wordnet: WordNet, words: Iterable[str]) -> Iterable[str]:
    for word in words:
        yield from wordnet.plurals.get(word, ())
