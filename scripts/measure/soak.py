#!/usr/bin/env python3
"""Kills runs at random and resumes them, damages the files of every reader, and reads the largest inputs.

    scripts/measure/soak.py [--minutes 30] [--seed 0] [--only kills,files,large]

Prints the tables of `scripts/measure/README.md`. A killed run is a process that got SIGKILL at a random moment; it
survived where `--resume` then leaves the bytes of a run that nobody touched, and nothing else. What was lost is
listed with the seed that repeats it, and makes the exit status 1.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
IMAGES, SIDE = 12, 96
# command: its arguments, and what it writes
STAGES = {
    "propose": ("propose images --proposer regions --part-size 2", "o.json"),
    "segment": ("segment images --classes cow,apple --model tiny --overlays seen --label-maps maps --part-size 2", "o.json"),
    "mine-pairs": ("mine-pairs --captions captions.json --images images --model tiny --proposer regions --part-size 2", "o.json"),
    "cam": ("cam --labels labels.txt --images images --method gradcam --model tiny --part-size 2", "o.safetensors"),
    "refine": ("refine start.safetensors --images images --apply pamr --part-size 2", "o.json"),
    "train-pacl": ("train-pacl --captions captions.json --images images --model tiny --steps 12 --save-every 2 --batch-size 4", "o.safetensors"),
}  # fmt: skip
LARGEST = 1500  # MB that a large input may take, of which the libraries are half
TRAININGS = ("train-pacl",)  # whose outputs `--resume` writes again where a checkpoint is left


@dataclass
class Tally:
    """How often something was tried, how often it went well, and what did not."""

    tried: int = 0
    survived: int = 0
    lost: tuple[str, ...] = ()


def make_inputs(folder: Path) -> None:
    """Images, labels and captions, and maps to refine."""
    (folder / "images").mkdir()
    numbers = np.random.default_rng(0)
    names = [f"{number:02d}.png" for number in range(IMAGES)]
    for name in names:
        coarse = Image.fromarray(numbers.integers(0, 256, (4, 5, 3), np.uint8))
        coarse.resize((SIDE, SIDE), Image.Resampling.NEAREST).save(folder / "images" / name)
    (folder / "labels.txt").write_text("".join(f"{name} cow apple\n" for name in names))
    listed = [
        {"id": k, "file_name": name, "width": SIDE, "height": SIDE} for k, name in enumerate(names)
    ]
    said = [{"id": k + 1, "image_id": k, "caption": "a cow eats an apple"} for k in range(IMAGES)]
    (folder / "captions.json").write_text(json.dumps({"images": listed, "annotations": said}))
    if forked(folder, f"{STAGES['cam'][0]} -o start.safetensors".split()) != 0:
        raise SystemExit("error: the maps that refine begins with cannot be made")


def forked(folder: Path, arguments: Sequence[str], kill_after: float | None = None) -> int:
    """Runs ovtool in a process of its own, which has imported everything; kills it after some seconds.

    Returns:
        Its exit status, -9 where it was killed.
    """
    child = os.fork()
    if child == 0:
        from ovtool.cli.errors import run

        os.chdir(folder)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        os._exit(run(list(arguments)))
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def made(folder: Path, inputs: Iterable[str]) -> dict[str, bytes]:
    """The content of every file that a run made, hidden ones too."""
    files = (path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in files}
    return {
        name: path.read_bytes() for name, path in named.items() if name.split("/")[0] not in inputs
    }


def kills(folder: Path, seconds: float, seed: int) -> dict[str, Tally]:
    """Kills every stage in turn at random moments, and resumes it, for some seconds."""
    import ovtool.models.clip
    import ovtool.stages.cam
    import ovtool.stages.mine_pairs
    import ovtool.stages.propose
    import ovtool.stages.refine
    import ovtool.stages.segment
    import ovtool.stages.train_pacl  # noqa: F401  (so that a process that is forked starts at once)

    rng, until = random.Random(seed), time.monotonic() + seconds
    base = folder / "base"
    base.mkdir()
    make_inputs(base)
    inputs = {path.name for path in base.iterdir()}
    whole: dict[str, tuple[dict[str, bytes], float]] = {}
    tallies = {name: Tally() for name in STAGES}
    number = 0
    while time.monotonic() < until or not all(tally.tried for tally in tallies.values()):
        name = list(STAGES)[number % len(STAGES)]
        arguments, out = STAGES[name]
        line = [*arguments.split(), "-o", out]
        if name not in whole:
            place, begun = linked(base, folder / name), time.monotonic()
            if forked(place, line) != 0:
                raise SystemExit(f"error: ovtool {' '.join(line)} fails without a kill")
            whole[name] = made(place, inputs), time.monotonic() - begun
        expected, duration = whole[name]
        place, moment = linked(base, folder / f"{name}-{number}"), rng.uniform(0, duration)
        number += 1
        status = forked(place, line, moment)
        if status != -9:  # it was done before
            continue
        for attempt in range(3):
            if status != -9 or (name in TRAININGS and made(place, inputs) == expected):
                break  # a training that is done has nothing to resume
            is_there = name not in TRAININGS and (place / out).exists()
            again = [*line, "--resume", *(["--overwrite"] if is_there else [])]
            is_killed = attempt < 2 and rng.random() < 0.3  # the run that resumes too
            status = forked(place, again, rng.uniform(0, duration) if is_killed else None)
        tally = tallies[name]
        tally.tried += 1
        is_done = status == 0 or name in TRAININGS
        if is_done and made(place, inputs) == expected:
            tally.survived += 1
        else:
            tally.lost += (f"{name}: seed {seed}, run {number}, after {moment:.3f} s: {status}",)
    return tallies


def linked(base: Path, folder: Path) -> Path:
    """A folder with links to the inputs."""
    folder.mkdir()
    for path in base.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def fuzz(seconds: float, seed: int) -> dict[str, Tally]:
    """The cases of `fuzz.py` that there is time for, a reader."""
    tallies: dict[str, Tally] = {}
    line = [
        sys.executable,
        str(HERE / "fuzz.py"),
        "--cases",
        "1000000",
        "--seconds",
        str(int(seconds)),
    ]
    done = subprocess.run([*line, "--seed", str(seed)], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1) or not done.stdout:
        return {"fuzz.py": Tally(1, 0, (f"ended with {done.returncode}: {done.stderr[-300:]}",))}
    for name, counts in json.loads(done.stdout).items():
        good = counts["read"] + counts["refused"]
        tallies[name] = Tally(counts["cases"], good, tuple(counts["lost"]))
    return tallies


def largest(folder: Path, masks: int, gibibytes: int) -> list[tuple[str, int, float, float, bool]]:
    """What large inputs cost: what it is, exit status, seconds of CPU, MB of memory at most, and whether status
    and memory are as they should be."""
    Image.new("RGB", (64, 64)).save(folder / "1.png")
    size = {"width": 64, "height": 64}
    image = json.dumps([{"id": 1, "file_name": "1.png", **size}])
    entry = {
        "image_id": 1,
        "category_id": 1,
        "segmentation": {"size": [64, 64], "counts": "P3Pm3"},  # runs of 96 and 4000
    }
    with open(folder / "large.json", "w") as file:
        file.write(
            f'{{"images": {image}, "categories": [{{"id": 1, "name": "cow"}}], "annotations": ['
        )
        for number in range(masks):
            file.write(("," if number else "") + json.dumps({"id": number + 1, **entry}))
        file.write("]}")
    (folder / "labels.txt").write_text("1.png cow\n")
    shape = (1, gibibytes << 14, 1 << 14)
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    with zipfile.ZipFile(folder / "1.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("cow.npy", "w", force_zip64=True) as member:
            member.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
            for _ in range(gibibytes << 10):
                member.write(bytes(1 << 20))
    runs = {
        f"`segment --coco` of {masks:,} masks": "segment --coco large.json --images . --classes cow --model tiny -o o0.json",
        f"`check` of {masks:,} masks": "check large.json",
        f"`info` of {masks:,} masks": "info large.json",
        f"`evaluate --dry-run` of twice {masks:,} masks": "evaluate large.json --ground-truth large.json --dry-run",
        f"`.npz` that unpacks to {gibibytes} GiB": "cam --method maps --from-maps . --labels labels.txt --images . -o o2.safetensors",
        "a list of 10^9 shards": "train-pacl --captions x{0..999999999}.tar --model tiny -o o3.safetensors",
    }  # fmt: skip
    refused = {"cam": 1, "train-pacl": 2}  # command: its exit status
    rows = []
    for title, arguments in runs.items():
        line = [sys.executable, "-m", "ovtool", *arguments.split()]
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen(line, cwd=folder, stdout=log, stderr=log)
            _, status, usage = os.wait4(process.pid, 0)
        status, megabytes = os.waitstatus_to_exitcode(status), usage.ru_maxrss / 1000
        is_good = status == refused.get(arguments.split()[0], 0) and megabytes <= LARGEST
        rows.append((title, status, usage.ru_utime, megabytes, is_good))
    return rows


def table(header: str, rows: Iterable[Iterable[object]]) -> None:
    """Prints a table of Markdown."""
    print(f"\n| {header} |\n|" + "---|" * (header.count("|") + 1))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="in all (30)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", default="kills,files,large", help="which of the three, with commas"
    )
    given = parser.parse_args()
    parts = given.only.split(",")
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])}
    sys.path.insert(0, str(HERE.parents[1]))
    seconds = 60 * given.minutes
    with tempfile.TemporaryDirectory(prefix="ovtool-soak-") as scratch:
        folder = Path(scratch)
        os.environ["OVTOOL_CACHE"] = str(folder / "cache")
        (folder / "large").mkdir()
        is_long = given.minutes >= 10
        masks, gibibytes = (1_000_000, 4) if is_long else (20_000, 2)
        large = largest(folder / "large", masks, gibibytes) if "large" in parts else []
        killed = kills(folder, 0.45 * seconds, given.seed) if "kills" in parts else {}
        read = fuzz(0.4 * seconds, given.seed) if "files" in parts else {}
    for title, tallies in (("killed and resumed", killed), ("damaged files of", read)):
        if not tallies:
            continue
        table(
            f"{title} | tried | survived | lost",
            (
                *((name, t.tried, t.survived, len(t.lost)) for name, t in tallies.items()),
                ("**all**", *map(sum, zip(*counts(tallies), strict=True))),
            ),
        )
    rows = ((what, status, f"{s:.0f}", f"{mb:.0f}") for what, status, s, mb, _ in large)
    if large:
        table("largest inputs | exit status | CPU seconds | MB", rows)
    lost = [line for tally in (*killed.values(), *read.values()) for line in tally.lost]
    lost += [
        f"{what}: {status}, {mb:.0f} MB" for what, status, _, mb, is_good in large if not is_good
    ]
    for line in lost:
        print(f"lost: {line}", file=sys.stderr)
    return int(bool(lost))


def counts(tallies: dict[str, Tally]) -> list[tuple[int, int, int]]:
    """Tried, survived and lost of each."""
    return [(tally.tried, tally.survived, len(tally.lost)) for tally in tallies.values()]


if __name__ == "__main__":
    sys.exit(main())
