"""Contrastive losses between regions and their nouns.

With x[i] and t[i] the unit embeddings of pair i of a batch of B, and c the logit scale, InfoNCE is the
mean of a cross-entropy over the rows of c x tT and one over its columns (van den Oord et al., 2018; its
symmetric form: CLIP, Radford et al., ICML 2021).

Several pairs of a batch may have one noun, and therefore one text. Spreading the target of each over all
of them would change nothing: their logits are equal along a row, and along the columns of one noun the
sums agree. What the repetitions do change is how much a noun counts, so `shared_info_nce` has each once.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot


def info_nce(regions: Tensor, texts: Tensor, scale: float) -> Tensor:
    """The target of pair i is i alone, as OVSeg trains. regions, texts: floating (B, D), of length 1."""
    logits = scale * regions @ texts.T
    target = torch.arange(len(logits), device=logits.device)
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


def shared_info_nce(regions: Tensor, texts: Tensor, nouns: Tensor, scale: float) -> Tensor:
    """Each noun of the batch once: a region chooses among the batch's nouns, and the target of a noun is
    spread evenly over its regions.

    regions, texts: floating (B, D), of length 1. nouns: int64 (B,), equal for pairs of one noun, whose
    texts are equal too.
    """
    kinds, place = torch.unique(nouns, return_inverse=True)  # (K,), (B,)
    distinct = texts.new_empty(len(kinds), texts.shape[1])
    distinct[place] = texts
    logits = scale * regions @ distinct.T  # (B, K)
    owned = one_hot(place, len(kinds)).to(logits.dtype)
    target = owned / owned.sum(0, keepdim=True)
    return (cross_entropy(logits, place) + cross_entropy(logits.T, target.T)) / 2
