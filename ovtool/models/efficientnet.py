"""EfficientNet-Lite as a stem at stride 16, in plain torch (Tan and Le, ICML 2019; Lite: without squeeze-and-excitation).

Names and shapes are those of timm's `tf_efficientnet_lite0` and `tf_efficientnet_lite2` without their classifier, and
so are the numbers, padding as TensorFlow's and `output_stride=16` included: the last stage that would halve the grid
keeps it, and the kernels after it are dilated instead.

>>> deep, local = EfficientNetLite(LITE2)(pixels)  # (B, 1280, h, w), (B, 472, h, w)
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu6

from ovtool.methods import products

STRIDE = 16
_KERNELS = (3, 3, 5, 3, 5, 5, 3)
_STRIDES = (1, 2, 2, 2, 1, 1, 1)  # the sixth would be 2, and make a grid of stride 32
_DILATED_AFTER = (
    5  # the stage of which all blocks but the first, and those that follow, are dilated
)
_EXPANSION = 6
_EPS = 1e-3  # of its batch norms, as TensorFlow has it


@dataclass(frozen=True)
class StemShape:
    """The shape of an EfficientNet-Lite.

    Attributes:
        widths: the channels of its seven stages.
        depths: the blocks of its seven stages.
        first: the channels of the convolution before them.
        last: the channels of the convolution after them.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    first: int = 32
    last: int = 1280

    @property
    def local(self) -> int:
        """The channels of the last block of the fifth stage and of the last block, together."""
        return self.widths[4] + self.widths[6]


LITE2 = StemShape((16, 24, 48, 88, 120, 208, 352), (1, 3, 3, 4, 4, 5, 1))


class SameConv(nn.Conv2d):
    """A convolution of stride 2, padded as TensorFlow's SAME is: what is odd goes below and to the right."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(self.padded(input))

    def padded(self, x: Tensor) -> Tensor:
        """What is convolved, (B, C, h, w) with its edges."""
        side = self.kernel_size[0]
        rows, columns = (max((-(-n // 2) - 1) * 2 + side - n, 0) for n in x.shape[2:])
        before, above = columns // 2, rows // 2
        return pad(x, (before, columns - before, above, rows - above))


def _depthwise(width: int, side: int, stride: int, dilation: int) -> nn.Conv2d:
    if stride == 2:
        return SameConv(width, width, side, 2, groups=width, bias=False)
    edge = dilation * (side // 2)
    return nn.Conv2d(width, width, side, 1, edge, dilation, groups=width, bias=False)


def _pointwise(inside: int, outside: int) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, 1, bias=False)


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=_EPS)


def _normed(convolution: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """A convolution and the batch norm after it; by oneDNN as one convolution, with the norm in its weights."""
    mean, variance = norm.running_mean, norm.running_var
    is_plain = not products.is_by_onednn(x, convolution.weight, x.numel() // x.shape[1])
    if is_plain or mean is None or variance is None:
        normed: Tensor = norm(convolution(x))
        return normed
    scale = norm.weight * (variance + norm.eps).rsqrt()
    weight = convolution.weight * scale[:, None, None, None]
    offset = norm.bias - mean * scale
    if isinstance(convolution, SameConv):
        x = convolution.padded(x)
    edges = [side for side in convolution.padding if isinstance(side, int)]
    steps = (convolution.stride, convolution.dilation, convolution.groups)
    return torch.mkldnn_convolution(x, weight, offset, edges, *steps)


def _activated(convolution: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """The same, cut to [0, 6]; in place where nobody asks for its gradient."""
    return relu6(_normed(convolution, norm, x), inplace=not torch.is_grad_enabled())


class DepthwiseSeparable(nn.Module):
    """A convolution of each channel, then one of all channels at each place."""

    def __init__(self, inside: int, outside: int, side: int) -> None:
        super().__init__()
        self.has_skip = inside == outside
        self.conv_dw = _depthwise(inside, side, 1, 1)
        self.bn1 = _norm(inside)
        self.conv_pw = _pointwise(inside, outside)
        self.bn2 = _norm(outside)

    def forward(self, x: Tensor) -> Tensor:
        narrow = _normed(self.conv_pw, self.bn2, _activated(self.conv_dw, self.bn1, x))
        return narrow + x if self.has_skip else narrow


class InvertedResidual(nn.Module):
    """Six times as many channels, a convolution of each, and back (Sandler et al., CVPR 2018)."""

    def __init__(self, inside: int, outside: int, side: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.has_skip = inside == outside and stride == 1
        wide = inside * _EXPANSION
        self.conv_pw = _pointwise(inside, wide)
        self.bn1 = _norm(wide)
        self.conv_dw = _depthwise(wide, side, stride, dilation)
        self.bn2 = _norm(wide)
        self.conv_pwl = _pointwise(wide, outside)
        self.bn3 = _norm(outside)

    def forward(self, x: Tensor) -> Tensor:
        wide = _activated(self.conv_pw, self.bn1, x)
        narrow = _normed(self.conv_pwl, self.bn3, _activated(self.conv_dw, self.bn2, wide))
        return narrow + x if self.has_skip else narrow


class EfficientNetLite(nn.Module):
    """The stem. Its batch norms stay as they were trained: it has no training mode."""

    def __init__(self, shape: StemShape) -> None:
        super().__init__()
        self.conv_stem = SameConv(3, shape.first, 3, 2, bias=False)
        self.bn1 = _norm(shape.first)
        inside = (shape.first, *shape.widths[:-1])
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(*_stage(stage, inside[stage], width, depth))
                for stage, (width, depth) in enumerate(zip(shape.widths, shape.depths, strict=True))
            )
        )
        self.conv_head = _pointwise(shape.widths[-1], shape.last)
        self.bn2 = _norm(shape.last)
        self.eval()

    def train(self, mode: bool = True) -> "EfficientNetLite":
        return super().train(False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (B, 3, H, W) to two maps of (h, w) = (H / 16, W / 16), rounded up.

        Returns:
            What follows the last convolution, (B, last, h, w), in [0, 6]; and, side by side, the outputs of the
            fifth stage and of the last block, (B, local, h, w).
        """
        return self.after_third(self.third_stage(pixels))

    def stages(self, pixels: Tensor) -> list[Tensor]:
        """The output of each stage, and last what follows the last convolution: (B, channels, h, w) each."""
        outputs = [self._entered(pixels)]
        for stage in self.blocks:
            outputs.append(stage(outputs[-1]))
        return [*outputs[1:], _activated(self.conv_head, self.bn2, outputs[-1])]

    def third_stage(self, pixels: Tensor) -> Tensor:
        """The output of the third stage, of stride 8: (B, widths[2], H / 8, W / 8), rounded up."""
        features: Tensor = self.blocks[:3](self._entered(pixels))
        return features

    def _entered(self, pixels: Tensor) -> Tensor:
        """What enters the first stage: (B, first, H / 2, W / 2), rounded up; the channels of a place lie together."""
        placed = pixels.contiguous(memory_format=torch.channels_last)
        return _activated(self.conv_stem, self.bn1, placed)

    def after_third(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` gives, of `third_stage`."""
        fifth = self.blocks[3:5](features)
        last = self.blocks[5:](fifth)
        return _activated(self.conv_head, self.bn2, last), torch.cat([fifth, last], dim=1)


def _stage(stage: int, inside: int, width: int, depth: int) -> Iterator[nn.Module]:
    side = _KERNELS[stage]
    if stage == 0:
        yield DepthwiseSeparable(inside, width, side)
        return
    for block in range(depth):
        is_first = block == 0
        is_dilated = stage > _DILATED_AFTER or (stage == _DILATED_AFTER and not is_first)
        yield InvertedResidual(
            inside if is_first else width,
            width,
            side,
            stride=_STRIDES[stage] if is_first else 1,
            dilation=2 if is_dilated else 1,
        )
