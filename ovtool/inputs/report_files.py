"""The files of a report: opened by their kind, and their images matched."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ovtool.datasets.matching import match_images
from ovtool.errors import InputError
from ovtool.formats import coco, coco_checks, kinds, labelled, rle, schema, tensors
from ovtool.formats.file_matching import image_stem
from ovtool.formats.labelled import LabelledImages
from ovtool.formats.mask_store import masks_of
from ovtool.formats.report_page import MAX_REGIONS, Curves, Heat, Regions, Table
from ovtool.formats.scores import OF_METRIC, Measures
from ovtool.inputs.predictions import open_truth

if TYPE_CHECKING:
    from ovtool.formats import cams

_READS = "COCO masks, folders of label maps or parts, class activation maps, trainings and measures"
_FIGURES = {f"{key}?": float for of in OF_METRIC.values() for _, key in of.measures}
_INTERVALS = {key: {"low?": float, "high?": float} for key in _FIGURES}
_CLASSES = [
    {"name": str, **{f"{key}?": float for of in OF_METRIC.values() for _, key in of.of_class}}
]
# what a page reads of the measures that `evaluate` wrote
_MEASURES = {
    "ovtool?": dict,
    "metric": str,
    **_FIGURES,
    "classes?": _CLASSES,
    "intervals?": _INTERVALS,
    "per_image?": [{"file_name": str}],
    "other?": {**_FIGURES, "classes?": _CLASSES},
    "difference?": _INTERVALS,
}


@dataclass(frozen=True, eq=False)
class Layer:
    """A file with something to see in each image.

    Attributes:
        name: of the file, for people.
        labels: its classes and images, and label maps where it has any.
        maps: its activation maps, where it is a file of them.
        made_by: what made it.
    """

    name: str
    labels: LabelledImages
    maps: cams.Cams | None = None
    made_by: Mapping[str, Any] = field(default_factory=dict)

    @property
    def words(self) -> list[str]:
        """The name of each class."""
        return [names[0] for names in self.labels.classes]

    @property
    def is_of_classes(self) -> bool:
        """Whether each pixel has one class, so that layers can be compared: no activation maps, and no
        proposals, which overlap and have one category."""
        return self.maps is None and len(self.labels.classes) > 1

    def of(self, name: str, place: Mapping[str, int]) -> Regions | Heat:
        """What the file holds of one of its images.

        Args:
            name: of the image, as the file has it.
            place: of each word among those of the page.
        """
        words = [place[word] for word in self.words]
        if self.maps is not None:
            return self._heat(name, words)
        if self.labels.dataset is None:
            labels = self.labels.decode(name)
            labels[labels >= len(words)] = -1
            there = np.unique(labels[labels >= 0])
            region = np.full(len(words) + 1, -1, np.int32)
            region[there] = np.arange(len(there))
            return Regions(region[labels], [words[k] for k in there], [None] * len(there))
        return self._regions(name, words)

    @cached_property
    def _places(self) -> array[int]:
        """The places of the images of the data set, in the order of their names."""
        assert self.labels.dataset is not None
        images = self.labels.dataset.images
        return array("q", sorted(range(len(images)), key=lambda place: images[place].file_name))

    def _image(self, name: str) -> coco.Image:
        """The image of the data set that has a name."""
        assert self.labels.dataset is not None
        images = self.labels.dataset.images
        place = bisect_left(self._places, name, key=lambda place: images[place].file_name)
        return images[self._places[place]]

    @cached_property
    def _masks_of_image(self) -> Callable[[int], list[coco.Annotation]]:
        assert self.labels.dataset is not None
        return masks_of(self.labels.dataset)

    def _heat(self, name: str, words: Sequence[int]) -> Heat:
        assert self.maps is not None
        image = next(image for image in self.maps.images if image.file_name == name)
        index = {category.id: k for k, category in enumerate(self.maps.categories)}
        return Heat(self.maps.of(image.id).numpy(), [words[index[id]] for id in image.category_ids])

    def _regions(self, name: str, words: Sequence[int]) -> Regions:
        """Each mask as a region of its own. Proposals lie in the order of their area, the smallest on top,
        so that each can be seen."""
        dataset = self.labels.dataset
        assert dataset is not None
        image = self._image(name)
        index = {category.id: k for k, category in enumerate(dataset.categories)}
        own = self._masks_of_image(image.id)
        if self.is_of_classes:
            painted = labelled.painting_order(own)
        else:
            painted = sorted(own, key=lambda mask: -mask.area)
        painted = painted[-MAX_REGIONS:]
        labels = np.full((image.height, image.width), -1, np.int32)
        for region, mask in enumerate(painted):
            labels[rle.decode(mask.segmentation, image.height, image.width)] = region
        return Regions(
            labels,
            [words[index[mask.category_id]] for mask in painted],
            [mask.score for mask in painted],
            distinct=not self.is_of_classes,
        )


@dataclass(frozen=True, eq=False)
class Opened:
    """All files of a report.

    Attributes:
        layers: those with something to see in each image, the truth first.
        tables: the measures of `evaluate`.
        curves: the losses of trainings.
        made_by: file to what made it.
        of_images: image name, without its ending, to the shares that `evaluate --per-image` measured of it.
    """

    layers: Sequence[Layer]
    tables: Sequence[Table]
    curves: Sequence[Curves]
    made_by: Mapping[str, Any]
    of_images: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)


def opened(files: Sequence[str], truth: str | None = None) -> Opened:
    """Opens files by their kind, and the truth they are measured by.

    Raises:
        InputError: A file is broken, of a kind that has nothing to see, or a bare list of results without
            a truth to say its images.
    """
    layers, curves, made_by = [], [], {}
    tables: list[Table] = []
    of_images: dict[str, dict[str, float | None]] = {}
    true = None if truth is None else open_truth(truth)
    if true is not None:
        layers.append(Layer("truth", true, made_by=_provenance(true)))
    for source in files:
        name = "standard input" if source == "-" else Path(source).resolve().name
        kind, content = kinds.kind_of(source)
        if kind in ("COCO masks", "COCO results", "parts", "label maps"):
            content = None  # which is read again, and not held twice
            labels = labelled.open_source(source, true)
            layers.append(Layer(name, labels, made_by=_provenance(labels)))
            made_by[name] = layers[-1].made_by
        elif kind == "safetensors":
            header = tensors.read_header(Path(source))
            made_by[name] = _without_lists(header)
            if header.get("kind") == "cams":
                layers.append(_activation_maps(name, Path(source)))
            elif curve := _curve(header, source):
                curves.append(Curves(f"Training of {name}", curve))
            else:
                raise InputError(
                    f"{source} is a {header.get('kind')} file without a curve, and a report can show "
                    f"nothing of it; it reads {_READS}"
                )
        elif kind == "scores":
            schema.check(content, _MEASURES, source)
            tables += _tables(name, content)
            for row in content.get("per_image") or ():
                of_image = {key: value for key, value in row.items() if key != "file_name"}
                schema.check(
                    of_image, {f"{key}?": float for key in of_image}, f"{source}: per_image"
                )
                coco_checks.check_file_name(row["file_name"], f"{source}: per_image")
                own = of_images.setdefault(image_stem(row["file_name"]), {})
                own |= {f"{key} ({name})": value for key, value in of_image.items()}
            made_by[name] = content.get("ovtool") or {}
        else:
            raise InputError(f"a report can show nothing of {source} ({kind}); it reads {_READS}")
    return Opened(layers, tables, curves, made_by, of_images)


def matched(layers: Sequence[Layer]) -> list[tuple[str, list[str | None]]]:
    """The images of the first layer, each with its name in every layer, None where a layer lacks it.

    Raises:
        InputError: The first layer has no image, or another has none in common with it.
    """
    first = layers[0].labels
    if not first.names:
        raise InputError(f"{first.source} lists no images; a report draws those of its first file")
    names: list[Mapping[str, str]] = [{name: name for name in first.names}]
    for layer in layers[1:]:
        names.append({true: own for own, true in match_images(first, layer.labels).items()})
    return [(name, [of.get(name) for of in names]) for name in first.names]


def _activation_maps(name: str, path: Path) -> Layer:
    from ovtool.formats import cams  # which needs torch

    maps = cams.read(path)
    return Layer(name, cams.as_labelled(maps, str(path)), maps, maps.settings)


def _provenance(labels: LabelledImages) -> Mapping[str, Any]:
    made = None if labels.dataset is None else labels.dataset.info.get("ovtool")
    return _without_lists(made) if isinstance(made, Mapping) else {}


def _without_lists(made: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance without what may be as long as the file: lists of images, categories, failures, steps."""
    return {
        key: _without_lists(value) if isinstance(value, Mapping) else value
        for key, value in made.items()
        if not (isinstance(value, list) and len(value) > 20)
        and key not in ("images", "categories", "failures", "curve")
    }


def _curve(header: Mapping[str, Any], source: str) -> dict[str, tuple[list[float], list[float]]]:
    """The lines of a training's curve: name to steps and values. Raises InputError."""
    lines: dict[str, tuple[list[float], list[float]]] = {}
    records = header.get("settings", {}).get("curve") or []
    schema.check(records, [{"step": float}], f"{source}: curve")
    for record in records:
        for key, value in record.items():
            if key != "step" and isinstance(value, int | float):
                steps, values = lines.setdefault(key, ([], []))
                steps.append(record["step"])
                values.append(value)
    return lines


def _tables(name: str, scores: Mapping[str, Any]) -> Iterator[Table]:
    """What `evaluate` measured: of the whole, with intervals, and of each class; of two predictions, of both."""
    shares = tuple((key, key) for key, value in scores.items() if isinstance(value, float))
    names = OF_METRIC.get(scores["metric"], Measures(shares))
    others = [scores["other"]] if "other" in scores else []
    second = ["other's %"] * len(others)
    intervals = scores.get("difference" if others else "intervals") or {}
    whole = [
        (
            label,
            scores[key],
            *(other.get(key) for other in others),
            _interval(intervals.get(key)),
        )
        for label, key in names.measures
        if key in scores
    ]
    bounds = "difference, 95 % interval" if others else "95 % interval"
    if whole:
        yield Table(f"Measures of {name}", ("measure", "%", *second, bounds), whole)
    if classes := scores.get("classes"):
        header = ("class", *(f"{label} %" for label, _ in names.of_class))
        rows = [(row["name"], *(row.get(key) for _, key in names.of_class)) for row in classes]
        yield Table(f"Classes of {name}", header, rows)


def _interval(bounds: Mapping[str, float | None] | None) -> str:
    low, high = ((bounds or {}).get(end) for end in ("low", "high"))
    return "" if low is None or high is None else f"[{100 * low:.1f}, {100 * high:.1f}]"
