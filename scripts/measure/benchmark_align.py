"""Rows of `scripts/measure/benchmark.py` about `train-pacl`: images a second, and memory as the batch grows.

The reference is the straightforward step: encode the pictures, pool them for all texts at once with an
einsum, and back-propagate through all of it.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ovtool.methods import patch_alignment
from ovtool.methods.patch_alignment import Pooling, VisionEmbedder

Cells = tuple[str, str, str, float, str]
MEASURE = """
import re, sys
from pathlib import Path
sys.path.insert(0, {folder!r})
import benchmark_align as bench
def kilobytes(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
work = bench.steps({batch})[{ours!r}]
bench.steps(2)[{ours!r}]()  # what the first step of a process loads
Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
before = kilobytes("VmRSS")
work()
print(kilobytes("VmHWM") - before)
"""


def straightforward(
    embedder: VisionEmbedder, tokens: Tensor, texts: Tensor, scale: float
) -> Tensor:
    """PACL's step as its formulas stand."""
    patches = embedder(tokens)  # (B, T, D)
    cosines = torch.einsum("btd,nd->bnt", normalize(patches, dim=-1), texts)
    weights = (10.0 * cosines).softmax(-1)
    pooled = torch.einsum("bnt,btd->bnd", weights, patches)
    logits = scale * torch.einsum("bnd,nd->bn", normalize(pooled, dim=-1), texts)
    target = torch.arange(len(logits))
    loss = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
    loss.backward()
    return loss.detach()


def two_passes(embedder: VisionEmbedder, tokens: Tensor, texts: Tensor, scale: float) -> Tensor:
    """The step of `train-pacl`."""

    def scores_of(chosen: slice) -> Tensor:
        return patch_alignment.compatibility(embedder(tokens[chosen]), texts, Pooling(10.0))

    def loss_of(scores: Tensor) -> tuple[Tensor, Tensor]:
        owned = torch.eye(len(scores))
        loss, gradient = patch_alignment.loss_and_gradient(scale * scores, owned)
        return loss, scale * gradient

    slices = list(patch_alignment.chunks(len(tokens), tokens.shape[1], len(texts)))
    return patch_alignment.two_pass(scores_of, slices, loss_of)


def steps(batch: int) -> dict[str, Callable[[], Tensor]]:
    """Both steps on the same random tokens of 64 patches, 192 wide."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(batch, 64, 192, generator=generator)
    texts = normalize(torch.randn(batch, 192, generator=generator), dim=-1)
    torch.manual_seed(0)
    embedder = VisionEmbedder(192, 192)
    return {
        "two passes": lambda: two_passes(embedder, tokens, texts, 30.0),
        "at once": lambda: straightforward(embedder, tokens, texts, 30.0),
    }


def speed(batch: int = 256, repeats: int = 3) -> list[Cells]:
    """Images a second of a step of `tiny`, its tower included, and with its tokens kept."""
    from ovtool.models import clip as door
    from ovtool.models import pacl

    clip = door.load("tiny")
    pixels = torch.randn(batch, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    texts = normalize(torch.randn(batch, 192, generator=torch.Generator().manual_seed(1)), dim=-1)
    embedder = VisionEmbedder(192, 192)
    embedder.start_at(clip.model.visual.proj)

    def encoded() -> Tensor:
        return torch.cat([pacl.tokens(clip, some).flatten(1, 2) for some in pixels.split(64)])

    kept = encoded()
    ways = {
        "reference": lambda: straightforward(embedder, encoded(), texts, 30.0),
        "ours": lambda: two_passes(embedder, encoded(), texts, 30.0),
        "kept": lambda: two_passes(embedder, kept, texts, 30.0),
    }
    losses = {name: float(work()) for name, work in ways.items()}
    assert max(losses.values()) - min(losses.values()) < 1e-4, losses
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, work in ways.items():
            began = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - began)
    rate = {name: batch / statistics.median(some) for name, some in times.items()}
    slow = f"encode, einsum over all pairs at once: {rate['reference']:.0f}/s"
    what = f"`train-pacl`, tiny at 128 px, batch {batch}, equal loss"
    return [
        (what, f"{rate['ours']:.0f}/s", slow, rate["ours"] / rate["reference"], "reported"),
        (f"{what}, tokens kept", f"{rate['kept']:.0f}/s", slow, rate["kept"] / rate["reference"], "reported"),
    ]  # fmt: skip


def memory() -> list[Cells]:
    """What a step adds to the peak memory of its process, above tokens and weights."""
    rows = []
    for batch in (64, 256, 1024):
        ours = _added(batch, "two passes")
        once = _added(batch, "at once") if batch < 1024 else _of_formula(batch)
        told = f"at once: {once:.2f} GB" + (" by its largest tensors" * (batch == 1024))
        rows.append(
            (
                f"peak memory of a step, batch {batch}",
                f"{ours:.2f} GB",
                told,
                ours / once,
                "reported",
            )
        )
    return rows


def _added(batch: int, way: str) -> float:
    code = MEASURE.format(folder=str(__file__).rpartition("/")[0] or ".", batch=batch, ours=way)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return int(done.stdout) * 1024 / 1e9


def _of_formula(batch: int) -> float:
    """Cosines, weights and pooled vectors in float32, each held once for the backward pass."""
    return 4 * batch * batch * (2 * 64 + 2 * 192) / 1e9
