"""Proposals named twice, by the network that made them and by a CLIP, and what pixels get of it.

With p[i, k] and q[i, k] the two probabilities that proposal i is class k, and m[i] its mask
(OVSeg, Liang et al., CVPR 2023, section 3.1):

    s[i, k] = p[i, k]^(1 - lambda) q[i, k]^lambda        not normalised again
    S[k] = sum_i s[i, k] m[i]                            at each pixel, with soft masks
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ovtool.methods.class_maps import Rows

SMALLEST = 1e-30  # of a sum of scores, so that it has a logarithm


def ensemble(p: Tensor, q: Tensor, weight: float) -> Tensor:
    """s = p^(1 - lambda) q^lambda, lambda being `weight` in [0, 1]; p, q floating (N, K)."""
    return p.pow(1 - weight) * q.pow(weight)


def proposal_probabilities(cosines: Tensor, no_object: Tensor, temperature: float) -> Tensor:
    """Softmax over the cosines of proposals with the K classes, (N, K), and with "no object", (N,),
    whose column is then dropped: (N, K), rows summing to less than 1."""
    everything = torch.cat([cosines, no_object[:, None]], dim=1)
    return (everything / temperature).softmax(1)[:, :-1]


def rows_of_soft_masks(
    scores: Tensor, soft: Callable[[int, int], Tensor], covered: Callable[[int, int], Tensor]
) -> Rows:
    """The logarithm of S for any rows of pixels, with one class more for what no mask covers.

    scores: floating (N, K). soft: rows of the soft masks, (N, stop - start, W) in [0, 1].
    covered: bool (stop - start, W), whether a pixel is in any binarised mask.

    A softmax over the result gives S / sum_k S where a pixel is covered, and the last class alone where
    it is not, as `class_maps.label_blocks` reads it.
    """

    def rows(start: int, stop: int) -> Tensor:
        masks = soft(start, stop)
        total = (scores.T @ masks.flatten(1)).view(-1, *masks.shape[1:])
        return _or_nothing(total, covered(start, stop))

    return rows


def rows_of_superpixels(scores: Tensor, members: Tensor, superpixels: Tensor) -> Rows:
    """The same for masks that are sets of superpixels, which are summed once.

    scores: floating (N, K). members: bool (N, S). superpixels: int64 (H, W).
    """
    total = scores.T @ members.to(scores.dtype)  # (K, S)
    logits = _or_nothing(total, members.any(0))
    return lambda start, stop: logits[:, superpixels[start:stop]]


def _or_nothing(total: Tensor, covered: Tensor) -> Tensor:
    """log S with the class of uncovered places as the last: (K, ...) and (...) to (K + 1, ...)."""
    logits = torch.where(covered, total.clamp(min=SMALLEST).log(), -torch.inf)
    nothing = torch.where(covered, -torch.inf, 0.0).to(logits.dtype)
    return torch.cat([logits, nothing[None]])
