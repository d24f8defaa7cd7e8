#!/usr/bin/env python3
"""Makes `ovtool/datasets/related_words.tsv`: the words beside which a built-in background word does not compete.

    scripts/bundle/related_words.py --wordnet FOLDER

A line for each background word: the nouns whose first sense is a kind of it, or of which it is a kind. Of the kinds
those are kept that WordNet counted in its texts, and that are no more visible thing in another sense ("printer").
Names of people, and words that WordNet calls offensive, are left out.
"""

import argparse
import re
from pathlib import Path

import photo_wordnet

FILE = Path(__file__).parents[2] / "ovtool" / "datasets" / "related_words.tsv"
# background words whose sense is not WordNet's first alone
SENSES = {
    "water": (1, 2), "table": (2, 3), "pavement": (1, 2, 3), "snow": (1, 2), "cloud": (2,), "hill": (1, 2),
    "dirt": (1,), "rail": (1, 3), "door": (1, 2), "window": (1, 2, 6), "lamp": (1, 2), "floor": (1,),
}  # fmt: skip
INSULTS = re.compile(
    r"\bslurs?\b|offensive (and|name|slang|term|terms|word)|\(offensive|derogat|disparaging|\bobscene|\binsult(ing|s)?\b"
)
# what it says of these is too mild
ALSO = set("abo cripple idiot imbecile jackass jew-baiter negro nymphomaniac savage whore".split())
WORDS = (
    "person sky wall tree wood grass road sea river mountain sand desk bed building cloud lamp door window wardrobe "
    "ceiling shelf curtain stair floor hill rail fence water snow brick carpet marble asphalt table dirt pavement"
).split()


def counted(folder: Path) -> set[str]:
    """The nouns that WordNet counted in its texts in one sense at least."""
    lines = (folder / "index.noun").read_text(encoding="utf-8").splitlines()
    fields = [line.split() for line in lines if line[0] != " "]
    return {own[0].replace("_", " ") for own in fields if int(own[5 + int(own[3])])}


def unsuitable(folder: Path, wordnet: photo_wordnet.WordNet) -> set[str]:
    """The nouns that insult in one of their two most frequent senses, as WordNet's definitions say, and names of people."""
    lines = (folder / "data.noun").read_text(encoding="utf-8").splitlines()
    synsets = {line[:8]: line.split(" | ", 1) for line in lines if line[0] != " "}
    insults = {offset for offset, (_, meaning) in synsets.items() if INSULTS.search(meaning)}
    (person, *_) = wordnet.senses["person"]
    people = {
        offset
        for offset, (pointers, _) in synsets.items()
        if " @i " in pointers and person in wordnet.ancestors(offset)
    }
    return {
        noun
        for noun, senses in wordnet.senses.items()
        if insults & set(senses[:2]) or senses[0] in people
    }


def related(wordnet: photo_wordnet.WordNet, known: set[str]) -> dict[str, list[str]]:
    """The related words of each background word, in alphabetical order."""
    own = {
        word: {wordnet.senses[word][number - 1] for number in SENSES.get(word, (1,))}
        for word in WORDS
    }
    above = {word: set().union(*map(wordnet.ancestors, own[word])) for word in WORDS}
    lists: dict[str, list[str]] = {word: [] for word in WORDS}
    for noun in sorted(known):
        first = wordnet.senses[noun][0]
        kinds = wordnet.ancestors(first)
        visible = wordnet.sense(noun)
        seen = kinds if visible is None else wordnet.ancestors(visible)
        for word in WORDS:
            is_kind = bool(own[word] & kinds) and bool(own[word] & seen)
            if noun != word and (is_kind or first in above[word]):
                lists[word].append(noun)
    return lists


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    folder = parser.parse_args().wordnet
    wordnet = photo_wordnet.read(folder)
    lists = related(wordnet, counted(folder) - unsuitable(folder, wordnet) - ALSO)
    lines = [f"{word}\t{', '.join(nouns)}\n" for word, nouns in lists.items()]
    FILE.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
