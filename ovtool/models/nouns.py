"""The nouns of captions, with their lemmas and where they stand; all that uses spaCy is here.

>>> pipeline = load()
>>> [noun.lemma for noun in next(find(pipeline, ["There are apple, orange, and teapots"]))]
['apple', 'orange', 'teapot']
"""

from __future__ import annotations

import functools
import hashlib
import html
import re
import runpy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ovtool.datasets import irregular_nouns
from ovtool.datasets.stop_words import STOP_WORDS
from ovtool.errors import ModelError
from ovtool.formats import plain_text
from ovtool.models import sources

if TYPE_CHECKING:  # spaCy takes its time to import
    from spacy.language import Language
    from spacy.tokens import Doc, Span, Token

BUNDLED = "tagger"
PARTS_OF_SPEECH = ("NOUN", "PROPN")
CAPTIONS_AT_ONCE = 512
_OTHER_LANGUAGES = ("da", "de", "es", "fr", "it", "nl", "pl", "pt", "ro", "sv", "tr")
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
_UNUSED = ("ner", "entity_ruler", "entity_linker", "textcat", "senter", "sentencizer")


@dataclass(frozen=True, slots=True)
class Noun:
    """A noun of a text, or a noun phrase.

    lemma: in lower case and singular (`datasets.irregular_nouns` has those without one). surface: as it is written. start, stop: its characters.
    """

    lemma: str
    surface: str
    start: int
    stop: int


@dataclass(frozen=True)
class Pipeline:
    """A spaCy pipeline that tags and lemmatises.

    fingerprint: of its name, version and weights. english: the words that its lemmatiser knows, in lower
    case; empty for a pipeline without a list.
    """

    name: str
    fingerprint: str
    language: Language
    english: frozenset[str] = frozenset()

    @property
    def has_parser(self) -> bool:
        return "parser" in self.language.pipe_names


def read_stop_words(path: Path) -> frozenset[str]:
    """Lemmas to leave out, one a line; blank lines and `#` comments are skipped. Raises InputError."""
    lines = plain_text.lines(path)
    words = (line.partition("#")[0].strip().lower() for line in lines)
    return frozenset(word for word in words if word)


def load(name: str | None = None, *, chunks: bool = False) -> Pipeline:
    """The bundled tagger, or an installed pipeline (`en_core_web_sm`) or a folder of one.

    chunks: keep the pipeline's parser, where it has one, for noun phrases.

    Raises ModelError with the command that installs what is missing.
    """
    import spacy

    source = str(sources.bundled_folder() / BUNDLED) if name is None else name
    try:
        language = spacy.load(source, exclude=[*_UNUSED, *(() if chunks else ("parser",))])
    except OSError:
        if name is None:
            raise ModelError("the bundled tagger is missing; install ovtool again") from None
        raise ModelError(
            f"spaCy's pipeline {name} is not installed: `python -m spacy download {name}`, or leave "
            "--spacy-model out for the bundled tagger"
        ) from None
    except Exception as error:  # a pipeline of another version, or no pipeline at all
        reason = str(error).strip().split("\n")[0]
        raise ModelError(f"cannot load spaCy's pipeline {source}: {reason}") from error
    probe = language("a photo of two dogs")[-1]
    if not probe.pos_ or not probe.lemma_:
        raise ModelError(
            f"spaCy's pipeline {source} gives no parts of speech and lemmas; choose one with a tagger"
        )
    called = BUNDLED if name is None else str(language.meta.get("name") or Path(name).name)
    return Pipeline(called, _fingerprint(language), language, _english(language))


def _english(language: Language) -> frozenset[str]:
    """The nouns, verbs, adjectives and adverbs of the lemmatiser's index, and the words between them."""
    if not language.has_pipe("lemmatizer"):
        return frozenset()
    lookups = getattr(language.get_pipe("lemmatizer"), "lookups", None)
    if lookups is None or not lookups.has_table("lemma_index"):
        return frozenset()
    index = lookups.get_table("lemma_index")
    words = (word for part in index.values() for word in part)
    return frozenset(words) | frozenset(language.Defaults.stop_words)


def _fingerprint(language: Language) -> str:
    """Of the version and of every network in the pipeline."""
    content = hashlib.sha256(str(language.meta.get("version")).encode())
    for _, component in language.pipeline:
        model = getattr(component, "model", None)
        if model is not None and hasattr(model, "to_bytes"):
            content.update(model.to_bytes())
    return content.hexdigest()[:16]


def find(
    pipeline: Pipeline,
    texts: Iterable[str],
    *,
    pos: Sequence[str] = ("NOUN",),
    chunks: bool = False,
    stop: frozenset[str] = STOP_WORDS,
) -> Iterator[tuple[Noun, ...]]:
    """The nouns of each text, in their order, doubled ones too; texts are drawn as they are needed.

    HTML entities are read as what they mean, and a text of whose words most are not English has no noun.

    pos: NOUN for common nouns, PROPN for proper ones. A word joined by hyphens counts as a whole, and
        only where all its parts are nouns (`t-shirt`, not `two-story`).
    chunks: noun phrases, without determiners and numbers: the parser's, or adjectives and then nouns.
    stop: lemmas that are left out; of a phrase, the lemma of its last noun.
    """
    plain = (_without_entities(text) for text in texts)
    for doc in pipeline.language.pipe(plain, batch_size=CAPTIONS_AT_ONCE):
        if not _is_english(doc, pipeline.english):
            yield ()
            continue
        if not chunks:
            spans = _words(doc, pos)
        elif pipeline.has_parser:
            spans = _parsed(doc, pos)
        else:
            spans = _tagged(doc, pos)
        candidates = (_noun(doc, start, end) for start, end in spans)
        yield tuple(
            noun for lemma, noun in candidates if lemma not in stop and _has_letters(noun.lemma)
        )


def _noun(doc: Doc, start: int, end: int) -> tuple[str, Noun]:
    """The tokens `start` to `end` (exclusive) as a noun, and the lemma of its last word."""
    last = doc[end - 1]
    lemma = irregular_nouns.lemma(last.lower_, last.lemma_.lower())
    first, stop = doc[start].idx, last.idx + len(last)
    surface = doc.text[first:stop]
    return lemma, Noun(doc.text[first : last.idx].lower() + lemma, surface, first, stop)


def _without_entities(text: str) -> str:
    """A text with `&amp;` as `&`, filled with blanks to its length, so that places in it stay."""
    return _ENTITY.sub(lambda match: html.unescape(match[0]).ljust(len(match[0])), text)


def _is_english(doc: Doc, english: frozenset[str]) -> bool:
    """Whether half of the words or more are known (the others are names and slips of the pen), and its
    small words are not rather those of another language."""
    words = [token for token in doc if token.is_alpha]
    known = sum(token.lower_ in english or token.lemma_.lower() in english for token in words)
    if english and 2 * known < len(words):
        return False
    own = sum(token.is_stop for token in words)
    others = (sum(token.lower_ in small for token in words) for small in _small_words())
    return not any(count >= 2 and count > own for count in others)


@functools.cache
def _small_words() -> tuple[frozenset[str], ...]:
    """The stop words of other languages in Latin letters, as spaCy has them, less those of English.

    Their files are read on their own: to import `spacy.lang.fr` takes seconds.
    """
    import spacy

    languages = Path(spacy.__file__).parent / "lang"
    sets = [
        runpy.run_path(str(languages / code / "stop_words.py"))["STOP_WORDS"]
        for code in ("en", *_OTHER_LANGUAGES)
    ]
    return tuple(frozenset(words) - sets[0] for words in sets[1:])


def _has_letters(lemma: str) -> bool:
    return sum(letter.isalpha() for letter in lemma) > 1


def _is_hyphen(token: Token) -> bool:
    """Whether a token joins its neighbours to one word."""
    inside = 0 < token.i < len(token.doc) - 1
    return inside and token.text == "-" and not token.whitespace_ and not token.nbor(-1).whitespace_


def _compounds(doc: Doc) -> Iterator[tuple[int, int]]:
    """The words of a text as ranges of tokens: those joined by hyphens are one."""
    start = 0
    for token in doc:
        joined = _is_hyphen(token) or (token.i + 1 < len(doc) and _is_hyphen(doc[token.i + 1]))
        if not joined:
            yield start, token.i + 1
            start = token.i + 1


def _is_noun(tokens: Span, pos: Sequence[str]) -> bool:
    """Whether a word is a noun, and every part of it; one letter will do as a part (`t-shirt`)."""
    parts = [token for token in tokens if token.text != "-"]
    whole = all(token.pos_ in PARTS_OF_SPEECH or len(token) == 1 for token in parts)
    return bool(parts) and whole and parts[-1].pos_ in pos


def _words(doc: Doc, pos: Sequence[str]) -> Iterator[tuple[int, int]]:
    if "-" not in doc.text:  # most texts: every token is a word
        yield from ((token.i, token.i + 1) for token in doc if token.pos_ in pos)
        return
    for start, end in _compounds(doc):
        if _is_noun(doc[start:end], pos):
            yield start, end


def _tagged(doc: Doc, pos: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Adjectives, by choice, and then nouns, as many as there are."""
    first: int | None = None  # where the open phrase begins,
    end: int | None = None  # and where its nouns end so far
    for start, stop in (*_compounds(doc), (len(doc), len(doc))):
        word = doc[start:stop]
        if _is_noun(word, PARTS_OF_SPEECH):
            first, end = start if first is None else first, stop
            continue
        if first is not None and end is not None:
            if doc[end - 1].pos_ in pos:
                yield first, end
            first = end = None
        if not any(token.pos_ == "ADJ" for token in word):
            first = None
        elif first is None:
            first = start


def _parsed(doc: Doc, pos: Sequence[str]) -> Iterator[tuple[int, int]]:
    """The parser's noun phrases up to their head, without what only determines or counts it."""
    for chunk in doc.noun_chunks:
        end = chunk.root.i + 1
        start = chunk.start
        while start < end - 1 and doc[start].pos_ not in ("ADJ", "VERB", *PARTS_OF_SPEECH):
            start += 1
        if chunk.root.pos_ in pos:
            yield start, end
