"""Words that a model knows by heart: texts that are one of them have its embedding, without the text tower."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from ovtool.datasets import related_words
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
        kinds: of words that are not in the table, the word of it of which each names a kind.
    """

    rows: Mapping[str, int]
    kinds: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        words: Sequence[str],
        rows: Sequence[int],
        same: Mapping[str, str] = MappingProxyType({}),
        kinds: Mapping[str, str] = MappingProxyType({}),
    ) -> "WordTable":
        """The table of words and their rows, one row for each word; of a word that is there twice the first counts.

        Args:
            words: as they are written.
            rows: of each.
            same: words that mean another word of the table, whatever row they have.
            kinds: as of the attribute.
        """
        table = dict(zip(map(folded, reversed(words)), reversed(rows), strict=True))
        return cls(table | {word: table[meant] for word, meant in same.items()}, kinds)

    def row(self, text: str) -> int | None:
        """The row of a word, or None for any other text.

        Letter case, a full stop, an article, the regular plural, and "a photo of" with a plain adjective before the
        word make no difference. A word that names a kind of a background word has the row of that (`kind`).
        """
        known = next((form for form in _forms(text) if form in self.rows), None) or self.kind(text)
        return None if known is None else self.rows[known]

    def kind(self, text: str) -> str | None:
        """The word of the table that stands for a word which is not in it, and names a kind of it: "road" for "alley".
        What the table itself does not say is asked of the background words' kinds.
        """
        forms = list(_forms(text))
        if any(form in self.rows for form in forms):
            return None
        kinds = (self.kinds.get(form) or related_words.background_of(form) for form in forms)
        return next((word for word in kinds if word in self.rows), None)

    def is_same(self, text: str, others: Iterable[str]) -> bool:
        """Whether a text has the row of one of the others."""
        row = self.row(text)
        return row is not None and row in map(self.row, others)


def _forms(text: str) -> Iterator[str]:
    """The words that a text may be."""
    plain = folded(text).rstrip(". ")
    inner = _after(_ARTICLE, _after(_OF, plain))
    for word in (plain, _after(_ARTICLE, plain), inner, _after(_KIND, inner)):
        yield word
        yield from _singulars(word)


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
