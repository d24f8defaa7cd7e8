"""Background prompts' losses against their formulas in float64, and what their gradients do."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from ovtool.errors import UsageError
from ovtool.methods import background_prompts as losses


def vectors(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(count, 6, generator=generator, dtype=torch.float64), dim=1)


def slow(ours, theirs, kind, formula):
    total = 0.0
    for a, b in zip(ours.tolist(), theirs.tolist(), strict=True):
        cosine = sum(x * y for x, y in zip(a, b, strict=True))
        value = cosine if kind == "raw" else (1 + cosine) / 2
        total += formula(min(max(value, 1e-4), 0.9999))
    return total / len(ours)


FORMULAS = {
    "pull": (losses.pull, lambda s: -math.log(s)),
    "push_text": (losses.push_text, lambda s: math.log(s)),
    "push_foreground": (losses.push_foreground, lambda s: -math.log(1 - s)),
    "refine": (losses.push_foreground, lambda s: -math.log(1 - s)),
}


@pytest.mark.parametrize("kind", ["raw", "shifted"])
@pytest.mark.parametrize("name", list(FORMULAS))
def test_a_loss_is_its_formula(name, kind):
    loss, formula = FORMULAS[name]
    ours, theirs = vectors(9, 1), vectors(9, 2)
    assert loss(ours, theirs, kind).item() == pytest.approx(
        slow(ours, theirs, kind, formula), abs=1e-12
    )
    assert loss(ours[:0], theirs[:0], kind).item() == 0


@pytest.mark.parametrize(
    "name, rises", [("pull", True), ("push_text", False), ("push_foreground", False)]
)
def test_a_step_down_moves_the_cosine_as_the_name_says(name, rises):
    fixed, prompt = vectors(1, 3), vectors(1, 4)
    prompt = normalize(prompt + 1.5 * fixed, dim=1).requires_grad_(True)  # a cosine above 0
    FORMULAS[name][0](fixed, prompt).backward()
    moved = normalize(prompt - 0.01 * prompt.grad, dim=1)
    before, after = (fixed * prompt).sum().item(), (fixed * moved).sum().item()
    assert (after > before) is rises and abs(after - before) > 1e-4


def test_below_zero_only_the_shifted_similarity_learns():
    fixed = vectors(1, 5)
    slopes = {}
    for kind in ("raw", "shifted"):
        prompt = (-fixed + 0.1 * vectors(1, 6)).requires_grad_(True)
        losses.pull(fixed, prompt, kind).backward()
        slopes[kind] = prompt.grad.abs().max().item()
    assert slopes["raw"] == 0 < slopes["shifted"]


def test_another_similarity_is_refused():
    with pytest.raises(UsageError, match="unknown similarity 'dot'"):
        losses.pull(vectors(1, 1), vectors(1, 2), "dot")
