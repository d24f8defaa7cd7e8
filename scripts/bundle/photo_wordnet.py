"""WordNet as the words of `photo` need it: nouns, their senses, and the classes of ImageNet under each.

Reads `data.noun`, `index.noun` and `noun.exc` of WordNet 3.0, in which the ids of ImageNet's classes are offsets
(Debian's `wordnet-base` has them in `/usr/share/wordnet`). Princeton's licence is permissive.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from timm.data.imagenet_info import ImageNetInfo


@dataclass(frozen=True)
class Synset:
    """A sense: its words as WordNet writes them, spaces for underscores, and its hypernyms' offsets."""

    words: tuple[str, ...]
    hypernyms: tuple[str, ...]


@dataclass(frozen=True)
class WordNet:
    """The nouns.

    Attributes:
        synsets: offset, eight digits, to synset.
        senses: word in small letters to offsets, the most frequent first.
        plurals: irregular plurals of a word.
    """

    synsets: dict[str, Synset]
    senses: dict[str, tuple[str, ...]]
    plurals: dict[str, tuple[str, ...]]

    def ancestors(self, offset: str) -> set[str]:
        """The synset and all that it is a kind of."""
        above, waiting = {offset}, [offset]
        while waiting:
            new = set(self.synsets[waiting.pop()].hypernyms) - above
            above |= new
            waiting.extend(new)
        return above

    @cached_property
    def classes(self) -> dict[str, tuple[int, ...]]:
        """Offset to the ImageNet classes that are it or kinds of it; synsets without classes are left out."""
        below: dict[str, list[int]] = defaultdict(list)
        names = ImageNetInfo("imagenet-1k").label_names()  # type: ignore[no-untyped-call]
        for index, name in enumerate(names):
            for offset in self.ancestors(name[1:]):
                below[offset].append(index)
        return {offset: tuple(classes) for offset, classes in below.items()}

    def sense(self, word: str) -> str | None:
        """The first sense of a word that has classes, or None; `word#2` names the second sense."""
        name, _, number = word.partition("#")
        senses = self.senses.get(name, ())
        if number:
            return senses[int(number) - 1]
        return next((offset for offset in senses if offset in self.classes), None)


def read(folder: Path) -> WordNet:
    """Reads the nouns of WordNet from the folder of its files."""
    synsets, senses = {}, {}
    for line in _lines(folder / "data.noun"):
        fields = line.split(" | ")[0].split()
        count = int(fields[3], 16)
        words = tuple(word.replace("_", " ") for word in fields[4 : 4 + 2 * count : 2])
        pointers = fields[5 + 2 * count :]
        above = tuple(
            pointers[i + 1] for i in range(0, len(pointers) - 3, 4) if pointers[i][0] == "@"
        )
        synsets[fields[0]] = Synset(words, above)
    for line in _lines(folder / "index.noun"):
        fields = line.split()
        senses[fields[0].replace("_", " ")] = tuple(fields[-int(fields[2]) :])
    plurals: dict[str, tuple[str, ...]] = {}
    for line in _lines(folder / "noun.exc"):
        plural, *singulars = line.replace("_", " ").split() if "_" not in line else _spaced(line)
        for singular in singulars:
            plurals[singular] = (*plurals.get(singular, ()), plural)
    return WordNet(synsets, senses, plurals)


def _spaced(line: str) -> list[str]:
    return [word.replace("_", " ") for word in line.split()]


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line[0] != " "]
