"""Text embeddings of a vocabulary: templates, mean, and a disk cache.

Each name is put into every template of a set, each sentence is encoded and brought to length 1,
their mean over the templates is taken and brought to length 1 again (the zero-shot classifier of
CLIP, Radford et al., ICML 2021). A class's score is the maximum over its names.

Where the text tower is causal, what follows the end-of-text token cannot change it: sentences are
sorted by length and encoded at the length of the longest of their batch, a tenth of the context for
most.
"""

import functools
import logging
import re
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ovtool.datasets import vocabularies
from ovtool.datasets.templates import templates as sentences_of
from ovtool.errors import OvtoolError, UsageError, short
from ovtool.formats import cache as disk
from ovtool.formats import tensors
from ovtool.models.clip import Clip
from ovtool.models.tower_types import ClipNetwork, TextTower

TOKENS_AT_ONCE = 1 << 14
_logger = logging.getLogger("ovtool")


def embed_words(
    clip: Clip, words: Sequence[str], templates: str = "one", cache: bool = True
) -> Tensor:
    """Embed names: (N, D) float32 of length 1, on the model's device, as `embed` does but without
    its warning.

    With `cache` the result is read from or kept in the user's cache, under the model's fingerprint,
    device kind and dtype, the templates and the words.
    """
    key = [2, clip.fingerprint, clip.device.type, str(clip.dtype), templates, list(words)]
    kept = disk.entry("text", key, ".safetensors")
    if cache and (embedded := _read(kept, (len(words), clip.embed_dim))) is not None:
        return embedded.to(clip.device)
    embedded = _embed(clip, words, sentences_of(templates))
    if cache:
        header = {"kind": "text", "model": clip.name, "fingerprint": clip.fingerprint}
        _write(kept, embedded.cpu(), {**header, "settings": {"templates": templates}})
    return embedded


def _embed(clip: Clip, words: Sequence[str], templates: Sequence[str]) -> Tensor:
    texts = [
        name if _row(clip, name) is not None else template.format(name)
        for name in map(vocabularies.spoken, words)
        for template in templates
    ]
    per_sentence = encode_texts(clip, texts, [word for word in words for _ in templates])
    return normalize(per_sentence.unflatten(0, (len(words), len(templates))).mean(dim=1), dim=-1)


def _read(path: Path, shape: tuple[int, int]) -> Tensor | None:
    """The embeddings in a cache file, or None where it is missing, broken or of another shape."""
    try:
        embedded = tensors.load(path, kind="text")[1]["embeddings"]
    except (OvtoolError, OSError, KeyError):
        return None
    return embedded if tuple(embedded.shape) == shape and embedded.isfinite().all() else None


def _write(path: Path, embedded: Tensor, header: dict[str, object]) -> None:
    """Keep embeddings in a cache file; a cache that cannot be written is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors.save(path, {"embeddings": embedded}, header)
    except (OvtoolError, OSError) as error:
        _logger.debug("the text cache is not written: %s", error)


@torch.no_grad()
def encode_texts(
    clip: Clip, texts: Sequence[str], names: Sequence[str] | None = None, cut: bool = False
) -> Tensor:
    """Encode sentences: (N, D) float32 of length 1, on the model's device.

    `names` says what to call each sentence in an error, itself by default. Raises UsageError for a
    sentence longer than the text tower's context, which with `cut` loses its end instead (see
    `too_long`). A word that the model knows by heart has the embedding of its table.
    """
    rows = [_row(clip, text) for text in texts]
    if all(row is None for row in rows):
        return _read_sentences(clip, texts, names or texts, cut)
    table: Any = clip.model
    encoded: Tensor = normalize(table.word_table[[row or 0 for row in rows]].float(), dim=-1)
    others = [index for index, row in enumerate(rows) if row is None]
    if others:
        called = [(names or texts)[index] for index in others]
        encoded[others] = _read_sentences(clip, [texts[index] for index in others], called, cut)
    return encoded


def _row(clip: Clip, text: str) -> int | None:
    return None if clip.table is None else clip.table.row(text)


def _read_sentences(clip: Clip, texts: Sequence[str], names: Sequence[str], cut: bool) -> Tensor:
    """What the text tower makes of sentences, as `encode_texts`."""
    tokens = _plain_tokens(clip, texts) if cut else _tokenize(clip, texts, names)
    used = used_lengths(clip.model, tokens)
    order = sorted(range(len(texts)), key=lambda i: -used[i])
    encoded: Tensor | None = None
    start = 0
    while start < len(order):
        length = used[order[start]]  # the longest of those left
        chunk = order[start : start + max(1, TOKENS_AT_ONCE // length)]
        batch = tokens[chunk, :length].to(clip.device)
        features = normalize(_encode(clip.model, batch).float(), dim=-1)
        if encoded is None:
            encoded = features.new_empty(len(texts), features.shape[1])
        encoded[torch.tensor(chunk, device=features.device)] = features
        start += len(chunk)
    return torch.empty(0, clip.embed_dim, device=clip.device) if encoded is None else encoded


def _plain_tokens(clip: Clip, texts: Sequence[str]) -> Tensor:
    """The token ids of sentences, (N, context) int64, as the tokenizer cuts those that are too long."""
    context = clip.model.context_length
    if not texts:
        return torch.zeros(0, context, dtype=torch.int64)
    return clip.tokenizer(list(texts), context_length=context)


def too_long(clip: Clip, texts: Sequence[str]) -> Tensor:
    """Which sentences are longer than the text tower's context: bool (N,)."""
    context = clip.model.context_length
    tokens = _plain_tokens(clip, texts)
    longer = clip.tokenizer([*texts, ""], context_length=context + 1)
    padding = longer[-1, -1]
    # a sentence fits if one more place changes nothing and stays padding
    return ~((longer[:-1, :context] == tokens).all(dim=1) & (longer[:-1, -1] == padding))


def _tokenize(clip: Clip, texts: Sequence[str], names: Sequence[str]) -> Tensor:
    """The token ids of sentences, (N, context) int64; UsageError where tokenizers would cut one
    off.
    """
    cut = too_long(clip, texts)
    if cut.any():
        name = names[int(cut.int().argmax())]
        raise UsageError(
            f"the class {short(name)} is too long: {clip.name} reads {clip.model.context_length} "
            "tokens, template included; shorten it"
        )
    return _plain_tokens(clip, texts)


@dataclass(frozen=True, eq=False)
class CausalTower:
    """open_clip's own causal text tower.

    Attributes:
        tower: the network.
        mask: its attention mask, (context, context).
        pooling: `argmax`, the end of text has the largest id, or `eos`, it has the id `end`.
        end: the id of the end of text.
    """

    tower: TextTower
    mask: Tensor
    pooling: str
    end: int

    def embed(self, tokens: Tensor) -> Tensor:
        """The token embeddings of ids (n, length), in the tower's dtype: (n, length, width)."""
        embedded: Tensor = self.tower.token_embedding(tokens)
        return embedded.to(self.tower.transformer.get_cast_dtype())

    def run(self, embedded: Tensor, tokens: Tensor) -> Tensor:
        """Encode sentences, with the causal mask cut to their length.

        Args:
            embedded: token embeddings, (n, length, width).
            tokens: ids that say where the sentences end, int64 (n, length).

        Returns:
            (n, D), not normalised.
        """
        tower, length = self.tower, tokens.shape[1]
        x = embedded + tower.positional_embedding[:length].to(embedded.dtype)
        x = tower.transformer(x, attn_mask=self.mask[:length, :length])
        rows = torch.arange(len(x), device=x.device)
        pooled = tower.ln_final(x)[rows, self.ends(tokens)]
        projection = tower.text_projection
        if projection is None:
            return pooled
        if isinstance(projection, nn.Linear):
            projected: Tensor = projection(pooled)
            return projected
        return pooled @ projection

    def ends(self, tokens: Tensor) -> Tensor:
        """The place where each sentence ends, int64 (n,)."""
        places = tokens if self.pooling == "argmax" else (tokens == self.end).int()
        return places.argmax(dim=1)


def causal_tower(model: ClipNetwork) -> CausalTower | None:
    """The causal text tower of a CLIP, or None where its text tower is of another kind."""
    whole: Any = model
    inner: Any = getattr(model, "text", None)
    if hasattr(model, "text_pool_type"):  # open_clip's CLIP, and those of `network` and `photo`
        tower, pooling, end = whole, whole.text_pool_type, whole.text_eos_id
    elif hasattr(inner, "pool_type") and getattr(inner, "cls_emb", True) is None:
        tower, pooling, end = inner, inner.pool_type, inner.eos_id
    else:
        return None
    if tower.attn_mask is None or pooling not in ("argmax", "eos"):
        return None
    return CausalTower(tower, tower.attn_mask, pooling, end)


def used_lengths(model: ClipNetwork, tokens: Tensor) -> list[int]:
    """How many tokens of each row matter: up to end of text on a causal tower, all on any other."""
    tower = causal_tower(model)
    if tower is None:
        return [tokens.shape[1]] * len(tokens)
    lengths: list[int] = (tower.ends(tokens) + 1).tolist()
    return lengths


def _encode(model: ClipNetwork, tokens: Tensor) -> Tensor:
    """`model.encode_text` of rows that are cut to one length, (n, length) to (n, D)."""
    tower = causal_tower(model)
    return model.encode_text(tokens) if tower is None else tower.run(tower.embed(tokens), tokens)


def warn_unlearned(clip: Clip, names: Iterable[str]) -> None:
    """Warn, once for the same names, of those with words that a small model never learned, or takes for another."""
    if clip.words is None:
        return
    names = list(names)
    learned = {word for name in clip.words for word in _single_words(name)}
    unknown = [name for name in names if not _is_learned(clip, name, learned)]
    if unknown:
        _warn(clip.name, tuple(unknown))
    if clip.table is not None:
        kinds = ((name, clip.table.kind(name)) for name in names)
        if taken := tuple(f"{name} for {kind}" for name, kind in kinds if kind):
            _warn_of_kinds(clip.name, taken)


def _is_learned(clip: Clip, name: str, learned: AbstractSet[str]) -> bool:
    """Whether a small model knows a name: by heart, or by its single words. With a table of words the last of them, which
    says what it is, must be known by heart: `beach` of "beach wagon" alone is no word.
    """
    if _row(clip, name) is not None:
        return True
    words = _single_words(vocabularies.spoken(name))
    if clip.table is not None and (not words or _row(clip, words[-1]) is None):
        return False
    return set(words) <= learned


@functools.cache
def _warn(model: str, names: tuple[str, ...]) -> None:
    _logger.warning(
        "the small model '%s' never learned: %s; what it says of them means little (name a larger one "
        "with --model)",
        model,
        _listed(names),
    )


@functools.cache
def _warn_of_kinds(model: str, taken: tuple[str, ...]) -> None:
    _logger.warning(
        "the small model '%s' takes %s, which is all that it knows of them (name a larger one with --model)",
        model,
        _listed(taken),
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _single_words(name: str) -> list[str]:
    return re.findall(r"[^\W_]+", name.casefold())
