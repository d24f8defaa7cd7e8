"""The training of a classifier on image-level labels, for its class activation maps."""

from __future__ import annotations

import torch
from torch.nn.functional import multilabel_soft_margin_loss

from ovtool.batches.labels import LabelBatches
from ovtool.batches.loader import Loader
from ovtool.errors import UsageError
from ovtool.formats.image_labels import Labelled
from ovtool.models.classifier import Classifier
from ovtool.settings.cam import ClassifierMaps
from ovtool.settings.layers import known
from ovtool.training.loop import Plan, Task

SAVE_EVERY = 100  # steps
SIDE, LEAST_SHARE = 224, 0.5  # of the images in pixels; of an image in a crop


def check(labels: Labelled) -> None:
    """Raises UsageError where all images have the same label."""
    used = {category_id for image in labels.images for category_id in image.category_ids}
    if len(used) < 2:
        name = next(category.name for category in labels.categories if category.id in used)
        raise UsageError(
            f"{labels.source} has one label only, '{name}', so that a classifier has nothing to learn; "
            "add images of other classes, or take --method gradcam"
        )


def task(network: Classifier, labels: Labelled, settings: ClassifierMaps) -> Task:
    """The training of a network with the multi-label soft-margin loss: AdamW, a cosine, random crops and
    mirroring."""
    batches = LabelBatches(
        labels,
        settings.short_side or SIDE,
        known(settings.batch_size),
        settings.seed,
        LEAST_SHARE if settings.crop_scale is None else settings.crop_scale,
    )
    steps = settings.steps or max(1, round((settings.epochs or 0) * batches.per_epoch))
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=known(settings.lr), weight_decay=known(settings.weight_decay)
    )
    loader = Loader(batches, steps, settings.loader_workers)
    device = network.weights.device
    network.train(True)

    def step(number: int) -> dict[str, float]:
        batch = loader(number)
        torch.manual_seed(settings.seed * 1_000_003 + number)  # for networks that drop something
        logits = network(network.normalise(batch.rgb))
        loss = multilabel_soft_margin_loss(logits, batch.labels.to(device).float())
        loss.backward()
        return {"loss": float(loss.detach())}

    warmup = min(50, steps // 10) if settings.warmup is None else settings.warmup
    plan = Plan(steps, warmup=warmup, save_every=settings.save_every or SAVE_EVERY)
    return Task("training the classifier", {"network": network}, optimizer, plan, step)
