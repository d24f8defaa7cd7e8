"""GradCAM on an open_clip vision transformer: for each class a forward pass and a backward pass of its own."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize


def maps(model: Any, pixels: Tensor, text: Tensor, classes: int, logit_scale: float) -> Tensor:
    """The maps of the first classes of unit vectors, in [0, 1]: (classes, patches).

    Args:
        model: an open_clip CLIP with a vision transformer that has a class token.
        pixels: a normalised image, (1, 3, H, W).
        text: (N, D), of length 1.
        classes: how many of the words are classes; the others are background.
        logit_scale: what cosines are multiplied by.
    """
    visual = model.visual
    last = visual.transformer.resblocks[-1]
    seen: list[Tensor] = []

    def keep(module: Any, inputs: Any, output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_(True))
        return seen[-1]

    heat = []
    for number in range(classes):
        hook = last.ln_1.register_forward_hook(keep)
        patches = _tokens(visual, pixels)[:, 1:]
        hook.remove()
        features = visual.ln_post(patches).mean(dim=1)
        if visual.proj is not None:
            features = features @ visual.proj
        score = (logit_scale * normalize(features, dim=-1) @ text.T).softmax(-1)[0, number]
        (gradient,) = torch.autograd.grad(score, seen[-1])
        weights = gradient[0, 1:].mean(dim=0)
        raw = (seen[-1].detach()[0, 1:] * weights).sum(-1).relu()
        heat.append((raw - raw.min()) / (raw.max() - raw.min() + 1e-7))
    return torch.stack(heat)


def _tokens(visual: Any, pixels: Tensor) -> Tensor:
    """All tokens after the last block, (1, 1 + patches, width)."""
    x = visual.conv1(pixels).flatten(2).transpose(1, 2)
    first = visual.class_embedding.expand(len(x), 1, -1)
    x = visual.ln_pre(torch.cat([first, x], dim=1) + visual.positional_embedding)
    for block in visual.transformer.resblocks:
        x = block(x)
    return x
