"""The text tower of `photo`: a vocabulary of sub-words, and a small transformer distilled onto the table of words.

Words of the table are looked up (`ovtool.models.word_table`), so that the tower is for other texts: words in
sentences that the table's grammar does not know, compounds ("wooden chair"), other spellings.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from photo_words import Row
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ovtool.datasets.templates import TEMPLATES
from ovtool.models.network import ResidualAttentionBlock
from ovtool.models.photo import Photo
from ovtool.models.tokenizer import END, START, SubWords

VOCABULARY = 4096
_SENTENCES = (
    *TEMPLATES["one"], *TEMPLATES["pacl"], *TEMPLATES["vild"],
    "{}", "a {}", "the {}", "some {}", "a picture of a {}", "an image of the {}", "two {}", "a close-up of a {}",
    "there is a {} here", "my {}", "one of the {}", "{} outdoors", "a {} in the background", "look at the {}",
)  # fmt: skip
_ADJECTIVES = (
    "red", "blue", "green", "yellow", "black", "white", "brown", "grey", "old", "new", "small", "little", "big",
    "large", "tall", "wooden", "metal", "plastic", "dirty", "clean", "empty", "full", "beautiful", "striped", "orange",
    "pink", "dark", "bright", "golden", "silver", "leather", "cotton", "paper", "round", "square", "flat", "long",
    "short", "thin", "thick", "tiny", "huge", "open", "closed", "broken", "wet", "dry", "furry", "soft", "shiny",
    "sleeping", "running", "standing", "sitting", "flying", "young", "wild", "cute", "ugly", "antique", "modern",
    "spotted", "painted", "frozen", "fresh", "ripe", "folded", "parked", "hanging", "colourful", "transparent",
)  # fmt: skip
_TAILS = (
    "by", "near", "on", "in", "with", "behind", "next to", "under", "in front of", "beside", "at", "and", "without",
)  # fmt: skip
_SYLLABLES = ("ba", "ru", "sty", "pur", "ple", "ny", "lo", "gle", "tar", "mi", "ish", "fen", "dy")


def make_tokenizer(table: Sequence[Row], path: Path) -> None:
    """Learns byte pairs on the words of the table in sentences, and writes them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2,
        special_tokens=["<pad>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [word for row in table for word in row.words for _ in range(3)]
    texts += [sentence.format(word) for sentence in _SENTENCES for word in _ADJECTIVES]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([START, END])
    tokenizer.save(str(path))


def varied(word: str, others: Sequence[str], drawn: random.Random) -> str:
    """A text that means a word: with a plural, an adjective, which may be none that there is, or another word after
    it, in a sentence, in another letter case.
    """
    if drawn.random() < 0.2 and not word.endswith("s"):
        word += "es" if word.endswith(("x", "ch", "sh")) else "s"
    if drawn.random() < 0.3:
        unknown = "".join(drawn.choices(_SYLLABLES, k=drawn.randint(2, 3)))
        word = f"{drawn.choice((unknown, *3 * (drawn.choice(_ADJECTIVES),)))} {word}"
    text = drawn.choice(_SENTENCES).format(word) if drawn.random() < 0.5 else word
    if drawn.random() < 0.2:
        article = drawn.choice(("", "a ", "the ", "some "))
        text = f"{text.rstrip('.')} {drawn.choice(_TAILS)} {article}{drawn.choice(others)}"
    return drawn.choice((text, text, text, text.capitalize(), text.title(), text.upper()))


def begin(model: Photo, table: Sequence[Row], sub_words: SubWords) -> None:
    """Sets the tower so that a text is near the mean of the rows of the words that its sub-words are of, in place.

    A sub-word begins as the mean of those rows, and attention passes tokens as they are.
    """
    (block,) = cast(Sequence[ResidualAttentionBlock], model.transformer.resblocks)
    width, total = model.transformer.width, torch.zeros(model.vocab_size)
    sums = torch.zeros(model.vocab_size, width)
    padding = torch.zeros(width - model.word_table.shape[1])
    with torch.no_grad():
        for index, row in enumerate(table):
            target = torch.cat([model.word_table[index], padding])
            for word in row.words:
                ids = sub_words([word], model.context_length)[0]
                ids = ids[(ids > 0) & (ids < model.vocab_size - 2)]
                sums[ids] += target / len(ids)
                total[ids] += 1 / len(ids)
        model.token_embedding.weight.copy_(
            sums / total.clamp(min=1)[:, None] + 0.003 * torch.randn_like(sums)
        )
        block.attn.in_proj_weight[2 * width :] = torch.eye(width)
        block.attn.out_proj.weight.copy_(torch.eye(width))
        model.text_projection.copy_(torch.eye(*model.text_projection.shape))


def train(
    model: Photo, table: Sequence[Row], tokenizer: Path, steps: int, seed: int, batch: int = 128
) -> None:
    """Distils the table onto the text tower, in place: cosine with its row, and softmax over all rows."""
    torch.manual_seed(seed)
    drawn, sub_words = random.Random(seed), SubWords(tokenizer)
    begin(model, table, sub_words)
    pairs = [(word, index) for index, row in enumerate(table) for word in row.words]
    # a word of COCO's names is drawn five times as often
    weights = [5.0 if index < 133 else 1.0 for _, index in pairs]
    others = [row.words[0] for row in table[:133]]
    rows = model.word_table.detach()
    own = [
        *model.transformer.parameters(), *model.token_embedding.parameters(), *model.ln_final.parameters(),
        model.positional_embedding, model.text_projection,
    ]  # fmt: skip
    optimizer = torch.optim.AdamW(own, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 2e-3, total_steps=steps, pct_start=0.1
    )
    for step in range(steps):
        sampled = drawn.choices(pairs, weights, k=batch)
        target = torch.tensor([index for _, index in sampled])
        tokens = sub_words(
            [varied(word, others, drawn) for word, _ in sampled], model.context_length
        )
        features = encode(model, tokens)
        losses = cross_entropy(20 * features @ rows.T, target)
        cosine = (features * rows[target]).sum(1).mean()
        optimizer.zero_grad()
        (losses + 4 * (1 - cosine)).backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"text {step}: {losses.item():.3f}, cosine {cosine.item():.3f}", flush=True)


def encode(model: Photo, tokens: Tensor) -> Tensor:
    """Texts of a batch, cut to the longest of them, to (N, D) of length 1."""
    length = int((tokens > 0).sum(1).max())
    tokens, mask = tokens[:, :length], model.attn_mask[:length, :length]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=mask))
    return normalize(x[torch.arange(len(x)), tokens.argmax(1)] @ model.text_projection, dim=1)
