"""Rows on words: the embeddings of a vocabulary, and the nouns of captions."""

import os
from typing import Any

import torch
from reference import language as plain

from benchmarks.measuring import Setup
from benchmarks.table import Row


def nouns(setup: Setup) -> list[Row]:
    """The nouns of captions."""
    from ovtool.models import nouns as tagging

    captions = plain.captions(300 if setup.quick else 2000)
    pipeline, whole = tagging.load(), plain.whole_pipeline()
    ways = {
        "ours": lambda: list(tagging.find(pipeline, captions)),
        "theirs": lambda: plain.nouns(whole, captions),
    }
    cost = setup.medians(ways, 3)
    each = {way: seconds / len(captions) for way, seconds in cost.items()}
    return [
        Row("nouns", "the nouns of a caption", each["ours"], "`nlp.pipe` with tagger, parser and entities",
            each["theirs"], 3)
    ]  # fmt: skip


def embeddings(setup: Setup) -> list[Row]:
    """847 names in 80 templates through the text tower of a ViT-B/32; the sentences are a sample."""
    import open_clip

    from ovtool.datasets import templates, vocabularies
    from ovtool.models import clip as clips
    from ovtool.models import text

    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32").eval()
    clip = clips.from_model(model, "ViT-B-32 at random weights")
    words = _names(vocabularies, 847)
    sets = templates.templates("openai")
    sentences = [template.format(word) for word in words for template in sets]
    step = max(1, len(sentences) // (48 if setup.quick else 256))
    sample = sentences[::step]
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    ways = {
        "ours": lambda: text.encode_texts(clip, sample),
        "theirs": lambda: plain.embeddings(model, tokenizer, sample, 64),
    }
    cost = setup.medians(ways, 2 if setup.quick else 3)
    what = f"text embeddings of 847 names x {len(sets)} templates, 1 sentence in {step}"
    rows = [Row("text", what, cost["ours"], "`encode_text` at full length", cost["theirs"], 5)]
    if not setup.quick:
        rows.append(_cached(setup, clip, words, cost["theirs"] * step, len(sets)))
    return rows


def _cached(setup: Setup, clip: Any, words: list[str], theirs: float, count: int) -> Row:
    """The same embeddings from the cache."""
    from ovtool.formats import cache as disk
    from ovtool.models import text

    os.environ["OVTOOL_CACHE"] = str(setup.folder / "cache")
    key = [1, clip.fingerprint, clip.device.type, str(clip.dtype), "openai", words]
    kept = disk.entry("text", key, ".safetensors")
    generator = torch.Generator().manual_seed(0)
    embedded = torch.randn(len(words), clip.embed_dim, generator=generator)
    text._write(
        kept, embedded, {"kind": "text", "model": clip.name, "fingerprint": clip.fingerprint}
    )
    cost = setup.medians({"ours": lambda: text.embed_words(clip, words, "openai")}, 7)
    return Row(
        "text-cached", f"the same for all 847 names x {count} templates, from the cache", cost["ours"],
        "`encode_text` at full length, of the sample times its share", theirs, 100,
    )  # fmt: skip


def _names(vocabularies: Any, count: int) -> list[str]:
    """Names of classes, as many as ADE's full list has."""
    names: dict[str, None] = {}
    for vocabulary in ("ade150", "coco171", "voc20"):
        for classes in vocabularies.named(vocabulary).classes:
            names |= dict.fromkeys(classes)
    return [*names, *(f"{first} and {last}" for first in names for last in names)][:count]
