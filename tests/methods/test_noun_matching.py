"""Matching nouns to masks against slow versions of the formulas in float64."""

import math

import pytest
import torch

from ovtool.methods import noun_matching


def unit(rows, width, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, width, generator=generator), dim=1)


@pytest.mark.parametrize("nouns, proposals, width", [(1, 1, 4), (3, 7, 16), (8, 2, 512)])
def test_cosines_of_every_noun_and_proposal(nouns, proposals, width):
    text, regions = unit(nouns, width, 1), unit(proposals, width, 2)
    found = noun_matching.similarities(regions, text)
    assert found.shape == (nouns, proposals)
    for n in range(nouns):
        for m in range(proposals):
            expected = sum(
                a * b for a, b in zip(text[n].tolist(), regions[m].tolist(), strict=True)
            )
            assert found[n, m].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("nouns, proposals", [(1, 3), (2, 5), (6, 4)])
def test_softmax_runs_over_the_nouns(nouns, proposals):
    logits = 20 * unit(nouns, proposals, 3)
    found = noun_matching.log_softmax_over_nouns(logits)
    for m in range(proposals):
        weights = [math.exp(logits[n, m].item()) for n in range(nouns)]
        for n in range(nouns):
            assert found[n, m].item() == pytest.approx(
                math.log(weights[n] / sum(weights)), abs=1e-4
            )


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_the_prior_multiplies_probabilities(weight):
    scores = unit(3, 5, 4)
    quality = torch.tensor([1.0, 0.5, 0.25, 0.0, 0.9])
    found = noun_matching.with_prior(scores, quality, weight)
    for n in range(3):
        for m in range(5):
            prior = max(quality[m].item(), 1e-6) ** weight
            expected = math.exp(scores[n, m].item()) * prior
            assert math.exp(found[n, m].item()) == pytest.approx(expected, rel=1e-4)


def test_each_noun_takes_its_best_proposal_the_first_of_equals():
    scores = torch.tensor([[0.1, 0.9, 0.3], [0.5, 0.2, 0.5], [-1.0, -1.0, -1.0]])
    assert noun_matching.best_proposals(scores).tolist() == [1, 0, 0]


def test_softmax_leaves_what_every_noun_likes_to_the_noun_that_likes_it_most():
    # proposal 0 is close to both nouns, closest to the first; proposal 1 is the second's alone
    cosines = torch.tensor([[0.9, 0.1], [0.8, 0.7]])
    assert noun_matching.best_proposals(cosines).tolist() == [0, 0]
    own = noun_matching.log_softmax_over_nouns(10 * cosines)
    assert noun_matching.best_proposals(own).tolist() == [0, 1]
