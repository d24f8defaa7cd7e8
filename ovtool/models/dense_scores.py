"""How well each word fits each place of an image: a CLIP's patches against text embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ovtool.methods import class_maps, windows
from ovtool.methods import pixels as sizes
from ovtool.methods.class_maps import Rows
from ovtool.methods.windows import WindowScores
from ovtool.models import clip as clips
from ovtool.models import pacl
from ovtool.models.clip import Clip
from ovtool.models.pacl import Head
from ovtool.runtime import device as devices
from ovtool.runtime.device import Halving


@dataclass(frozen=True)
class DenseSettings:
    """How an image is shown to the image tower. None leaves a choice to the model.

    last_block: the attention of the last block, one of `dense_clip.LAST_BLOCKS`.
    short_side: the image's shorter side, in pixels, when the tower sees it; None is one
        and a half times the side that the tower was trained on (336 for 224), unless its weights
        recommend another.
    window, stride: side and step of sliding windows, in pixels of the resized image; a window of 0
        shows the whole image at once, and so does None unless the weights recommend windows; a
        stride of None is half a window.
    patch_stride: the step between patches, in pixels, a divisor of the patch; None is the whole patch.
    scales: the short sides at which the image is shown, as shares of `short_side`; flip: whether its
        mirror image is shown too. Scores are the mean over all these views.
    """

    last_block: str | None = None
    short_side: int | None = None
    window: int | None = None
    stride: int | None = None
    patch_stride: int | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def settled(self, clip: Clip, head: Head | None = None) -> DenseSettings:
        """The same with nothing left to the model, windows and steps in whole patches; a PACL head
        reads the last block that it was trained on."""
        window, stride = self.window, self.stride
        if window is None:
            window, stride = clip.dense.get("window"), clip.dense.get("stride")
        window = whole_patches(window, clip.patch_size) if window else None
        stride = window and min(whole_patches(stride or window // 2, clip.patch_size), window)
        return DenseSettings(
            last_block=head.last_block if head else self.last_block or clip.default_last_block,
            short_side=self.short_side or default_short_side(clip),
            window=window,
            stride=stride,
            patch_stride=self.patch_stride or clip.patch_size,
            scales=self.scales,
            flip=self.flip,
        )


def default_short_side(clip: Clip) -> int:
    """What the weights recommend, else one and a half times the side that the tower was trained on."""
    return int(clip.dense.get("short_side", 3 * clip.image_size // 2))


def working_size(clip: Clip, size: tuple[int, int], short_side: int | None) -> tuple[int, int]:
    """The (height, width) at which an image of `size` is shown: its shorter side as wanted, both
    sides multiples of the patch, the longer side at most eight times the shorter."""
    return sizes.working_size(size, short_side or default_short_side(clip), clip.patch_size)


def prepare(clip: Clip, rgb: Tensor, short_side: int | None) -> Tensor:
    """An image (H, W, 3) uint8, on the CPU, resized (bilinear, antialiased, in 8 bit) and normalised:
    (1, 3, h, w)."""
    size = working_size(clip, (rgb.shape[0], rgb.shape[1]), short_side)
    image = rgb.permute(2, 0, 1)[None]
    if image.shape[2:] != size:
        image = interpolate(image, size=size, mode="bilinear", antialias=True)
    return clips.normalise(clip, image.permute(0, 2, 3, 1))


def encoder(
    clip: Clip, last_block: str | None, batch_size: int, head: Head | None = None
) -> Halving[Tensor, Tensor]:
    """Normalised crops (n, 3, h, w) to their patches' features, batch by batch, (b, h', w', D) of
    length 1; the batches halve when memory runs out. A PACL head takes the place of the tower's
    projection, and reads a last block of its own."""
    if head is not None:
        return devices.Halving(lambda crops: pacl.patch_features(clip, head, crops), batch_size)
    return devices.Halving(lambda crops: clips.patch_features(clip, crops, last_block), batch_size)


def word_cosines(
    clip: Clip,
    rgb: Tensor,
    text: Tensor,
    settings: DenseSettings,
    encode: Halving[Tensor, Tensor],
) -> WindowScores:
    """The cosine of each patch with each word, window by window, on the model's device.

    rgb: uint8 (H, W, 3), on the CPU.
    text: float32 (N, D), of length 1.
    settings: as `settled`. Without windows the whole image is the one window.
    """
    pixels = prepare(clip, rgb, settings.short_side)
    size = (pixels.shape[2], pixels.shape[3])

    def score(crops: Tensor) -> Tensor:
        features = torch.cat(list(encode(crops)))
        return torch.einsum("bhwd,nd->bnhw", features, text)

    margin = (clip.patch_size / clip.patch_stride - 1) / 2
    if settings.window is None:
        return WindowScores(score(pixels), (0,), (0,), size, size, margin)
    stride = settings.stride or settings.window
    (scored,) = windows.score_windows(
        pixels, settings.window, stride, score, encode.batch_size, margin
    )
    return scored


def whole_shares(clip: Clip, rgb: Tensor, text: Tensor, owner: Sequence[int]) -> Tensor:
    """The probability of each class to name the whole image: float32 (C,), which sums to 1.

    rgb: uint8 (H, W, 3), on the CPU, shown at the side that the tower was trained on.
    text: float32 (N, D), of length 1.
    owner: the class of each text, as of `class_maps.class_scores`.
    """
    whole = clips.encode_images(clip, prepare(clip, rgb, clip.image_size))[0]
    return class_maps.class_scores(clip.logit_scale * (text @ whole), owner).softmax(0)


def views(
    clip: Clip,
    rgb: Tensor,
    text: Tensor,
    settings: DenseSettings,
    encode: Halving[Tensor, Tensor],
) -> Iterator[tuple[WindowScores, bool]]:
    """`word_cosines` of each size at which the image is shown, and whether it is that of the mirror
    image."""
    for scale in settings.scales:
        side = round(scale * (settings.short_side or default_short_side(clip)))
        at_scale = replace(settings, short_side=max(1, side))
        yield word_cosines(clip, rgb, text, at_scale, encode), False
        if settings.flip:
            yield word_cosines(clip, rgb.flip(1), text, at_scale, encode), True


def rows(scored: WindowScores, size: tuple[int, int]) -> Rows:
    """Scores brought to an image of `size` (H, W) for any rows of its pixels, as
    `class_maps.label_blocks` takes them; where windows overlap, their mean."""
    if len(scored.scores) == 1:
        return class_maps.upsampled(scored.scores[0], size, scored.margin)
    return class_maps.resized(scored.rows, scored.size, size)


def whole_patches(length: int, patch_size: int) -> int:
    """The multiple of the patch size that is nearest to a length in pixels, at least one."""
    return max(1, round(length / patch_size)) * patch_size
