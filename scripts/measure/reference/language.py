"""Text embeddings at the full length of the context, and nouns by a whole spaCy pipeline."""

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

NOUNS = ("dog", "bus", "tree", "teapot", "road", "child")


def embeddings(model: Any, tokenizer: Any, texts: Sequence[str], batch_size: int) -> Tensor:
    """Sentences by `encode_text` in batches, as the tokenizer pads them: float32 (N, D) of length 1."""
    with torch.inference_mode():
        batches = [
            model.encode_text(tokenizer(list(texts[start : start + batch_size])))
            for start in range(0, len(texts), batch_size)
        ]
        return normalize(torch.cat(batches), dim=-1)


def whole_pipeline() -> Any:
    """spaCy's usual English parts, tagger, parser, entities and lemmas, at random weights: the speed of a
    pipeline does not depend on what it has learned."""
    import spacy
    from spacy.training import Example

    language = spacy.blank("en")
    for name in ("tok2vec", "tagger", "parser", "ner"):
        language.add_pipe(name)
    words = ["a", *NOUNS]
    doc = spacy.tokens.Doc(
        language.vocab, words, tags=["DT"] + ["NN"] * len(NOUNS), heads=[1] * len(words),
        deps=["det", "ROOT"] + ["dep"] * (len(words) - 2), ents=["O", "B-X"] + ["O"] * (len(words) - 2),
    )  # fmt: skip
    language.initialize(lambda: [Example(language.make_doc(doc.text), doc)])
    return language


def nouns(language: Any, captions: Sequence[str]) -> list[list[str]]:
    """The words of each caption that are tagged as nouns."""
    return [
        [token.text for token in doc if token.tag_.startswith("NN")]
        for doc in language.pipe(captions)
    ]


def captions(count: int) -> list[str]:
    """Captions of about eleven words."""
    pick = random.Random(0)
    colours = ("red", "large", "small wooden", "white")
    return [
        f"a {pick.choice(colours)} {pick.choice(NOUNS)} stands beside the {pick.choice(NOUNS)} on a "
        f"{pick.choice(colours)} {pick.choice(NOUNS)}, number {number}"
        for number in range(count)
    ]
