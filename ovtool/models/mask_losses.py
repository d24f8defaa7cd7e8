"""MaskFormer's losses (Cheng et al., NeurIPS 2021, section 3.2) with OVSeg's weights: cross-entropy 1
with no-object weight 0.1, focal 20 (alpha 0.25, gamma 2), dice 1 with one added above and below.

Each decoder layer's proposals are assigned to targets by the Hungarian method under the cost
-p(class) + 20 focal + dice, with targets reduced (nearest) to the masks' grid. Matcher, focal and dice
loss are transformers'. What is summed is divided by counts over the whole batch, of which a process may
hold a part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.maskformer.modeling_maskformer import (
    MaskFormerHungarianMatcher,
    dice_loss,
    sigmoid_focal_loss,
)

CLASS_WEIGHT = 1.0
NO_OBJECT_WEIGHT = 0.1
FOCAL_WEIGHT = 20.0
DICE_WEIGHT = 1.0
_SURE_NO = -100.0  # a logit

_matcher = MaskFormerHungarianMatcher(CLASS_WEIGHT, FOCAL_WEIGHT, DICE_WEIGHT)


@dataclass(frozen=True)
class Targets:
    """What a batch shows: for each image masks of zeros and ones, floating (T, H, W), all of one
    size, and labels, int64 (T,), T from 0 on. ignored: bool (H, W) of each image, pixels of no mask
    whose losses do not count; None where all do."""

    masks: Sequence[Tensor]
    labels: Sequence[Tensor]
    ignored: Sequence[Tensor] | None = None

    def counts(self, queries: int) -> Tensor:
        """What the losses of this batch are divided by, float64 (2,): the weights of all queries in
        the cross-entropy, and the number of masks."""
        sizes = [len(labels) for labels in self.labels]
        matched = sum(min(size, queries) for size in sizes)
        unmatched = queries * len(sizes) - matched
        device = self.labels[0].device
        return torch.tensor(
            [matched + NO_OBJECT_WEIGHT * unmatched, sum(sizes)], dtype=torch.float64, device=device
        )


def assign(logits: Tensor, masks: Tensor, targets: Targets) -> list[tuple[Tensor, Tensor]]:
    """For each image the queries that are matched, and the targets that they are matched with.

    logits: (B, N, K + 1). masks: logits (B, N, h, w).
    """
    matched: list[tuple[Tensor, Tensor]] = _matcher(masks, logits, targets.masks, targets.labels)
    return matched


def layer_losses(
    logits: Tensor, masks: Tensor, targets: Targets, counts: Tensor
) -> dict[str, Tensor]:
    """The weighted losses of one layer, `class`, `mask` and `dice`.

    logits: (B, N, K + 1), the last class "no object". masks: logits (B, N, h, w), which are enlarged to
    the targets' size. counts: of the whole batch, see `Targets.counts`.
    """
    matched = assign(logits, masks, targets)
    no_object = logits.shape[-1] - 1
    classes = torch.full(logits.shape[:2], no_object, device=logits.device)
    for row, (queries, indices) in enumerate(matched):
        classes[row, queries] = targets.labels[row][indices.to(logits.device)]
    weight = logits.new_ones(no_object + 1)
    weight[-1] = NO_OBJECT_WEIGHT
    entropy = F.cross_entropy(logits.flatten(0, 1), classes.flatten(), weight, reduction="sum")
    losses = {"class": CLASS_WEIGHT * entropy / counts[0].to(logits.dtype)}
    predicted = torch.cat([masks[row, queries] for row, (queries, _) in enumerate(matched)])
    true = torch.cat(
        [
            truth[indices.to(truth.device)]
            for truth, (_, indices) in zip(targets.masks, matched, strict=True)
        ]
    )
    number: Any = counts[1].clamp(min=1).to(masks.dtype)  # transformers says int, and divides by it
    if not len(predicted):
        return losses | {"mask": masks.sum() * 0, "dice": masks.sum() * 0}
    predicted = F.interpolate(predicted[:, None], true.shape[-2:], mode="bilinear")
    if targets.ignored is not None:  # a sure and right "no" costs nothing and has no gradient
        doubt = torch.cat(
            [
                ignored.expand(len(indices), -1, -1)
                for ignored, (_, indices) in zip(targets.ignored, matched, strict=True)
            ]
        )
        predicted = predicted.masked_fill(doubt[:, None], _SURE_NO)
    predicted, true = predicted.flatten(1), true.flatten(1)
    return losses | {
        "mask": FOCAL_WEIGHT * sigmoid_focal_loss(predicted, true, number),
        "dice": DICE_WEIGHT * dice_loss(predicted, true, number),
    }
