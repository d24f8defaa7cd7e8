#!/usr/bin/env python3
"""Measures the memory of commands in the number of images, and of every training on five small images.

    scripts/measure/memory.py [--images 100,5000] [--only NAME,NAME] [--trainings]

Draws images of 64 pixels in a temporary folder, with four masks of 20 classes each (truth and prediction), two maps
and a caption, runs each command on them, one thread and one process at a time, and prints its greatest memory in MiB
(MB/1.048) as a Markdown table. `--trainings` runs each training in place of that, at its defaults but for two steps,
on five scenes of 160 pixels; what is beyond `--most` GB is stopped.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

TOOL = [sys.executable, "-m", "ovtool"]
# name: arguments, where {d} is the folder of the inputs and {o} that of the outputs
COMMANDS = {
    "evaluate": "evaluate {d}/guess.json --ground-truth {d}/truth.json",
    "recall": "evaluate {d}/guess.json --ground-truth {d}/truth.json --metric recall",
    "ap": "evaluate {d}/guess.json --ground-truth {d}/truth.json --metric ap",
    "panoptic": "evaluate {d}/guess.json --ground-truth {d}/truth.json --metric panoptic",
    "coco": "convert {d}/guess.json --to coco -o {o}/coco.json",
    "coco-results": "convert {d}/guess.json --to coco-results -o {o}/results.json",
    "label-maps": "convert {d}/guess.json --to label-maps -o {o}/maps",
    "results": "evaluate {o}/results.json --ground-truth {d}/truth.json",  # behind coco-results
    "report": "report {d}/guess.json --ground-truth {d}/truth.json --images {d}/images -o {o}/page.html",
    "check": "check {d}/guess.json",
    "check-maps": "check {o}/maps",  # behind label-maps
    "refine": "refine {d}/x.cams.safetensors --apply pamr --images {d}/images -o {o}/x.safetensors --threads 1",
    "pseudo": "refine {d}/x.cams.safetensors --images {d}/images -o {o}/pseudo.json --threads 1",
    "tune-background": "tune-prompts {d}/x.cams.safetensors --kind background --images {d}/images --model tiny "
    "--steps 2 --batch-size 8 --length 2 -o {o}/b.safetensors",
}  # fmt: skip
_SCENES = "--images {d}/images/demo --steps 2 -o {o}/{name}.safetensors"
_MASKS = "{d}/annotations/semantic_demo.json"
TRAININGS = {
    **{
        name.format(model): f"{command} {_SCENES} --model {model}"
        for model in ("tiny", "photo")
        for name, command in {
            "train-pacl, {}": "train-pacl --captions {d}/annotations/captions_demo.json",
            "tune-prompts, {}": f"tune-prompts {_MASKS}",
            "tune-prompts --kind background, {}": "tune-prompts {d}/x.cams.safetensors --kind background",
            "cam --method matching, {}": f"cam --method matching --labels {_MASKS}",
        }.items()
    },
    "cam --method classifier": f"cam --method classifier --labels {_MASKS} {_SCENES}",
    **{
        f"train-proposer --arch {arch}": f"train-proposer {_MASKS} {_SCENES} --model tiny --arch {arch}"
        for arch in ("tiny", "photo", "resnet50", "swin-base")
    },
    **{
        f"train-segmenter --arch {arch}": f"train-segmenter {_MASKS} {_SCENES} --arch {arch}"
        + (" --model tiny" if arch == "clip" else "")
        for arch in (
            "tiny", "photo", "clip", "deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50", "deeplabv3_resnet101",
            "maskformer-tiny", "maskformer-photo", "maskformer-resnet50", "maskformer-swin-base",
        )
    },
}  # fmt: skip


def draw(folder: Path, count: int) -> None:
    """Images of 64 pixels, with masks, maps and captions."""
    import numpy as np
    import torch
    from PIL import Image

    from ovtool.formats import cams, coco, rle

    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    categories = [coco.Category(k, f"class{k}") for k in range(1, 21)]
    sides = {"truth.json": None, "guess.json": 0.5}
    images, kept = [], []
    annotations: dict[str, list[coco.Annotation]] = {name: [] for name in sides}
    for id in range(1, count + 1):
        name = f"{id:06d}.png"
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).resize((64, 64)).save(
            folder / "images" / name
        )
        images.append(coco.Image(id, name, 64, 64))
        classes = sorted(rng.choice(20, 4, replace=False).tolist())
        for place, category in enumerate(classes):
            for file, score in sides.items():
                mask = np.zeros((64, 64), np.bool_)
                left = 16 * place + int(rng.integers(0, 5))
                mask[int(rng.integers(0, 20)) : 44, left : left + 11] = True
                own = annotations[file]
                own.append(coco.annotation(len(own) + 1, id, category + 1, rle.encode(mask), score))
        kept.append(cams.CamImage(id, name, 64, 64, (classes[0] + 1, classes[1] + 1)))
    for file, own in annotations.items():
        coco.write(coco.Dataset({}, images, own, categories), folder / file)
    maps = {image.id: torch.rand(2, 16, 16) for image in kept}
    cams.write(folder / "x.cams.safetensors", kept, categories, maps, {"method": "gradcam"})


def draw_scenes(folder: Path) -> None:
    """Five scenes, and maps of them."""
    make = f"data make collage {folder} --split demo --count 5 --size 160 --seed 3"
    maps = (
        f"cam --labels {folder}/annotations/semantic_demo.json --images {folder}/images/demo "
        f"--model tiny -o {folder}/x.cams.safetensors"
    )
    for command in (make, maps):
        subprocess.run([*TOOL, *command.split()], check=True, capture_output=True)


def peak(command: str, most: float) -> tuple[int, float, str]:
    """The greatest memory of a command in MiB, its seconds, and the end of its last line where it failed."""
    begun, highest = time.monotonic(), 0
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [*TOOL, *command.split()], env=environment, stdout=subprocess.DEVNULL, stderr=said
        )
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            own = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
            highest = max([highest, *own])
            if highest / 2**20 > most:
                process.kill()
            time.sleep(0.01)
        said.seek(0)
        lines = said.read().splitlines() or [""]
    failed = "" if process.returncode == 0 else f"{process.returncode}: {lines[-1][-300:]}"
    return highest // 1024, time.monotonic() - begun, failed


def table(
    commands: Mapping[str, str], folders: Sequence[Path], columns: Sequence[str], most: float
) -> None:
    """Runs each command on each folder, and prints a row of it."""
    print(f"| command | {' | '.join(columns)} | seconds of the last |")
    print("|---|" + "---|" * (len(columns) + 1), flush=True)
    for name, command in commands.items():
        cells = []
        for folder in folders:
            out = folder.parent / f"{folder.name}-out"
            out.mkdir(exist_ok=True)
            place = "".join(letter if letter.isalnum() else "-" for letter in name)
            run = command.format(d=folder, o=out, name=place)
            highest, seconds, failed = peak(run, most)
            cells.append(f"{highest:,}" + (f" ({failed})" if failed else ""))
        print(f"| `{name}` | {' | '.join(cells)} | {seconds:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", default="100,5000", help="numbers of images")
    parser.add_argument("--only", default="", help="names of rows, or how they begin")
    parser.add_argument("--trainings", action="store_true")
    parser.add_argument(
        "--most", type=float, default=8.0, help="GB (GiB) beyond which a command is stopped"
    )
    parser.add_argument("--draw", nargs=2, metavar=("FOLDER", "N"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.draw:  # in a process of its own: a child's memory is that of its parent at first
        draw(Path(arguments.draw[0]), int(arguments.draw[1]))
        return
    every = TRAININGS if arguments.trainings else COMMANDS
    wanted = tuple(name for name in arguments.only.split(",") if name)
    commands = {name: run for name, run in every.items() if not wanted or name.startswith(wanted)}
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        if arguments.trainings:
            draw_scenes(home / "scenes")
            table(commands, [home / "scenes"], ["MiB"], arguments.most)
            return
        counts = arguments.images.split(",")
        for count in counts:
            subprocess.run(
                [sys.executable, __file__, "--draw", str(home / count), count], check=True
            )
        table(
            commands,
            [home / count for count in counts],
            [f"{n} images" for n in counts],
            arguments.most,
        )


if __name__ == "__main__":
    main()
