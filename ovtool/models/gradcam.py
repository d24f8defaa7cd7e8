"""GradCAM on a CLIP's image tower, one backward pass for all classes of an image (`methods.activation_maps`).

Only the last block is gone back through, once for all classes: it sees the image once, and the gradients of the
classes are a batch. Of open_clip's own towers the mean of the gradients alone is made, which is all that GradCAM reads.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ovtool.methods import activation_maps, attention_gradients
from ovtool.methods.products import linear
from ovtool.models import masked_tower, towers
from ovtool.models.clip import Clip
from ovtool.models.tower_types import ImageTower, Layer, NativeTower, is_timm


def maps(clip: Clip, pixels: Tensor, text: Tensor, classes: int) -> Tensor:
    """The maps of the first `classes` words of `text`, unit vectors (N, D), for a normalised image
    (1, 3, H, W), sides multiples of the patch: (classes, h, w) in [0, 1], float32."""
    grid = towers.grid_size(pixels, clip.patch_size)
    tokens = last_block_input(clip, pixels)
    targets = list(range(classes))
    if masked_tower.is_supported(clip.model.visual):
        activations, gradients = mean_gradients(clip, clip.model.visual, tokens, text, targets)
    else:
        activations, gradients = class_gradients(clip, tokens, text, targets)
    raw = activation_maps.gradcam(activations, gradients)
    return activation_maps.min_max(raw.unflatten(1, grid))


def class_gradients(
    clip: Clip, tokens: Tensor, text: Tensor, targets: list[int]
) -> tuple[Tensor, Tensor]:
    """Activations A of the patches, (1, h*w, width), and their gradients dS_c / dA, (K, h*w, width), float32.

    tokens: the last block's input, (1, prefix + h*w, width). targets: the K words c.
    """
    visual = clip.model.visual
    norm, rest = _last_block(visual)
    prefix = visual.trunk.num_prefix_tokens if is_timm(visual) else 1
    with torch.enable_grad():
        entered = norm(tokens).detach().requires_grad_(True)
        patches = rest(tokens, entered)[:, prefix:]
        gradients = _score_gradients(clip, patches, text, targets, entered)
    return entered.detach()[:, prefix:].float(), gradients[:, 0, prefix:].float()


def _score_gradients(
    clip: Clip, patches: Tensor, text: Tensor, targets: list[int], by: Tensor
) -> Tensor:
    """The gradients of the scores of K words, made of the patches after the last block, by one tensor: (K, ...)."""
    features = pooled(clip.model.visual, patches).float()
    probabilities = activation_maps.class_probabilities(features, text, clip.logit_scale)
    scores = probabilities[0, targets]
    identity = torch.eye(len(targets), device=scores.device, dtype=scores.dtype)
    (gradients,) = torch.autograd.grad(scores, by, identity, is_grads_batched=True)
    return gradients


def mean_gradients(
    clip: Clip, visual: NativeTower, tokens: Tensor, text: Tensor, targets: list[int]
) -> tuple[Tensor, Tensor]:
    """As `class_gradients`, of the gradients their mean over the patches, (K, 1, width), at a fraction of the cost
    (`methods.attention_gradients`)."""
    block = visual.transformer.resblocks[-1]
    attention = block.attn
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    entered = block.ln_1(tokens)
    q, k, v = (
        masked_tower.heads(part, attention.num_heads)[0]
        for part in linear(entered, weight, bias).chunk(3, dim=-1)
    )
    outputs = attention_gradients.attended(q, k, v)
    with torch.enable_grad():
        mixed = outputs[0].detach().requires_grad_(True)
        x = masked_tower.after_attention(block, tokens, mixed.transpose(0, 1).flatten(1)[None])
        by_mixed = _score_gradients(clip, x[:, 1:], text, targets, mixed)
    sums = attention_gradients.summed(q, k, v, outputs, by_mixed)
    patches = entered[:, 1:].float()
    return patches, (sums @ weight / patches.shape[1]).float()[:, None]


def last_block_input(clip: Clip, pixels: Tensor) -> Tensor:
    """The tokens that enter the last block, (B, prefix + h*w, width)."""
    placed = pixels.to(device=clip.device, dtype=clip.dtype)
    return towers.last_block_inputs(clip.model.visual, placed)[0]


def pooled(visual: ImageTower, patches: Tensor) -> Tensor:
    """The image's embedding from the patches after the last block, (B, h*w, width) to (B, D): the mean
    of the patch tokens, last norm first; by attention where the tower pools by it."""
    if is_timm(visual):
        trunk = visual.trunk
        normed = trunk.norm(patches)
        mean = trunk.attn_pool(normed) if trunk.attn_pool is not None else normed.mean(dim=1)
        return visual.head(trunk.head(trunk.fc_norm(mean)))
    mean = visual.ln_post(patches).mean(dim=1)
    return mean if visual.proj is None else mean @ visual.proj


def _last_block(visual: ImageTower) -> tuple[Layer, Callable[[Tensor, Tensor], Tensor]]:
    """The norm before the last block's attention, and the block as a function of its input and of what
    that norm made of it."""
    if is_timm(visual):
        block = visual.trunk.blocks[-1]

        def timm(x: Tensor, normed: Tensor) -> Tensor:
            x = x + block.ls1(block.attn(normed))
            return x + block.ls2(block.mlp(block.norm2(x)))

        return block.norm1, timm
    last = visual.transformer.resblocks[-1]

    def native(x: Tensor, normed: Tensor) -> Tensor:
        x = x + last.ls_1(last.attention(q_x=normed))
        return x + last.ls_2(last.mlp(last.ln_2(x)))

    return last.ln_1, native
