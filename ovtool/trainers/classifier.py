"""The training of a classifier on image-level labels, for its class activation maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import multilabel_soft_margin_loss

from ovtool.batches.labels import LabelBatches
from ovtool.errors import OvtoolError, UsageError
from ovtool.formats.image_labels import Labelled
from ovtool.models.classifier import Classifier
from ovtool.runtime import device as devices
from ovtool.runtime.progress import Progress, no_progress
from ovtool.training import loop
from ovtool.training.checkpoints import Checkpoint
from ovtool.training.loop import Plan, Record, Task

BATCH_SIZE, EPOCHS, RATE, DECAY = 16, 10.0, 1e-3, 1e-2
SAVE_EVERY = 100  # steps


@dataclass(frozen=True)
class Settings:
    """What shapes a training beside labels: AdamW, a cosine, random crops and mirroring.

    arch: `timm:NAME`. side: of the pictures, in pixels. scale: the least share of a picture in a crop.
    steps: None for `epochs`.
    """

    arch: str = "timm:resnet18"
    batch_size: int = BATCH_SIZE
    epochs: float = EPOCHS
    steps: int | None = None
    rate: float = RATE
    side: int = 224
    scale: float = 0.5
    seed: int = 0


def check(labels: Labelled) -> None:
    """Raises UsageError where there is nothing to tell apart."""
    used = {one for image in labels.images for one in image.category_ids}
    if len(used) < 2:
        name = next(c.name for c in labels.categories if c.id in used)
        raise UsageError(
            f"{labels.source} has one label only, '{name}', so that a classifier has nothing to tell apart: "
            "add images of other classes, or take --method gradcam"
        )


def train(
    network: Classifier,
    labels: Labelled,
    settings: Settings,
    checkpoint: Checkpoint,
    begun: Mapping[str, Any] | None,
    progress: Progress = no_progress,
) -> list[Record]:
    """Trains in place and returns the curve: the multi-label soft-margin loss. Raises as `loop.train`."""
    batches = LabelBatches(
        labels, settings.side, settings.batch_size, settings.seed, settings.scale
    )
    steps = settings.steps or max(1, round(settings.epochs * batches.per_epoch))
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=DECAY)
    device = network.weights.device
    network.train(True)

    def gradients(step: int) -> dict[str, float]:
        batch = batches[step]
        torch.manual_seed(settings.seed * 1_000_003 + step)  # for networks that drop something
        logits = network(network.normalise(batch.rgb))
        loss = multilabel_soft_margin_loss(logits, batch.labels.to(device).float())
        loss.backward()
        return {"loss": float(loss.detach())}

    try:
        curve = loop.train(
            Task(
                name="training the classifier",
                modules={"network": network},
                optimizer=optimizer,
                plan=Plan(steps, warmup=min(50, steps // 10), save_every=SAVE_EVERY),
                step=gradients,
            ),
            checkpoint,
            begun=begun,
            progress=progress,
        )
    except Exception as error:
        if not devices.is_out_of_memory(error):
            raise
        raise OvtoolError(
            f"out of memory for a batch of {settings.batch_size}: give a smaller --batch-size"
        ) from error
    network.eval()
    return curve
