"""`segment --segmenter FILE`: pictures to masks of the classes that a trained segmenter knows.

All its classes compete at each pixel, also those that were not asked for; the background is dropped like
these, unless --classes names it. The frame is that of `stages.segment`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovtool.datasets import vocabularies
from ovtool.errors import UsageError
from ovtool.formats import labelled
from ovtool.formats.images import ImageItem
from ovtool.inputs import images as sources
from ovtool.inputs.words import Words
from ovtool.methods import class_maps, dense_crf
from ovtool.methods.class_maps import Rows
from ovtool.models import segmenter as networks
from ovtool.models.segmenter import Trained
from ovtool.outputs.drawings import Drawings
from ovtool.runtime import device as devices
from ovtool.runtime import runs
from ovtool.runtime.device import Halving
from ovtool.runtime.runs import Outcome, Run
from ovtool.segmenters import dense as dense_segmenter
from ovtool.segmenters.dense import Segmented

_LEAST = 1e-8  # of a probability whose logarithm is taken


@dataclass(frozen=True)
class Settings:
    """How pictures are shown to the network, and what becomes of its scores.

    short_side: None is the file's. scales: of it, flip: and mirrored, over all of which logits are
    averaged. crf: a preset of `dense_crf`, None for none.

    Raises UsageError for what cannot be meant.
    """

    short_side: int | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    crf: str | None = None
    min_score: float = 0.0
    precision: str = "auto"

    def __post_init__(self) -> None:
        if self.crf is not None and self.crf not in dense_crf.PRESETS:
            known = ", ".join(dense_crf.PRESETS)
            raise UsageError(f"unknown preset --crf '{self.crf}'; choose from {known}")


@dataclass(frozen=True, eq=False)
class NetworkSegmenter:
    """A trained network with the classes of a run, ready for one picture after another
    (`segmenter.part_output`).

    order: the network's classes, those of `words` first.
    """

    trained: Trained
    words: Words
    order: tuple[int, ...]
    settings: Settings
    device: torch.device

    def encoder(self) -> Halving[Any, Tensor]:
        """The network on a picture and its mirror image, new for each part so that parts do not depend
        on each other."""
        lower = devices.precision(self.settings.precision, self.device)

        def run(pixels: Any) -> Tensor:
            with torch.autocast(self.device.type, lower, enabled=lower != torch.float32):
                found: Tensor = self.trained.network(pixels)
            return found

        return devices.halving(run, 2)

    def segment(
        self, item: ImageItem, rgb: NDArray[np.uint8], encode: Halving[Any, Tensor]
    ) -> Segmented:
        """The class map of one picture, uint8 (H, W, 3), over the words; the rows of logits that it came
        from, of all classes, the words first; and the number of classes."""
        settings, size = self.settings, (rgb.shape[0], rgb.shape[1])
        short_side = settings.short_side or self.trained.short_side
        own = networks.rows(
            self.trained.network, rgb, short_side, settings.scales, settings.flip, encode
        )
        if settings.crf is not None:
            own = refined(own, rgb, len(self.order), dense_crf.PRESETS[settings.crf])
        order = torch.tensor(self.order)

        def rows(start: int, stop: int) -> Tensor:
            found = own(start, stop)
            return found[order.to(found.device)]

        kept = len(self.words.classes)
        found = class_maps.label_blocks(rows, size, len(self.order), kept, settings.min_score)
        return Segmented(found, rows, len(self.order))


def refined(rows: Rows, rgb: NDArray[np.uint8], classes: int, preset: dense_crf.Preset) -> Rows:
    """Rows of logits after a dense CRF over the classes that are best somewhere."""
    size = (rgb.shape[0], rgb.shape[1])
    best = class_maps.label_blocks(rows, size, classes).label
    present, local = best.unique(return_inverse=True)
    if len(present) < 2:
        return rows
    if preset.unary == "hard":
        unary = dense_crf.hard_unary(local, len(present))
    else:
        share = torch.empty(len(present), *size)
        for start, stop, probability in class_maps.probability_blocks(rows, size, classes):
            share[:, start:stop] = probability.cpu()[present]
        unary = dense_crf.soft_unary(share)
    found = dense_crf.refine(unary, torch.from_numpy(rgb), preset)
    whole = torch.full((classes, *size), _LEAST)
    whole[present] = found.clamp(min=_LEAST)
    logits = whole.log_()
    return lambda start, stop: logits[:, start:stop]


def refuse(given: Mapping[str, Any]) -> None:
    """Refuses options that name words, or say how a CLIP or proposals find them: flag to what was given,
    None, False or empty where it was not. Raises UsageError."""
    named = [flag for flag, value in given.items() if value]
    if named:
        raise UsageError(
            f"{named[0]} means nothing to --segmenter, which knows its own classes: leave it out "
            "(--classes chooses among them)"
        )


def chosen(
    trained: Trained, classes: str | None, classes_file: Path | None
) -> tuple[Words, tuple[int, ...]]:
    """The classes of a run, and the network's classes with those of the run first.

    classes, classes_file: some of the network's classes; neither means all but the background.

    Raises UsageError for a class that the network does not know.
    """
    if classes is not None and classes_file is not None:
        raise UsageError("--classes and --classes-file both name the words: give one of them")
    names = trained.names
    if classes is None and classes_file is None:
        picked = [index for index in range(len(names)) if index != trained.background]
        words = tuple((names[index],) for index in picked)
    else:
        found = (
            vocabularies.parse_classes(classes)
            if classes is not None
            else vocabularies.read_classes_file(classes_file or Path())
        )
        words, place = found.classes, {name.casefold(): k for k, name in enumerate(names)}
        picked = [_known(synonyms, place, names) for synonyms in words]
    others = [index for index in range(len(names)) if index not in picked]
    return Words(words), (*picked, *others)


def _known(synonyms: Sequence[str], place: Mapping[str, int], names: Sequence[str]) -> int:
    """The network's class that a class of the run means."""
    for word in synonyms:
        if word.casefold() in place:
            return place[word.casefold()]
    raise UsageError(
        f"the segmenter knows no class '{synonyms[0]}'; it knows {labelled.shortened(names)}"
    )


def run(
    file: Path,
    inputs: Sequence[str],
    *,
    settings: Settings,
    classes: str | None = None,
    classes_file: Path | None = None,
    model: str | None = None,
    device: str | None = None,
    label_maps: Path | None = None,
    overlays: Path | None = None,
    heatmaps: Path | None = None,
    coco_file: Path | None = None,
    images: Path | None = None,
    limit: int | None = None,
    out: str | None = None,
    how: Run | None = None,
) -> Outcome:
    """Segments images by a file of `train-segmenter` and writes one COCO JSON: a mask for each class and
    image.

    model: the CLIP that the segmenter stands on, None for the one that its file names. All else as
    `stages.segment.run`.

    Raises UsageError, InputError, MismatchError (a file of another kind, or on another CLIP),
    OutputExistsError, ModelError.
    """
    how = how or Run()
    place = devices.choose(device)
    items = sources.find(inputs, coco_file, images, limit)
    target = out or sources.default_output(inputs, items, coco_file, "segments")
    runs.check_place(target, how)
    trained = networks.load(file, place, model)
    looked_for, order = chosen(trained, classes, classes_file)
    alone = Path(target.removesuffix(".segments.json") + ".overlay.png")
    drawings = Drawings(
        names=[names[0] for names in looked_for.classes],
        label_maps=label_maps,
        overlays=overlays,
        heatmaps=heatmaps,
        overlay_file=alone if out is None and len(items) == 1 else None,
    )
    drawings.check(items, how.overwrite or (how.resume and runs.is_begun(target)))
    if how.dry_run:
        plan = runs.planned(items, looked_for.categories, target)
        return replace(plan, pictures=drawings.places)
    settings = replace(settings, short_side=settings.short_side or trained.short_side)
    ready = NetworkSegmenter(trained, looked_for, order, settings, place)
    drawings.prepare()
    outcome = runs.map_images(
        items,
        lambda chunk: dense_segmenter.part_output(chunk, ready, drawings),
        runs.Job(
            info=_provenance(ready),
            categories=looked_for.categories,
            out=target,
            device=place,
            description="segmenting",
            beside=drawings.places_from(target),
        ),
        how,
        how.progress,
    )
    return replace(outcome, pictures=drawings.places)


def _provenance(ready: NetworkSegmenter) -> dict[str, Any]:
    """The `info` of the output: all that shapes the result, and no path."""
    trained, settings = ready.trained, ready.settings
    shown = {
        "method": "segmenter",
        "segmenter": trained.weights,
        "architecture": trained.architecture,
        "short_side": settings.short_side,
        "scales": list(settings.scales),
        "flip": settings.flip,
        "crf": settings.crf,
        "min_score": settings.min_score,
        "precision": str(devices.precision(settings.precision, ready.device))[6:],
    }
    model = None
    if trained.model is not None and trained.fingerprint is not None:
        model = {"name": trained.model, "fingerprint": trained.fingerprint}
    return runs.provenance("segment", shown, model)
