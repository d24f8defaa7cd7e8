"""A loaded model with the words of a run: one picture after another to its class map and masks.

An image is shown to the image tower once (or window by window). Each word's score at each place is
the cosine of the patch with the word's text embedding, times the logit scale. `patch` takes the
best word of each pixel; `fused` pools the scores in class-agnostic regions first; `two-stage` shows
each region to the tower by itself (`segmenters.two_stage`).
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovtool.errors import UsageError
from ovtool.formats import parts, rle
from ovtool.formats.images import ImageItem
from ovtool.inputs.words import Words
from ovtool.methods import class_maps, region_scores
from ovtool.methods.class_maps import ClassMap, Rows
from ovtool.methods.windows import WindowScores, upsample_rows
from ovtool.models import dense_scores
from ovtool.models.dense_scores import DenseSettings
from ovtool.outputs.drawings import Drawings
from ovtool.proposers.proposal_sources import ProposalSource
from ovtool.runtime import device as devices
from ovtool.runtime import engine, runs
from ovtool.runtime.device import Halving
from ovtool.segmenters.two_stage import TwoStage, TwoStageSettings

if TYPE_CHECKING:  # they import open_clip, for which bad arguments need not wait
    from ovtool.models.clip import Clip
    from ovtool.models.pacl import Head

METHODS = ("patch", "fused", "two-stage")
DEFAULT_METHOD = "fused"
BATCH_SIZE = 8  # windows at once; crops: two_stage.BATCH_SIZE
_logger = logging.getLogger("ovtool")


@dataclass(frozen=True)
class Settings:
    """What shapes a segmentation beside model, words and regions; None leaves a choice to the model.

    Raises UsageError for what cannot be meant.
    """

    method: str = DEFAULT_METHOD
    dense: DenseSettings = field(default_factory=DenseSettings)
    logit_scale: float | None = None
    templates: str = "one"
    min_score: float = 0.0
    batch_size: int = BATCH_SIZE
    two_stage: TwoStageSettings | None = None
    max_entropy: float | None = None

    def __post_init__(self) -> None:
        window, stride = self.dense.window, self.dense.stride
        if self.method not in METHODS:
            raise UsageError(f"unknown method '{self.method}'; choose from {', '.join(METHODS)}")
        if stride is not None and not window:
            raise UsageError("--stride is the step of --window: give that too")
        if window is not None and stride is not None and stride > window:
            raise UsageError(
                f"--stride {stride} is more than --window {window}: pixels would be missed"
            )

    def settled(self, clip: Clip, head: Head | None = None) -> Settings:
        """The same with nothing left to the model, or to the PACL head on it."""
        own = clip.logit_scale if head is None else head.logit_scale
        scale = own if self.logit_scale is None else self.logit_scale
        return replace(self, dense=self.dense.settled(clip, head), logit_scale=scale)


class Segmented(NamedTuple):
    """What becomes of a picture.

    rows: the logits that its class map came from. classes: the number of classes in them, the background
    being the last if there is one. heat: what its heat maps show in place of probabilities, (classes,
    rows, W) in [0, 1].
    """

    found: ClassMap
    rows: Rows
    classes: int
    heat: Rows | None = None


@dataclass(frozen=True)
class Segmenter:
    """A loaded model with the embedded words of a run, ready for one picture after another.

    settings: with nothing left to the model. regions: None where the method needs none.
    text: float32 (N, D), the embeddings of the words whose row numbers are in `embedded`.
    two_stage: None for the other methods. head: a PACL head that reads the patches, None without one.
    """

    clip: Clip
    words: Words
    settings: Settings
    text: Tensor
    embedded: Mapping[str, int]
    regions: ProposalSource | None = None
    two_stage: TwoStage | None = None
    head: Head | None = None

    def encoder(self) -> Halving[Any, Tensor]:
        """The image tower in batches, new for each part so that parts do not depend on each other."""
        if self.two_stage is not None:
            return self.two_stage.encoder(self.settings.batch_size)
        return dense_scores.encoder(
            self.clip, self.settings.dense.last_block, self.settings.batch_size, self.head
        )

    def segment(
        self, item: ImageItem, rgb: NDArray[np.uint8], encode: Halving[Any, Tensor]
    ) -> Segmented:
        """The class map of one picture, uint8 (H, W, 3), over its own words."""
        heat = None
        if self.two_stage is not None:
            rows, classes = self._two_stage_rows(self.two_stage, item, rgb, encode)
        else:
            rows, classes, heat = self._patch_rows(item, rgb, encode)
            if self.regions is not None:
                rows = self._fused_rows(self.regions, rows, classes, item, rgb)
        kept = len(self.words.of_image(item.name))
        size = (rgb.shape[0], rgb.shape[1])
        least, most = self.settings.min_score, self.settings.max_entropy
        found = class_maps.label_blocks(rows, size, classes, kept, least, most)
        return Segmented(found, rows, classes, heat)

    def text_of(self, item: ImageItem) -> tuple[Tensor, Sequence[int]]:
        """The embeddings of the names of a picture's classes, and which class each belongs to."""
        vocabulary = self.words.vocabulary(self.words.of_image(item.name))
        index = torch.tensor([self.embedded[word] for word in vocabulary.words])
        return self.text[index.to(self.text.device)], vocabulary.owner

    def _two_stage_rows(
        self,
        stages: TwoStage,
        item: ImageItem,
        rgb: NDArray[np.uint8],
        encode: Halving[Any, Tensor],
    ) -> tuple[Rows, int]:
        """The logits of the picture's classes from regions that are named one by one."""
        text, owner = self.text_of(item)
        assert self.settings.logit_scale is not None
        return stages.rows(item, rgb, text, owner, self.settings.logit_scale, encode)

    def _patch_rows(
        self, item: ImageItem, rgb: NDArray[np.uint8], encode: Halving[Any, Tensor]
    ) -> tuple[Rows, int, Rows | None]:
        """The logits of the picture's classes for any rows of its pixels, the classes' number, and, with
        a PACL head, what heat maps show."""
        text, owner = self.text_of(item)
        size, picture = (rgb.shape[0], rgb.shape[1]), torch.from_numpy(rgb)
        seen: list[tuple[WindowScores, bool]] = []
        for found, is_mirrored in dense_scores.views(
            self.clip, picture, text, self.settings.dense, encode
        ):
            logits = class_maps.class_scores(found.scores * self.settings.logit_scale, owner, dim=1)
            if self.regions is not None:  # which are summed on the CPU, always in the same order
                logits = logits.cpu()
            seen.append((replace(found, scores=logits), is_mirrored))
        heat = None if self.head is None else self._heat(self.head, seen, size)
        return _mean_rows(seen, size), max(owner) + 1, heat

    def _heat(
        self, head: Head, seen: Sequence[tuple[WindowScores, bool]], size: tuple[int, int]
    ) -> Rows:
        """The patch weights a(x, text) of each class for any rows of the picture's pixels, each class's
        brought to [0, 1] by its least and its greatest."""
        from ovtool.methods import patch_alignment

        first, patch = seen[0][0], self.clip.patch_stride
        grid = (first.size[0] // patch, first.size[1] // patch)

        @functools.cache  # made when the first rows are asked for, if ever
        def shown() -> Tensor:
            cosines = _mean_rows(seen, grid)(0, grid[0]) / (self.settings.logit_scale or 1.0)
            weights = patch_alignment.weights_of_cosines(cosines.flatten(1), head.pooling, 1)
            low, high = weights.amin(1, keepdim=True), weights.amax(1, keepdim=True)
            return ((weights - low) / (high - low).clamp(min=1e-12)).unflatten(1, grid)

        return lambda start, stop: upsample_rows(shown(), size, start, stop)

    def _fused_rows(
        self,
        source: ProposalSource,
        rows: Rows,
        classes: int,
        item: ImageItem,
        rgb: NDArray[np.uint8],
    ) -> Rows:
        """The same logits pooled in the picture's regions, as log probabilities."""
        found = source.find(item, rgb)
        superpixels = torch.from_numpy(found.superpixels.astype(np.int64))
        means, areas = region_scores.superpixel_means(rows, superpixels, classes)
        fused = region_scores.fuse(
            means, areas, torch.from_numpy(found.members), torch.from_numpy(found.quality)
        )
        logits = fused.clamp(min=1e-12).log().T  # (C, S)
        return lambda start, stop: logits[:, superpixels[start:stop]]


def _mean_rows(seen: Sequence[tuple[WindowScores, bool]], size: tuple[int, int]) -> Rows:
    """The scores of a picture for any of its rows, as the mean over its views."""
    each = [(dense_scores.rows(found, size), is_mirrored) for found, is_mirrored in seen]
    return class_maps.mean_of(
        [class_maps.mirrored(rows) if is_mirrored else rows for rows, is_mirrored in each]
    )


def load(
    model: str | None,
    device: torch.device,
    precision: str,
    vocabulary: Words,
    settings: Settings,
    regions: ProposalSource | None,
    stages: Callable[[Clip], TwoStage] | None = None,
    pacl: str | None = None,
) -> Segmenter:
    """Loads the model and embeds every word of the run.

    stages: makes the two stages of `two-stage` around the CLIP, None for the other methods.
    pacl: the file of a PACL head, `none`, or None for the one that comes with a bundled model; regions
        and a last block that was asked for stand against that one.

    Raises ModelError, UsageError, InputError, MismatchError.
    """
    from ovtool.models import clip as door
    from ovtool.models import pacl as heads
    from ovtool.models import text

    clip = door.load(model, device, devices.precision(precision, device))
    vocabulary = vocabulary.before(clip.stuff)
    head = None
    is_default = regions is None and settings.dense.last_block is None  # in regions it names fewer
    if stages is None and (pacl is not None or is_default):
        head = heads.choose(pacl, clip)
    if settings.dense.patch_stride is not None:
        clip = door.with_patch_stride(clip, settings.dense.patch_stride)
    two = None if stages is None else stages(clip)
    if two is not None:
        settings = replace(settings, two_stage=two.settings)
    everything = tuple(dict.fromkeys((*vocabulary.names, *vocabulary.background)))
    embedded = text.embed_words(clip, everything, settings.templates)
    text.warn_unlearned(clip, vocabulary.names)
    _warn_entropy(settings.max_entropy, vocabulary)
    return Segmenter(
        clip=clip,
        words=vocabulary,
        settings=settings.settled(clip, head),
        text=embedded,
        embedded={word: index for index, word in enumerate(everything)},
        regions=regions,
        two_stage=two,
        head=head,
    )


def _warn_entropy(most: float | None, vocabulary: Words) -> None:
    """One warning where a limit of the entropy can never be passed: that of K classes is ln K at most."""
    listed = vocabulary.per_image
    count = len(vocabulary.classes) if listed is None else max(map(len, listed.values()), default=1)
    count += bool(vocabulary.background)
    if most is not None and math.log(count) <= most:
        _logger.warning(
            "--max-entropy %g leaves out no pixel: among %d classes the entropy is at most ln %d = %.2f",
            most, count, count, math.log(count),
        )  # fmt: skip


def record(
    item: ImageItem,
    rgb: NDArray[np.uint8],
    segmenter: Segmenter,
    drawings: Drawings,
    encode: Halving[Any, Tensor],
) -> parts.Record:
    """The masks of a picture, one for each of its words that is seen. Pictures that were asked for
    are written on the way."""
    found, rows, classes, heat = segmenter.segment(item, rgb, encode)
    chosen = np.array(segmenter.words.of_image(item.name), np.int32)
    local = found.label.numpy()
    means = found.mean_probability.tolist()
    scores = {int(k): round(mean, 6) for k, mean in zip(chosen, means, strict=True)}
    entries = [
        {
            "category_id": int(chosen[index]) + 1,
            "segmentation": mask,
            "score": scores[int(chosen[index])],
        }
        for index, mask in rle.encode_label_map(local, range(len(chosen))).items()
    ]
    drawings.write(item, rgb, np.where(local >= 0, chosen[local], -1), scores)
    drawings.write_heatmaps(item, rgb, rows, classes, chosen, heat)
    return parts.image_record(item.name, rgb.shape[0], rgb.shape[1], entries)


def part_output(
    items: Sequence[ImageItem], segmenter: Segmenter, drawings: Drawings
) -> engine.PartOutput:
    """The records of a part, with a note of the batch size if memory forced it down."""
    encode = segmenter.encoder()
    note: dict[str, Any] = {}

    def one(item: ImageItem, rgb: NDArray[np.uint8]) -> parts.Record:
        made = record(item, rgb, segmenter, drawings, encode)
        if encode.was_halved:
            note["batch_size"] = encode.batch_size
        return made

    return engine.PartOutput(runs.picture_records(items, one), note=note)
