"""Captioned images of a run, of a data set or a file: some of their captions, and the nouns in these."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ovtool.datasets import registry
from ovtool.datasets.vocabularies import spoken
from ovtool.errors import InputError, UsageError
from ovtool.formats import captions as captions_file
from ovtool.formats import coco, file_matching, shards
from ovtool.formats.captions import Caption, CaptionedImage
from ovtool.formats.file_matching import path_of
from ovtool.formats.images import ImageItem
from ovtool.inputs import labels
from ovtool.models import nouns
from ovtool.models.nouns import Noun, Pipeline

DEFAULT_SPLITS = {
    "coco": "train2017"
}  # not the data set's own default, since captions are for training
_logger = logging.getLogger("ovtool")


@dataclass(frozen=True, slots=True)
class Mention:
    """A noun of an image, and the caption that says it."""

    noun: Noun
    caption_id: int


def is_data_set(spec: str) -> bool:
    """Whether captions are named by a data set, and no file of that name is there."""
    return registry.is_name(spec) and not Path(spec).exists()


def _data_set(spec: str) -> registry.DataSet:
    name, _, split = spec.partition(":")
    return registry.locate(f"{name}:{split or DEFAULT_SPLITS.get(name, '')}".rstrip(":"))


def has_names_alone(spec: str) -> bool:
    """Whether captions are named by a data set that has none: the names of its classes take their place."""
    return is_data_set(spec) and _data_set(spec).captions is None


def locate(spec: str, images: Path | None) -> tuple[Path, Path]:
    """The captions JSON that a SPEC means, and the folder of its file names; see `find`."""
    if is_data_set(spec):
        if images is not None:
            raise UsageError(f"--images is the folder of a captions file, and {spec} is a data set")
        data = _data_set(spec)
        if data.captions is None:
            raise UsageError(f"{spec} has no captions; give coco:train2017, or a table of your own")
        return data.captions, data.images
    return Path(spec), file_matching.folder_of(images, spec, f"--captions {spec}")


def find(
    spec: str, images: Path | None, limit: int | None = None
) -> tuple[list[ImageItem], list[CaptionedImage]]:
    """The images that have captions, in the order of the file, and those captions. Those of a data set are in the
    order of their names, so that the first ones are those of `propose`. Of a data set without captions each class of
    an image is a caption, its name (`named`).

    spec: a data set `NAME[:SPLIT]`, or a COCO captions JSON or table with the folder `images` of its file names.

    Raises:
        UsageError: A folder is missing, or is given beside a data set.
        InputError: There are no captions, or none of the images is there.
    """
    if images is None and has_names_alone(spec):
        return _of_names(spec, limit)
    source, folder = locate(spec, images)
    listed = captions_file.read(source)
    captioned = [image for image in listed.images if image.captions]
    if is_data_set(spec):
        captioned.sort(key=lambda image: image.file_name)
    captioned = captioned[:limit]
    items = [ImageItem(path_of(folder, image.file_name), image.file_name) for image in captioned]
    if not any(item.path.exists() for item in items):
        raise InputError(
            f"none of the {len(items)} images of {source} is below {folder}; the first would be "
            f"{items[0].path}"
        )
    return items, captioned


def _of_names(spec: str, limit: int | None) -> tuple[list[ImageItem], list[CaptionedImage]]:
    known = labels.read(spec, limit=limit)
    _logger.warning("%s has no captions; the names of its classes take their place", spec)
    names = {category.id: _plain(category) for category in known.categories}
    captioned = [
        CaptionedImage(
            number, image.item.name, tuple(Caption(id, names[id]) for id in image.category_ids)
        )
        for number, image in enumerate(known.images, start=1)
    ]
    return [image.item for image in known.images], captioned


def _plain(category: coco.Category) -> str:
    """The name of a class as it is spoken: `dining table` for `diningtable`."""
    names = (category.name, *category.synonyms)
    letters = category.name.replace(" ", "")
    return spoken(max((n for n in names if n.replace(" ", "") == letters), key=len))


def default_output(spec: str, ending: str) -> str:
    """The file in the current folder when no -o names another: `coco.pairs.json` for coco:train2017."""
    if is_data_set(spec):
        return f"{spec.partition(':')[0]}.{ending}"
    has_no_name = spec == "-" or shards.is_shards(spec)
    return f"{'captions' if has_no_name else Path(spec).stem}.{ending}"


def choose(image: CaptionedImage, count: str, seed: int) -> CaptionedImage:
    """The image with `count` of its captions, drawn from (seed, file name); the caption for 1 is among
    those for 5."""
    if count == "all" or len(image.captions) <= int(count):
        return image

    def rank(caption: Caption) -> bytes:
        key = f"{seed}\0{image.file_name}\0{caption.id}"
        return hashlib.sha256(key.encode()).digest()

    drawn = sorted(image.captions, key=rank)[: int(count)]
    return replace(image, captions=tuple(sorted(drawn, key=lambda caption: caption.id)))


def mentions(
    captioned: Sequence[CaptionedImage],
    pipeline: Pipeline,
    *,
    pos: Sequence[str],
    chunks: bool,
    stop: frozenset[str],
) -> Iterator[tuple[Mention, ...]]:
    """The nouns of each image, each lemma once: where it is said first."""
    texts = (caption.text for image in captioned for caption in image.captions)
    nouns_of_captions = nouns.find(pipeline, texts, pos=pos, chunks=chunks, stop=stop)
    for image in captioned:
        once: dict[str, Mention] = {}
        for caption in image.captions:
            for noun in next(nouns_of_captions):
                once.setdefault(noun.lemma, Mention(noun, caption.id))
        yield tuple(once.values())


def named(captioned: Sequence[CaptionedImage]) -> Iterator[tuple[Mention, ...]]:
    """The classes of each image of a data set without captions, as its nouns."""
    for image in captioned:
        yield tuple(
            Mention(Noun(c.text.casefold(), c.text, 0, len(c.text)), c.id) for c in image.captions
        )
