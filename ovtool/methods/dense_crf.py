"""The fully connected CRF: labels that follow the edges of the image, by mean field.

Energy of a labelling x, with U the unary energies, p a pixel's position and I its colour (0..255):

    E(x)     = sum_i U_i(x_i) - sum_{i<j} [x_i = x_j] (w_s k_s(i, j) + w_a k_a(i, j))
    k_s(i,j) = exp(-|p_i - p_j|^2 / 2 sxy^2)
    k_a(i,j) = exp(-|p_i - p_j|^2 / 2 sxy^2 - |I_i - I_j|^2 / 2 srgb^2)

Mean field, all pixels at once, K~ = N^-1/2 K N^-1/2 with N = K 1 and i = j kept:

    Q_i(l) ~ exp(-U_i(l) + sum_m w_m [K~_m Q]_i(l)),   Q^0 = softmax(-U)

Source: Kraehenbuehl and Koltun, Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials (NIPS 2011), Potts potentials, with the choices of their code as pydensecrf builds it:
kernels on the permutohedral lattice, symmetric normalisation. Rows of Q sum to 1 and filtering is
linear, so only L - 1 labels are filtered: the last one's message is K~ 1 less theirs.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ovtool.methods.permutohedral import Lattice

LEAST_PROBABILITY = 1e-5
CERTAINTY = 0.7  # of a hard label
COPIED = (
    8  # rows or columns that a matrix to be transposed has at most where they are copied one by one
)


@dataclass(frozen=True)
class Preset:
    """What a paper's code gives its CRF. Deviations in pixels and in colour steps of 0..255.

    unary: `soft` (probabilities) or `hard` (labels, each certain to `CERTAINTY`).
    """

    gaussian_sxy: float
    gaussian_weight: float
    bilateral_sxy: float
    bilateral_srgb: float
    bilateral_weight: float
    unary: str = "soft"
    iterations: int = 10


PRESETS: dict[str, Preset] = {
    "pydensecrf": Preset(3, 3, 80, 13, 10),  # its README; PSA, 1-stage
    "irn": Preset(3, 3, 50, 5, 10, "hard"),  # also WeakTr's CAMs on COCO
    "weaktr": Preset(4, 3, 83, 5, 3, "hard"),  # WeakTr's CAMs on VOC
    "weaktr-segmenter": Preset(3, 3, 83, 5, 3),
    "clip-es": Preset(1, 3, 67, 3, 4),  # also DeepLab's
    "weclip": Preset(3, 3, 64, 5, 4),
    "fma": Preset(2, 2, 65, 3, 4),
}


def soft_unary(probabilities: Tensor) -> Tensor:
    """-log p of probabilities, floating (L, ...), at least 1e-5: the same shape, float32."""
    return -probabilities.float().clamp(LEAST_PROBABILITY, 1.0).log()


def hard_unary(labels: Tensor, classes: int, certainty: float = CERTAINTY) -> Tensor:
    """The energies of labels, int64 (H, W) in 0..classes-1: float32 (classes, H, W).

    A pixel's label has -log(certainty), each other one -log((1 - certainty) / (classes - 1)). With
    one class all energies are zero.
    """
    if classes == 1:
        return torch.zeros(1, *labels.shape, device=labels.device)
    other = torch.tensor((1.0 - certainty) / (classes - 1)).log().neg().item()
    own = torch.tensor(certainty).log().neg().item()
    energies = torch.full((classes, *labels.shape), other, device=labels.device)
    return energies.scatter_(0, labels[None], own)


@torch.no_grad()
def refine(unary: Tensor, image: Tensor, preset: Preset) -> Tensor:
    """The mean field of an image: Q, float32 (L, H, W), which sums to 1 over the labels.

    unary: float32 (L, H, W), finite energies, L from 1 on; image: uint8 (H, W, 3), on its device.
    Raises ValueError for shapes that do not belong together and energies that are not finite.
    """
    labels, height, width = unary.shape
    if image.shape != (height, width, 3) or image.dtype != torch.uint8:
        raise ValueError(f"unary {tuple(unary.shape)} and image {tuple(image.shape)} do not match")
    if not bool(unary.isfinite().all()):
        raise ValueError("the unary energies are not all finite")
    if labels == 1:
        return torch.ones_like(unary)
    kernels = _kernels(image, preset)
    total = _messages(kernels, unary.new_ones(height * width, 1))[0]
    logits = -unary.float().flatten(1)  # (L, N)
    q = logits.softmax(0)
    for _ in range(preset.iterations):
        messages = _messages(kernels, _turned(q[:-1]))  # (L - 1, N)
        last = total - messages.sum(0)
        q = torch.cat([logits[:-1] + messages, (logits[-1] + last)[None]]).softmax(0)
    return q.view(unary.shape)


def _messages(kernels: list[Lattice], values: Tensor) -> Tensor:
    """sum_m w_m K~_m of the values (N, C), transposed: (C, N)."""
    filtered = values.new_zeros(values.shape)
    for kernel in kernels:
        filtered += kernel.filter(values)
    return _turned(filtered)


def _turned(values: Tensor) -> Tensor:
    """A matrix transposed; of few rows or columns one after the other, which takes a fifth of the time."""
    if min(values.shape) > COPIED:
        return values.T.contiguous()
    turned = values.new_empty(values.shape[::-1])
    pairs = (
        zip(turned.T, values, strict=True)
        if len(values) <= COPIED
        else zip(turned, values.T, strict=True)
    )
    for target, source in pairs:
        target.copy_(source)
    return turned


def _kernels(image: Tensor, preset: Preset) -> list[Lattice]:
    """The lattices that filter by w K~, spatial and bilateral; those of weight 0 are left out."""
    size, device = (image.shape[0], image.shape[1]), image.device
    kernels = []
    if preset.gaussian_weight > 0:
        kernels.append(_spatial(size, preset.gaussian_sxy, preset.gaussian_weight, device))
    if preset.bilateral_weight > 0:
        colour = image.flatten(0, 1).float() / preset.bilateral_srgb
        features = torch.cat([_places(size, device) / preset.bilateral_sxy, colour], dim=1)
        kernels.append(_weighted(features, preset.bilateral_weight))
    return kernels


@lru_cache(maxsize=1)  # images that follow each other are often of one size
def _spatial(
    size: tuple[int, int], deviation: float, weight: float, device: torch.device
) -> Lattice:
    """The spatial kernel of images of a size, which does not depend on what they show."""
    return _weighted(_places(size, device) / deviation, weight)


def _places(size: tuple[int, int], device: torch.device) -> Tensor:
    """The column and row of each pixel, float32 (N, 2)."""
    row, column = torch.meshgrid(
        *(torch.arange(side, dtype=torch.float32, device=device) for side in size), indexing="ij"
    )
    return torch.stack([column, row], dim=-1).flatten(0, 1)


def _weighted(features: Tensor, weight: float) -> Lattice:
    """The lattice of features that filters by w K~."""
    lattice = Lattice.build(features)
    sums = lattice.filter(features.new_ones(len(features), 1))[:, 0]
    return lattice.scaled((weight / (sums + 1e-20)).sqrt())
