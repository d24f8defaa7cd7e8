"""Class activation maps from activations: the classic ones, and CLIP-ES's by gradients.

CAM (Zhou et al., CVPR 2016, section 2): M_c = ReLU(sum_d w_cd F_d), with F the last feature map before
global average pooling and w_c the weights of class c.

GradCAM on a CLIP (Lin et al., CLIP-ES, CVPR 2023, section 3): the score of class c is its softmax
probability among the classes that the image shows and a list of background words,

    S_c = exp(s cos(v, t_c)) / sum_j exp(s cos(v, t_j))       s the logit scale
    w_cd = mean over patches of dS_c / dA_d
    M_c = ReLU(sum_d w_cd A_d)

with A the patch tokens that enter the last block's attention, and v the mean of its patch tokens. Absent
classes are not in the softmax.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

EPS = 1e-7  # of the normalisation, as published


def class_maps(features: Tensor, weights: Tensor) -> Tensor:
    """The classic CAM: features (B, D, h, w) and class weights (C, D) to (B, C, h, w), from 0 on."""
    return torch.einsum("bdhw,cd->bchw", features, weights).relu()


def class_probabilities(features: Tensor, text: Tensor, logit_scale: float) -> Tensor:
    """The softmax over words: image features (B, D), not of length 1, and unit text embeddings (N, D)
    to (B, N)."""
    cosine = normalize(features, dim=-1) @ text.T
    return (logit_scale * cosine).softmax(dim=-1)


def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """M_c of activations A (1, N, D) of an image and the gradients dS_c / dA (K, N, D), a row a class: (K, N), from 0
    on."""
    weights = gradients.mean(dim=1, keepdim=True)  # (K, 1, D)
    return (weights * activations).sum(dim=-1).relu()


def min_max(maps: Tensor, eps: float = EPS) -> Tensor:
    """Maps (..., h, w) to [0, 1]: each less its least value, over its range plus `eps`.

    A constant map becomes 0 everywhere.
    """
    low, high = maps.amin(dim=(-2, -1), keepdim=True), maps.amax(dim=(-2, -1), keepdim=True)
    return (maps - low) / (high - low + eps)


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (K, h, w), K from 0 on, brought to `size` bilinearly; maps of that size stay as they are."""
    if not len(maps):
        return maps.new_zeros(0, *size)
    if maps.shape[1:] == size:
        return maps
    return interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]


def merged(maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Maps of one image at several scales, each (K, h, w), as their mean at `size`, brought to [0, 1]
    again: (K, h, w)."""
    return min_max(torch.stack([resized(view, size) for view in maps]).mean(dim=0))
