"""Dense features from a CLIP without training: five ways to compute the last block's attention.

A CLIP image tower mixes its patch tokens in the last block until they hardly know where they are.
Each published remedy changes that block alone. With X the block's input (class token first, then h
x w patches in row order), q, k, v the slices of its input projection of LN(X), split into heads of
width d:

    clip       softmax(q kT / sqrt d) v                             residual and MLP kept
    maskclip   v                                                    attention branch alone
    sclip      softmax(q qT / sqrt d) v + softmax(k kT / sqrt d) v  residual and MLP kept
    clearclip  softmax(q qT / sqrt d) v                             attention branch alone
    naclip     softmax(k kT / sqrt d + omega) v                     attention branch alone

"Attention branch alone" means that the block's output is its output projection of the attended
values, with neither residual nor MLP. MaskCLIP is here in the form in which later papers re-run it,
the value projection seen as a 1 x 1 convolution; its own code keeps residual and MLP. SCLIP adds
its two softmaxes and does not halve them, as published.

Sources: CLIP (Radford et al., ICML 2021); MaskCLIP (Zhou et al., ECCV 2022, section 3.2); SCLIP
(Wang et al., ECCV 2024, eq. 5); ClearCLIP (Lan et al., ECCV 2024, section 3.3); NACLIP (Hajimiri et
al., WACV 2025, section 3).

All attention functions take q, k, v of shape (B, heads, 1 + h*w, d), one floating dtype, and return
that shape.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as attend

from ovtool.errors import UsageError

NACLIP_SIGMA = 5.0  # patches
MAX_PRIOR_ELEMENTS = 1 << 22  # of the neighbourhood prior held at once: 16 MiB of float32


@dataclass(frozen=True)
class LastBlock:
    """What a variant keeps of the last block beside its attention branch."""

    name: str
    keeps_residual: bool
    keeps_mlp: bool


LAST_BLOCKS: dict[str, LastBlock] = {
    block.name: block
    for block in (
        LastBlock("clip", keeps_residual=True, keeps_mlp=True),
        LastBlock("maskclip", keeps_residual=False, keeps_mlp=False),
        LastBlock("sclip", keeps_residual=True, keeps_mlp=True),
        LastBlock("clearclip", keeps_residual=False, keeps_mlp=False),
        LastBlock("naclip", keeps_residual=False, keeps_mlp=False),
    )
}


def last_block(name: str) -> LastBlock:
    """The variant of that name; UsageError for a name that is none of `LAST_BLOCKS`."""
    if name not in LAST_BLOCKS:
        choices = ", ".join(LAST_BLOCKS)
        raise UsageError(f"unknown last block '{name}'; choose one of {choices}")
    return LAST_BLOCKS[name]


def last_blocks(names: str) -> tuple[LastBlock, ...]:
    """The variants of one name, or of several joined by `+`. UsageError as `last_block`."""
    return tuple(last_block(name) for name in names.split("+"))


def naclip_attention(
    k: Tensor, v: Tensor, grid: tuple[int, int], sigma: float = NACLIP_SIGMA
) -> Tensor:
    """NACLIP's neighbour-aware attention: softmax(k kT / sqrt d + omega) v.

    `grid` is (h, w) in patches. Queries go through in groups of rows, so that omega, which has
    (1 + h*w)^2 entries, is never held whole for a large image.
    """
    tokens = k.shape[2]
    step = max(1, MAX_PRIOR_ELEMENTS // tokens)
    attended = []
    for start in range(0, tokens, step):
        stop = min(start + step, tokens)
        omega = neighbour_prior(grid, start, stop, sigma, device=k.device).to(k.dtype)
        attended.append(attend(k[:, :, start:stop], k, v, attn_mask=omega))
    return torch.cat(attended, dim=2)


def neighbour_prior(
    grid: tuple[int, int],
    start: int = 0,
    stop: int | None = None,
    sigma: float = NACLIP_SIGMA,
    device: torch.device | None = None,
) -> Tensor:
    """Rows `start` to `stop` of NACLIP's omega for a grid of (h, w) patches: (stop - start, 1 +
    h*w), float32.

    omega_ij = exp(-|p_i - p_j|^2 / (2 sigma^2)) between patches i and j at p, in patches; its peak
    is 1, and the row and the column of the class token (index 0) are zero.
    """
    height, width = grid
    tokens = 1 + height * width
    index = torch.arange(start, tokens if stop is None else stop, device=device)
    rows, columns = (index - 1).clamp(min=0) // width, (index - 1).clamp(min=0) % width
    vertical = rows[:, None] - torch.arange(height, device=device)  # (n, h)
    horizontal = columns[:, None] - torch.arange(width, device=device)  # (n, w)
    scale = 1.0 / (2.0 * sigma * sigma)
    separable = torch.exp(-scale * vertical.square())[:, :, None] * torch.exp(
        -scale * horizontal.square()
    ).unsqueeze(1)  # (n, h, w)
    omega = torch.zeros(len(index), tokens, device=device)
    omega[:, 1:] = separable.flatten(1)
    omega[index == 0] = 0.0
    return omega


def attention(
    name: str, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int], sigma: float = NACLIP_SIGMA
) -> Tensor:
    """The attention of the variant `name` (see `LAST_BLOCKS`) over a class token and a grid of (h,
    w) patches; sigma: of NACLIP's neighbourhood, in patches.

    Raises UsageError for an unknown name.
    """
    last_block(name)
    if name == "maskclip":
        return v
    if name == "sclip":
        return attend(q, q, v) + attend(k, k, v)
    if name == "clearclip":
        return attend(q, q, v)
    if name == "naclip":
        return naclip_attention(k, v, grid, sigma)
    return attend(q, k, v)
