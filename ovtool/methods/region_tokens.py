"""One class token for each region, all in one pass over an image.

In every block a region's class token attends to itself and to the patches of its mask, through the
block's own projections. It is read by nothing else: patches, and the image's own class token among
them, go on as they would without it, and regions do not see each other. A mask that has all patches
therefore gives the embedding of the whole image exactly.
"""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d


def grid_masks(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """The patches that a mask has a pixel of, whatever the two sizes: bool (N, H, W) to (N, h*w).

    Patch (i, j) spans rows floor(i H / h) to ceil((i + 1) H / h) of the mask, and columns likewise, so
    that a mask that is not empty has a patch.
    """
    pooled = [adaptive_max_pool2d(mask[None].float(), grid).flatten() > 0 for mask in masks]
    return torch.stack(pooled) if pooled else masks.new_zeros(0, grid[0] * grid[1])


def attention(q: Tensor, own: tuple[Tensor, Tensor], k: Tensor, v: Tensor, masks: Tensor) -> Tensor:
    """softmax([q kT over the mask's patches, q own_kT] / sqrt d) [v, own_v].

    q, and the keys and values of `own`: floating (heads, N, d), of the regions' class tokens.
    k, v: floating (heads, T, d), of the patches. masks: bool (N, T). Returns (heads, N, d).
    """
    own_k, own_v = own
    patches = (q @ k.transpose(1, 2)).masked_fill(~masks, -torch.inf)  # (heads, N, T)
    itself = (q * own_k).sum(-1, keepdim=True)
    weights = (torch.cat([patches, itself], dim=-1) * q.shape[-1] ** -0.5).softmax(-1)
    attended: Tensor = weights[..., :-1] @ v + weights[..., -1:] * own_v
    return attended
