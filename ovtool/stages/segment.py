"""`segment`: images and words to one mask a word.

An image is read once and shown to the image tower once (or window by window). Each word's score at
each place is the cosine of the patch with the word's text embedding, times the logit scale. `patch`
takes the best word of each pixel; `fused` pools the scores in class-agnostic regions first;
`two-stage` shows each region to the tower by itself (`stages.two_stage`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovtool.errors import UsageError
from ovtool.formats import parts, rle
from ovtool.formats.images import ImageItem
from ovtool.methods import class_maps, region_scores
from ovtool.methods.class_maps import ClassMap, Rows
from ovtool.models import dense_scores, resolve
from ovtool.models.dense_scores import DenseSettings
from ovtool.runtime import device as devices
from ovtool.runtime import engine
from ovtool.runtime.device import Halving
from ovtool.stages import inputs as sources
from ovtool.stages import mapping, proposals, two_stage, words
from ovtool.stages.drawings import Drawings
from ovtool.stages.mapping import Outcome, Run
from ovtool.stages.proposals import RegionSource
from ovtool.stages.two_stage import Request, TwoStage, TwoStageSettings
from ovtool.stages.words import Words

if TYPE_CHECKING:  # it imports open_clip, for which bad arguments need not wait
    from ovtool.models.clip import Clip

METHODS = ("patch", "fused", "two-stage")
DEFAULT_METHOD = "fused"
BATCH_SIZE = 8  # windows at once; crops: two_stage.BATCH_SIZE


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

    def settled(self, clip: Clip) -> Settings:
        """The same with nothing left to the model."""
        scale = clip.logit_scale if self.logit_scale is None else self.logit_scale
        return replace(self, dense=self.dense.settled(clip), logit_scale=scale)


@dataclass(frozen=True)
class Segmenter:
    """A loaded model with the embedded words of a run, ready for one picture after another.

    settings: with nothing left to the model. regions: None where the method needs none.
    text: float32 (N, D), the embeddings of the words whose row numbers are in `embedded`.
    two_stage: None for the other methods.
    """

    clip: Clip
    words: Words
    settings: Settings
    text: Tensor
    embedded: Mapping[str, int]
    regions: RegionSource | None = None
    two_stage: TwoStage | None = None

    def encoder(self) -> Halving[Any, Tensor]:
        """The image tower in batches, new for each part so that parts do not depend on each other."""
        if self.two_stage is not None:
            return self.two_stage.encoder(self.settings.batch_size)
        return dense_scores.encoder(
            self.clip, self.settings.dense.last_block, self.settings.batch_size
        )

    def segment(
        self, item: ImageItem, rgb: NDArray[np.uint8], encode: Halving[Any, Tensor]
    ) -> tuple[ClassMap, Rows, int]:
        """The class map of one picture, uint8 (H, W, 3), over its own words; the rows of logits that
        it came from; and the number of classes in them, the background being the last if there is
        one."""
        if self.two_stage is not None:
            rows, classes = self._two_stage_rows(self.two_stage, item, rgb, encode)
        else:
            rows, classes = self._patch_rows(item, rgb, encode)
            if self.regions is not None:
                rows = self._fused_rows(self.regions, rows, classes, item, rgb)
        kept = len(self.words.of_image(item.name))
        size = (rgb.shape[0], rgb.shape[1])
        found = class_maps.label_blocks(rows, size, classes, kept, self.settings.min_score)
        return found, rows, classes

    def _text(self, item: ImageItem) -> tuple[Tensor, Sequence[int]]:
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
        text, owner = self._text(item)
        assert self.settings.logit_scale is not None
        return stages.rows(item, rgb, text, owner, self.settings.logit_scale, encode)

    def _patch_rows(
        self, item: ImageItem, rgb: NDArray[np.uint8], encode: Halving[Any, Tensor]
    ) -> tuple[Rows, int]:
        """The logits of the picture's classes for any rows of its pixels, and the classes' number."""
        text, owner = self._text(item)
        found = dense_scores.word_cosines(
            self.clip, torch.from_numpy(rgb), text, self.settings.dense, encode
        )
        logits = class_maps.class_scores(found.scores * self.settings.logit_scale, owner, dim=1)
        if self.regions is not None:  # which are summed on the CPU, always in the same order
            logits = logits.cpu()
        size = (rgb.shape[0], rgb.shape[1])
        return dense_scores.rows(replace(found, scores=logits), size), logits.shape[1]

    def _fused_rows(
        self,
        source: RegionSource,
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


def load(
    model: str | None,
    device: torch.device,
    precision: str,
    vocabulary: Words,
    settings: Settings,
    regions: RegionSource | None,
    stages: Callable[[Clip], TwoStage] | None = None,
) -> Segmenter:
    """Loads the model and embeds every word of the run.

    stages: makes the two stages of `two-stage` around the CLIP, None for the other methods.

    Raises ModelError, UsageError, InputError.
    """
    from ovtool.models import clip as door
    from ovtool.models import text

    clip = door.load(model, device, devices.precision(precision, device))
    vocabulary = vocabulary.before(clip.stuff)
    two = None if stages is None else stages(clip)
    if two is not None:
        settings = replace(settings, two_stage=two.settings)
    everything = tuple(dict.fromkeys((*vocabulary.names, *vocabulary.background)))
    embedded = text.embed_words(clip, everything, settings.templates)
    text.warn_unlearned(clip, vocabulary.names)
    return Segmenter(
        clip=clip,
        words=vocabulary,
        settings=settings.settled(clip),
        text=embedded,
        embedded={word: index for index, word in enumerate(everything)},
        regions=regions,
        two_stage=two,
    )


def record(
    item: ImageItem,
    rgb: NDArray[np.uint8],
    segmenter: Segmenter,
    drawings: Drawings,
    encode: Halving[Any, Tensor],
) -> parts.Record:
    """The masks of a picture, one for each of its words that is seen. Pictures that were asked for
    are written on the way."""
    found, rows, classes = segmenter.segment(item, rgb, encode)
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
    drawings.write_heatmaps(item, rgb, rows, classes, chosen)
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

    return engine.PartOutput(mapping.picture_records(items, one), note=note)


def run(
    inputs: Sequence[str],
    *,
    classes: str | None = None,
    classes_file: Path | None = None,
    vocabulary: str | None = None,
    classes_per_image: Path | None = None,
    background: str | None = None,
    model: str | None = None,
    device: str | None = None,
    precision: str = "auto",
    batch_size: int | None = None,
    method: str = DEFAULT_METHOD,
    last_block: str | None = None,
    short_side: int | None = None,
    window: int | None = None,
    stride: int | None = None,
    logit_scale: float | None = None,
    templates: str = "one",
    min_score: float = 0.0,
    proposer: str | None = None,
    proposals_file: Path | None = None,
    embeddings: Path | None = None,
    prompts: str | None = None,
    ensemble: float | None = None,
    region_features: str | None = None,
    crop_size: int | None = None,
    label_maps: Path | None = None,
    overlays: Path | None = None,
    heatmaps: Path | None = None,
    coco_file: Path | None = None,
    images: Path | None = None,
    limit: int | None = None,
    out: str | None = None,
    how: Run | None = None,
) -> Outcome:
    """Segments images by words and writes one COCO JSON: a mask for each word and image.

    inputs: see `stages.inputs.find`. The words: see `stages.words.gather`.
    out: where to write; `-` is stdout, None is a name made from the input in the current folder,
        with an overlay beside it where there is one image.
    proposer: see `stages.proposers`; None is `regions` for `fused`, the model's default for `two-stage`.
    embeddings, prompts, ensemble, region_features, crop_size: of `two-stage`, see
        `stages.two_stage.Request`.
    label_maps, overlays, heatmaps: folders for pictures of each image.

    Raises UsageError, InputError, OutputExistsError, ModelError. An image that cannot be read is a
    failure, listed in the outcome and in the output, unless `how.strict`.
    """
    how = how or Run()
    dense = DenseSettings(last_block, short_side, window, stride)
    size = batch_size or (two_stage.BATCH_SIZE if method == "two-stage" else BATCH_SIZE)
    settings = Settings(method, dense, logit_scale, templates, min_score, size)
    request = Request(ensemble, region_features, crop_size, prompts, embeddings)
    request.check(method, proposals_file, dense)
    place = devices.choose(device)
    items = sources.find(inputs, coco_file, images, limit)
    looked_for = words.gather(
        items,
        inputs,
        classes=classes,
        classes_file=classes_file,
        vocabulary=vocabulary,
        classes_per_image=classes_per_image,
        background=background,
    )
    target = out or sources.default_output(inputs, items, coco_file, "segments")
    alone = Path(target.removesuffix(".segments.json") + ".overlay.png")
    drawings = Drawings(
        names=[names[0] for names in looked_for.classes],
        label_maps=label_maps,
        overlays=overlays,
        heatmaps=heatmaps,
        overlay_file=alone if out is None and len(items) == 1 else None,
    )
    mapping.check_place(target, how)
    drawings.check(items, how.overwrite or (how.resume and mapping.is_begun(target)))
    regions, stages = None, None
    if method == "two-stage":
        source = two_stage.source_of(
            proposer, proposals_file, embeddings, items, place, how.dry_run
        )
        stages = partial(two_stage.load, request=request, source=source, short_side=short_side)
    else:
        regions = _regions(method, proposer, proposals_file, items, place)
    if model is not None:
        resolve.spec(resolve.choose(model))  # a name that means nothing is told before any work
    if how.dry_run:
        plan = mapping.planned(items, looked_for.categories, target)
        return replace(plan, pictures=drawings.places)
    segmenter = load(model, place, precision, looked_for, settings, regions, stages)
    drawings.prepare()
    outcome = mapping.map_images(
        items,
        lambda chunk: part_output(chunk, segmenter, drawings),
        info=_provenance(segmenter),
        categories=looked_for.categories,
        out=target,
        device=place,
        run=how,
        description="segmenting",
        beside=drawings.places_from(target),
    )
    return replace(outcome, pictures=drawings.places)


def _regions(
    method: str,
    proposer: str | None,
    file: Path | None,
    items: Sequence[ImageItem],
    device: torch.device,
) -> RegionSource | None:
    """Where a method that needs regions gets them. Raises UsageError, InputError, MismatchError."""
    if method == "patch":
        if file is not None:
            raise UsageError("--proposals are regions, and --method patch uses none: give fused")
        return None
    if file is not None:
        return proposals.from_file(file, items)
    return proposals.from_proposer(proposer or "regions", device=device)


def _provenance(segmenter: Segmenter) -> dict[str, Any]:
    """The `info` of the output: all that shapes the result, and no path."""
    clip, looked_for = segmenter.clip, segmenter.words
    shown = asdict(segmenter.settings)
    shown["logit_scale"] = round(shown["logit_scale"], 6)
    shown["precision"] = str(clip.dtype).removeprefix("torch.")
    shown["background"] = list(looked_for.background)
    two = segmenter.two_stage
    if two is None:
        del shown["two_stage"]
    elif two.settings.region_features == "crops":
        del shown["dense"]
    regions = segmenter.regions if two is None else two.regions
    if regions is not None:
        shown["proposer"] = regions.proposer
        shown["proposals"] = regions.digest
    if looked_for.per_image is not None:
        shown["classes_per_image"] = parts.settings_digest(
            {name: list(chosen) for name, chosen in looked_for.per_image.items()}
        )
    name = Path(clip.name).name if Path(clip.name).exists() else clip.name
    model = {"name": name, "fingerprint": clip.fingerprint}
    return mapping.provenance("segment", shown, model)
