"""COCO's panoptic format as label maps, each image read when it is asked for (`formats/panoptic.py` has the masks)."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovtool.errors import InputError, short
from ovtool.formats import coco_checks as checks
from ovtool.formats import coco_repair, images, panoptic_files
from ovtool.formats.labelled import LabelledImages
from ovtool.formats.panoptic_files import Segmented

_logger = logging.getLogger("ovtool")


def opened(source: Path, folder: Path) -> LabelledImages:
    """The label maps of a panoptic JSON and the folder of its PNG files.

    Raises:
        InputError: A file is missing or broken.
    """
    where, data = checks.load_json(source)
    if not isinstance(data, dict):
        raise InputError(f"{where} holds {short(data)}, not a COCO object with sections")
    file = panoptic_files.opened(source, data, folder)

    index = {id: k for k, id in enumerate(file.categories)}
    segments: dict[str, tuple[Path, dict[int, int], Segmented | None]] = {}
    for entry in panoptic_files.segmented(file):
        classes = {own["id"]: index[own["category_id"]] for own in entry.segments}
        segments[entry.image.file_name] = (entry.png, classes, entry if 0 in classes else None)
    if file.repairs:
        _logger.warning("%s", coco_repair.sentence(where, file.repairs))
    return LabelledImages(
        str(source),
        classes=tuple((own.name, *own.synonyms) for own in file.categories.values()),
        names=tuple(segments),
        decode=lambda name: _labels(*segments[name]),
        has_values=True,
        files=tuple(path for path, *_ in segments.values()),
    )


def _labels(path: Path, classes: dict[int, int], from_zero: Segmented | None) -> NDArray[np.int32]:
    """The classes of an image, int32 (H, W), -1 for none; `from_zero` is the image where a segment has the id 0.
    Raises InputError for a segment that is not listed, and for such a one of another area than its pixels."""
    ids = panoptic_files.segment_ids(images.read_rgb(path))
    if from_zero is not None:
        panoptic_files.has_zero(from_zero, ids)
    present, place = np.unique(ids, return_inverse=True)
    unknown = [int(id) for id in present if id and int(id) not in classes]
    if unknown:
        raise InputError(
            f"{path} has the segment {unknown[0]}, which its JSON does not list; take both from the data set again"
        )
    values = np.array([classes.get(int(id), -1) for id in present], np.int32)
    labels: NDArray[np.int32] = values[place].reshape(ids.shape)
    return labels
