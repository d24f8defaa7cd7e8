"""Words that a model knows by heart: texts that are one of them have its embedding, without the text tower."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ovtool.datasets.vocabularies import folded

_ARTICLE = re.compile(r"(?:an?|the|one|some|many|my|his|her|their|its)\s+")
_OF = re.compile(
    r"(?:(?:there is|this is|itap of|it is)\s+)?(?:(?:an?|the|one|my)\s+)?"
    r"(?:(?:bad|good|blurry|bright|dark|clean|cropped|close-up|low resolution|black and white)\s+)*"
    r"(?:photo|photograph|picture|image|painting|drawing|rendering)\s+of\s+"
)
_KIND = re.compile(r"(?:(?:small|medium|large|big|clean|dirty|old|new|nice|weird|cool)\s+)+")
_PLURALS = (("ies", "y"), ("ves", "f"), ("es", ""), ("s", ""))


@dataclass(frozen=True, eq=False)
class WordTable:
    """The rows of words in a model's table of embeddings.

    Attributes:
        rows: the row of each word, in small letters.
    """

    rows: Mapping[str, int]

    @classmethod
    def of(cls, words: Sequence[str], rows: Sequence[int]) -> "WordTable":
        """The table of words and their rows, one row for each word; of a word that is there twice the first counts."""
        pairs = zip(map(folded, reversed(words)), reversed(rows), strict=True)
        return cls(dict(pairs))

    def row(self, text: str) -> int | None:
        """The row of a word, or None for any other text.

        Letter case, a full stop, an article, the regular plural, and "a photo of" with a plain adjective before the
        word make no difference.
        """
        plain = folded(text).rstrip(". ")
        inner = _after(_ARTICLE, _after(_OF, plain))
        for word in (plain, _after(_ARTICLE, plain), inner, _after(_KIND, inner)):
            for form in (word, *_singulars(word)):
                if form in self.rows:
                    return self.rows[form]
        return None

    def is_same(self, text: str, others: Iterable[str]) -> bool:
        """Whether a text has the row of one of the others."""
        row = self.row(text)
        return row is not None and row in map(self.row, others)


def _after(beginning: re.Pattern[str], text: str) -> str:
    """What is left of a text after a beginning, the whole of it where it begins otherwise."""
    match = beginning.match(text)
    return text[match.end() :] if match else text


def _singulars(word: str) -> list[str]:
    """The words of which this one may be the regular plural."""
    return [
        word.removesuffix(plural) + singular
        for plural, singular in _PLURALS
        if word.endswith(plural) and len(word) > len(plural) + 1
    ]
