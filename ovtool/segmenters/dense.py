"""`patch` and `fused`: each word's score at each place of an image, from one pass through the CLIP.

An image goes through the image tower once (or window by window). Each word's score at each place is
the cosine of the patch with the word's text embedding, times the logit scale. `patch` takes the best
word of each pixel; `fused` pools the scores in class-agnostic regions, or in segments, first. Both may weigh
in which words name the whole image, and let a CRF follow edges at the end.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovtool.errors import InputError
from ovtool.formats.images import ImageItem
from ovtool.inputs import embedded_words
from ovtool.inputs.embedded_words import EmbeddedWords
from ovtool.inputs.words import WordSet
from ovtool.methods import class_maps, region_scores
from ovtool.methods.class_maps import Rows
from ovtool.methods.windows import WindowScores, upsample_rows
from ovtool.models import dense_scores
from ovtool.models.dense_scores import DenseSettings
from ovtool.proposers import proposal_sources
from ovtool.proposers.proposal_sources import ProposalSource
from ovtool.runtime import device as devices
from ovtool.runtime.device import Halving
from ovtool.segmenters import edges, provenance
from ovtool.segmenters.protocol import Segmented, Segmenter
from ovtool.settings.layers import Origin, known
from ovtool.settings.segment import Dense, Fused, Patch
from ovtool.settings.shared import Compute

if TYPE_CHECKING:  # loaded where they are used: bad arguments need not wait for them
    from ovtool.models.clip import Clip
    from ovtool.models.pacl import Head

BATCH_SIZE = 8  # windows at once
PUBLISHED: Mapping[str, Any] = {"scales": (1.0,)}


@dataclass(frozen=True, eq=False)
class DenseSegmenter:
    """A CLIP whose patches are compared with the words of a run.

    Attributes:
        clip: The CLIP.
        embedded: The words in its space.
        method: The settings, with what was not given taken from the model.
        origins: Where the value of each of its fields comes from.
        view: How images go through the tower, with nothing left to the model.
        logit_scale: What cosines are multiplied by.
        batch_size: Windows at once.
        head: A PACL head that reads the patches, None without one.
        regions: Where regions come from, None for `patch`.
    """

    clip: Clip
    embedded: EmbeddedWords
    method: Dense
    origins: Mapping[str, Origin]
    view: DenseSettings
    logit_scale: float
    batch_size: int
    head: Head | None = None
    regions: ProposalSource | None = None

    @property
    def words(self) -> WordSet:
        """The words of the run."""
        return self.embedded.words

    @property
    def device(self) -> torch.device:
        """Where the CLIP is."""
        return self.clip.device

    @property
    def _follows_edges(self) -> bool:
        """Whether scores are averaged in segments, or pass a CRF."""
        return bool(_segments(self.method)) or self.method.crf not in (None, "none")

    def encoder(self) -> Halving[Any, Tensor]:
        """The image tower in batches."""
        return dense_scores.encoder(self.clip, self.view.last_block, self.batch_size, self.head)

    def segment(
        self, item: ImageItem, rgb: NDArray[np.uint8], encode: Halving[Any, Tensor]
    ) -> Segmented:
        """The class map of one image, uint8 (H, W, 3), over its own words."""
        rows, classes, heat = self._patch_rows(item, rgb, encode)
        if self.regions is not None:
            rows = _fused_rows(self.regions, rows, classes, item, rgb)
        rows = edges.followed(rows, rgb, classes, _segments(self.method), self.method.crf)
        kept = len(self.words.of_image(item.name))
        if classes > kept + 1:  # the background's words, kept apart until here
            rows, classes = class_maps.joined(rows, kept), kept + 1
        size = (rgb.shape[0], rgb.shape[1])
        least, most = self.method.min_score, self.method.max_entropy
        class_map = class_maps.label_blocks(rows, size, classes, kept, least, most)
        return Segmented(class_map, rows, classes, heat)

    def info(self) -> dict[str, Any]:
        """The `info` of the output."""
        settled: dict[str, Any] = {
            name: getattr(self.view, name)
            for name in ("last_block", "short_side", "window", "stride", "patch_stride")
        }
        settled["logit_scale"] = round(self.logit_scale, 6)
        settled["pacl"] = None if self.head is None else self.head.fingerprint
        if self.regions is not None:
            settled |= {"proposer": self.regions.proposer, "proposals": self.regions.digest}
        return provenance.of_clip_run(
            self.method, self.origins, settled, self.words, self.clip, self.batch_size
        )

    def _patch_rows(
        self, item: ImageItem, rgb: NDArray[np.uint8], encode: Halving[Any, Tensor]
    ) -> tuple[Rows, int, Rows | None]:
        """The logits of the image's classes for any rows of its pixels, the classes' number, and, with
        a PACL head, what heat maps show."""
        text, owner = self.embedded.of_image(item.name)
        if self._follows_edges:
            owner = _apart(owner, len(self.words.of_image(item.name)))
        size, pixels = (rgb.shape[0], rgb.shape[1]), torch.from_numpy(rgb)
        seen: list[tuple[WindowScores, bool]] = []
        for scores, is_mirrored in dense_scores.views(self.clip, pixels, text, self.view, encode):
            logits = class_maps.class_scores(scores.scores * self.logit_scale, owner, dim=1)
            if isinstance(self.method, Fused):  # summed on the CPU, always in the same order
                logits = logits.cpu()
            seen.append((replace(scores, scores=logits), is_mirrored))
        heat = None if self.head is None else self._heat(self.head, seen, size)
        rows = _mean_rows(seen, size)
        if self.method.image_prior:
            shares = dense_scores.whole_shares(self.clip, pixels, text, owner)
            rows = class_maps.raised(rows, self.method.image_prior * shares)
        return rows, max(owner) + 1, heat

    def _heat(
        self, head: Head, seen: Sequence[tuple[WindowScores, bool]], size: tuple[int, int]
    ) -> Rows:
        """The patch weights a(x, text) of each class for any rows of the image's pixels, each class's
        brought to [0, 1] by its least and its greatest."""
        from ovtool.methods import patch_alignment

        first, patch = seen[0][0], self.clip.patch_stride
        grid = (first.size[0] // patch, first.size[1] // patch)

        @functools.cache  # made when the first rows are asked for, if ever
        def shares() -> Tensor:
            cosines = _mean_rows(seen, grid)(0, grid[0]) / (self.logit_scale or 1.0)
            weights = patch_alignment.weights_of_cosines(cosines.flatten(1), head.pooling, 1)
            low, high = weights.amin(1, keepdim=True), weights.amax(1, keepdim=True)
            scaled = (weights - low) / (high - low).clamp(min=1e-12)
            return scaled.reshape(-1, *grid)

        return lambda start, stop: upsample_rows(shares(), size, start, stop)


def _apart(owner: Sequence[int], kept: int) -> list[int]:
    """The classes of names, each background word as one of its own. What is averaged and smoothed must be the
    score of a word: the mean of the best of many is higher than the best of their means, and the background
    would win where no word of it does."""
    words = itertools.count(kept)
    return [k if k < kept else next(words) for k in owner]


def _segments(method: Dense) -> tuple[float, ...]:
    """The scales of the segments; none where proposals or patches are what scores are taken of."""
    return tuple(filter(None, (isinstance(method, Fused) and method.segments) or ()))


def _fused_rows(
    source: ProposalSource, rows: Rows, classes: int, item: ImageItem, rgb: NDArray[np.uint8]
) -> Rows:
    """The same logits pooled in the image's regions, as log probabilities."""
    proposals = source.find(item, rgb)
    superpixels = torch.from_numpy(proposals.superpixels.astype(np.int64))
    means, areas = region_scores.superpixel_means(rows, superpixels, classes)
    fused = region_scores.fuse(
        means, areas, torch.from_numpy(proposals.members), torch.from_numpy(proposals.quality)
    )
    logits = fused.clamp(min=1e-12).log().T  # (C, S)
    return lambda start, stop: logits[:, superpixels[start:stop]]


def _mean_rows(seen: Sequence[tuple[WindowScores, bool]], size: tuple[int, int]) -> Rows:
    """The scores of an image for any of its rows, as the mean over its views."""
    views = [(dense_scores.rows(scores, size), is_mirrored) for scores, is_mirrored in seen]
    return class_maps.mean_of(
        [class_maps.mirrored(rows) if is_mirrored else rows for rows, is_mirrored in views]
    )


def prepared(
    method: Dense,
    words: WordSet,
    items: Sequence[ImageItem],
    compute: Compute,
    batch_size: int | None,
) -> Callable[[], Segmenter]:
    """What loads the segmenter; the files that it reads are there.

    Raises:
        UsageError: The proposer is unknown.
        InputError: A file is not there or is broken.
        MismatchError: The proposals are those of other images.
    """
    if isinstance(method.pacl, Path) and not method.pacl.is_file():
        raise InputError(f"no such file: {method.pacl}; --pacl is a file of train-pacl, or none")
    regions = None
    if isinstance(method, Fused) and method.proposals is not None:
        regions = proposal_sources.from_file(method.proposals, items)
    elif isinstance(method, Fused) and not _segments(method):
        device = devices.choose(compute.device)
        regions = proposal_sources.from_proposer(method.proposer or "regions", device=device)
    return functools.partial(load, method, words, regions, compute, batch_size)


def load(
    method: Dense,
    words: WordSet,
    regions: ProposalSource | None,
    compute: Compute,
    batch_size: int | None = None,
) -> DenseSegmenter:
    """Loads the model and embeds every word of the run.

    A PACL head that comes with a bundled model is taken for `patch`, since in regions it names fewer pixels
    right, where no last block was asked for.

    Raises:
        ModelError: The model cannot be had.
        UsageError: The model cannot do what was asked.
        InputError: The head's file is broken.
        MismatchError: It is the head of another CLIP.
    """
    from ovtool.models import clip as clips
    from ovtool.models import pacl as heads
    from ovtool.models import recommendations

    place = devices.choose(compute.device)
    clip = clips.load(compute.model, place, devices.precision(compute.precision, place))
    head = None
    replaced = ("segments",) if isinstance(method, Fused) and method.names_masks else ()
    method, origins = recommendations.settled(clip, method, PUBLISHED, replaced)
    is_patch = isinstance(method, Patch)
    if method.pacl is not None or (is_patch and method.last_block is None):
        head = heads.choose(None if method.pacl is None else str(method.pacl), clip)
    if method.patch_stride is not None:
        clip = clips.with_patch_stride(clip, method.patch_stride)
    embedded = embedded_words.embed(clip, words, method.templates, method.max_entropy)
    own = clip.logit_scale if head is None else head.logit_scale
    return DenseSegmenter(
        clip=clip,
        embedded=embedded,
        method=method,
        origins=origins,
        view=_view(method).settled(clip, head),
        logit_scale=own if method.logit_scale is None else method.logit_scale,
        batch_size=batch_size or BATCH_SIZE,
        head=head,
        regions=None if _segments(method) else regions,
    )


def _view(method: Dense) -> DenseSettings:
    """How a method's images go through the tower."""
    return DenseSettings(
        last_block=method.last_block,
        short_side=method.short_side,
        window=method.window,
        stride=method.stride,
        patch_stride=method.patch_stride,
        scales=known(method.scales),
        flip=method.flip,
    )
