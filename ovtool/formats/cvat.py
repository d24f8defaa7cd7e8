"""CVAT's XML of annotated images, version 1.1 ("CVAT for images"): masks and polygons.

A mask has its box (`left`, `top`, `width`, `height`) and in `rle` the lengths of runs of zeros and ones in turn, along
the rows of the box, beginning with zeros. `z_order` says what lies on top. Scores and crowd flags are attributes.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numpy.typing import NDArray

from ovtool.errors import InputError, short
from ovtool.formats import atomic, coco, labelled, rle
from ovtool.formats import coco_checks as checks
from ovtool.formats.coco_entries import Annotation, Category, Dataset, Image
from ovtool.formats.mask_store import Masks, by_image

_ATTRIBUTES = ("score", "iscrowd")
_OTHERS = ("box", "polyline", "points", "cuboid", "ellipse", "skeleton", "tag", "track")
_ENDS = {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"}  # which a reader of XML would make spaces
_logger = logging.getLogger("ovtool")


def is_cvat(path: Path) -> bool:
    """Whether a file begins as CVAT's XML does."""
    try:
        with open(path, "rb") as handle:
            return b"<annotations" in handle.read(512)
    except OSError:
        return False  # its reader says why


def write(dataset: Dataset, target: Path, digest: str, advance: Callable[[], None]) -> list[str]:
    """Writes the XML, or to stdout for ``-``; what could not be kept, a phrase for each kind.

    digest: Of the request, which the head of the file keeps. advance: Called after each image.
    """
    names = {category.id: category.name for category in dataset.categories}
    texts = [*names.values(), *(image.file_name for image in dataset.images)]
    strange = next((t for t in texts if any(ord(c) < 32 and c not in _ENDS for c in t)), None)
    if strange is not None:
        raise InputError(f"XML cannot hold the control character in {strange!r}; rename it")
    empty = 0
    with atomic.writing(target) as handle:
        handle.writelines(line.encode() for line in _head(dataset, digest))
        for image, masks in by_image(dataset):
            size = f'width="{image.width}" height="{image.height}"'
            handle.write(
                f'<image id="{image.id}" name={_quoted(image.file_name)} {size}>\n'.encode()
            )
            order = {mask.id: z for z, mask in enumerate(labelled.painting_order(masks))}
            for mask in masks:
                empty += not mask.area
                line = _mask(mask, image, names[mask.category_id], order[mask.id])
                handle.write(line.encode() if mask.area else b"")
            handle.write(b"</image>\n")
            advance()
        handle.write(b"</annotations>\n")
    return [labelled.counted(empty, "mask") + " without a pixel"] if empty else []


def read(path: Path) -> Dataset:
    """The masks and polygons of an XML. Raises InputError; boxes and other shapes are counted in one warning."""
    names: dict[str, int] = {}
    images: list[Image] = []
    annotations = Masks()
    left: Counter[str] = Counter()
    try:
        for _, element in ElementTree.iterparse(path):
            if element.tag == "label" and element.find("name") is not None:
                names.setdefault(element.findtext("name") or "", len(names) + 1)
            elif element.tag == "image":
                image = _image(element, len(images) + 1, str(path))
                images.append(image)
                for shape in element:
                    if shape.tag not in ("mask", "polygon"):
                        left[shape.tag] += shape.tag in _OTHERS
                        continue
                    number = names.setdefault(shape.get("label") or "", len(names) + 1)
                    annotations.append(
                        _annotation(shape, len(annotations) + 1, image, number, str(path))
                    )
                element.clear()
            elif element.tag == "track":
                left["track"] += 1
                element.clear()
    except (ElementTree.ParseError, OSError, LookupError, ValueError) as error:  # of an encoding
        raise InputError(f"{path} is no XML that can be read: {error}; export it again") from None
    numbers = [image.id for image in images]
    if len(set(numbers)) < len(numbers):
        raise InputError(f"{path} has two images of one id; export it again")
    if +left:
        listed = ", ".join(f"{count:,} of {kind}" for kind, count in sorted((+left).items()))
        _logger.warning("%s has shapes that are no masks, which are left out: %s", path, listed)
    categories = [Category(number, name) for name, number in names.items()]
    return Dataset({}, images, annotations, categories)


def _head(dataset: Dataset, digest: str) -> Iterator[str]:
    attributes = "".join(
        f"<attribute><name>{name}</name><mutable>False</mutable><input_type>text</input_type>"
        "<default_value></default_value><values></values></attribute>"
        for name in _ATTRIBUTES
    )
    yield '<?xml version="1.0" encoding="utf-8"?>\n'
    yield f'<!-- written by ovtool convert, name="ovtool-asked" content="{digest}" -->\n'
    yield "<annotations>\n<version>1.1</version>\n<meta><task>"
    yield f"<size>{len(dataset.images)}</size><mode>annotation</mode><labels>\n"
    for category in dataset.categories:
        name = _quoted(category.name, as_text=True)
        yield f"<label><name>{name}</name><attributes>{attributes}</attributes></label>\n"
    yield "</labels></task></meta>\n"


def _quoted(text: str, as_text: bool = False) -> str:
    """A text as XML has it, in quotes unless it stands between tags; line ends stay."""
    return escape(text, {"\r": "&#13;"}) if as_text else quoteattr(text, _ENDS)


def _mask(mask: Annotation, image: Image, name: str, z_order: int) -> str:
    left, top, width, height = (int(value) for value in mask.bbox)
    pixels = rle.decode(mask.segmentation, image.height, image.width)
    runs = ", ".join(map(str, _runs(pixels[top : top + height, left : left + width])))
    values = {} if mask.score is None else {"score": str(round(float(mask.score), 6))}
    values |= {"iscrowd": "1"} if mask.extra.get("iscrowd") else {}
    attributes = "".join(
        f'<attribute name="{key}">{value}</attribute>' for key, value in values.items()
    )
    return (
        f'<mask label={_quoted(name)} source="ovtool" occluded="0" rle="{runs}" left="{left}" top="{top}" '
        f'width="{width}" height="{height}" z_order="{z_order}">{attributes}</mask>\n'
    )


def _runs(pixels: NDArray[np.bool_]) -> list[int]:
    """The lengths of the runs of an array along its rows, the first of zeros."""
    flat = np.concatenate(([False], pixels.ravel()))
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return [int(n) for n in np.diff(np.concatenate(([0], changes, [pixels.size])))]


def _image(element: ElementTree.Element, number: int, where: str) -> Image:
    name = element.get("name") or ""
    place = f"{where}: image {number}"
    checks.check_file_name(name, place)
    sides = [element.get(key) or "" for key in ("width", "height")]
    if not all(side.isdecimal() and int(side) for side in sides):
        raise InputError(f"{place} has no width and height; add them")
    own = element.get("id") or ""
    return Image(int(own) if own.isdecimal() else number, name, int(sides[0]), int(sides[1]))


def _annotation(
    shape: ElementTree.Element, id: int, image: Image, category: int, where: str
) -> Annotation:
    place = f"{where}: a {shape.tag} of {image.file_name}"
    values = {entry.get("name"): entry.text for entry in shape.iter("attribute")}
    try:
        score = float(values["score"] or "") if values.get("score") else None
        mask = _box_mask(shape.attrib, image) if shape.tag == "mask" else _polygon(shape, image)
    except (ValueError, KeyError) as error:
        raise InputError(f"{place} cannot be read ({short(error)}); draw it again") from None
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    crowd = {"iscrowd": 1} if values.get("iscrowd") == "1" else {}
    return coco.annotation(id, image.id, category, mask, score, **crowd)


def _polygon(shape: ElementTree.Element, image: Image) -> rle.Rle:
    pairs = [pair.split(",") for pair in shape.attrib["points"].split(";")]
    flat = [float(value) for x, y in pairs for value in (x, y)]
    return rle.compress([flat], image.height, image.width)


def _box_mask(fields: Mapping[str, str], image: Image) -> rle.Rle:
    left, top, width, height = (int(fields[key]) for key in ("left", "top", "width", "height"))
    inside = 0 <= left and 0 <= top and left + width <= image.width and top + height <= image.height
    if not inside or min(width, height) < 1:
        raise ValueError(f"its box {left}, {top}, {width}, {height} leaves the image")
    runs = np.array([int(run) for run in fields["rle"].split(",")])
    if (runs < 0).any() or (runs > width * height).any() or runs.sum() != width * height:
        raise ValueError(f"its runs do not add up to {width} x {height} pixels")
    canvas = np.zeros((image.height, image.width), np.bool_)
    pixels = np.repeat(np.arange(runs.size) % 2 == 1, runs).reshape(height, width)
    canvas[top : top + height, left : left + width] = pixels
    return rle.encode(canvas)
