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
from ovtool.formats.coco_entries import Dataset
from ovtool.formats.images import ImageItem
from ovtool.formats.json_sections import Entries
from ovtool.formats.mask_store import masks_of
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
    masks_of_image = masks_of(dataset)
    for first in range(0, len(dataset.images) or 1, SAMPLES):
        with (
            atomic.writing(folder / f"{first // SAMPLES:06d}.tar") as handle,
            tarfile.open(fileobj=handle, mode="w", format=tarfile.PAX_FORMAT) as shard,
        ):
            _add(shard, _HEAD, atomic.canonical_json(head).encode())
            listed = dataset.images[first : first + SAMPLES]
            for number, image in enumerate(listed, start=first):
                path = items[image.file_name].path
                try:
                    content = path.read_bytes()
                except OSError as error:
                    raise InputError(f"cannot read {path}: {error.strerror}") from None
                entries = [
                    coco.annotation_entry(mask) | {"category": names[mask.category_id]}
                    for mask in masks_of_image(image.id)
                ]
                record = {"image": coco.image_entry(image), "annotations": entries}
                ending = PurePosixPath(image.file_name).suffix.lower() or ".bin"
                _add(shard, f"{number:09d}{ending}", content)
                _add(shard, f"{number:09d}.json", atomic.plain_json(record).encode())
                advance()


def read(path: Path) -> Dataset:
    """The masks of a shard or of a folder of them. Raises InputError for shards that are broken or hold samples
    without masks."""
    content: dict[str, Any] = {"info": {}, "licenses": [], "categories": []}
    images: list[Any] = []
    for name, record in _records(path):
        if name == _HEAD:
            content |= {key: record.get(key) or content[key] for key in content}
        else:
            images.append(record.get("image"))

    def annotations() -> Iterator[dict[str, Any]]:
        for name, record in _records(path):
            for entry in record["annotations"] if name != _HEAD else ():
                if isinstance(entry, dict):
                    yield {key: value for key, value in entry.items() if key != "category"}

    return coco.parse({**content, "images": images, "annotations": Entries(annotations)}, str(path))


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The heads and the samples with masks of all shards, with their names. Raises InputError as `read`."""
    for shard in sorted(path.glob("*.tar")) if path.is_dir() else [path]:
        for name, data in _members(shard):
            try:
                record = strict_json.loads(data.decode())
            except ValueError as error:
                raise InputError(
                    f"{shard}: {name} is no JSON: {error}; make the shard again"
                ) from None
            is_head = name == _HEAD and isinstance(record, dict)
            if is_head or (
                isinstance(record, dict) and isinstance(record.get("annotations"), list)
            ):
                yield name, record
            else:
                raise InputError(
                    f"{shard}: {name} has no list of annotations; shards of other contents are read by the "
                    "commands that take captions"
                )


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
