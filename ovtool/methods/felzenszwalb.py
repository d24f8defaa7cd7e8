"""scikit-image's superpixels without `scipy.ndimage`, whose import takes as long as the superpixels of a photograph.

All that they need of it is to smooth the image, which is done here in the same order of sums: the superpixels are the
same to the bit (on processors where a compiler does not fuse a product and a sum: x86-64).
"""

import functools
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIGMA = 0.8  # pixels, the deviation of the smoothing
_RADIUS = int(4 * SIGMA + 0.5)  # of its kernel, as scipy cuts it


def segments(
    image: NDArray[np.floating[Any]], scales: Sequence[float], min_size: int, threads: int = 1
) -> list[NDArray[np.int64]]:
    """The superpixels of an image at each scale (Felzenszwalb and Huttenlocher, IJCV 2004): int64 (H, W) each.

    Args:
        image: floating (H, W, 3), about [-1, 1].
        scales: larger ones make larger superpixels.
        min_size: pixels that each has at least.
        threads: how many scales are cut at once; they do not change the result.
    """
    cut = functools.partial(_library(), image, sigma=SIGMA, min_size=min_size, channel_axis=-1)
    if min(threads, len(scales)) < 2:
        return [cut(scale=scale) for scale in scales]
    with ThreadPoolExecutor(min(threads, len(scales))) as pool:
        return list(pool.map(lambda scale: cut(scale=scale), scales))


def smoothed(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """The image, float64 (H, W, C), smoothed by a Gaussian of `SIGMA`, mirrored beyond its edges: as
    `scipy.ndimage.gaussian_filter(image, (SIGMA, SIGMA, 0), mode="reflect")`."""
    kernel = np.exp(-0.5 / (SIGMA * SIGMA) * np.arange(-_RADIUS, _RADIUS + 1) ** 2)
    kernel /= kernel.sum()
    planes = np.ascontiguousarray(np.moveaxis(image, -1, 0))
    for axis in (1, 2):
        edges = [(_RADIUS, _RADIUS) if side == axis else (0, 0) for side in range(3)]
        padded = np.moveaxis(np.pad(planes, edges, mode="symmetric"), axis, 0)
        count = planes.shape[axis]
        total = padded[_RADIUS : _RADIUS + count] * kernel[_RADIUS]
        for place in range(_RADIUS):
            end = 2 * _RADIUS - place
            pair = padded[place : place + count] + padded[end : end + count]
            pair *= kernel[place]
            total += pair
        planes = np.moveaxis(total, 0, axis)
    return np.moveaxis(planes, 0, -1)


class _OnFirstUse(MetaPathFinder):
    """Finds one module, which is run when something of it is first used."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What loads the module, where it is the one; None for others."""
        spec = PathFinder.find_spec(name, path, target) if name == self.name else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


@functools.cache
def _library() -> Callable[..., NDArray[np.int64]]:
    """scikit-image's `felzenszwalb`, which takes `smoothed` where its smoothing is that of `SIGMA`."""
    finder = _OnFirstUse("scipy.ndimage")
    sys.meta_path.insert(0, finder)
    try:
        from skimage.segmentation import felzenszwalb
    finally:
        sys.meta_path.remove(finder)
    library: Callable[..., NDArray[np.int64]] = felzenszwalb
    compiled: Any = sys.modules.get("skimage.segmentation._felzenszwalb_cy")
    others = getattr(compiled, "gaussian", None)
    if others is None:  # a version of scikit-image that smooths elsewhere
        return library

    def gaussian(image: NDArray[Any], sigma: Any, **options: Any) -> Any:
        is_same = np.array_equal(sigma, [SIGMA, SIGMA, 0]) and options.get("mode") == "reflect"
        if is_same and image.dtype == np.float64:
            return smoothed(image)
        return others(image, sigma=sigma, **options)

    compiled.gaussian = gaussian
    return library
