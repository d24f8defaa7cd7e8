"""How an image is brought to a network: its size, and the mean and the deviation of its pixels."""

from collections.abc import Sequence

from torch import Tensor

Triple = tuple[float, float, float]
IMAGENET: tuple[Triple, Triple] = (
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)  # mean and deviation of RGB in [0, 1]
LONGEST = 8  # the longer side is at most so many times the shorter side's size


def working_size(
    size: tuple[int, int], short_side: float, multiple: int, longest: int = LONGEST
) -> tuple[int, int]:
    """The (height, width) in pixels at which an image of `size` is shown to a network.

    Args:
        size: Height and width of the image, in pixels.
        short_side: Its shorter side as wanted, in pixels.
        multiple: What both sides must be multiples of, in pixels.
        longest: The longer side is at most so many times the wanted shorter side.
    """
    scale = short_side / min(size)
    height, width = (
        max(1, round(min(side * scale, longest * short_side) / multiple)) * multiple
        for side in size
    )
    return height, width


def standardised(pixels: Tensor, mean: Sequence[float], deviation: Sequence[float]) -> Tensor:
    """Pixels (..., 3, H, W) less the mean of their channel, in units of its deviation; the same shape."""
    centre, unit = (pixels.new_tensor(three)[:, None, None] for three in (mean, deviation))
    return (pixels - centre) / unit
