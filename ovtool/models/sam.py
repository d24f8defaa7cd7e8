"""Segment Anything (Kirillov et al., ICCV 2023) of transformers as a class-agnostic proposer.

A grid of 32 x 32 points asks for masks; transformers' mask generation keeps those that the network
itself finds good (predicted IoU 0.88, stability 0.95) and suppresses boxes that overlap.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ovtool.formats import tensors
from ovtool.models import hub

POINTS = 32  # along each side
POINTS_AT_ONCE = 64
MIN_IOU = 0.88
MIN_STABILITY = 0.95


@dataclass(frozen=True, eq=False)
class Sam:
    """transformers' mask-generation pipeline around a network. weights: the network's digest."""

    pipeline: Any
    weights: str


def load(name: str, device: torch.device | str = "cpu") -> Sam:
    """A SAM by its hub's name or folder. Raises ModelError, in one line with the mend."""
    network, processor = hub.load(name, "sam", "SAM", "SamModel")
    from transformers.pipelines.mask_generation import MaskGenerationPipeline

    pipeline = MaskGenerationPipeline(
        model=network, image_processor=processor, device=torch.device(device)
    )
    return Sam(pipeline, tensors.fingerprint(network.state_dict()))


def propose(
    loaded: Sam,
    rgb: NDArray[np.uint8],
    *,
    points: int = POINTS,
    min_iou: float = MIN_IOU,
    min_stability: float = MIN_STABILITY,
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Masks bool (N, H, W) of an image, uint8 (H, W, 3), and the IoU that the network predicts for
    each, (N,)."""
    output = loaded.pipeline(
        Image.fromarray(rgb),
        points_per_crop=points,
        points_per_batch=POINTS_AT_ONCE,
        pred_iou_thresh=min_iou,
        stability_score_thresh=min_stability,
    )
    masks = [np.asarray(mask, np.bool_) for mask in output["masks"]]
    quality = np.asarray(output["scores"], np.float32).reshape(-1)
    stacked = np.stack(masks) if masks else np.zeros((0, *rgb.shape[:2]), np.bool_)
    return stacked, quality
