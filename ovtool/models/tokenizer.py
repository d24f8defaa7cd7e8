"""Tokenizers: open_clip's own, and that of sub-words for models of ovtool's own making.

Both are loaded at the first text, for embeddings of texts that are kept in the cache need neither.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ovtool.errors import ModelError
from ovtool.runtime import open_clip_files

CONTEXT_LENGTH = 77
START, END = "<start>", "<end>"


def tokenize(texts: Sequence[str], context_length: int = CONTEXT_LENGTH) -> Tensor:
    """Token ids by open_clip's own tokenizer, the byte pairs of OpenAI's CLIP: int64 (N, context_length)."""
    tokens: Tensor = open_clip_files.module("tokenizer").tokenize(
        list(texts), context_length=context_length
    )
    return tokens


@dataclass(frozen=True)
class SubWords:
    """A tokenizer of sub-words: start of text, the sub-words, end of text, and zeros up to the context.

    Attributes:
        path: a file of the `tokenizers` library whose two largest ids are ``<start>`` and ``<end>``.
    """

    path: Path

    def __call__(self, texts: Sequence[str], context_length: int) -> Tensor:
        """Token ids, int64 (N, context_length); a text that is too long loses its end.

        Raises ModelError where the file is missing or is no such tokenizer.
        """
        tokenizer = _read(self.path)
        start, end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
        tokens = torch.zeros(len(texts), context_length, dtype=torch.int64)
        encoded = tokenizer.encode_batch(list(texts), add_special_tokens=False)
        for row, text in zip(tokens, encoded, strict=True):
            ids = [start, *text.ids[: context_length - 2], end]
            row[: len(ids)] = torch.tensor(ids)
        return tokens


@functools.cache
def _read(path: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises Exception itself
        reason = str(error).split("\n")[0]
        raise ModelError(
            f"{path} is no tokenizer that can be read ({reason}); put it there"
        ) from None
    size = tokenizer.get_vocab_size()
    if [tokenizer.token_to_id(token) for token in (START, END)] != [size - 2, size - 1]:
        raise ModelError(f"{path}: its last two tokens are not {START} and {END}; make it again")
    return tokenizer
