"""`ovtool convert` as it is called."""

import json
from pathlib import Path

from ovtool.cli.errors import run
from ovtool.formats import coco
from ovtool.settings.convert import Conversion
from ovtool.settings.shared import Run
from ovtool.stages import convert

MADE = convert.Converted("o", {}, 1, 2, 3, ())
INSTANCES = "scenes/annotations/instances_demo.json"


def test_every_option_reaches_the_function(handed):
    seen = handed(convert, MADE)
    line = "convert x.json --to yolo-seg --colours c.txt --instances parts --images photos -o out"
    assert (
        run([*line.split(), "--ground-truth", "t.json", "--overwrite", "--update", "--dry-run"])
        == 0
    )
    assert seen == {
        "file": "x.json",
        "to": "yolo-seg",
        "how": Conversion(colours="c.txt", instances="parts"),
        "images": Path("photos"),
        "ground_truth": "t.json",
        "out": "out",
        "run": Run(overwrite=True, update=True, dry_run=True),
    }
    assert run("convert x.json --to cvat --instances p.json".split()) == 0
    assert seen["how"] == Conversion(instances=Path("p.json"))


def test_what_was_written_and_what_was_not_held(desk, capsys):
    assert run("data make collage scenes --count 3 --size 64".split()) == 0
    capsys.readouterr()
    assert (
        run(["convert", INSTANCES, "--to", "yolo-seg", "--images", "scenes/images/demo", "--json"])
        == 0
    )
    said = capsys.readouterr()
    answer = json.loads(said.out)
    assert (answer["output"], answer["images"], answer["classes"]) == (
        "instances_demo.yolo-seg",
        3,
        209,
    )
    assert answer["not_held"][0] == "209 supercategories and synonyms" and not answer["dry_run"]
    first, last = said.err.splitlines()
    assert first == f"yolo-seg does not hold: {'; '.join(answer['not_held'])}"
    assert last == f"3 images, {answer['masks']} masks of 209 classes: instances_demo.yolo-seg"
    assert len(list(Path("instances_demo.yolo-seg/images").iterdir())) == 3
    line = ["convert", INSTANCES, "--to", "yolo-seg", "--images", "scenes/images/demo", "--update"]
    assert run(line) == 0
    assert capsys.readouterr().err == "instances_demo.yolo-seg is up to date\n"
    assert run(["convert", "instances_demo.yolo-seg", "--to", "coco-panoptic", "--dry-run"]) == 0
    assert "would write 3 images" in capsys.readouterr().err
    assert not Path("instances_demo.panoptic.json").exists()


def test_a_data_set_and_pipes(desk, capsys):
    assert run("data make collage scenes --count 2 --size 64".split()) == 0
    capsys.readouterr()
    assert run("convert scenes --to coco -o - -q".split()) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["info"]["ovtool"]["converted"] == {"to": "coco", "instances": None}
    assert run("convert scenes --to webdataset -o shards".split()) == 0  # whose images are known
    assert run("convert shards --to coco -o back.json".split()) == 0
    kinds = coco.read(Path("scenes/annotations/semantic_demo.json"))
    assert coco.read(Path("back.json")).annotations == kinds.annotations
    assert not any(
        str(desk) in path.read_text() for path in (Path("back.json"), Path("shards/ovtool.json"))
    )


def test_what_cannot_be_meant(desk, fails, capsys):
    assert "name it with --to" in fails(2, "convert", "x.json")
    assert "'png'" in fails(2, "convert", "x.json", "--to", "png")
    assert (
        fails(1, "convert", "x.json", "--to", "coco") == "no such file, folder or data set: x.json"
    )


def test_converted_files_are_told_and_checked(desk, capsys):
    assert run("data make collage scenes --count 2 --size 64".split()) == 0
    outputs = {
        "coco-panoptic": ("p.json", "COCO panoptic"),
        "cvat": ("c.xml", "CVAT masks"),
        "yolo-seg": ("y", "YOLO masks"),
        "webdataset": ("w", "shards of masks"),
        "label-maps": ("m", "label maps"),
    }
    for to, (out, kind) in outputs.items():
        line = ["convert", INSTANCES, "--images", "scenes/images/demo", "--to", to, "-o", out]
        assert run(line) == 0
        capsys.readouterr()
        assert run(["info", out, "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["kind"] == kind
        assert to == "label-maps" or (facts["images"], facts["categories"]) == (2, 209)
        assert run(["check", out]) == 0
    Path("y/labels/000001.txt").write_text("0 1\n")
    Path("c.xml").write_text("<annotations>")
    capsys.readouterr()
    assert run(["check", "y", "c.xml"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert "000001.txt: line 1 has 1 numbers" in first and "c.xml is no XML" in second
