#!/usr/bin/env python3
"""Trains the bundled CLIP `tiny` on `collage:train`, from nothing.

    scripts/bundle/train_tiny.py --pictures 1300000 --checkpoint tiny.pt --export ovtool/weights/tiny.safetensors

Needs the art of `scripts/bundle/fetch_art`. It goes on from --checkpoint when that exists; the data depend on
(seed, step) alone. The loss is a softmax over all nouns of the table, plus the same over the grounds
x 0.3, plus InfoNCE over captions x 0.5 and a loss on patches x 0.5 from a third of the way on; no mask
is ever read. Images are close single objects at 96 px for the first part, then scenes at 128 px. The
learning rate rises, stays, and falls over the last fifth.
"""

import argparse
import itertools
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from scene_batches import CLOSE, MIDDLE, SceneBatch, SceneBatches
from torch import Tensor
from torch.utils.data import DataLoader

from ovtool.datasets import collage
from ovtool.datasets.nouns import GROUNDS, table
from ovtool.formats import tensors

CONFIG = Path(__file__).parents[2] / "ovtool" / "weights" / "tiny.json"
# How its patches are read best: measured with scripts/measure/methods.py on collage:val.
DENSE = {"last_block": "maskclip", "short_side": 160, "window": 96, "stride": 32}
LOG_EVERY = 100  # steps
TEMPLATES = (
    "{}",
    "a {}",
    "a photo of a {}.",
    "a picture of a {}",
    "there is a {} in the scene",
    "the {}",
)


@dataclass(frozen=True)
class Schedule:
    """What each step is: the law of its images, their size, and its learning rate."""

    steps: int
    peak: float
    close_share: float = 0.512
    warmup: int = 500
    decay_share: float = 0.2
    patches_from: float = 0.384

    def stage(self, step: int) -> tuple[collage.SceneLaw, int]:
        if step < self.close_share * self.steps:
            return CLOSE, 96
        return (collage.SINGLE, 128) if step % 3 == 0 else (MIDDLE, 128)

    def rate(self, step: int) -> float:
        left = (self.steps - step) / (self.decay_share * self.steps)
        return self.peak * min(1.0, (step + 1) / self.warmup, max(left, 0.0))


def encode_pictures(
    model: CLIP, pixels: Tensor, corner: Tensor, kept: int
) -> tuple[Tensor, Tensor]:
    """Unit embeddings of the class token (B, D) and of the patches (B, T, D), of normalised pixels
    (B, 3, S, S), S at most the native size.

    A smaller image takes the positions of a part of the grid, from `corner` (row, column) on, and
    `kept` of its patches, drawn at random. Patches are embedded by the values of the last block's
    attention, as MaskCLIP reads them (`--last-block maskclip`).
    """
    visual = model.visual
    patches = visual.conv1(pixels)  # (B, E, h, w)
    height, width = patches.shape[2:]
    side = visual.grid_size[0]
    grid = visual.positional_embedding[1:].view(side, side, -1)
    rows = corner[0] + torch.arange(height, device=pixels.device)
    columns = corner[1] + torch.arange(width, device=pixels.device)
    positions = grid[rows][:, columns].reshape(height * width, -1)
    tokens = patches.flatten(2).transpose(1, 2) + positions
    if kept < height * width:
        order = torch.rand(len(tokens), height * width, device=pixels.device)
        kept_places = order.argsort(1)[:, :kept]
        tokens = tokens.gather(1, kept_places[..., None].expand(-1, -1, tokens.shape[-1]))
    token = visual.class_embedding + visual.positional_embedding[0]
    tokens = visual.ln_pre(torch.cat([token.expand(len(tokens), 1, -1), tokens], 1))
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        tokens = block(tokens)
    attention, dim = last.attn, tokens.shape[-1]
    values = F.linear(
        last.ln_1(tokens[:, 1:]),
        attention.in_proj_weight[2 * dim :],
        attention.in_proj_bias[2 * dim :],
    )
    places = visual.ln_post(attention.out_proj(values)) @ visual.proj
    whole = visual.ln_post(last(tokens)[:, 0]) @ visual.proj
    return F.normalize(whole, dim=-1), F.normalize(places, dim=-1)


def encode_texts(model: CLIP, texts: Tensor) -> Tensor:
    """Unit embeddings (N, D) of token rows (N, context), encoded at their true length."""
    length = int(texts.argmax(1).max()) + 1
    texts = texts[:, :length]
    tokens = model.token_embedding(texts) + model.positional_embedding[:length]
    tokens = model.ln_final(model.transformer(tokens, attn_mask=model.attn_mask[:length, :length]))
    pooled = tokens[torch.arange(len(texts), device=texts.device), texts.argmax(1)]
    return F.normalize(pooled @ model.text_projection, dim=-1)


def word_sheet(rng: np.random.Generator) -> list[str]:
    """All nouns, then all grounds, in one template drawn at random; a synonym in one of five."""
    form = TEMPLATES[rng.integers(len(TEMPLATES))]
    words = [
        noun.synonyms[rng.integers(len(noun.synonyms))]
        if noun.synonyms and rng.random() < 0.2
        else noun.name
        for noun in table()
    ]
    return [form.format(word) for word in (*words, *GROUNDS)]


def patch_loss(places: Tensor, words: Tensor, scale: Tensor, batch: SceneBatch) -> Tensor:
    """Words of the image against the mean over patches of each patch's softmax over all words.

    Every patch has to choose, and only the words of the image pay, so objects and grounds find their
    own patches although no mask is read.
    """
    present = torch.cat([batch.nouns > 0, batch.grounds > 0], 1).float()
    target = present / present.sum(1, keepdim=True)
    mean = (scale * places.float() @ words.float().T).softmax(-1).mean(1)  # (B, words)
    return -(target * mean.clamp(min=1e-6).log()).sum(1).mean()


def loss_of(
    model: CLIP,
    pictures: Tensor,
    places: Tensor | None,
    words: Tensor,
    captions: Tensor | None,
    batch: SceneBatch,
) -> tuple[Tensor, Tensor]:
    """The loss, and the share of images whose best noun is one of theirs."""
    scale = model.logit_scale.exp()
    logits = scale * pictures.float() @ words.float().T
    count = len(table())
    noun_logits, ground_logits = logits[:, :count], logits[:, count:]
    loss = F.cross_entropy(noun_logits, batch.nouns) + 0.3 * F.cross_entropy(
        ground_logits, batch.grounds
    )
    if captions is not None:
        pairs = scale * pictures.float() @ captions.float().T
        target = torch.arange(len(pairs), device=pairs.device)
        loss = loss + 0.25 * (F.cross_entropy(pairs, target) + F.cross_entropy(pairs.T, target))
    if places is not None:
        loss = loss + 0.5 * patch_loss(places, words, scale, batch)
    right = batch.nouns.gather(1, noun_logits.argmax(1, keepdim=True)) > 0
    return loss, right.float().mean()


def optimizers_of(model: CLIP) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the transformers' blocks, AdamW for all else; both take the same rate,
    and neither decays norms, biases, embeddings or the scale."""
    inner, decayed, rest = [], [], []
    for name, parameter in model.named_parameters():
        if "resblocks" in name and parameter.ndim == 2:
            inner.append(parameter)
        elif parameter.ndim >= 2 and "embedding" not in name:
            decayed.append(parameter)
        else:
            rest.append(parameter)
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    return [
        torch.optim.Muon(inner, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, betas=(0.9, 0.98)),
    ]


def export(model: CLIP, path: Path, pictures: int, seed: int) -> None:
    """Writes the weights as half-precision safetensors, with the words that were learned."""
    weights = {
        name: value.half().cpu()
        for name, value in model.state_dict().items()
        if value.is_floating_point()
    }
    words = [word for noun in table() for word in (noun.name, *noun.synonyms)]
    settings = {"words": [*words, *GROUNDS], "stuff": list(GROUNDS), "dense": DENSE}
    settings |= {"seed": seed, "pictures": pictures}
    exact = {name: value.float() for name, value in weights.items()}
    header = {"kind": "clip", "model": "tiny", "fingerprint": tensors.fingerprint(exact)}
    tensors.save(path, weights, {**header, "settings": settings})


class Training:
    """A model in training: its averaged weights, its optimizers, the step it has reached, its log.

    `forward`, `sheet` and `criterion` are what `tiny_trials.py` exchanges.
    """

    def __init__(
        self, seed: int, device: torch.device, config: dict[str, Any] | None = None
    ) -> None:
        torch.manual_seed(seed)
        config = config or json.loads(CONFIG.read_text())["model_cfg"]
        self.seed, self.device, self.step = seed, device, 0
        self.model = CLIP(**config).to(device)
        self.average = CLIP(**config).to(device).requires_grad_(False)
        self.average.load_state_dict(self.model.state_dict())
        self.optimizers = optimizers_of(self.model)
        self.log: list[dict[str, float]] = []
        self.tokenizer = open_clip.SimpleTokenizer(context_length=self.model.context_length)
        self.forward, self.sheet, self.criterion = encode_pictures, word_sheet, loss_of

    def restore(self, path: Path) -> None:
        """Goes on from a checkpoint."""
        state = torch.load(path, weights_only=True, map_location=self.device)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.log = state["step"], state["log"]

    def save(self, path: Path) -> None:
        """Writes beside and renames, so that a killed run keeps its last whole checkpoint."""
        state = {"model": self.model.state_dict(), "average": self.average.state_dict()}
        state |= {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}
        state |= {"step": self.step, "log": self.log}
        scratch = path.with_suffix(".tmp")
        torch.save(state, scratch)
        scratch.replace(path)

    def loss(self, batch: SceneBatch, schedule: Schedule) -> tuple[Tensor, Tensor]:
        """The loss of a batch at this step, and the share of images whose best noun is theirs."""
        rng = np.random.default_rng([self.seed, self.step, 5])
        torch.manual_seed(self.seed * 1_000_003 + self.step)
        pixels = normalised(batch.pixels.to(self.device))
        side = pixels.shape[-1] // self.model.visual.patch_size[0]
        room = self.model.visual.grid_size[0] - side
        corner = torch.from_numpy(rng.integers(0, room + 1, 2)).to(self.device)
        late = self.step > (1 - schedule.decay_share) * schedule.steps
        kept = side**2 if late else round(0.8 * side**2)
        captions = None
        with torch.autocast(self.device.type, torch.bfloat16):
            pictures, places = self.forward(self.model, pixels, corner, kept)
            words = self._encode(self.sheet(rng))
            if self.step >= schedule.steps // 3:
                captions = self._encode(batch.captions)
        if self.step < schedule.patches_from * schedule.steps:
            places = None
        labelled = replace(
            batch, nouns=batch.nouns.to(self.device), grounds=batch.grounds.to(self.device)
        )
        return self.criterion(self.model, pictures, places, words, captions, labelled)

    def _encode(self, texts: list[str]) -> Tensor:
        return encode_texts(self.model, self.tokenizer(texts).to(self.device))

    def advance(self, loss: Tensor, rate: float) -> None:
        """One step of the optimizers, and now and then of the averaged weights."""
        for group in (group for one in self.optimizers for group in one.param_groups):
            group["lr"] = rate
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, 4.6052)
            if self.step % 4 == 0:
                weight = 1 - min(0.996, (self.step + 1) / (self.step + 40))
                torch._foreach_lerp_(
                    list(self.average.parameters()), list(self.model.parameters()), weight
                )
        self.step += 1


def normalised(pixels: Tensor) -> Tensor:
    """Images uint8 (B, S, S, 3) as the tower takes them, float32 (B, 3, S, S)."""
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN, device=pixels.device) * 255
    deviation = torch.tensor(open_clip.OPENAI_DATASET_STD, device=pixels.device) * 255
    return ((pixels.float() - mean) / deviation).permute(0, 3, 1, 2).contiguous()


def train(args: argparse.Namespace) -> Training:
    """Trains to the end, from the checkpoint if there is one."""
    training = Training(args.seed, torch.device(args.device))
    schedule = Schedule(args.pictures // args.batch_size, args.rate)
    if args.checkpoint.exists():
        training.restore(args.checkpoint)
    if args.compile:
        training.forward = torch.compile(encode_pictures)
    batches = DataLoader(
        SceneBatches(args.seed, training.step, args.batch_size, schedule.stage),
        batch_size=None,
        num_workers=args.workers,
        prefetch_factor=4 if args.workers else None,
    )
    began, first, sums = time.monotonic(), training.step, np.zeros(3)
    for batch in itertools.islice(batches, schedule.steps - training.step):
        loss, right = training.loss(batch, schedule)
        if not torch.isfinite(loss):
            sys.exit(f"the loss is {loss.item()} at step {training.step}: see {args.checkpoint}")
        training.advance(loss, schedule.rate(training.step))
        sums += (loss.item(), right.item(), 1)
        if training.step % LOG_EVERY == 0:
            speed = (training.step - first) * args.batch_size / (time.monotonic() - began)
            line = {"pictures": training.step * args.batch_size}
            loss_mean, right_mean = (sums[:2] / sums[2]).tolist()
            line |= {"loss": round(loss_mean, 4), "right": round(right_mean, 4)}
            training.log.append(line)
            print(json.dumps(line), f"{speed:.0f}/s", flush=True)
            sums[:] = 0
        if training.step % args.save_every == 0 or training.step == schedule.steps:
            training.save(args.checkpoint)
        if args.snapshots and training.step % args.snapshot_every == 0:
            seen = training.step * args.batch_size
            target = args.snapshots / f"tiny-{seen:08d}.safetensors"
            export(training.average, target, seen, args.seed)
    return training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=1_300_000)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--workers", type=int, default=1, help="processes that compose scenes")
    parser.add_argument("--save-every", type=int, default=400, help="steps between checkpoints")
    parser.add_argument("--snapshots", type=Path, help="folder for the weights on the way")
    parser.add_argument("--snapshot-every", type=int, default=800, help="steps between them")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--export", type=Path, help="where to write the weights at the end")
    args = parser.parse_args()
    training = train(args)
    if args.export:
        export(training.average, args.export, training.step * args.batch_size, args.seed)


if __name__ == "__main__":
    main()
