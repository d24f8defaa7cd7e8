"""A classifier for class activation maps: backbone, global average pooling, class weights (Zhou et al.,
CVPR 2016)."""

import torch
from torch import Tensor, nn

from ovtool.models import timm_backbone

SIDE = 224


class Classifier(nn.Module):
    """Several labels an image: logits are the class weights on the mean of the feature map.

    arch: `timm:NAME`. classes: their number C. side: the shorter side of images, in pixels.
    """

    def __init__(self, arch: str, classes: int, side: int = SIDE, seed: int = 0) -> None:
        super().__init__()
        self.side = side
        self.backbone = timm_backbone.Backbone(timm_backbone.name_of(arch), side, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = nn.Conv2d(self.backbone.width, classes, 1, bias=False)

    @property
    def weights(self) -> Tensor:
        """The class weights (C, D)."""
        return self.head.weight[:, :, 0, 0]

    def features(self, pixels: Tensor) -> Tensor:
        """The last feature map of normalised images (B, 3, H, W): (B, D, h, w)."""
        features: Tensor = self.backbone(pixels)
        return features

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (B, C)."""
        return self.features(pixels).mean(dim=(2, 3)) @ self.weights.T

    def normalise(self, rgb: Tensor) -> Tensor:
        """Images uint8 (B, H, W, 3) to (B, 3, H, W), on the network's device."""
        return timm_backbone.normalise(rgb.to(self.head.weight.device))

    def view(self, rgb: Tensor, scale: float = 1.0) -> Tensor:
        """An image uint8 (H, W, 3) as it is seen in use, normalised (1, 3, h, w)."""
        return self.normalise(
            timm_backbone.resized(rgb, round(scale * self.side), self.backbone.divisor)
        )
