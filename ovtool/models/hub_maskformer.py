"""Any MaskFormer of transformers as a class-agnostic proposer: its masks, their classes put aside."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from ovtool.formats import tensors
from ovtool.models import hub, maskformer


@dataclass(frozen=True, eq=False)
class HubMaskFormer:
    """A MaskFormer of the hub with its own preprocessing. weights: the digest of its network."""

    network: nn.Module
    processor: Any
    weights: str


def load(name: str, device: torch.device | str = "cpu") -> HubMaskFormer:
    """Any MaskFormer by its name on the hub or its folder. Raises ModelError, in one line with the mend."""
    network, processor = hub.load(
        name,
        "maskformer",
        "MaskFormer",
        "MaskFormerForInstanceSegmentation",
        maskformer.check_backbone,
    )
    return HubMaskFormer(network.to(device), processor, tensors.fingerprint(network.state_dict()))


@torch.no_grad()
def propose(
    loaded: HubMaskFormer, rgb: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Soft masks float32 (N, H, W) and quality (N,) of an image, uint8 (H, W, 3); see `maskformer.scores`."""
    given = loaded.processor(images=rgb, return_tensors="pt")
    device = next(loaded.network.parameters()).device
    pixels = given["pixel_values"].to(device)
    output = loaded.network(pixel_values=pixels)
    logits = F.interpolate(output.masks_queries_logits.float(), pixels.shape[-2:], mode="bilinear")
    if "pixel_mask" in given:  # what is padding
        real = given["pixel_mask"][0].bool()
        rows, columns = int(real.any(1).sum()), int(real.any(0).sum())
        logits = logits[..., :rows, :columns]
    soft = F.interpolate(logits.sigmoid(), rgb.shape[:2], mode="bilinear")[0]
    no_object = output.class_queries_logits[0].float().softmax(-1)[:, -1]
    return soft.cpu().numpy(), maskformer.scores(soft, no_object).cpu().numpy()
