"""YOLO's segmentation labels: a text file an image, a line a mask, `CLASS X Y X Y ...` in shares of the image.

`data.yaml` names the classes, or `classes.txt` as Label Studio writes it; the file of `images/a.jpg` is
`labels/a.txt`, and that of `train/images/a.jpg` is `train/labels/a.txt`, as Roboflow has them. A number more than
the points of a line is its score, as Ultralytics' `save_conf` writes it; a line of four is a box. A point lies in its pixel where both who cut
numbers off (Ultralytics) and who round them (supervision) meet that pixel, and a polygon is drawn with its border
(`outlines`), as they draw it. A line holds one polygon:
the parts of a mask are joined as Ultralytics' own converter joins them, or are a line each (`--instances parts`).
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ovtool.errors import InputError, short
from ovtool.formats import (
    atomic,
    coco,
    file_matching,
    folders,
    image_search,
    labelled,
    outlines,
    plain_text,
    rle,
)
from ovtool.formats import coco_checks as checks
from ovtool.formats import images as image_files
from ovtool.formats.coco_entries import Category, Dataset, Image
from ovtool.formats.mask_store import Masks, by_image

NAMES_FILE = "data.yaml"
_CLASSES_FILE = "classes.txt"
_logger = logging.getLogger("ovtool")
_WITHIN = 0.25  # from the corner of a pixel


def write(
    dataset: Dataset, folder: Path, names: Mapping[int, str], advance: Callable[[], None]
) -> list[str]:
    """Writes labels into a folder; what could not be kept, a phrase for each kind.

    names: of each image by its id, the name of its label file without the ending. advance: called after each
    image.
    """
    index = {category.id: k for k, category in enumerate(dataset.categories)}
    listed = (
        f"  {k}: {json.dumps(c.name, ensure_ascii=False)}\n"
        for k, c in enumerate(dataset.categories)
    )
    text = f"train: images\nval: images\nnames:\n{''.join(listed)}"
    atomic.write_text(folder / NAMES_FILE, text)
    joined = empty = 0
    for image, masks in by_image(dataset):
        lines = []
        for mask in masks:
            parts = outlines.pieces(rle.decode(mask.segmentation, image.height, image.width))
            if not parts:
                empty += 1
                continue
            polygon = outlines.joined(parts)
            if len(parts) > 1:
                whole = outlines.drawn(polygon, image.height, image.width)
                joined += int(whole.sum()) != mask.area
            shares = (polygon + _WITHIN) / (image.width, image.height)
            numbers = " ".join(f"{share:.6f}" for share in shares.ravel())
            lines.append(f"{index[mask.category_id]} {numbers}\n")
        atomic.write_text(folders.place(folder, f"labels/{names[image.id]}.txt"), "".join(lines))
        advance()
    lost = [labelled.counted(empty, "mask") + " without a pixel"] if empty else []
    if joined:
        lost.append(
            labelled.counted(joined, "mask") + " of parts that do not touch, joined by lines"
        )
    return lost


def is_yolo(folder: Path) -> bool:
    """Whether a folder holds labels of YOLO's, with the names of their classes."""
    if (folder / NAMES_FILE).is_file():
        return True
    return (folder / _CLASSES_FILE).is_file() and any((folder / "labels").rglob("*.txt"))


def images_folder(folder: Path) -> Path | None:
    """The folder that the names of the images start from, where they lie beside their labels."""
    if (folder / "labels").is_dir():
        return folder / "images" if (folder / "images").is_dir() else None
    return folder if any(folder.glob("*/images")) else None


def read(folder: Path, images: Path | None = None) -> Dataset:
    """The masks of a folder of labels; boxes are left out, and one warning counts them.

    images: The folder of the images, whose sizes are needed; None is where they lie beside the labels.

    Raises InputError for lines that hold no polygon, classes that have no name, labels without an image, and labels
    that are boxes alone.
    """
    names = _names(folder)
    categories = [Category(number + 1, name) for number, name in names]  # COCO counts from 1
    known = {number for number, _ in names}
    whole = folder / "labels"
    homes = [whole] if whole.is_dir() else sorted(folder.glob("*/labels"))
    if not homes:
        raise InputError(
            f"{folder} has no folder labels; put the labels there, a text file an image"
        )
    place = images or images_folder(folder)
    if place is None or not place.is_dir():
        raise InputError(
            f"no folder {images or folder / 'images'} with the images of {folder}, whose sizes are needed; put "
            "them there, or name their folder with --images"
        )
    labels = whole if homes == [whole] else folder
    texts = [path for home in homes for path in home.rglob("*.txt")]
    files = sorted(path.relative_to(labels).as_posix() for path in texts)
    # of train/labels/a.txt the image is train/images/a.jpg
    called = {
        file.replace("/labels/", "/images/") if labels == folder else file: file for file in files
    }
    items = {item.name: item for item in image_search.find_images([str(place)])}
    matched = file_matching.match(
        file_matching.Names(str(labels), list(called)), file_matching.Names(str(place), list(items))
    )
    alone = next((file for name, file in called.items() if name not in matched), None)
    if alone is not None:
        raise InputError(f"{labels / alone} has no image in {place}; add it, or remove the labels")
    label_of = {image: labels / called[name] for name, image in matched.items()}
    entries: list[Image] = []
    annotations, boxes = Masks(), 0
    for number, (name, item) in enumerate(items.items(), start=1):
        height, width = image_files.read_size(item.path)
        entries.append(Image(number, name, width, height))
        if name not in label_of:
            continue
        for category, score, mask in _masks(label_of[name], height, width, known):
            if mask is None:
                boxes += 1
                continue
            own = coco.annotation(len(annotations) + 1, number, category + 1, mask, score)
            annotations.append(own)
    if boxes and not annotations:
        raise InputError(
            f"{folder} holds boxes alone, and polygons are needed; use labels of segmentation"
        )
    if boxes:
        counted = labelled.counted(boxes, "box", "boxes")
        _logger.warning("%s has %s beside its polygons, which are left out", folder, counted)
    return Dataset({}, entries, annotations, categories)


def _names(folder: Path) -> list[tuple[int, str]]:
    """The numbers and names of the classes."""
    import yaml

    path = folder / NAMES_FILE
    if not path.is_file():
        lines = plain_text.read(folder / _CLASSES_FILE).splitlines()
        listed = [(k, line.strip()) for k, line in enumerate(lines) if line.strip()]
        checks.check_names(listed, "names", "name", str(folder / _CLASSES_FILE))
        return listed
    text = plain_text.read(path)
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is no YAML that can be read ({reason:.120})") from None
    names: Any = content.get("names") if isinstance(content, dict) else None
    pairs = list(enumerate(names)) if isinstance(names, list) else None
    pairs = list(names.items()) if isinstance(names, dict) else pairs
    is_named = all(
        type(k) is int and k >= 0 and isinstance(name, str | int | float) and str(name).strip()
        for k, name in pairs or ()  # a list in a list may stand for more than memory holds
    )
    if not pairs or not is_named:
        raise InputError(
            f"{path} has no names of classes; write `names:` with a number and a name a line"
        )
    named = [(k, str(name)) for k, name in sorted(pairs)]
    checks.check_names(named, "names", "name", str(path))
    return named


def _masks(
    path: Path, height: int, width: int, known: set[int]
) -> Iterator[tuple[int, float | None, rle.Rle | None]]:
    """The class, the score and the mask of each line; None for the mask of a box."""
    for number, row in enumerate(plain_text.read(path).splitlines(), start=1):
        if not row.strip():
            continue
        where, cells = f"{path}: line {number}", row.split()
        try:
            category, shares = int(cells[0]), np.array([float(cell) for cell in cells[1:]])
        except ValueError:
            raise InputError(f"{where} is {short(row)}, not numbers; mend or remove it") from None
        if category not in known:
            raise InputError(
                f"{where}: class {category} has no name in {NAMES_FILE} or {_CLASSES_FILE}; add it there"
            )
        if len(shares) in (4, 5):
            yield category, None, None
            continue
        if len(shares) < 6:
            raise InputError(
                f"{where} has {len(shares)} numbers, which are no polygon of x, y; mend or remove it"
            )
        score = float(shares[-1]) if len(shares) % 2 else None
        shares = shares if score is None else shares[:-1]
        if not ((shares >= 0) & (shares <= 1)).all() or not 0 <= (score or 0) <= 1:
            raise InputError(
                f"{where} has points outside 0 to 1, which are shares of the image; mend or remove it"
            )
        points = np.floor(shares.reshape(-1, 2) * (width, height) + 1e-6).astype(np.int64)
        polygon = np.minimum(points, (width - 1, height - 1))
        yield category, score, rle.encode(outlines.drawn(polygon, height, width))
