#!/usr/bin/env python3
"""Has other people's tools read what `ovtool convert` writes, and reads what they write; compares counts and pixels.

    scripts/measure/clients.py [--work DIR] [--tools supervision,datumaro] [--count 6] [--json FILE]

Makes a small collage, converts its masks, makes a virtual environment for each tool in DIR, installs the tool there from
the package index, and lets it read the files (`clients_readers.py`), and write its own (`clients_writers.py`), which
`ovtool` reads. Prints a row for each tool and format: the masks that were seen and those that are there, how many are
equal to the pixel, and the median and the least IoU. The environments stay for the
next time; remove DIR to be rid of them. A tool that cannot be installed is told and passed over.
"""

import argparse
import json
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import ovtool
from ovtool.errors import OvtoolError
from ovtool.formats import coco, rle
from ovtool.inputs import any_masks

READERS = Path(__file__).with_name("clients_readers.py")
WRITERS = Path(__file__).with_name("clients_writers.py")
# of each tool, what pip installs, itself first
PACKAGES: dict[str, tuple[str, ...]] = {
    "pycocotools": ("pycocotools", "numpy"),
    "supervision": ("supervision", "opencv-python-headless"),
    "datumaro": ("datumaro",),
    "panopticapi": ("panopticapi-lite",),  # panopticapi as a package
    "ultralytics": ("ultralytics", "pycocotools"),
    "fiftyone": ("fiftyone", "pycocotools"),
    "labelstudio": ("label-studio-sdk", "pycocotools", "opencv-python-headless"),
}
FORMATS: dict[str, tuple[str, ...]] = {
    "pycocotools": ("coco", "results"),
    "supervision": ("coco", "yolo"),
    "datumaro": ("coco", "panoptic", "cvat"),
    "panopticapi": ("panoptic",),
    "ultralytics": ("yolo",),
    "fiftyone": ("coco",),
    "labelstudio": (),
}
# what each writes and we read; the outlines of polygons are not exact
WRITTEN: dict[str, tuple[str, ...]] = {
    "supervision": ("coco", "yolo"),
    "datumaro": ("coco", "panoptic", "cvat"),
    "ultralytics": ("yolo", "txt"),
    "labelstudio": ("coco", "yolo"),
}


def make(folder: Path, count: int) -> None:
    """A collage, its masks in every format, and the layouts in which some tools want them."""
    scenes = folder / "scenes"
    ovtool.data_make("collage", scenes, ovtool.Scenes(count=count, size=160))
    shutil.move(scenes / "images" / "demo", folder / "images")
    source, images = scenes / "annotations" / "semantic_demo.json", folder / "images"
    parts = ovtool.Conversion(instances="parts")  # which every format can hold
    ovtool.convert(source, "coco", parts, out=folder / "coco.json")
    ovtool.convert(folder / "coco.json", "coco-results", out=folder / "results.json")
    ovtool.convert(folder / "coco.json", "coco-panoptic", out=folder / "panoptic.json")
    ovtool.convert(folder / "coco.json", "yolo-seg", images=images, out=folder / "yolo")
    for kind in ("coco", "panoptic", "cvat"):
        place = folder / f"datumaro_{kind}"
        home = "images" if kind == "cvat" else "images/demo"
        shutil.copytree(images, place / home)
        (place / "annotations").mkdir()
    shutil.copy(folder / "coco.json", folder / "datumaro_coco/annotations/instances_demo.json")
    panoptic = folder / "datumaro_panoptic/annotations"
    shutil.copy(folder / "panoptic.json", panoptic / "panoptic_demo.json")
    shutil.copytree(folder / "panoptic", panoptic / "panoptic_demo")
    (folder / "datumaro_cvat/annotations").rmdir()
    ovtool.convert(folder / "coco.json", "cvat", out=folder / "datumaro_cvat/annotations.xml")


Masks = list[tuple[str, str, Any]]  # image name without ending, class, bool (H, W)


def masks_of(data: coco.Dataset) -> Masks:
    """The masks of a data set of ours."""
    images = {image.id: image for image in data.images}
    names = {category.id: category.name for category in data.categories}
    return [
        (
            Path(images[mask.image_id].file_name).stem,
            names[mask.category_id],
            rle.decode(
                mask.segmentation, images[mask.image_id].height, images[mask.image_id].width
            ),
        )
        for mask in data.annotations
    ]


def installed(tool: str, work: Path) -> Path:
    """The Python of a tool's environment, made now where it is not there. Raises CalledProcessError."""
    python = work / tool / "bin" / "python"
    if not (work / tool / "installed").exists():
        venv.create(work / tool, with_pip=True, clear=True)
        line = [str(python), "-m", "pip", "install", "--quiet", *PACKAGES[tool]]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
        (work / tool / "installed").touch()
    return python


def read(path: Path) -> Masks:
    """What a reader of `clients_readers.py` saw."""
    with np.load(path) as stored:
        return [
            (name, word, np.unpackbits(stored[f"mask{k}"], count=h * w).reshape(h, w).astype(bool))
            for k, (name, word, h, w) in enumerate(json.loads(str(stored["names"])))
        ]


def compared(mine: Masks, theirs: Masks) -> dict[str, Any]:
    """How the masks of a tool agree with ours: each of ours with the best of its image and class."""
    best = []
    for name, word, mask in mine:
        same = [
            other for n, w, other in theirs if (n, w) == (name, word) and other.shape == mask.shape
        ]
        best.append(
            max(((mask & other).sum() / (mask | other).sum() for other in same), default=0.0)
        )
    return {
        "masks": len(mine),
        "seen": len(theirs),
        "equal": sum(bool(iou == 1) for iou in best),
        "median_iou": round(float(np.median(best)), 4),
        "least_iou": round(float(min(best)), 4),
    }


def exchanged(tool: str, python: Path, data: Path) -> Iterator[tuple[str, Masks]]:
    """What a tool read of our files, and what we read of its own, by the name of the format."""
    for kind in FORMATS[tool]:
        out = data / f"{tool}_{kind}.npz"
        if run(data, python, READERS, f"{tool}_{kind}", data, out) is not None:
            yield kind, read(out)
    for kind in WRITTEN.get(tool, ()):
        said = run(
            data, python, WRITERS, f"{tool}_{kind}", data, data / "written" / f"{tool}_{kind}"
        )
        if said is None:
            continue
        source, images = json.loads(said.splitlines()[-1])
        try:
            yield f"{kind}, written", masks_of(any_masks.read(source, Path(images)))
        except OvtoolError as error:
            print(f"we cannot read {kind} of {tool}: {error}", file=sys.stderr)


def run(folder: Path, *line: object) -> str | None:
    """What a program prints that runs in a folder; None where it fails, which is told."""
    words = [str(part) for part in line]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        print(f"{words[2]} fails: {done.stderr.strip()[-400:]}", file=sys.stderr)
        return None
    return done.stdout


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--work", type=Path, default=Path("clients"), help="where the environments lie"
    )
    parser.add_argument(
        "--tools", default=",".join(PACKAGES), help="the tools, with commas between"
    )
    parser.add_argument("--count", type=int, default=6, help="the number of images")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    arguments = parser.parse_args()
    data = arguments.work.resolve() / "data"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    make(data, arguments.count)
    mine, rows = masks_of(coco.read(data / "coco.json")), []
    print(
        "| tool | version | format | masks | seen | equal | median IoU | least IoU |\n|---|---|---|---|---|---|---|---|"
    )
    for tool in arguments.tools.split(","):
        try:
            python = installed(tool, data.parent)
        except subprocess.CalledProcessError as error:
            print(f"{tool} cannot be installed: pip ended with {error.returncode}", file=sys.stderr)
            continue
        ask = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
        known = subprocess.run(
            [python, "-c", ask, PACKAGES[tool][0]], capture_output=True, text=True
        )
        for kind, theirs in exchanged(tool, python, data):
            version = {"tool": tool, "version": known.stdout.strip(), "format": kind}
            rows.append(row := {**version, **compared(mine, theirs)})
            print("| " + " | ".join(str(value) for value in row.values()) + " |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
