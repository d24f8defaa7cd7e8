"""The collage world on disk: images, instances, semantic masks, captions, label maps, word lists."""

import json
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ovtool import __version__
from ovtool.datasets import art, collage
from ovtool.datasets.captions import caption
from ovtool.datasets.nouns import GROUNDS
from ovtool.formats import atomic, coco, images, label_maps, parts, rle

CAPTIONS_PER_IMAGE = 5
WORDS_PER_IMAGE = 20
_BLOCK = 32  # scenes a worker makes at a time


@dataclass(frozen=True)
class CollageSpec:
    """Everything that a collage data set is a function of."""

    split: str = "demo"
    images: int = 200
    seed: int = 7
    size: int = 256
    preset: str | None = None


@dataclass(frozen=True)
class _Record:
    """What one scene adds to the annotation files; its image and label map are written already."""

    file_name: str
    instances: list[tuple[str, rle.Rle]]
    semantic: list[tuple[str, rle.Rle]]
    captions: list[str]
    words: list[str]


@lru_cache(maxsize=2)
def drawings(split: str) -> dict[str, list[Image.Image]]:
    """What a split is drawn with: the RGBA drawings of every noun. Raises InputError where the art of
    the split is not at hand."""
    arrays = art.train_drawings() if split == "train" else art.twemoji_drawings()
    return {name: [Image.fromarray(array) for array in rows] for name, rows in arrays.items()}


def class_names(spec: CollageSpec) -> tuple[str, ...]:
    """The classes of the semantic file, in the order of their ids: the law's nouns, the grounds."""
    return (*collage.law_of(spec.preset, spec.split).nouns, *GROUNDS)


def scenes(spec: CollageSpec) -> Iterator[collage.Scene]:
    """The scenes themselves, without any file."""
    for index in range(spec.images):
        yield _scene(spec, index)[0]


def _scene(spec: CollageSpec, index: int) -> tuple[collage.Scene, np.random.Generator]:
    rng = collage.scene_generator(spec.split, spec.seed, index)
    law = collage.law_of(spec.preset, spec.split)
    code = collage.SPLIT_CODES[spec.split]
    return collage.compose(rng, law, drawings(spec.split), code, spec.size), rng


def semantic_map(scene: collage.Scene, names: tuple[str, ...]) -> np.ndarray:
    """The class of every pixel, int32 (size, size), as an index into `names`."""
    ground_index = np.array([names.index(name) for name in scene.grounds], np.int32)
    labels = ground_index[scene.ground_map]
    if scene.objects:
        object_index = np.array([names.index(name) for name in scene.objects], np.int32)
        labels = np.where(scene.object_map >= 0, object_index[scene.object_map], labels)
    return labels


def _words(rng: np.random.Generator, scene: collage.Scene, names: tuple[str, ...]) -> list[str]:
    """The scene's objects and grounds among distractors, in the order of the table."""
    present = dict.fromkeys((*scene.objects, *scene.grounds))
    others = [name for name in names if name not in present]
    count = max(0, min(WORDS_PER_IMAGE - len(present), len(others)))
    distractors = rng.choice(len(others), count, replace=False)
    return sorted((*present, *(others[index] for index in distractors)), key=names.index)


def _make_scene(spec: CollageSpec, folder: Path, index: int) -> _Record:
    names = class_names(spec)
    scene, rng = _scene(spec, index)
    file_name = f"{index + 1:06d}.jpg"
    path = folder / "images" / spec.split / file_name
    Image.fromarray(scene.pixels).save(path, "JPEG", quality=95, subsampling=0)
    labels = semantic_map(scene, names)
    label_map = folder / "label_maps" / spec.split / f"{index + 1:06d}.png"
    drawn = label_maps.image(labels, len(names), names)
    drawn.save(label_map, compress_level=1, pnginfo=images.drawn_mark())
    objects = rle.encode_label_map(scene.object_map, range(len(scene.objects)))
    classes = rle.encode_label_map(labels, range(len(names)))
    return _Record(
        file_name=file_name,
        instances=[(scene.objects[key], mask) for key, mask in sorted(objects.items())],
        semantic=[(names[key], mask) for key, mask in sorted(classes.items())],
        captions=[caption(rng, scene.objects, scene.grounds) for _ in range(CAPTIONS_PER_IMAGE)],
        words=_words(rng, scene, names),
    )


def _make_block(spec: CollageSpec, folder: Path, start: int) -> list[_Record]:
    stop = min(start + _BLOCK, spec.images)
    return [_make_scene(spec, folder, index) for index in range(start, stop)]


def _leave_interrupts() -> None:
    """Ctrl-C reaches every process of a terminal; a worker leaves it to the one that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def make(
    spec: CollageSpec,
    folder: Path,
    workers: int = 1,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Writes the data set below `folder`; the bytes depend on `spec` alone.

    The annotations are written after the images, atomically, and the word lists last; where these are
    there, the data set is whole.

    progress: is called with the number of images made since its last call.

    Raises InputError where the art is not at hand, before anything is written.
    """
    drawings(spec.split)  # workers that are forked inherit them
    for part in ("images", "label_maps"):
        atomic.make_folder(folder / part / spec.split)
    atomic.make_folder(folder / "annotations")
    starts = range(0, spec.images, _BLOCK)
    work = partial(_make_block, spec, folder)
    records: list[_Record] = []
    if workers > 1 and len(starts) > 1:
        with ProcessPoolExecutor(workers, initializer=_leave_interrupts) as pool:
            try:
                for block in pool.map(work, starts):
                    records += block
                    progress(len(block))
            except BaseException:
                pool.shutdown(cancel_futures=True)  # leaving the pool would wait for all of them
                raise
    else:
        for start in starts:
            records += work(start)
            progress(len(records) - start)
    _write_annotations(spec, folder, records)


def digest(spec: CollageSpec) -> str:
    """A short name for the data set of a spec, under this version's law."""
    return f"{spec.split}-" + parts.settings_digest({"version": __version__, **asdict(spec)})


def _info(spec: CollageSpec, what: str) -> dict[str, Any]:
    return {
        "description": f"collage, {what}",
        "version": __version__,
        "ovtool": {
            "command": "data make collage",
            "version": __version__,
            "settings": asdict(spec),
        },
    }


def _masks(
    spec: CollageSpec, records: list[_Record], kind: str, names: tuple[str, ...]
) -> coco.Dataset:
    """The COCO file of the instances or of the semantic masks."""
    ids = {name: index for index, name in enumerate(names, start=1)}
    masks = [
        (k, *mask) for k, record in enumerate(records, start=1) for mask in getattr(record, kind)
    ]
    annotations = [
        coco.annotation(number, image_id, ids[name], mask, None)
        for number, (image_id, name, mask) in enumerate(masks, start=1)
    ]
    return coco.Dataset(
        info=_info(spec, kind),
        images=_images(spec, records),
        annotations=tuple(annotations),
        categories=tuple(
            coco.Category(number, name, "ground" if name in GROUNDS else "object")
            for name, number in ids.items()
        ),
    )


def _images(spec: CollageSpec, records: list[_Record]) -> tuple[coco.Image, ...]:
    return tuple(
        coco.Image(number, record.file_name, spec.size, spec.size)
        for number, record in enumerate(records, start=1)
    )


def _write_annotations(spec: CollageSpec, folder: Path, records: list[_Record]) -> None:
    annotations, split = folder / "annotations", spec.split
    names = class_names(spec)
    nouns = tuple(name for name in names if name not in GROUNDS)
    coco.write(_masks(spec, records, "instances", nouns), annotations / f"instances_{split}.json")
    coco.write(_masks(spec, records, "semantic", names), annotations / f"semantic_{split}.json")
    spoken = [(k, text) for k, record in enumerate(records, start=1) for text in record.captions]
    captions = [
        {"id": number, "image_id": image_id, "caption": text}
        for number, (image_id, text) in enumerate(spoken, start=1)
    ]
    text = json.dumps(
        {
            "info": _info(spec, "captions"),
            "licenses": [],
            "images": [coco.image_entry(image) for image in _images(spec, records)],
            "annotations": captions,
        },
        ensure_ascii=False,
    )
    atomic.write_text(annotations / f"captions_{split}.json", text + "\n")
    label_maps.write_classes(folder / "label_maps" / split / "classes.txt", names)
    words = {record.file_name: record.words for record in records}
    atomic.write_text(
        annotations / f"classes_{split}.json", json.dumps(words, ensure_ascii=False) + "\n"
    )
