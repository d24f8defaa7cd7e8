"""How well each word fits each place of a picture: a CLIP's patches against text embeddings."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ovtool.methods import windows
from ovtool.models import clip as door
from ovtool.models.clip import Clip


@dataclass(frozen=True)
class DenseSettings:
    """How a picture is shown to the image tower. None leaves a choice to the model.

    last_block: the attention of the last block, one of `dense_clip.LAST_BLOCKS`.
    short_side: the picture's shorter side, in pixels, when the tower sees it; None is one
        and a half times the side that the tower was trained on (336 for 224).
    window, stride: side and step of sliding windows, in pixels of the resized picture; a window of
        None shows the whole picture at once, a stride of None is half a window.
    """

    last_block: str | None = None
    short_side: int | None = None
    window: int | None = None
    stride: int | None = None


def working_size(clip: Clip, size: tuple[int, int], short_side: int | None) -> tuple[int, int]:
    """The (height, width) at which a picture of `size` is shown: its shorter side as wanted, both
    sides multiples of the patch, the longer side at most eight times the shorter."""
    shorter = short_side or 3 * clip.image_size // 2
    scale = shorter / min(size)
    height, width = (
        max(1, round(min(side * scale, 8 * shorter) / clip.patch_size)) * clip.patch_size
        for side in size
    )
    return height, width


def prepare(clip: Clip, rgb: Tensor, short_side: int | None) -> Tensor:
    """A picture (H, W, 3) uint8 resized (bilinear, antialiased) and normalised: (1, 3, h, w)."""
    size = working_size(clip, (rgb.shape[0], rgb.shape[1]), short_side)
    pixels = door.normalise(clip, rgb[None]).float()
    if pixels.shape[2:] != size:
        pixels = interpolate(pixels, size=size, mode="bilinear", antialias=True)
    return pixels.to(clip.dtype)


def word_cosines(
    clip: Clip, rgb: Tensor, text: Tensor, settings: DenseSettings, batch_size: int = 8
) -> Tensor:
    """The cosine of each place with each word: float32 (N, h, w), on the model's device.

    rgb: uint8 (H, W, 3).
    text: float32 (N, D), of length 1.
    batch_size: windows at once.

    Without windows h x w is the grid of patches; with windows it is the resized picture, each place
    the mean over the windows that see it.
    """
    pixels = prepare(clip, rgb, settings.short_side)

    def score(crops: Tensor) -> Tensor:
        features = door.patch_features(clip, crops, settings.last_block)  # (B, h, w, D)
        return torch.einsum("bhwd,nd->bnhw", features, text)

    if settings.window is None:
        return score(pixels)[0]
    window = _whole_patches(settings.window, clip.patch_size)
    stride = _whole_patches(settings.stride or window // 2, clip.patch_size)
    (found,) = windows.score_windows(pixels, window, min(stride, window), score, batch_size)
    return found.rows(0, pixels.shape[2])


def _whole_patches(length: int, patch_size: int) -> int:
    """The multiple of the patch size that is nearest, at least one."""
    return max(1, round(length / patch_size)) * patch_size
