#!/usr/bin/env python3
"""Has other people's tools read what `ovtool convert` writes, and compares counts and pixels.

    scripts/measure/clients.py [--work DIR] [--tools supervision,datumaro] [--count 6] [--json FILE]

Makes a small collage, converts its masks, makes a virtual environment for each tool in DIR, installs the tool there from
the package index, and lets it read the files (`clients_readers.py`). Prints a row for each tool and format: the masks
that it saw and those that are there, how many are equal to the pixel, and the least IoU. The environments stay for the
next time; remove DIR to be rid of them. A tool that cannot be installed is told and passed over.
"""

import argparse
import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import numpy as np

import ovtool
from ovtool.formats import coco, rle

READERS = Path(__file__).with_name("clients_readers.py")
# of each tool, what pip installs, itself first
PACKAGES: dict[str, tuple[str, ...]] = {
    "pycocotools": ("pycocotools", "numpy"),
    "supervision": ("supervision", "opencv-python-headless"),
    "datumaro": ("datumaro",),
    "panopticapi": ("panopticapi-lite",),  # panopticapi as a package
    "ultralytics": ("ultralytics",),
    "fiftyone": ("fiftyone", "pycocotools"),
}
FORMATS: dict[str, tuple[str, ...]] = {
    "pycocotools": ("coco", "results"),
    "supervision": ("coco", "yolo"),
    "datumaro": ("coco", "panoptic", "cvat"),
    "panopticapi": ("panoptic",),
    "ultralytics": ("yolo",),
    "fiftyone": ("coco",),
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


def truth(folder: Path) -> list[tuple[str, str, Any]]:
    """Our own masks: image name without ending, class, bool (H, W)."""
    data = coco.read(folder / "coco.json")
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


def compared(mine: list[tuple[str, str, Any]], path: Path) -> dict[str, Any]:
    """How the masks of a reader agree with ours: each of ours with the best of its image and class."""
    with np.load(path) as stored:
        names = json.loads(str(stored["names"]))
        theirs = [
            (name, word, np.unpackbits(stored[f"mask{k}"], count=h * w).reshape(h, w).astype(bool))
            for k, (name, word, h, w) in enumerate(names)
        ]
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
        "least_iou": round(float(min(best)), 4),
    }


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
    mine, rows = truth(data), []
    print(
        "| tool | version | format | masks | seen | equal | least IoU |\n|---|---|---|---|---|---|---|"
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
        for kind in FORMATS[tool]:
            out = data / f"{tool}_{kind}.npz"
            line = [str(python), str(READERS), f"{tool}_{kind}", str(data), str(out)]
            done = subprocess.run(line, capture_output=True, text=True, cwd=data)
            if done.returncode:
                print(f"{tool} cannot read {kind}: {done.stderr.strip()[-400:]}", file=sys.stderr)
                continue
            row = {
                "tool": tool,
                "version": known.stdout.strip(),
                "format": kind,
                **compared(mine, out),
            }
            rows.append(row)
            print("| " + " | ".join(str(value) for value in row.values()) + " |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
