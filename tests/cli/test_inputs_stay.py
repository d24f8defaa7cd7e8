"""An output that a run reads too is refused, with --overwrite as well, and nothing of it is changed."""

import os
from pathlib import Path

import pytest

from ovtool.cli.errors import run

D = "scenes/annotations"
TRUTH = f"{D}/instances_demo.json"
IMAGES = "--images scenes/images/demo"
FIRST = "scenes/images/demo/000001"
SHORT = "--arch tiny --steps 1 --batch-size 2 --crop-size 64 --short-side 64 --held-out 0"


@pytest.fixture
def scenes(desk):
    """Three scenes in `scenes/`, and a PNG of the first beside it."""
    assert run(["data", "make", "collage", "scenes", "--count", "3", "--size", "64"]) == 0
    Path(f"{FIRST}.png").write_bytes(Path(f"{FIRST}.jpg").read_bytes())
    return desk


def contents(folder):
    """The bytes of all files below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "line, read",
    [
        (f"evaluate {TRUTH} --ground-truth {D}/semantic_demo.json -o {TRUTH}", TRUTH),
        (f"evaluate {TRUTH} --ground-truth scenes -o {D}/semantic_demo.json", f"{D}/semantic_demo"),
        (f"evaluate {TRUTH} --coco {TRUTH} {IMAGES} -o {FIRST}.jpg", FIRST),
        (f"report {TRUTH} --ground-truth scenes -o {D}/semantic_demo.json", f"{D}/semantic_demo"),
        (f"report {TRUTH} {IMAGES} -o {FIRST}.jpg", FIRST),
        (f"check --fix {TRUTH} -o {TRUTH}", TRUTH),
        (f"probe alignment --coco {TRUTH} {IMAGES} --plot {TRUTH}", TRUTH),
        (f"probe coherence scenes --plot {FIRST}.jpg", FIRST),
        (f"probe classify scenes --classes-per-image {D}/classes_demo.json", f"{D}/classes_demo"),
        (f"propose scenes/images/demo -o p.json --save-embeddings {FIRST}.jpg", FIRST),
        (f"train-pacl --captions {D}/captions_demo.json {IMAGES} -o {FIRST}.st", FIRST),
        (
            f"train-segmenter scenes/label_maps/demo {IMAGES} {SHORT} -o scenes/label_maps/demo/000001.st",
            "scenes/label_maps/demo/000001.png",
        ),
        (
            f"train-segmenter scenes/label_maps/demo {IMAGES} {SHORT} -o scenes/label_maps/demo/classes.txt",
            "scenes/label_maps/demo/classes.txt",
        ),
    ],
)
def test_an_input_is_no_output(line, read, scenes, fails):
    if line.startswith("probe classify"):
        line += f" --plot {D}/classes_demo.json"
    before = contents(scenes)
    said = fails(2, *line.split(), "--overwrite")
    assert read in said and "is read by this run; write to another file" in said
    assert contents(scenes) == before


def test_a_part_is_not_replaced_by_its_merge(scenes, fails):
    line = ["propose", "scenes/images/demo", "--proposer", "regions", "-o", "p.json"]
    assert run([*line, "-q", "--shard", "1/1"]) == 0
    before = contents(scenes)
    (part,) = Path("p.json.parts").glob("*.jsonl")
    os.link(part, "same.json")
    for out in (str(part), "same.json"):
        assert "is read by this run" in fails(2, "merge", "p.json.parts", "-o", out, "--overwrite")
    Path("same.json").unlink()
    assert contents(scenes) == before


def test_an_earlier_output_in_a_folder_of_inputs_is_none(scenes):
    Path(f"{FIRST}.png").unlink()
    score = f"evaluate {TRUTH} --ground-truth scenes -o scenes/score.json".split()
    train = f"train-segmenter scenes/label_maps/demo {IMAGES} {SHORT} -o scenes/images/demo/s.st"
    for line in (score, train.split()):
        assert run(line) == 0
        assert run([*line, "--overwrite"]) == 0
        stamp = Path(line[-1]).stat().st_mtime_ns
        assert run([*line, "--update"]) == 0
        assert Path(line[-1]).stat().st_mtime_ns == stamp
