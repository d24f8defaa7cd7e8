"""Random crops and colours of training images, from a generator that the caller seeds."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_PADDING = 128  # grey, where a crop is larger than its image
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def random_crop(
    rng: np.random.Generator,
    rgb: NDArray[np.uint8],
    layers: NDArray[Any],
    side: int,
    scales: tuple[float, float],
    blank: Any,
) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """A square of an image, uint8 (side, side, 3), and of what lies over it, (..., side, side).

    rgb: uint8 (H, W, 3). layers: (..., H, W), masks or labels, whose pixels are taken from the nearest.
    The image is scaled so that its shorter side is a random one of `scales` times `side`, cropped at a
    random place, mirrored one time in two, and jittered. What lies beyond it is grey, and `blank`.
    """
    height, width = rgb.shape[:2]
    scale = rng.uniform(*scales) * side / min(height, width)
    taken = [min(length, max(1, round(side / scale))) for length in (height, width)]
    top, left = (
        int(rng.integers(0, length - part + 1))
        for length, part in zip((height, width), taken, strict=True)
    )
    size = [min(side, max(1, round(part * scale))) for part in taken]
    box = (left, top, left + taken[1], top + taken[0])
    small = Image.fromarray(rgb).resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box)
    rows, columns = (
        start + ((np.arange(new) + 0.5) * part / new).astype(np.int64)
        for start, part, new in zip((top, left), taken, size, strict=True)
    )
    pixels = np.full((side, side, 3), _PADDING, np.uint8)
    pixels[: size[0], : size[1]] = jittered(rng, np.asarray(small))
    cut = np.full((*layers.shape[:-2], side, side), blank, layers.dtype)
    cut[..., : size[0], : size[1]] = layers[..., rows, :][..., columns]
    if rng.random() < 0.5:
        pixels, cut = pixels[:, ::-1], cut[..., ::-1]
    return np.ascontiguousarray(pixels), np.ascontiguousarray(cut)


def jittered(rng: np.random.Generator, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Brightness by up to 32, contrast and saturation by 0.5 to 1.5, hue by up to 36 degrees, each one
    time in two (SSD's distortions; hue is turned about the grey axis)."""
    pixels: NDArray[np.float32] = rgb.astype(np.float32)
    if rng.random() < 0.5:
        pixels += np.float32(rng.uniform(-32, 32))
    if rng.random() < 0.5:
        pixels *= np.float32(rng.uniform(0.5, 1.5))
    if rng.random() < 0.5:
        grey = (pixels @ _LUMA)[..., None]
        saturation: NDArray[np.float32] = np.float32(rng.uniform(0.5, 1.5)) * (pixels - grey)
        pixels = grey + saturation
    if rng.random() < 0.5:
        pixels = (pixels @ _hue_turn(np.deg2rad(rng.uniform(-36, 36))).T).astype(np.float32)
    return np.clip(pixels, 0, 255).round().astype(np.uint8)


def _hue_turn(angle: float) -> NDArray[np.float32]:
    """The rotation of RGB about the grey axis (Rodrigues' formula)."""
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    turn = np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) / 3
    turned: NDArray[np.float32] = turn.astype(np.float32)
    return turned
