"""What `ovtool mine-pairs` refuses: one line, a status, nothing written."""

import json
from pathlib import Path

import pytest
from PIL import Image

from ovtool.cli.errors import run
from ovtool.formats import coco


def without_masks(of_image):
    """A proposals file without the masks of some images."""
    dataset = json.loads(Path("p.json").read_text())
    dataset["annotations"] = [a for a in dataset["annotations"] if a["image_id"] not in of_image]
    Path("p.json").write_text(json.dumps(dataset))


def test_an_image_without_proposals(mining, desk, photos, fails, capsys):
    assert run(["propose", str(photos), "-o", "p.json", "--proposer", "regions"]) == 0
    without_masks({1})
    capsys.readouterr()
    command = [*mining[:-2], "--proposals", "p.json"]
    assert run([*command, "-o", "o.json"]) == 3
    assert "failed: a.png has no proposals; make some" in capsys.readouterr().err
    assert len(coco.read("o.json").images) == 2
    said = fails(1, *command, "-o", "-", "--strict")
    assert said.startswith("a.png has no proposals")


def test_proposals_made_for_other_images(mining, desk, photos, fails, capsys):
    assert run(["propose", str(photos / "deep"), "-o", "p.json", "--proposer", "regions"]) == 0
    capsys.readouterr()
    command = [*mining[:-2], "--proposals", "p.json"]
    said = fails(2, *command)
    assert (
        said
        == "p.json has no proposals for a.png and 2 more; make them for the same images, with the split where they are a data set's (coco:train2017)"
    )


def test_proposals_of_images_of_another_size(mining, desk, photos, fails, capsys):
    assert run(["propose", str(photos), "-o", "p.json", "--proposer", "regions"]) == 0
    capsys.readouterr()
    Image.open(photos / "b.jpg").resize((30, 20)).save(photos / "b.jpg")
    said = fails(2, *mining[:-2], "--proposals", "p.json", "-o", "-")
    assert "b.jpg is 64 x 48 there and 30 x 20 here" in said


def test_no_noun_in_any_caption(mining, captioned, fails):
    captioned({"a.png": ["running fast"], "b.jpg": ["a photo"]})
    assert fails(1, *mining).startswith("no noun in the captions of ")


def test_captions_of_images_that_do_not_exist(mining, captioned, fails):
    captioned({"x.png": ["a dog"], "y.png": ["a cat"]})
    said = fails(1, *mining)
    assert said.startswith("none of the 2 images of ") and "x.png" in said


@pytest.mark.parametrize(
    "options, status, message",
    [
        (["--stop", "s.txt", "--no-stop"], 2, "--stop names words to leave out, and --no-stop"),
        (["--stop", "none.txt"], 1, "no such file: none.txt"),
        (["--pos", "VERB"], 2, "--pos 'VERB' is not one of 'NOUN', 'PROPN'; give one of them"),
        (["--pos", ""], 2, "--pos '' is not one of 'NOUN', 'PROPN'"),
        (["--pos", "NOUN,VERB"], 2, "--pos 'VERB' is not one of"),
        (
            ["--spacy-model", "en_core_web_xyz"],
            2,
            "spaCy's pipeline en_core_web_xyz is not installed",
        ),
        (["--proposals", "p.json"], 2, "--proposals are masks from a file, and --proposer makes"),
        (["--model", "nonsense"], 2, "nonsense"),
        (["-o", "missing/o.json"], 1, "cannot write missing/o.json"),
    ],
)
def test_bad_options(mining, fails, options, status, message):
    assert message in fails(status, *mining, *options)


def test_captions_that_cannot_be_meant(desk, photos, fails):
    assert "needs --images DIR" in fails(2, "mine-pairs", "--captions", "said.json")
    said = fails(2, "mine-pairs", "--captions", "collage", "--images", str(photos))
    assert "collage is a data set" in said
    said = fails(1, "mine-pairs", "--captions", "said.json", "--images", str(photos))
    assert said == "no such file: said.json"


def test_outputs_that_exist_are_kept(mining, desk, fails):
    Path("said.pairs.json").write_text("mine")
    assert "said.pairs.json exists" in fails(1, *mining)
    (desk / "crops").mkdir()
    Path("crops/own.txt").write_text("mine")
    assert "crops holds files" in fails(1, *mining, "-o", "o.json", "--crops", "crops")
    Path("x.tar").write_text("mine")
    assert "x.tar exists" in fails(1, *mining, "-o", "o.json", "--crops", "x.tar")
    (desk / "y.tar.crops").mkdir()  # where crops lie until the tar is packed
    Path("y.tar.crops/own.txt").write_text("mine")
    assert "y.tar.crops holds files" in fails(1, *mining, "-o", "o.json", "--crops", "y.tar")
    assert Path("y.tar.crops/own.txt").read_text() == "mine"
