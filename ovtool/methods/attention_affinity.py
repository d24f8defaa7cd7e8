"""Class-aware attention affinity: class maps spread over the patches that attend to each other.

With W the mean attention of a tower's last blocks between patches and M_c the map of class c:

    T  = three rounds over W of dividing by the columns' sums, then by the rows'
    D  = (T + T^T) / 2
    M_c <- D D (B_c M_c), then brought to [0, 1]

B_c is 1 in the boxes around the parts of M_c above a share of its maximum. D does not depend on the
class, so all classes are multiplied at once, and D twice in turn, which never makes the square.

Source: Lin et al., CLIP is Also an Efficient Segmenter (CVPR 2023), section 3.4. Unlike its code, a
box here has its last row and column at the border of the image too.
"""

import numpy as np
import torch
from torch import Tensor

from ovtool.methods.activation_maps import min_max

BOX_THRESHOLD = 0.4  # of the maximum; 0.7 for COCO
ROUNDS = 3


def doubly_stochastic(attention: Tensor, rounds: int = ROUNDS) -> Tensor:
    """T of an attention matrix (n, n) that is positive: its rows sum to 1, its columns nearly."""
    for _ in range(rounds):
        attention = attention / attention.sum(0, keepdim=True)
        attention = attention / attention.sum(1, keepdim=True)
    return attention


def box_mask(maps: Tensor, threshold: float) -> Tensor:
    """B: bool (K, h, w), the boxes around the connected parts (corners connect) of maps (K, h, w) in
    [0, 1] that are above `threshold` times the map's maximum, both counted in 255 steps."""
    from scipy import ndimage  # slow to import, and few need it

    steps = (maps.float().cpu() * 255).byte().numpy()
    boxes = np.zeros(steps.shape, np.bool_)
    for levels, box in zip(steps, boxes, strict=True):
        parts, _ = ndimage.label(levels > threshold * levels.max(), structure=np.ones((3, 3)))
        for part in ndimage.find_objects(parts):
            box[part] = True
    return torch.from_numpy(boxes).to(maps.device)


@torch.no_grad()
def refine(maps: Tensor, attention: Tensor, box_threshold: float = BOX_THRESHOLD) -> Tensor:
    """Maps (K, h, w) in [0, 1] after the affinity, in their shape and dtype, in [0, 1].

    attention: floating (n, n) for n = h * w patches in row order, each row the attention of one
    patch, all positive. Raises ValueError where they do not belong together.
    """
    places = maps.shape[1] * maps.shape[2]
    if attention.shape != (places, places):
        raise ValueError(f"maps {tuple(maps.shape)} and attention {tuple(attention.shape)}")
    spread = doubly_stochastic(attention)
    symmetric = (spread + spread.T) / 2
    boxed = (maps * box_mask(maps, box_threshold)).flatten(1).to(symmetric).T  # (n, K)
    refined = symmetric @ (symmetric @ boxed)
    return min_max(refined.T.reshape(maps.shape)).to(maps.dtype)
