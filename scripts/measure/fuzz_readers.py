"""The readers that `fuzz.py` tries: what makes a good file for each, and what reads it."""

import functools
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from ovtool.datasets import vocabularies
from ovtool.formats import (
    cams,
    captions,
    coco,
    coco_checks,
    given_maps,
    images,
    label_lists,
    label_maps,
    labelled,
    merge,
    parts,
    rle,
    shards,
)
from ovtool.inputs import any_masks
from ovtool.models import (
    background_prompts,
    mask_generator,
    maskformer,
    pacl,
    region_clip,
    segmenter,
    sources,
)
from ovtool.models import clip as clips
from ovtool.outputs import mask_formats
from ovtool.outputs.mask_formats import Request
from ovtool.settings.convert import Format
from ovtool.settings.evaluate import MeanIou
from ovtool.settings.shared import Run
from ovtool.stages import check, evaluate, info, report
from ovtool.training import loop
from ovtool.training.checkpoints import Checkpoint

SIDE = 32


@dataclass(frozen=True)
class Reader:
    """A reader.

    Attributes:
        name: what it reads.
        kind: of its file: `json`, `lines` (a JSON a line), `tensors` (safetensors) or `bytes`.
        make: writes a good file into a folder.
        read: reads it, in full.
        suffix: of the files that are damaged, of all without one.
    """

    name: str
    kind: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]
    suffix: str = ""

    def is_damaged(self, path: Path) -> bool:
        """Whether a file is one that is damaged."""
        return path.name.endswith(self.suffix)


@functools.cache
def tiny() -> clips.Clip:
    """The bundled CLIP that heads and prompts belong to."""
    return clips.load("tiny")


def pixels() -> Image.Image:
    """A small image."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8))


def categories() -> list[coco.Category]:
    """Two classes."""
    return [coco.Category(1, "cow"), coco.Category(2, "apple", synonyms=("fruit",))]


def mask() -> rle.Rle:
    """A mask of some pixels."""
    return rle.encode(np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 7 < 3)


def dataset() -> coco.Dataset:
    """Two images and three masks."""
    listed = [coco.Image(number, f"{number}.png", SIDE, SIDE) for number in (1, 2)]
    masks = [coco.annotation(k, 1 + k // 3, 1 + k % 2, mask(), 0.5) for k in (1, 2, 3)]
    return coco.Dataset({"ovtool": {"command": "segment"}}, listed, masks, categories())


def make_coco(folder: Path) -> None:
    """A COCO JSON, one of its masks as polygons, one as a list of runs."""
    content = coco.document(dataset())
    content["annotations"][0]["segmentation"] = [[1.0, 1.0, 20.0, 1.0, 20.0, 20.0]]
    content["annotations"][1]["segmentation"] = {"size": [SIDE, SIDE], "counts": [24, 1000]}
    (folder / "x.json").write_text(json.dumps(content))


def make_captions(folder: Path) -> None:
    """A captions JSON."""
    content = coco.document(dataset())
    entries = [
        {"id": 1, "image_id": 1, "caption": "a cow"},
        {"id": 2, "image_id": 2, "caption": "x"},
    ]
    (folder / "x.json").write_text(json.dumps({**content, "annotations": entries}))


def store(folder: Path) -> parts.PartStore:
    """Where parts lie."""
    return parts.PartStore(folder / "p", "d" * 16, {"a": 1}, merge.preface({}, categories()))


def make_parts(folder: Path) -> None:
    """Two parts of a run, one with tensors."""
    entries = [{"category_id": 1, "segmentation": mask(), "score": 0.5}]
    records = [parts.image_record(f"{k}.png", SIDE, SIDE, entries) for k in range(3)]
    first, second = parts.cut(4, 2)
    store(folder).write(first, records[:2], {"a": np.ones(2, np.float32)})
    store(folder).write(second, [records[2], parts.failure_record("b.png", "is broken")])


def read_parts(folder: Path) -> None:
    """As a file, and as a run that is resumed and merged."""
    kept = store(folder)
    whole = [part for part in parts.cut(4, 2) if kept.exists(part, or_other=True)]
    merge.merge_records((r for part in whole for r in kept.read(part)), {}, categories())
    coco.read(folder / "p")
    info.run(folder / "p")


def make_cams(folder: Path) -> None:
    """Maps of one image."""
    listed = [cams.CamImage(1, "1.png", SIDE, SIDE, (1, 2))]
    cams.write(
        folder / "x.safetensors", listed, categories(), {1: torch.rand(2, 4, 4)}, {"method": "x"}
    )


def make_maps(folder: Path) -> None:
    """Maps of other programs, in three forms."""
    maps = np.random.default_rng(0).random((2, 4, 4)).astype(np.float32)
    np.savez_compressed(folder / "a.npz", cow=maps[0], apple=maps[1])
    np.save(folder / "b.npy", maps)


def read_maps(folder: Path) -> None:
    """All three of them."""
    for name in ("a.npz", "b.npy"):
        given_maps.read(folder / name, (1, 2), categories())


def make_images(folder: Path) -> None:
    """An image in each format."""
    for suffix in ("png", "jpg", "webp", "gif", "tif", "bmp", "avif"):
        with_exif = {"exif": Image.Exif()} if suffix in ("jpg", "webp") else {}
        if f".{suffix}" in Image.registered_extensions():
            pixels().save(folder / f"x.{suffix}", **with_exif)


def read_images(folder: Path) -> None:
    """All that can be read; the first that cannot is the error."""
    for path in sorted(folder.glob("x.*")):
        images.read_rgb(path)
        images.read_size(path)


def make_shards(folder: Path) -> None:
    """A shard of three samples."""
    with tarfile.open(folder / "x.tar", "w") as tar:
        for key in range(3):
            buffer = io.BytesIO()
            pixels().save(buffer, "JPEG")
            for ending, data in (("jpg", buffer.getvalue()), ("json", b'{"caption": "a cow"}')):
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def read_shards(folder: Path) -> None:
    """Every sample."""
    for sample in shards.read(str(folder / "x.tar"), shards.Left(Counter())):
        images.decode_rgb(sample.image, sample.name)


def trained() -> tuple[loop.Task, nn.Module]:
    """A training of two steps."""
    module = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)

    def step(number: int) -> dict[str, float]:
        loss = module(torch.ones(3)).square().sum()
        loss.backward()
        return {"loss": float(loss.detach())}

    return loop.Task("training", {"m": module}, optimizer, loop.Plan(3, save_every=2), step), module


def make_checkpoint(folder: Path) -> None:
    """Where a training was cut off."""
    loop.train(trained()[0], Checkpoint(folder / "x.checkpoint", "d"))


def read_checkpoint(folder: Path) -> None:
    """Goes on from there."""
    checkpoint = Checkpoint(folder / "x.checkpoint", "d")
    loop.train(trained()[0], Checkpoint(folder / "y.checkpoint", "d"), begun=checkpoint.load())


def copied(name: str) -> Callable[[Path], None]:
    """Copies a bundled file of weights."""

    def make(folder: Path) -> None:
        (folder / "x.safetensors").write_bytes((sources.bundled_folder() / name).read_bytes())

    return make


def make_model(folder: Path) -> None:
    """A CLIP as a folder."""
    copied("tiny.safetensors")(folder)
    config = (sources.bundled_folder() / "tiny.json").read_text()
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
    content = json.loads(config)
    content = {"model_cfg": content.get("model_cfg", content), "preprocess_cfg": preprocess}
    (folder / "x.json").write_text(json.dumps(content))


def make_generator(folder: Path) -> None:
    """A mask generator."""
    generator = mask_generator.Generator(mask_generator.Settings(hidden=4), categories(), tiny())
    mask_generator.save(folder / "x.safetensors", generator, {})


def make_segmenter(folder: Path) -> None:
    """A small segmenter."""
    network = segmenter.build("photo", 2)
    settings = {"architecture": "photo", "names": ["cow", "apple"], "short_side": 64}
    segmenter.save(folder / "x.safetensors", network, settings, None)


def make_background(folder: Path) -> None:
    """Background prompts."""
    vectors = torch.rand(2, 3, 8), torch.rand(2, tiny().embed_dim)
    background_prompts.save(folder / "x.safetensors", tiny(), categories(), *vectors, {})


def text(name: str, content: str) -> Callable[[Path], None]:
    """Writes a text file."""
    return lambda folder: (folder / name).write_text(content) and None


def described(folder: Path) -> None:
    """`info` and `check` of whatever lies there; the latter lists errors, and raises none."""
    for path in sorted(folder.glob("x*")):
        check.run(path)
        info.run(path)


def make_label_map(folder: Path) -> None:
    """A label map and its classes."""
    labels = np.arange(SIDE * SIDE, dtype=np.int32).reshape(SIDE, SIDE) % 3 - 1
    label_maps.write(folder / "x.png", labels, 2, ["cow", "apple"])
    label_maps.write_classes(folder / "classes.txt", ["cow", "apple"])


def read_rle(folder: Path) -> None:
    """Masks as they stand in a file."""
    _, listed = coco_checks.load_json(folder / "x.json")
    for segmentation in listed if isinstance(listed, list) else []:
        compressed = rle.compress(segmentation, SIDE, SIDE)
        rle.area(compressed), rle.bounding_box(compressed), rle.decode(compressed, SIDE, SIDE)


def converted(to: Format, name: str = "x") -> Callable[[Path], None]:
    """Writes masks in the format of another tool, with the images that some need."""

    def make(folder: Path) -> None:
        (folder / "images").mkdir()
        for image in dataset().images:
            pixels().save(folder / "images" / image.file_name)
        request = Request(
            to=to,
            target=str(folder / name),
            made_by={"asked": "x", "settings": {}},
            images=folder / "images",
        )
        mask_formats.write(dataset(), request)

    return make


def make_colours(folder: Path) -> None:
    """A table of colours, and a label map in them."""
    (folder / "maps").mkdir()
    Image.fromarray(np.full((SIDE, SIDE, 3), 9, np.uint8)).save(folder / "maps" / "x.png")
    (folder / "x.txt").write_text("1 2 3 cow\n9 9 9 apple\n0 0 0\n")


def make_results(folder: Path) -> None:
    """Masks, their images, and what `evaluate` says of them."""
    make_coco(folder)
    for image in dataset().images:
        pixels().save(folder / image.file_name)
    evaluate.run(
        folder / "x.json",
        folder / "x.json",
        MeanIou(per_image=True, bootstrap=9),
        out=folder / "y.json",
    )


def read_results(folder: Path) -> None:
    """As a page of all of it."""
    report.run(
        [folder / "x.json", folder / "y.json"],
        images=folder,
        out=folder / "page.html",
        run=Run(overwrite=True),
    )


WEIGHTS = "x.safetensors"
_RLES: list[Any] = [mask(), {"size": [SIDE, SIDE], "counts": [24, 1000]}, [[1, 1, 20, 1, 20, 20]]]
READERS = [
    Reader("COCO JSON", "json", make_coco, lambda f: coco.read(f / "x.json")),
    Reader("COCO images", "json", make_coco, lambda f: coco.read_images(f / "x.json")),
    Reader("RLE", "json", text("x.json", json.dumps(_RLES)), read_rle),
    Reader("captions", "json", make_captions, lambda f: captions.read(f / "x.json")),
    Reader("tables of captions", "bytes", text("x.csv", 'image,caption\n1.png,"a cow, red"\n1.png,an apple\n'),
           lambda f: captions.read(f / "x.csv")),
    Reader("captions of Flickr", "bytes", text("x.token.txt", "1.jpg#0\tA cow .\n1.jpg#1\tAn apple .\n"),
           lambda f: captions.read(f / "x.token.txt")),
    Reader("class list", "bytes", text("x.txt", "cow\napple|fruit\n"),
           lambda f: vocabularies.read_classes_file(f / "x.txt")),
    Reader("labels", "bytes", text("x.txt", "1.png cow apple\n2.png cow\n"),
           lambda f: label_lists.read(f / "x.txt")),
    Reader("words per image", "json", text("x.json", '{"1.png": ["cow", "apple"]}'),
           lambda f: labelled.read_classes_per_image(f / "x.json")),
    Reader("label maps", "bytes", make_label_map, lambda f: label_maps.read(f / "x.png"), ".png"),
    Reader("images", "bytes", make_images, read_images),
    Reader("parts", "lines", make_parts, read_parts, ".jsonl"),
    Reader("tensors of parts", "tensors", make_parts,
           lambda f: store(f).tensors(parts.cut(4, 2)[0]), ".safetensors"),
    Reader("maps of others", "bytes", make_maps, read_maps),
    Reader("cams", "tensors", make_cams, lambda f: cams.read(f / WEIGHTS)),
    Reader("shards", "bytes", make_shards, read_shards),
    Reader("checkpoints", "bytes", make_checkpoint, read_checkpoint, "x.checkpoint"),
    Reader("model configurations", "json", make_model, lambda f: clips.load(str(f / WEIGHTS)), ".json"),
    Reader("CLIP weights", "tensors", make_model, lambda f: clips.load(str(f / WEIGHTS)), WEIGHTS),
    Reader("mask prompts", "tensors", copied("tiny_prompts.safetensors"),
           lambda f: region_clip.with_prompts(tiny(), f / WEIGHTS)),
    Reader("background prompts", "tensors", make_background,
           lambda f: background_prompts.load(f / WEIGHTS, tiny(), categories())),
    Reader("PACL heads", "tensors", copied("tiny_pacl.safetensors"), lambda f: pacl.load(f / WEIGHTS, tiny())),
    Reader("mask generators", "tensors", make_generator, lambda f: mask_generator.load(f / WEIGHTS, tiny())),
    Reader("proposers", "tensors", copied("tiny_proposer.safetensors"),
           lambda f: maskformer.load(f / WEIGHTS)),
    Reader("segmenters", "tensors", make_segmenter, lambda f: segmenter.load(f / WEIGHTS)),
    Reader("COCO panoptic", "json", converted("coco-panoptic", "x.json"),
           lambda f: any_masks.read(str(f / "x.json")), "x.json"),
    Reader("PNGs of panoptic", "bytes", converted("coco-panoptic", "x.json"),
           lambda f: any_masks.read(str(f / "x.json")), "1.png"),
    Reader("CVAT's XML", "bytes", converted("cvat"), lambda f: any_masks.read(str(f / "x")), "x"),
    Reader("YOLO's labels", "bytes", converted("yolo-seg"), lambda f: any_masks.read(str(f / "x")), ".txt"),
    Reader("YOLO's names", "bytes", converted("yolo-seg"), lambda f: any_masks.read(str(f / "x")), ".yaml"),
    Reader("shards of masks", "bytes", converted("webdataset"), lambda f: any_masks.read(str(f / "x")), ".tar"),
    Reader("colours of label maps", "bytes", make_colours,
           lambda f: any_masks.read(str(f / "maps"), colours=f / "x.txt")),
    Reader("info and check of JSON", "json", make_coco, described),
    Reader("info and check of panoptic", "json", converted("coco-panoptic", "x.json"),
           lambda f: (check.run(f / "x.json"), info.run(f / "x.json")), "x.json"),
    Reader("measures in a report", "json", make_results, read_results, "y.json"),
    Reader("info and check of tensors", "tensors", make_cams, described),
]  # fmt: skip
