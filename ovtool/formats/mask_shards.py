"""WebDataset shards of images with their masks: `000000000.jpg` beside `000000000.json`, in tar files.

The JSON of a sample holds its entry of COCO's `images` (`image`) and its `annotations`, each with the name of its
class (`category`). The first member of a shard, `__ovtool__`, which readers of shards pass over, holds what belongs
to all: `info`, `licenses`, `categories`.
"""

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ovtool.errors import InputError
from ovtool.formats import atomic, coco, strict_json
from ovtool.formats.coco_entries import Dataset, by_image
from ovtool.formats.images import ImageItem
from ovtool.formats.shards import MAX_BYTES

SAMPLES = 1000  # of a shard
_HEAD = "__ovtool__"


def is_shards(path: Path) -> bool:
    """Whether a path is a tar file, or a folder of them."""
    return path.suffix == ".tar" or (path.is_dir() and any(path.glob("*.tar")))


def write(
    dataset: Dataset,
    folder: Path,
    items: dict[str, ImageItem],
    advance: Callable[[], None],
) -> None:
    """Writes shards into a folder, `000000.tar` and so on.

    Args:
        dataset: The masks.
        folder: Where.
        items: The image of each file name.
        advance: Called after each image.
    """
    names = {category.id: category.name for category in dataset.categories}
    head = {
        "info": dict(dataset.info),
        "licenses": list(dataset.licenses),
        "categories": [coco.category_entry(category) for category in dataset.categories],
    }
    samples = list(by_image(dataset))
    for first in range(0, len(samples) or 1, SAMPLES):
        with (
            atomic.writing(folder / f"{first // SAMPLES:06d}.tar") as handle,
            tarfile.open(fileobj=handle, mode="w", format=tarfile.PAX_FORMAT) as shard,
        ):
            _add(shard, _HEAD, atomic.canonical_json(head).encode())
            for number, (image, masks) in enumerate(samples[first : first + SAMPLES], start=first):
                path = items[image.file_name].path
                try:
                    content = path.read_bytes()
                except OSError as error:
                    raise InputError(f"cannot read {path}: {error.strerror}") from None
                entries = [
                    coco.annotation_entry(mask) | {"category": names[mask.category_id]}
                    for mask in masks
                ]
                record = {"image": coco.image_entry(image), "annotations": entries}
                ending = PurePosixPath(image.file_name).suffix.lower() or ".bin"
                _add(shard, f"{number:09d}{ending}", content)
                _add(shard, f"{number:09d}.json", atomic.plain_json(record).encode())
                advance()


def read(path: Path) -> Dataset:
    """The masks of a shard or of a folder of them. Raises InputError for shards that are broken or hold samples
    without masks."""
    shards = sorted(path.glob("*.tar")) if path.is_dir() else [path]
    content: dict[str, Any] = {"info": {}, "licenses": [], "categories": []}
    images: list[Any] = []
    annotations: list[Any] = []
    for shard in shards:
        for name, data in _members(shard):
            try:
                record = strict_json.loads(data.decode())
            except ValueError as error:
                raise InputError(
                    f"{shard}: {name} is no JSON: {error}; make the shard again"
                ) from None
            if name == _HEAD and isinstance(record, dict):
                content |= {key: record.get(key) or content[key] for key in content}
            elif isinstance(record, dict) and isinstance(record.get("annotations"), list):
                images.append(record.get("image"))
                annotations += record["annotations"]
            else:
                raise InputError(
                    f"{shard}: {name} has no list of annotations; shards of other contents are read by the "
                    "commands that take captions"
                )
    bare = [
        {key: value for key, value in entry.items() if key != "category"}
        for entry in annotations
        if isinstance(entry, dict)
    ]
    return coco.parse({**content, "images": images, "annotations": bare}, str(path))


def _members(shard: Path) -> Iterator[tuple[str, bytes]]:
    """The JSON members of a shard, and its head."""
    try:
        with open(shard, "rb") as handle, tarfile.open(fileobj=handle, mode="r:*") as stream:
            for member in stream:
                is_record = member.name == _HEAD or member.name.endswith(".json")
                if is_record and member.isreg() and member.size <= MAX_BYTES:
                    content = stream.extractfile(member)
                    yield member.name, b"" if content is None else content.read()
            handle.seek(-tarfile.BLOCKSIZE, 2)
            if shard.suffix == ".tar" and any(handle.read()):  # which tarfile does not mind
                raise EOFError("it has no end")
    except (tarfile.TarError, OSError, EOFError) as error:
        reason = str(error).partition("\n")[0]  # tarfile tells what it tried, a line each
        raise InputError(
            f"{shard} is no whole tar file: {reason}; fetch or make it again"
        ) from None


def _add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    shard.addfile(entry, io.BytesIO(content))
