"""Contrastive losses against loops in float64."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from ovtool.methods.contrastive import info_nce, shared_info_nce


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    regions = normalize(torch.randn(6, 5, generator=generator, dtype=torch.float64), dim=1)
    words = normalize(torch.randn(4, 5, generator=generator, dtype=torch.float64), dim=1)
    nouns = torch.tensor([0, 1, 0, 2, 3, 0])
    return regions, words[nouns], nouns


def slow(regions, texts, targets, scale):
    """The mean over both directions of -sum of target times log softmax."""
    total = 0.0
    for a, b in ((regions, texts), (texts, regions)):
        for i in range(len(a)):
            logits = np.array([scale * float(a[i] @ each) for each in b])
            log = logits - np.log(np.exp(logits).sum())
            total -= sum(targets[i][j] * log[j] for j in range(len(b))) / len(a)
    return total / 2


def test_the_paper_s_targets_are_the_pairs_alone(batch):
    regions, texts, _ = batch
    expected = slow(regions, texts, np.eye(6), 7.0)
    assert info_nce(regions, texts, 7.0).item() == pytest.approx(expected)


def test_spreading_the_target_over_equal_nouns_would_change_nothing(batch):
    regions, texts, nouns = batch
    targets = [[float(a == b) / int((nouns == a).sum()) for b in nouns] for a in nouns]
    assert slow(regions, texts, targets, 7.0) == pytest.approx(slow(regions, texts, np.eye(6), 7.0))


def test_each_noun_counts_once(batch):
    regions, texts, nouns = batch
    kinds = nouns.unique().tolist()
    words = {k: texts[nouns.tolist().index(k)] for k in kinds}
    rows = columns = 0.0
    for i in range(6):
        powers = {k: np.exp(7.0 * float(regions[i] @ words[k])) for k in kinds}
        rows -= np.log(powers[int(nouns[i])] / sum(powers.values())) / 6
    for k in kinds:
        powers = np.array([np.exp(7.0 * float(regions[i] @ words[k])) for i in range(6)])
        own = (nouns == k).numpy()
        columns -= np.log(powers / powers.sum())[own].mean() / len(kinds)
    found = shared_info_nce(regions, texts, nouns, 7.0)
    assert found.item() == pytest.approx((rows + columns) / 2)
    assert abs(found.item() - info_nce(regions, texts, 7.0).item()) > 0.1


def test_without_equal_nouns_both_are_one(batch):
    regions, texts, _ = batch
    shared = shared_info_nce(regions, texts, torch.arange(6), 7.0)
    assert shared.item() == pytest.approx(info_nce(regions, texts, 7.0).item())


def test_a_batch_of_one_noun_asks_for_equal_regions():
    texts = normalize(torch.ones(3, 4, dtype=torch.float64), dim=1)
    same = shared_info_nce(texts, texts, torch.zeros(3, dtype=torch.int64), 5.0)
    assert same.item() == pytest.approx(np.log(3) / 2)
