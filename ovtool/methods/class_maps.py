"""From class scores on a coarse grid to one label and one probability per pixel, block by block.

A map of K classes over H x W pixels is K numbers per pixel: 847 classes at 2048 x 2048 are 14 GB.
They are never needed at once. Scores are brought to the image's size a few rows at a time, reduced to
the best class and its softmax probability, and forgotten.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ovtool.methods.windows import upsample_rows

MAX_BLOCK_ELEMENTS = 1 << 20  # of class scores held at once: 4 MiB of float32, near the caches
UNLABELLED = -1

Rows = Callable[[int, int], Tensor]


@dataclass(frozen=True)
class ClassMap:
    """The label of each pixel, with counts and mean probabilities of the classes.

    `label` is (H, W) int32, the class index or -1 where nothing is labelled; `pixels` (K,) int64
    counts the pixels of each class; `mean_probability` (K,) float64 is the mean of their softmax
    probabilities over all classes, background included, 0 where there are none. K counts the classes
    that are kept.
    """

    label: Tensor
    pixels: Tensor
    mean_probability: Tensor


def class_scores(scores: Tensor, owner: Sequence[int], dim: int = 0) -> Tensor:
    """The score of each class, the maximum over its names, along dimension `dim`.

    `scores` has one entry per name along `dim`; `owner` gives each name's class, 0 to C - 1, every
    class owning at least one name.
    """
    classes = max(owner) + 1
    if list(owner) == list(range(classes)):
        return scores
    shape = list(scores.shape)
    shape[dim] = classes
    view = [1] * scores.ndim
    view[dim] = -1
    index = torch.tensor(owner, device=scores.device).view(view).expand_as(scores)
    best = scores.new_full(shape, -torch.inf)
    return best.scatter_reduce_(dim, index, scores, reduce="amax")


def upsampled(scores: Tensor, size: tuple[int, int], margin: float = 0.0) -> Rows:
    """Rows of class scores (C, h, w) brought to `size` (H, W), as `label_blocks` reads them; margin: as
    of `windows.upsample_rows`."""
    return lambda start, stop: upsample_rows(scores, size, start, stop, margin)


def resized(rows: Rows, size: tuple[int, int], target: tuple[int, int]) -> Rows:
    """The rows of an image of `size` (H, W) brought to the size `target`: a bilinear resize of the whole,
    with ``align_corners=False``, made from no more rows than are needed."""
    if size == target:
        return rows
    return lambda start, stop: _resized_rows(rows, size, target, start, stop)


def _resized_rows(
    rows: Rows, size: tuple[int, int], target: tuple[int, int], start: int, stop: int
) -> Tensor:
    """Rows `start` to `stop` of `resized`: (C, stop - start, W)."""
    centre = torch.arange(start, stop, dtype=torch.float64) + 0.5
    position = (centre * (size[0] / target[0]) - 0.5).clamp_(min=0, max=size[0] - 1)
    upper = position.long()
    lower = (upper + 1).clamp_(max=size[0] - 1)
    first = int(upper[0])
    block = rows(first, int(lower[-1]) + 1)  # (C, a few, w)
    weight = (position - upper)[:, None].to(block)
    mixed = torch.lerp(block[:, upper - first], block[:, lower - first], weight)
    return interpolate(mixed, size=target[1], mode="linear", align_corners=False)


def raised(rows: Rows, gains: Tensor) -> Rows:
    """The rows of an image, each class raised by its gain in every pixel; gains: (C,)."""

    def more(start: int, stop: int) -> Tensor:
        scores = rows(start, stop)
        return scores + gains[:, None, None].to(scores.device)

    return more


def joined(rows: Rows, kept: int) -> Rows:
    """The rows of an image with all classes from `kept` on as one, the best of them."""

    def fewer(start: int, stop: int) -> Tensor:
        scores = rows(start, stop)
        return torch.cat([scores[:kept], scores[kept:].amax(0, keepdim=True)])

    return fewer


def mirrored(rows: Rows) -> Rows:
    """The rows of an image from those of its mirror image."""
    return lambda start, stop: rows(start, stop).flip(-1)


def mean_of(views: Sequence[Rows]) -> Rows:
    """The mean of the rows of several views of an image; the rows themselves of a single view."""
    if len(views) == 1:
        return views[0]

    def rows(start: int, stop: int) -> Tensor:
        first, *others = (view(start, stop).float() for view in views)
        return sum(others, first) / len(views)

    return rows


def row_blocks(size: tuple[int, int], classes: int) -> Iterator[tuple[int, int]]:
    """Row ranges that cover `size` (H, W), each small enough to hold all classes' scores."""
    height, width = size
    step = max(1, MAX_BLOCK_ELEMENTS // max(1, classes * width))
    for start in range(0, height, step):
        yield start, min(start + step, height)


def probability_blocks(
    rows: Rows, size: tuple[int, int], classes: int
) -> Iterator[tuple[int, int, Tensor]]:
    """Softmax probabilities over the classes in row blocks: (start, stop, (C, stop - start, W))."""
    for start, stop in row_blocks(size, classes):
        yield start, stop, rows(start, stop).float().softmax(dim=0)


def entropy(logits: Tensor) -> Tensor:
    """The entropy of the softmax over the first dimension, in nats: (C, ...) to (...), 0 to log C."""
    total: Tensor = torch.special.entr(logits.softmax(dim=0)).sum(dim=0)
    return total


def label_blocks(
    rows: Rows,
    size: tuple[int, int],
    classes: int,
    keep: int | None = None,
    min_score: float = 0.0,
    max_entropy: float | None = None,
) -> ClassMap:
    """Label each pixel of `size` (H, W) with its best class.

    `rows(start, stop)` gives the scores of all `classes` for pixel rows, (C, stop - start, W), as
    logits: cosines already times the logit scale. Classes from index `keep` on (background; None
    keeps all) compete and are dropped, and so are a pixel whose probability is below `min_score` and
    one whose distribution over all classes has an entropy above `max_entropy`, in nats: all these
    are labelled -1.
    """
    kept = classes if keep is None else keep
    # made first: small results kept between large blocks would leave the heap full of holes
    labels = torch.empty(size, dtype=torch.int32)
    pixels = torch.zeros(kept + 1, dtype=torch.int64)
    mass = torch.zeros(kept + 1, dtype=torch.float64)
    for start, stop in row_blocks(size, classes):
        scores = rows(start, stop).float()
        best, label = scores.max(dim=0)
        # softmax at the maximum: 1 / sum_c exp(s_c - max)
        probability = (scores - best).exp_().sum(dim=0).reciprocal_().cpu()
        label = label.cpu()
        dropped = (label >= kept) | (probability < min_score)
        if max_entropy is not None:
            dropped |= (entropy(scores) > max_entropy).cpu()
        label[dropped] = kept  # the last bin collects the rest
        pixels += torch.bincount(label.flatten(), minlength=kept + 1)
        mass += torch.bincount(
            label.flatten(), weights=probability.double().flatten(), minlength=kept + 1
        )
        label[label == kept] = UNLABELLED
        labels[start:stop] = label
    return ClassMap(labels, pixels[:kept], (mass / pixels.clamp(min=1))[:kept])
