"""The images and masks that the rows of `benchmark.py` work on."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

PHOTOS = ("astronaut", "coffee", "chelsea", "rocket")


def photographs(width: int, height: int) -> Iterator[NDArray[np.uint8]]:
    """Photographs that scikit-image ships, uint8 (height, width, 3)."""
    from skimage import data

    for name in PHOTOS:
        photo = Image.fromarray(getattr(data, name)()).convert("RGB")
        yield np.array(photo.resize((width, height)))


def photo_file(folder: Path, width: int = 640, height: int = 480) -> Path:
    """A photograph as JPEG."""
    path = folder / f"photo-{width}x{height}.jpg"
    Image.fromarray(next(photographs(width, height))).save(path, quality=90)
    return path


def captioned(folder: Path, count: int) -> Path:
    """A folder of photographs of 640 x 480 pixels, `images/`, and their COCO captions, `captions.json`: the
    four of scikit-image, shifted and mirrored so that no two are alike."""
    import json

    captions = ("a woman in an orange suit before a flag", "a cup of coffee on a wooden table",
                "a cat looks at the camera", "a rocket stands on its launch pad at night")  # fmt: skip
    (folder / "images").mkdir(parents=True)
    photos = list(photographs(640, 480))
    names = []
    for number in range(count):
        shifted = np.roll(photos[number % 4], 13 * (number // 4), axis=1)
        pixels = shifted[:, ::-1] if number // 4 % 2 else shifted
        names.append(f"{number:03}.jpg")
        Image.fromarray(np.ascontiguousarray(pixels)).save(
            folder / "images" / names[-1], quality=90
        )
    entries = [
        {"id": n, "file_name": name, "width": 640, "height": 480} for n, name in enumerate(names, 1)
    ]
    annotations = [
        {"id": n, "image_id": n, "caption": captions[(n - 1) % 4]} for n in range(1, count + 1)
    ]
    path = folder / "captions.json"
    path.write_text(json.dumps({"images": entries, "annotations": annotations}))
    return path


def proposals(captions: Path, count: int) -> Path:
    """A COCO JSON with the same regions for each image of a captions file, beside it."""
    import json

    from pycocotools import mask as coco_mask

    regions = []
    for mask in tilted_masks(count, 480, 640):
        rle = coco_mask.encode(np.asfortranarray(mask.view(np.uint8)))
        regions.append({"size": [480, 640], "counts": rle["counts"].decode()})
    pictured = json.loads(captions.read_text())["images"]
    entries = [
        {"id": count * number + index + 1, "image_id": image["id"], "category_id": 1, "segmentation": region,
         "score": 0.9, "iscrowd": 0, "area": 1.0, "bbox": [0, 0, 640, 480]}
        for number, image in enumerate(pictured)
        for index, region in enumerate(regions)
    ]  # fmt: skip
    path = captions.with_name("proposals.json")
    categories = [{"id": 1, "name": "region"}]
    path.write_text(
        json.dumps({"images": pictured, "annotations": entries, "categories": categories})
    )
    return path


def tilted_masks(count: int, height: int, width: int) -> NDArray[np.bool_]:
    """Ellipses of many sizes, aspects and tilts: bool (count, height, width)."""
    random = np.random.default_rng(0)
    side = min(height, width)
    y, x = np.mgrid[:height, :width]
    masks = np.empty((count, height, width), bool)
    for mask in masks:
        row, column = random.uniform(0.3, 0.7, 2) * (height, width)
        radius, aspect = random.uniform(0.06, 0.25) * side, random.uniform(1.5, 5)
        tilt = random.uniform(0, np.pi)
        along = (x - column) * np.cos(tilt) + (y - row) * np.sin(tilt)
        across = (y - row) * np.cos(tilt) - (x - column) * np.sin(tilt)
        mask[:] = np.hypot(along, across * aspect) <= radius
    return masks


def blobs(labels: int, height: int, width: int, seed: int) -> Tensor:
    """Probabilities of smooth blobs: float32 (labels, height, width), which sum to 1."""
    coarse = torch.rand(1, labels, 9, 12, generator=torch.Generator().manual_seed(seed))
    smooth = interpolate(coarse, size=(height, width), mode="bicubic")[0]
    sharp = smooth.clamp(min=0.02) ** 3
    return sharp / sharp.sum(0)
