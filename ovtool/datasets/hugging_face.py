"""A data set of Hugging Face's `datasets` on disk, as `save_to_disk` writes it, unpacked into images, label maps and
captions. The extra `datasets` reads it; nothing is downloaded, and no code of the data set runs."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ovtool.errors import InputError, UsageError
from ovtool.formats import atomic, images, label_maps

_IMAGES = ("image", "img", "jpg", "picture", "pixel_values")
_CAPTIONS = ("captions", "caption", "sentences", "text")
_NAME = re.compile(r"\w[\w.-]{0,99}")
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png"}  # kept as they are; all others become PNG


def is_folder(folder: Path) -> bool:
    """Whether a folder was written by `save_to_disk`, of one split or of several."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def split_of(folder: Path, split: str | None) -> tuple[Path, str]:
    """The folder of a split, and its name.

    Raises:
        UsageError: There are several splits, or none of that name.
        InputError: The list of splits is broken.
    """
    if not (folder / "dataset_dict.json").is_file():
        return folder, split or "all"
    try:
        splits = list(
            json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        splits = []
    # a split names a folder below the one that is written, so it leads nowhere else
    if not splits or not all(isinstance(own, str) and _NAME.fullmatch(own) for own in splits):
        raise InputError(
            f"{folder / 'dataset_dict.json'} lists no splits by plain names; save the data set again"
        )
    if split is None and len(splits) == 1:
        split = splits[0]
    if split is None or split not in splits:
        said = "several splits" if split is None else f"no split '{split}'"
        raise UsageError(f"{folder} has {said}; give --split, one of {', '.join(splits)}")
    return folder / split, split


def unpack(source: Path, split: str, target: Path, advance: Callable[..., None]) -> dict[str, Path]:
    """Writes `images/SPLIT/`, `label_maps/SPLIT/` with `classes.txt`, and `annotations/captions_SPLIT.json`: what the
    columns hold. A value of a label map has the name `value N` in classes.txt, as the data set names none.

    Raises:
        InputError: The library is not installed, the data set is broken, or it has no column of images.
    """
    rows = opened(source)
    columns = _image_columns(rows)
    image_column = next((name for name in _IMAGES if name in columns), columns[0])
    labels = next((name for name in columns if name != image_column), None)
    captions = next((name for name in _CAPTIONS if name in rows.column_names), None)
    written = {"images": target / "images" / split}
    if labels is not None:
        written["label_maps"] = target / "label_maps" / split
    if captions is not None:
        written["captions"] = target / "annotations" / f"captions_{split}.json"
    for kind, place in written.items():
        atomic.make_folder(place.parent if kind == "captions" else place)
    listed: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    most = -1
    for number, row in enumerate(rows):
        content = _bytes(row[image_column], f"{source}: row {number}")
        rgb = images.decode_rgb(content, f"{source}: row {number}")
        name = _write_image(written["images"] / f"{number:06d}", content, rgb)
        height, width = rgb.shape[:2]
        listed.append({"id": number + 1, "file_name": name, "width": width, "height": height})
        if labels is not None:
            place = written["label_maps"] / f"{number:06d}.png"
            where = f"{source}: row {number}"
            atomic.write_bytes(place, _as_png(_bytes(row[labels], where), where))
            values = label_maps.read(place)
            most = max(most, int(values.max(initial=-1)))
        for text in _texts(row[captions]) if captions else ():
            texts.append({"id": len(texts) + 1, "image_id": number + 1, "caption": text})
        advance()
    if labels is not None:
        names = [f"value {value}" for value in range(most + 1)]
        label_maps.write_classes(written["label_maps"] / "classes.txt", names)
    if captions is not None:
        data = {"info": {}, "licenses": [], "images": listed, "annotations": texts}
        atomic.write_text(written["captions"], json.dumps(data, ensure_ascii=False))
    return written


def opened(source: Path) -> Any:
    """The rows of a split, images as they are stored. Raises InputError."""
    try:
        from datasets import Image as ImageColumn
        from datasets import load_from_disk
    except ImportError:
        raise InputError(
            "datasets is not installed, which reads such folders; pip install 'ovtool[datasets]'"
        ) from None
    try:
        rows = load_from_disk(str(source))
        for name in _image_columns(rows):
            rows = rows.cast_column(name, ImageColumn(decode=False))
    except InputError:
        raise
    except Exception as error:  # each of its readers has its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{source} is no folder of datasets that can be read ({reason}); save it again"
        ) from None
    return rows


def _image_columns(rows: Any) -> list[str]:
    """The columns that hold images. Raises InputError for none."""
    columns = [name for name, kind in rows.features.items() if type(kind).__name__ == "Image"]
    if not columns:
        raise InputError(
            f"the data set has no column of images; it has {', '.join(rows.column_names)}"
        )
    return columns


def _bytes(cell: Any, where: str) -> bytes:
    """The file in a cell. Raises InputError for a cell without one."""
    if cell and cell.get("bytes"):
        return bytes(cell["bytes"])
    path = Path(cell["path"]) if cell and cell.get("path") else None
    if path is None or not path.is_file():
        raise InputError(f"{where} holds no image; save the data set with its images in it")
    return path.read_bytes()


def _write_image(stem: Path, content: bytes, rgb: np.ndarray[Any, Any]) -> str:
    """Writes an image as it is stored where it is a JPEG or PNG, else as PNG; its name."""
    with Image.open(io.BytesIO(content)) as opened_image:
        suffix = _SUFFIXES.get(opened_image.format or "")
    path = stem.with_suffix(suffix or ".png")
    if suffix is None:
        images.save_png(path, Image.fromarray(rgb), is_drawn=False)
    else:
        atomic.write_bytes(path, content)
    return path.name


def _as_png(content: bytes, where: str) -> bytes:
    """A label map as PNG, its values as they are. Raises InputError."""
    if content[:8] == b"\x89PNG\r\n\x1a\n":
        return content
    buffer = io.BytesIO()
    with images.opened(Path(where), content) as labels:
        labels.save(buffer, "PNG")
    return buffer.getvalue()


def _texts(cell: object) -> Iterable[str]:
    """The captions in a cell."""
    listed = cell if isinstance(cell, list | tuple) else [cell]
    return (text for text in listed if isinstance(text, str) and text.strip())
