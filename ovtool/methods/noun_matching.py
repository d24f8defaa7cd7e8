"""Nouns to masks: which masked proposal a caption's noun means.

OVSeg (Liang et al., CVPR 2023, section 3.2): for every noun of the caption the unadapted CLIP picks the
one proposal whose masked crop is closest to it. The paper gives neither a threshold nor an axis of
the softmax; both are choices here, and so is a prior of masks.
"""

from torch import Tensor


def similarities(regions: Tensor, nouns: Tensor) -> Tensor:
    """Cosines of nouns and masked crops.

    regions: float32 (M, D) of length 1, one a proposal; nouns: float32 (N, D) of length 1. Returns
    float32 (N, M).
    """
    return nouns.float() @ regions.float().T


def log_softmax_over_nouns(logits: Tensor) -> Tensor:
    """How much each proposal is of one noun and not of the caption's others, as log probabilities.

    logits: (N, M), cosines times the logit scale. The softmax runs over the N nouns; with a single noun
    it is 1 everywhere and says nothing.
    """
    return logits.log_softmax(dim=0)


def with_prior(scores: Tensor, quality: Tensor, weight: float) -> Tensor:
    """Scores of proposals with their quality q as the prior of a mask, q ** weight: log p(noun | mask) +
    weight * log q, by Bayes' rule the posterior of the mask up to a constant for each noun.

    scores: (N, M), logits or log probabilities. quality: (M,) in [0, 1]. A weight of 0 is the paper's.
    """
    return scores + weight * quality.to(scores).clamp(min=1e-6).log()


def best_proposals(scores: Tensor) -> Tensor:
    """The proposal of highest score for each noun, the first of equals: (N, M) to int64 (N,)."""
    return (scores == scores.amax(dim=1, keepdim=True)).int().argmax(dim=1)
