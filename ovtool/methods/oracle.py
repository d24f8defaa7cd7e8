"""Proposals named by the truth: how good a segmentation could be if every name were right.

Each proposal takes the class of the true mask with which its IoU is highest, and each pixel the class of
the best of its proposals (OVSeg, Liang et al., CVPR 2023, section 1 and appendix A.1, which leave both
rules open).
"""

import torch
from torch import Tensor


def overlaps(superpixels: Tensor, members: Tensor, truth: Tensor, classes: int) -> Tensor:
    """IoU of each proposal with each class of the truth: float64 (N, K).

    superpixels: int64 (H, W), 0 to S - 1. members: bool (N, S). truth: int64 (H, W), 0 to K - 1, or -1
    for pixels of no class, which count as pixels of the proposals alone.
    """
    count = members.shape[1]
    columns = classes + 1
    table = torch.bincount(
        (superpixels * columns + truth + 1).flatten(), minlength=count * columns
    ).view(count, columns)  # pixels of each superpixel in each class, none of them first
    shared = members.double() @ table.double()  # (N, K + 1)
    areas, sizes = shared.sum(1, keepdim=True), table.sum(0).double()
    union = areas + sizes - shared
    return (shared / union.clamp(min=1))[:, 1:]


def named_by_truth(superpixels: Tensor, members: Tensor, truth: Tensor, classes: int) -> Tensor:
    """The label of each pixel, int64 (H, W): -1 where no proposal has an overlap with any class.

    Arguments as of `overlaps`.
    """
    best = torch.full((members.shape[1],), -1)
    if len(members):
        iou, label = overlaps(superpixels, members, truth, classes).max(1)  # (N,)
        of_pixel, proposal = torch.where(members, iou[:, None], 0.0).max(0)  # (S,)
        best = torch.where(of_pixel > 0, label[proposal], -1)
    return best[superpixels]
