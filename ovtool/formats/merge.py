"""Records of parts into one file: annotation ids from 1 in order, image ids of their source.

A part keeps all that its file is made from, so that `ovtool merge` needs neither model nor images.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ovtool.errors import InputError, MismatchError
from ovtool.formats import coco, differences, parts, rle
from ovtool.formats.parts import Part, PartStore, Record
from ovtool.formats.tensors import Anew


class AllFailed(InputError):
    """Every image of a run failed, so that there is nothing to write."""


@dataclass(frozen=True)
class Output:
    """How merged parts are written, as plain data.

    Attributes:
        format: `coco`, `results` for COCO's bare list, or `cams` for activation maps.
        asked: the digest of the request (`inputs.asked`), which the file keeps for `--update`.
        facts: what else the file says, or a file beside it.
    """

    format: Literal["coco", "results", "cams"] = "coco"
    asked: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def entry(self) -> dict[str, Any]:
        """It as JSON, which the header of each part keeps."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Streamed(Sequence[coco.Annotation]):
    """Annotations that are read anew whenever they are iterated over; they are all held only where some are asked
    for by their place."""

    length: int
    read: Callable[[], Iterator[coco.Annotation]]

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[coco.Annotation]:
        return self.read()

    def __getitem__(self, place: Any) -> Any:
        return self._all[place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    @cached_property
    def _all(self) -> list[coco.Annotation]:
        return list(self.read())


@dataclass(frozen=True)
class Pieces:
    """All parts of a run in order, each with the store that has it."""

    kept: Sequence[tuple[PartStore, Part]]

    @property
    def header(self) -> PartStore:
        """The store of the first part, which has what all parts say."""
        return self.kept[0][0]

    def records(self) -> Iterator[Record]:
        """The records of all parts."""
        for store, part in self.kept:
            yield from store.read(part)

    def tensors(self) -> list[Anew[str]]:
        """The tensors of each part."""
        return [store.tensors(part) for store, part in self.kept]


def collected(folders: Sequence[Path]) -> Pieces:
    """All parts of a run that lie in some folders, which must fit together.

    Raises:
        InputError: a part is missing, damaged, or there twice.
        MismatchError: parts of different runs.
    """
    by_index: dict[int, tuple[Path, dict[str, Any]]] = {}
    for folder in folders:
        for path, header in parts.listed(folder):
            first = next(iter(by_index.values()), (path, header))
            if header.get("digest") != first[1].get("digest"):
                differing = (
                    differences.listed(first[1], header) or "other settings, images or model"
                )
                raise MismatchError(
                    f"{path} is of another run than {first[0]}: {differing}; merge the parts of one run"
                )
            index = int(header["part"])
            if index in by_index:
                raise InputError(
                    f"part {index} is there twice, as {by_index[index][0]} and as {path}; remove one of them"
                )
            by_index[index] = (path, header)
    _check_complete(by_index)
    return Pieces(tuple(_piece(*by_index[index]) for index in sorted(by_index)))


def _check_complete(by_index: Mapping[int, tuple[Path, Mapping[str, Any]]]) -> None:
    """Raises InputError where parts are missing, or are of another cut of the images."""
    path, header = next(iter(by_index.values()))
    size, items = header["stop"] - header["start"], header["items"]
    if header["part"]:  # of part 0 it is the size
        size = header["start"] // header["part"]
    whole = parts.cut(items, max(size, 1))
    missing = [part.index for part in whole if part.index not in by_index]
    if missing:
        some = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise InputError(
            f"{len(missing)} of {len(whole)} parts are missing ({some}); run the shards that make them, with "
            "--resume"
        )
    cuts = {part.index: part for part in whole}
    for index, (path, header) in by_index.items():
        if cuts.get(index) != Part(index, header["start"], header["stop"], header["items"]):
            raise MismatchError(f"{path} is from another cut of the images; remove it")


def _piece(path: Path, header: Mapping[str, Any]) -> tuple[PartStore, Part]:
    store = PartStore(
        path.parent, header["digest"], header.get("settings") or {}, header.get("preface")
    )
    return store, Part(header["part"], header["start"], header["stop"], header["items"])


def dataset_of(
    pieces: Pieces,
    info: Mapping[str, Any],
    categories: Sequence[coco.Category],
    output: Output,
) -> coco.Dataset:
    """The data set that parts stand for. Of several parts the annotations are `Streamed`, so that the masks of
    many images are never held at once.

    Raises:
        InputError: a part is damaged.
        AllFailed: every image failed.
    """
    asked = {} if output.asked is None else {"asked": output.asked}
    info = {**info, "ovtool": {**info.get("ovtool", {}), **asked}}
    if len(pieces.kept) == 1:
        dataset = merge_records(pieces.records(), info, categories)
    else:
        dataset = streamed(pieces, info, categories)
    failures = dataset.info["ovtool"]["failures"]
    if failures and not dataset.images:
        raise AllFailed(
            f"none of the {len(failures)} images could be read; the first: {failures[0]['reason']}"
        )
    return dataset


def write(
    dataset: coco.Dataset,
    tensors: Sequence[Anew[str]],
    output: Output,
    target: str,
) -> None:
    """Writes the file that parts stand for; the tensors of activation maps have the images' names."""
    if output.format == "coco":
        coco.write(dataset, target)
    elif output.format == "results":
        coco.write_results(dataset, target)
    else:
        from ovtool.formats import cams

        of_image = {name: read for part in tensors for name, read in part.read.items()}
        cams.write(
            Path(target),
            [
                cams.CamImage(
                    image.id,
                    image.file_name,
                    image.height,
                    image.width,
                    tuple(image.extra["category_ids"]),
                )
                for image in dataset.images
            ],
            dataset.categories,
            Anew({image.id: of_image[image.file_name] for image in dataset.images}),
            output.facts["settings"],
            model=output.facts["model"],
            fingerprint=output.facts["fingerprint"],
            failures=[*output.facts["failures"], *dataset.info["ovtool"]["failures"]],
            asked=output.asked,
        )


def preface(info: Mapping[str, Any], categories: Sequence[coco.Category]) -> dict[str, Any]:
    """What every part keeps of the file to be merged: its ``info`` and its categories."""
    return {"info": dict(info), "categories": [coco.category_entry(c) for c in categories]}


def streamed(
    pieces: Pieces, info: Mapping[str, Any], categories: Sequence[coco.Category]
) -> coco.Dataset:
    """What `merge_records` makes of the records of the parts, which are read anew for each use of its masks."""
    count = 0

    def without_masks() -> Iterator[Record]:
        nonlocal count
        for record in _checked(pieces.records()):
            if "failure" not in record:
                count += len(record["annotations"])
                record = {**record, "annotations": []}
            yield record

    dataset = merge_records(without_masks(), info, categories)
    ids = [image.id for image in dataset.images]

    def annotations() -> Iterator[coco.Annotation]:
        numbers, places = itertools.count(1), iter(ids)
        for record in pieces.records():
            if "failure" not in record:
                image_id = next(places)
                for entry in record["annotations"]:
                    yield _annotation(next(numbers), image_id, entry)

    return replace(dataset, annotations=Streamed(count, annotations))


def of_file(dataset: coco.Dataset, path: Path) -> coco.Dataset:
    """A data set whose streamed annotations are read from the file that `write` made of it, a line each, and no
    longer from the parts."""

    def annotations() -> Iterator[coco.Annotation]:
        with open(path, "rb") as file:
            for line in file:
                if line == b'"annotations":[\n':
                    break
            for line in file:
                entry = json.loads(line.rstrip(b",]\n"))
                if not entry["iscrowd"]:
                    del entry["iscrowd"]
                yield _annotation(entry["id"], entry["image_id"], entry)
                if line.endswith(b"],\n"):
                    return

    return replace(dataset, annotations=Streamed(len(dataset.annotations), annotations))


def _checked(records: Iterable[Record]) -> Iterator[Record]:
    """The records as they pass. Raises InputError for one that is damaged."""
    for record in records:
        try:
            parts.check_record(record)
        except InputError as error:
            raise InputError(
                f"a part is damaged ({error}); run the command again with --resume"
            ) from None
        yield record


def merge_records(
    records: Iterable[parts.Record], info: Mapping[str, Any], categories: Sequence[coco.Category]
) -> coco.Dataset:
    """A data set from records in order: annotation ids count from 1. Images keep the ids of their records
    where all have one and no two are the same (`parts.image_ids`), else they count from 1 as well.

    Failures make no image; they are listed, with ``file_name`` and ``reason``, in
    ``info["ovtool"]["failures"]``, which is always there. ``info`` itself is not changed.

    Raises:
        InputError: a record that is damaged, as ``parts.check_record`` finds.
    """
    images: list[Mapping[str, Any]] = []
    annotations: list[coco.Annotation] = []  # the place of the image stands for its id
    failures: list[Mapping[str, Any]] = []
    for record in _checked(records):
        if "failure" in record:
            failures.append(record["failure"])
            continue
        for entry in record["annotations"]:
            annotations.append(_annotation(len(annotations) + 1, len(images), entry))
        images.append(record["image"])
    ids = parts.image_ids(images)
    for index, annotation in enumerate(annotations):  # in place: there may be millions
        annotations[index] = replace(annotation, image_id=ids[annotation.image_id])
    tool = {**info.get("ovtool", {}), "failures": failures}
    return coco.Dataset(
        {**info, "ovtool": tool},
        [_image(id, image) for id, image in zip(ids, images, strict=True)],
        annotations,
        categories,
    )


def _image(image_id: int, entry: Mapping[str, Any]) -> coco.Image:
    extra = {key: value for key, value in entry.items() if key != "id"}
    file_name, width, height = (extra.pop(key) for key in ("file_name", "width", "height"))
    return coco.Image(image_id, file_name, width, height, extra)


def _annotation(annotation_id: int, image_id: int, entry: Mapping[str, Any]) -> coco.Annotation:
    extra = {key: value for key, value in entry.items() if key not in ("id", "image_id")}
    mask, category_id = extra.pop("segmentation"), extra.pop("category_id")
    score, box, area = extra.pop("score", None), extra.pop("bbox", None), extra.pop("area", None)
    if box is None:
        box = rle.bounding_box(mask)
    if area is None:
        area = float(rle.area(mask))
    x, y, width, height = box
    bbox = (float(x), float(y), float(width), float(height))
    return coco.Annotation(annotation_id, image_id, category_id, mask, bbox, area, score, extra)
