"""Segment-label matching: masks that make a CLIP say the image's label (SemPLeS, Lin et al., WACV 2025).

A mask is good for a class when the image with all else blanked out fits the class's text, and the
image with the mask blanked out does not. Gradients go through the frozen image tower to the mask.

    M = (x - min x) / (max x - min x + eps)              a map x of one class (`activation_maps.min_max`)
    X_f = M X,  X_b = (1 - M) X                           X normalised, so that 0 is the mean colour
    L_match = mean(-log s(X_f, t)) + lambda_b mean(-log(1 - s(X_b, t)))

with s the similarity of the image's embedding and the embedding t of "a photo of {class}", clamped to
[1e-4, 0.9999], and the mean over all pairs of an image and a class that it shows.
"""

import torch
from torch import Tensor

from ovtool.errors import UsageError

TRAIN_EPS, EPS = 0.1, 1e-4  # of the normalisation: while the masks are learned, and later
LOWEST, HIGHEST = 1e-4, 0.9999
BACKGROUND_WEIGHT = 2.4  # lambda_b, as published for VOC; 0.75 for COCO
SIMILARITIES = ("raw", "shifted")
MAX_CLAMPED = 0.05  # share of cosines without a gradient that `raw` may have


def masked_pair(pixels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """X_f and X_b, each (P, 3, H, W), of normalised images (P, 3, H, W) and masks (P, H, W) in [0, 1]."""
    mask = mask.unsqueeze(-3)
    return mask * pixels, (1 - mask) * pixels


def similarity(image_features: Tensor, text: Tensor, kind: str = "raw") -> Tensor:
    """How well images fit texts, row by row: unit vectors (P, D) and (P, D) to (P,).

    kind: `raw` is the cosine, the paper's, which the losses clamp to (0, 1), so that a cosine below zero
        has no gradient; `shifted` is (1 + cosine) / 2, which has one everywhere.

    Raises UsageError for another kind.
    """
    cosine = (image_features * text).sum(dim=-1)
    if kind == "raw":
        return cosine
    if kind == "shifted":
        return (1 + cosine) / 2
    raise UsageError(f"unknown similarity '{kind}'; choose from {', '.join(SIMILARITIES)}")


def clamped(similarities: Tensor) -> Tensor:
    """Similarities brought to [1e-4, 0.9999]; outside of it nothing is learned."""
    return similarities.clamp(LOWEST, HIGHEST)


def clamped_share(cosines: Tensor) -> float:
    """The share of cosines, of any shape, at which the clamp of `raw` leaves no gradient."""
    outside = (cosines <= LOWEST) | (cosines >= HIGHEST)
    return float(outside.float().mean()) if cosines.numel() else 0.0


def match_loss(
    foreground_similarity: Tensor,
    background_similarity: Tensor,
    background_weight: float = BACKGROUND_WEIGHT,
) -> Tensor:
    """L_match of similarities s(X_f, t) and s(X_b, t), each (P,), as a scalar; 0 where P is 0."""
    if not len(foreground_similarity):
        return foreground_similarity.sum() + background_similarity.sum()
    foreground = -torch.log(clamped(foreground_similarity))
    background = -torch.log1p(-clamped(background_similarity))
    return foreground.mean() + background_weight * background.mean()
