"""`segment`: images and words to one mask a word.

An image is read once and shown to the image tower once (or window by window). Each word's score at
each place is the cosine of the patch with the word's text embedding, times the logit scale. `patch`
takes the best word of each pixel; `fused` pools the scores in class-agnostic regions first.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovtool.errors import InputError, UsageError
from ovtool.formats import images as pictures
from ovtool.formats import parts, rle
from ovtool.formats.images import ImageItem
from ovtool.methods import class_maps, region_scores
from ovtool.methods.class_maps import ClassMap, Rows
from ovtool.methods.regions import Regions
from ovtool.models import clip as door
from ovtool.models import dense_scores, text
from ovtool.models.clip import Clip
from ovtool.models.dense_scores import DenseSettings
from ovtool.runtime import device as devices
from ovtool.runtime import engine
from ovtool.stages import inputs as sources
from ovtool.stages import mapping, proposals, words
from ovtool.stages.drawings import Drawings
from ovtool.stages.mapping import Outcome, Run
from ovtool.stages.words import Words

METHODS = ("patch", "fused")
DEFAULT_METHOD = "fused"


@dataclass(frozen=True)
class Settings:
    """What shapes a segmentation beside model and words; None leaves a choice to the model."""

    method: str = DEFAULT_METHOD
    dense: DenseSettings = field(default_factory=DenseSettings)
    logit_scale: float | None = None
    templates: str = "one"
    min_score: float = 0.0
    proposer: str = "regions"
    proposals: str | None = None


@dataclass(frozen=True)
class Segmenter:
    """A loaded model with the embedded words of a run, ready for one picture after another.

    text: float32 (N, D), the embeddings of `embedded`, all names that any image needs.
    """

    clip: Clip
    words: Words
    settings: Settings
    text: Tensor
    embedded: Mapping[str, int]
    regions: Callable[[ImageItem, NDArray[np.uint8]], Regions] | None
    batch_size: int

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied by before the softmax."""
        return self.settings.logit_scale or self.clip.logit_scale

    def scores(self, item: ImageItem, rgb: NDArray[np.uint8]) -> tuple[Rows, int]:
        """The logits of the picture's classes, background last, for any rows of its pixels, and how
        many classes there are with it."""
        vocabulary = self.words.vocabulary(self.words.of_image(item.name))
        index = torch.tensor([self.embedded[word] for word in vocabulary.words])
        cosines = dense_scores.word_cosines(
            self.clip,
            torch.from_numpy(rgb),
            self.text[index.to(self.text.device)],
            self.settings.dense,
            self.batch_size,
        )
        logits = class_maps.class_scores(cosines * self.logit_scale, vocabulary.owner)
        rows = class_maps.upsampled(logits.cpu(), (rgb.shape[0], rgb.shape[1]))
        return rows, len(logits)

    def fused_rows(self, rows: Rows, classes: int, item: ImageItem, rgb: NDArray[np.uint8]) -> Rows:
        """The same logits pooled in the picture's regions, as log probabilities."""
        if self.regions is None:
            return rows
        found = self.regions(item, rgb)
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
    batch_size: int,
) -> Segmenter:
    """Loads the model and embeds every word of the run. Raises ModelError, UsageError, InputError."""
    clip = door.load(model, device, devices.precision(precision, device))
    vocabulary = vocabulary.learned_by(clip.words)
    names = [name for synonyms in vocabulary.classes for name in synonyms]
    text.warn_unlearned(clip, names)
    everything = [*names, *vocabulary.background]
    return Segmenter(
        clip=clip,
        words=vocabulary,
        settings=settings,
        text=text.embed_words(clip, everything, settings.templates),
        embedded={word: index for index, word in enumerate(everything)},
        regions=proposals.source(settings.proposer, settings.proposals)
        if settings.method == "fused"
        else None,
        batch_size=batch_size,
    )


def segment_picture(
    segmenter: Segmenter, item: ImageItem, rgb: NDArray[np.uint8]
) -> tuple[ClassMap, Rows, int]:
    """The class map of one picture over its own words, with the rows of logits that it came from
    and the number of classes in them (background included)."""
    rows, classes = segmenter.scores(item, rgb)
    rows = segmenter.fused_rows(rows, classes, item, rgb)
    kept = len(segmenter.words.of_image(item.name))
    size = (rgb.shape[0], rgb.shape[1])
    return (
        class_maps.label_blocks(rows, size, classes, kept, segmenter.settings.min_score),
        rows,
        classes,
    )


def segment_records(
    items: Sequence[ImageItem], segmenter: Segmenter, drawings: Drawings
) -> Iterator[parts.Record]:
    """The record of each image, one mask for each of its words that is seen; what cannot be read is
    a failure. Pictures that were asked for are written on the way."""
    for item in items:
        try:
            rgb = pictures.read_rgb(item.path)
        except InputError as error:
            yield parts.failure_record(item.name, error)
            continue
        found, rows, classes = segment_picture(segmenter, item, rgb)
        chosen = np.array(segmenter.words.of_image(item.name), np.int32)
        local = found.label.numpy()
        masks = rle.encode_label_map(local, range(len(chosen)))
        entries = [
            {
                "category_id": int(chosen[index]) + 1,
                "segmentation": mask,
                "score": round(float(found.mean_probability[index]), 6),
            }
            for index, mask in masks.items()
        ]
        labels = np.where(local >= 0, chosen[local], -1).astype(np.int32)
        drawings.write(item, rgb, labels, {e["category_id"] - 1: e["score"] for e in entries})
        drawings.write_heatmaps(item, rgb, rows, classes, chosen)
        yield parts.image_record(item.name, rgb.shape[0], rgb.shape[1], entries)


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
    proposer: str = "regions",
    proposals_file: Path | None = None,
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
    label_maps, overlays, heatmaps: folders for pictures of each image.

    Raises UsageError, InputError, OutputExistsError, ModelError. An image that cannot be read is a
    failure, listed in the outcome and in the output, unless `how.strict`.
    """
    how = how or Run()
    if method not in METHODS:
        raise UsageError(f"unknown method '{method}'; choose from {', '.join(METHODS)}")
    if stride is not None and window is None:
        raise UsageError("--stride is the step of --window: give that too")
    if window is not None and stride is not None and stride > window:
        raise UsageError(
            f"--stride {stride} is more than --window {window}: pixels would be missed"
        )
    settings = Settings(
        method=method,
        dense=DenseSettings(last_block, short_side, window, stride),
        logit_scale=logit_scale,
        templates=templates,
        min_score=min_score,
        proposer=proposer,
        proposals=None if proposals_file is None else str(proposals_file),
    )
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
    drawings = Drawings(
        names=[names[0] for names in looked_for.classes],
        label_maps=label_maps,
        overlays=overlays,
        heatmaps=heatmaps,
        overlay_file=Path(target.removesuffix(".segments.json") + ".overlay.png")
        if out is None and len(items) == 1
        else None,
    )
    drawings.check(how.overwrite or how.resume)
    place = devices.choose(device)
    segmenter = None
    if not how.dry_run:
        segmenter = load(model, place, precision, looked_for, settings, batch_size or 8)
        drawings.prepare()

    def work(chunk: Sequence[ImageItem]) -> engine.PartOutput:
        assert segmenter is not None
        return engine.PartOutput(segment_records(chunk, segmenter, drawings))

    clip = None if segmenter is None else segmenter.clip
    return mapping.map_images(
        items,
        work,
        info=mapping.provenance(
            "segment",
            _shown(
                settings,
                looked_for if segmenter is None else segmenter.words,
                batch_size or 8,
                precision,
            ),
            None if clip is None else {"name": clip.name, "fingerprint": clip.fingerprint},
        ),
        categories=looked_for.categories,
        out=target,
        device=place,
        run=how,
        description="segmenting",
    )


def _shown(
    settings: Settings, looked_for: Words, batch_size: int, precision: str
) -> dict[str, Any]:
    """The settings as provenance shows them: all that shapes the result, and no path."""
    shown = asdict(settings)
    shown["proposals"] = None
    if settings.proposals is not None:
        shown["proposals"] = proposals.digest(Path(settings.proposals))
    shown["background"] = list(looked_for.background)
    shown["batch_size"] = batch_size
    shown["precision"] = precision
    if looked_for.per_image is not None:
        shown["classes_per_image"] = parts.settings_digest(
            {name: list(chosen) for name, chosen in looked_for.per_image.items()}
        )
    return shown
