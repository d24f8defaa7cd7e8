"""The memory of a run does not grow with the number of its images."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ovtool.formats import coco, merge, parts, rle
from ovtool.runtime import device, memory

ROOT = Path(__file__).parent.parent.parent


def peak(folder, arguments):
    """The most memory that a run of ovtool held, in bytes."""
    program = (
        "import resource, sys; from ovtool.cli.errors import run; status = run(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(status)"
    )
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OVTOOL_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env={**os.environ, **own, "OVTOOL_MODEL": "tiny"},
        capture_output=True,
        text=True,
        timeout=3000,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout.split()[-1]) * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [["propose", "--proposer", "tiny"], ["segment", "--classes", "cow,apple", "--method", "patch"]],
    ids=lambda line: line[0],
)
def test_a_thousand_images_need_the_memory_of_a_hundred(tmp_path, line):
    """Drawn scenes of 64 pixels, in parts of 50."""
    make = ["data", "make", "collage", "scenes", "--count", "1000", "--size", "64"]
    peak(tmp_path, make)
    peaks = [
        peak(
            tmp_path,
            [
                *line,
                "scenes/images/demo",
                "--limit",
                count,
                "--part-size",
                "50",
                "-o",
                f"{count}.json",
            ],
        )
        for count in ("100", "1000")
    ]
    assert peaks[1] <= 1.1 * peaks[0], peaks


def write_masks(folder, images):
    """A COCO JSON, and parts, of so many images of 8 pixels with four masks each."""
    masks = [rle.encode(np.arange(64).reshape(8, 8) % 7 < k) for k in (1, 2, 3, 4)]
    categories = [coco.Category(k, f"word {k}") for k in (1, 2, 3, 4)]
    settings = {"output": merge.Output().entry(), "beside": {}}
    preface = merge.preface({"ovtool": {"command": "segment"}}, categories)
    store = parts.PartStore(folder / f"{images}.json.parts", "d", settings, preface)
    for part in parts.cut(images, 100):
        store.write(
            part,
            (
                parts.image_record(
                    f"{name}.png",
                    8,
                    8,
                    [{"category_id": k + 1, "segmentation": mask} for k, mask in enumerate(masks)],
                )
                for name in range(part.start, part.stop)
            ),
        )


@pytest.mark.skipif(sys.platform == "win32", reason="memory is told otherwise there")
def test_what_reads_masks_needs_little_more_memory_for_fifteen_times_the_images(tmp_path):
    peaks = {}
    for images in (100, 1500):
        write_masks(tmp_path, images)
        name = f"{images}.json"
        lines = {
            "merge": ["merge", f"{name}.parts"],
            "evaluate": ["evaluate", name, "--ground-truth", name],
            "recall": ["evaluate", name, "--ground-truth", name, "--metric", "recall"],
            "convert": ["convert", name, "--to", "coco-results", "-o", f"results-{name}"],
        }
        peaks[images] = {command: peak(tmp_path, line) for command, line in lines.items()}
    for command, before in peaks[100].items():
        assert peaks[1500][command] <= 1.1 * before, (command, peaks)


@pytest.mark.skipif(sys.platform == "win32", reason="memory is told otherwise there")
def test_maps_are_merged_one_by_one(tmp_path):
    """3,000 images with 32 KB of maps each are 100 MB, and need no more memory than a hundred do."""
    facts = {"settings": {"method": "given"}, "model": None, "fingerprint": None, "failures": []}
    settings = {"output": merge.Output("cams", facts=facts).entry(), "beside": {}}
    preface = merge.preface({"ovtool": {"command": "cam"}}, [coco.Category(1, "word")])
    peaks = []
    for images in (100, 3000):
        store = parts.PartStore(tmp_path / f"{images}.parts", "d", settings, preface)
        for part in parts.cut(images, 100):
            names = [f"{name}.png" for name in range(part.start, part.stop)]
            records = [parts.image_record(name, 8, 8, [], category_ids=[1]) for name in names]
            store.write(
                part, records, {name: np.zeros((1, 128, 128), np.float16) for name in names}
            )
        out = tmp_path / f"{images}.safetensors"
        peaks.append(peak(tmp_path, ["merge", str(store.folder), "-o", str(out)]))
        assert out.stat().st_size > images * 32768
    assert peaks[1] <= 1.1 * peaks[0], peaks


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone is told to keep memory")
def test_a_command_uses_freed_memory_again():
    """A large piece that is freed and asked for again comes without new pages, unless the user's setting holds."""
    program = (
        "import resource, sys; from ovtool.__main__ import main; sys.argv[1:] = ['--version']; main()\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "bytearray(1 << 26); before = faults(); bytearray(1 << 26); print(faults() - before)"
    )
    counts = []
    for setting in ({}, {"MALLOC_MMAP_THRESHOLD_": "65536"}):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": str(ROOT), **setting},
            capture_output=True,
            text=True,
            check=True,
        )
        counts.append(int(done.stdout.split()[-1]))
    assert counts[0] < 100 < counts[1]


@pytest.mark.skipif(sys.platform != "linux", reason="no other system says what is available")
def test_memory_beyond_what_is_available_is_refused_and_not_only_promised(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 2**26)
    with memory.bounded() as left:
        assert left == 2**26
        with pytest.raises(MemoryError):
            bytearray(2**29)
        with pytest.raises(RuntimeError) as refused:
            torch.empty(2**29, dtype=torch.uint8)
        assert device.is_out_of_memory(refused.value)
        assert len(bytearray(2**24)) == 2**24
    assert len(bytearray(2**29)) == 2**29


@pytest.mark.parametrize("version", [1, 2])
def test_a_control_group_leaves_less_than_the_machine_has(tmp_path, monkeypatch, version):
    """Of 1,000 bytes 700 are used, 50 of them by pages of files; the group above has room for 340 more."""
    names = [("max", "current"), ("limit_in_bytes", "usage_in_bytes")][version == 1]
    (tmp_path / "own").write_text(["", "4:cpu:/\n5:memory:/job/step\n", "0::/job/step\n"][version])
    for folder, numbers in {"job": (2000, 1660), "job/step": (1000, 700)}.items():
        (tmp_path / folder).mkdir()
        for name, value in zip(names, numbers, strict=True):
            (tmp_path / folder / f"memory.{name}").write_text(f"{value}\n")
        pages = 50 if folder == "job/step" else 0
        (tmp_path / folder / "memory.stat").write_text(f"anon 1\ninactive_file {pages}\n")
    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(memory, "_OWN_GROUPS", tmp_path / "own")
    files = [(tmp_path, *files) for _, *files in memory._FILES]
    monkeypatch.setattr(memory, "_FILES", files)
    assert sorted(memory._left_in_groups()) == [340, 350]
