"""Rows on `train-pacl`: the step over all pairs, in time and in memory as the batch grows."""

from collections.abc import Callable
from typing import Any

import torch
from reference import alignment as plain
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.measuring import Setup, added_gigabytes
from benchmarks.table import Row


def two_passes(embedder: Any, tokens: Tensor, texts: Tensor, scale: float) -> Tensor:
    """The step of `train-pacl`."""
    from ovtool.methods import patch_alignment
    from ovtool.methods.patch_alignment import Pooling

    def scores_of(part: slice) -> Tensor:
        return patch_alignment.compatibility(embedder(tokens[part]), texts, Pooling(10.0))

    def loss_of(scores: Tensor) -> tuple[Tensor, Tensor]:
        owned = torch.eye(len(scores))
        loss, gradient = patch_alignment.loss_and_gradient(scale * scores, owned)
        return loss, scale * gradient

    slices = list(patch_alignment.chunks(len(tokens), tokens.shape[1], len(texts)))
    return patch_alignment.two_pass(scores_of, slices, loss_of)


def steps(batch: int) -> dict[str, Callable[[], Tensor]]:
    """Both steps on the same random tokens of 64 patches, 192 wide."""
    from ovtool.methods.patch_alignment import VisionEmbedder

    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(batch, 64, 192, generator=generator)
    texts = normalize(torch.randn(batch, 192, generator=generator), dim=-1)
    torch.manual_seed(0)
    embedder = VisionEmbedder(192, 192)
    return {
        "ours": lambda: two_passes(embedder, tokens, texts, 30.0),
        "theirs": lambda: plain.step(embedder, tokens, texts, 30.0),
    }


def speed(setup: Setup) -> list[Row]:
    """A step of `tiny`, its tower included, and with its tokens kept."""
    from ovtool.methods.patch_alignment import VisionEmbedder
    from ovtool.models import clip as clips
    from ovtool.models import pacl

    clip, batch = clips.load("tiny"), 64 if setup.quick else 256
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(batch, 3, 128, 128, generator=generator)
    texts = normalize(torch.randn(batch, 192, generator=generator), dim=-1)
    embedder = VisionEmbedder(192, 192)
    embedder.start_at(clip.model.visual.proj)

    def encoded() -> Tensor:
        return torch.cat([pacl.tokens(clip, some).flatten(1, 2) for some in pixels.split(64)])

    kept = encoded()
    ways = {
        "theirs": lambda: plain.step(embedder, encoded(), texts, 30.0),
        "ours": lambda: two_passes(embedder, encoded(), texts, 30.0),
        "kept": lambda: two_passes(embedder, kept, texts, 30.0),
        "tower": encoded,
    }
    cost = setup.medians(ways, 5)
    what, slow = f"a step of `train-pacl`, `tiny` at 128 px, batch {batch}", "encode, one einsum"
    return [
        Row("pacl", f"{what}, the same loss", cost["ours"], slow, cost["theirs"], 1.5,
            f"{100 * cost['tower'] / cost['ours']:.0f} % is the tower, which both run"),
        Row("pacl-kept", f"{what}, tokens kept", cost["kept"], slow, cost["theirs"]),
    ]  # fmt: skip


def memory(setup: Setup) -> list[Row]:
    """What a step adds to the peak memory of its process, above tokens and weights."""
    rows = []
    for batch in (64, 256, 1024):
        ours = added_gigabytes("alignment", "steps", "ours", batch)
        if batch < 1024:
            theirs, slow = added_gigabytes("alignment", "steps", "theirs", batch), "one einsum"
        else:  # cosines, weights and pooled vectors, held for the backward pass
            theirs, slow = (
                4 * batch**2 * (2 * 64 + 2 * 192) / 1e9,
                "one einsum, its largest tensors",
            )
        what = f"peak memory of a step of `train-pacl`, batch {batch}"
        rows.append(Row(f"pacl-memory-{batch}", what, ours, slow, theirs, unit="GB"))
    return rows
