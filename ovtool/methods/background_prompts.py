"""Background prompts: what a class's images show beside the class, as learned text (SemPLeS, Lin et al.,
WACV 2025, contrastive prompt learning and prompt-guided semantic refinement).

Each class k has a prompt p_k, the embedding of a sentence of learned vectors. It is pulled to the
images in which the class is blanked out, X_b, and pushed from the class; then masks are pushed from it:

    L_I = mean(-log s(X_b, p_k))                          pull
    L_T = mean(log s(t_k, p_k))                           push from the class's text
    L_F = mean(-log(1 - s(X_f, p_k)))                     push from the class's images
    L_prompt = L_I + lambda_T L_T                         (or L_F in the place of L_T)
    L_refine = mean(-log(1 - s(X_f, p_k)))                p_k stays, the mask in X_f learns

with s as in `label_matching.similarity`, clamped to [1e-4, 0.9999]. All vectors are of length 1, and a
mean goes over the pairs of an image and a class that it shows; of no pairs it is 0.
"""

import torch
from torch import Tensor

from ovtool.methods.label_matching import clamped, similarity

REFINE_WEIGHT = 0.05  # lambda_r of L_match + lambda_r L_refine, for VOC; 0.2 for COCO


def pull(backgrounds: Tensor, prompts: Tensor, kind: str = "raw") -> Tensor:
    """L_I of images without their class v_b and the prompts of the class p, each (P, D), as a scalar."""
    return _mean(-torch.log(clamped(similarity(backgrounds, prompts, kind))))


def push_text(texts: Tensor, prompts: Tensor, kind: str = "raw") -> Tensor:
    """L_T of the texts of the classes u and their prompts p, each (P, D), as a scalar.

    It is +log s and not -log(1 - s): its slope grows as s falls, until the clamp ends it.
    """
    return _mean(torch.log(clamped(similarity(texts, prompts, kind))))


def push_foreground(foregrounds: Tensor, prompts: Tensor, kind: str = "raw") -> Tensor:
    """L_F of images of their class alone v_f and the prompts of the class p, each (P, D), as a scalar.

    It is L_refine too, where the prompts stay as they are and the masks in v_f learn.
    """
    return _mean(-torch.log1p(-clamped(similarity(foregrounds, prompts, kind))))


def _mean(losses: Tensor) -> Tensor:
    return losses.mean() if len(losses) else losses.sum()
