"""Bad input to `segment` and `propose`: one line that says what, where and how to mend it; a status."""

import json
import shutil
import struct
import time
import zlib

import huggingface_hub
import pytest
import torch

from ovtool.cli.errors import run
from ovtool.formats import coco, rle, tensors
from ovtool.models import sources

WORDS = ["--classes", "cow,apple"]


# --- pictures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["segment", *WORDS], ["propose"]], ids=lambda c: c[0])
def test_no_such_file_and_no_image(fails, desk, command):
    assert fails(1, *command, "gone.jpg") == "no such file or folder: gone.jpg"
    (desk / "empty").mkdir()
    (desk / "empty/notes.txt").touch()
    assert fails(1, *command, "empty").startswith("no image in empty: it holds no .jpg .jpeg")
    assert fails(2, *command).startswith("no images; give files, folders, a data set such as")


def truncate(path):
    path.write_bytes(path.read_bytes()[:-80])


def test_a_truncated_picture_among_good_ones(desk, photos, capsys):
    truncate(photos / "b.jpg")
    line = ["segment", str(photos), *WORDS, "-o", "o.json", "--label-maps", "maps", "--json"]
    assert run(line) == 3
    said = capsys.readouterr()
    *_, failed, counted = said.err.splitlines()
    assert failed.startswith("failed: b.jpg is truncated or damaged (")
    assert failed.endswith("); replace or remove it")
    assert counted.startswith("2 images, ") and ", 1 failed: o.json" in counted
    dataset = coco.read("o.json")
    assert [i.file_name for i in dataset.images] == ["a.png", "deep/c.png"]
    assert dataset.info["ovtool"]["failures"] == json.loads(said.out)["failures"]
    (failure,) = json.loads(said.out)["failures"]
    assert failure["file_name"] == "b.jpg" and failed == f"failed: {failure['reason']}"
    assert sorted(p.name for p in (desk / "maps").rglob("*.png")) == ["a.png", "c.png"]


def test_strict_stops_at_the_first_failure(desk, photos, fails):
    truncate(photos / "b.jpg")
    said = fails(1, "segment", photos, *WORDS, "-o", "-", "--strict")
    assert said.startswith("b.jpg is truncated or damaged (")


def test_nothing_but_broken_pictures(desk, photos, fails):
    for path in (photos / "a.png", photos / "b.jpg", photos / "deep/c.png"):
        path.write_bytes(b"")
    said = fails(1, "segment", photos, *WORDS)
    assert said == (
        "none of the 3 images could be read; the first: a.png is empty; replace or remove it"
    )


def write_bomb(path, side):
    """A PNG of `side` x `side` black pixels of one bit, in a few kilobytes."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    deflate = zlib.compressobj(1)
    row = bytes(1 + (side + 7) // 8)
    pixels = b"".join(deflate.compress(row) for _ in range(side)) + deflate.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def test_a_bomb_is_refused_unopened(desk, photos, fails, capsys):
    write_bomb(photos / "bomb.png", 20_000)
    assert (photos / "bomb.png").stat().st_size < 1_000_000
    began = time.perf_counter()
    said = fails(1, "segment", photos / "bomb.png", *WORDS)
    assert "bomb.png has more than 178,956,970 pixels: refused" in said
    assert time.perf_counter() - began < 10
    assert run(["propose", str(photos), "-o", "o.json"]) == 3
    (failure,) = coco.read("o.json").info["ovtool"]["failures"]
    assert failure["file_name"] == "bomb.png"


# --- words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "classes, message",
    [
        ("", '--classes is empty; name some, such as --classes "teapot,apple"'),
        ("   ", '--classes is empty; name some, such as --classes "teapot,apple"'),
        ("cow,apple,Cow", "the class 'cow' is named twice; remove one of them"),
        ("cow,apple|cow", "the class 'cow' is named twice; remove one of them"),
        ("cow,   ,apple", "class 2 is empty or only spaces; name it or remove its separator"),
        ("cow,", "class 2 is empty or only spaces; name it or remove its separator"),
    ],
)
def test_classes_that_cannot_be_meant(fails, photos, classes, message):
    assert fails(2, "segment", photos, "--classes", classes) == message


def test_a_class_of_400_words_is_named(fails, photos):
    long = "very " * 399 + "old cow"
    said = fails(2, "segment", photos, "--classes", f"apple,{long}", "--model", "tiny")
    assert said.startswith(f"the class '{('very ' * 399)[:55]}...' is too long: tiny reads ")
    assert said.endswith(" tokens, template included; shorten it")


def test_no_words_or_too_many_lists(fails, photos):
    assert fails(2, "segment", photos).startswith("no words to look for; give --classes")
    said = fails(2, "segment", photos, *WORDS, "--vocabulary", "voc20")
    assert said.startswith("--classes and --vocabulary both name the words; give one of them")
    assert fails(1, "segment", photos, "--classes-file", "gone.txt") == "no such file: gone.txt"


# --- models --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model, message",
    [
        ("tinny", "unknown model 'tinny'; did you mean tiny?"),
        ("ViT-B-16/opnai", "'ViT-B-16' has no weights called 'opnai'; choose from ViT-B-16/openai"),
        ("RN50/openai", "RN50 is not a plain vision transformer"),
        ("hf-hub:./near", "'hf-hub:./near' names no hub repository; write hf-hub:ORG/NAME"),
        ("hf-hub:nobody", "names no hub repository; write hf-hub:ORG/NAME"),
        ("./gone.safetensors", "no model at gone.safetensors; give a folder or weights file that"),
        ("", "--model is empty; name a model, such as tiny or ViT-B-16/openai"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["", "dry"])
def test_unknown_models(fails, photos, model, message, dry):
    assert message in fails(2, "segment", photos, *WORDS, "--model", model, *dry)


@pytest.mark.parametrize(
    "model, command",
    [
        ("ViT-B-16/openai", "`hf download timm/vit_base_patch16_clip_224.openai`"),
        ("hf-hub:someone/something", "`hf download someone/something`"),
    ],
)
def test_a_model_of_the_hub_without_the_hub(fails, photos, tmp_path, monkeypatch, model, command):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "none"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    began = time.perf_counter()
    said = fails(2, "segment", photos, *WORDS, "--model", model)
    assert time.perf_counter() - began < 10
    assert command in said and "the hub does not answer" in said and "--model photo" in said


@pytest.mark.parametrize("content", ["half", "text", "cams", "pacl"])
def test_weights_that_are_broken_or_of_another_kind(fails, photos, tmp_path, content):
    weights = tmp_path / "own.safetensors"
    shutil.copy(sources.bundled_folder() / "tiny.json", tmp_path / "own.json")
    whole = (sources.bundled_folder() / "tiny.safetensors").read_bytes()
    if content == "half":
        weights.write_bytes(whole[: len(whole) // 2])
    elif content == "text":
        weights.write_text("hello")
    elif content == "cams":
        tensors.save(weights, {"cam/1": torch.zeros(2, 3)}, {"kind": "cams"})
    else:  # even with the right tensors in it
        weights.write_bytes(whole)
        header, found = tensors.load(weights)
        tensors.save(weights, found, {**header, "kind": "pacl"})
    said = fails(2, "segment", photos, *WORDS, "--model", weights)
    if content in ("half", "text"):
        assert said.startswith(f"cannot load the model in {weights}: Error while deserializing")
    else:
        assert said == f"{weights} is of kind {content}, not clip; name the weights of a CLIP"


# --- COCO JSON as input --------------------------------------------------------------------------


def document():
    mask = {"size": [40, 64], "counts": [0, 40 * 64]}
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 40}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": mask}],
        "categories": [{"id": 1, "name": "object"}],
    }


def without(name):
    return {key: value for key, value in document().items() if key != name}


def changed(section, **values):
    found = document()
    found[section][0].update(values)
    return found


def doubled(section):
    found = document()
    found[section].append(found[section][0])
    return found


DEFECTS = [
    (without("images"), "has no section images"),
    (without("categories"), "has no section categories"),
    (without("annotations"), "has no section annotations"),
    (doubled("images"), "images: id 1 is there twice (entries 0 and 1)"),
    (doubled("annotations"), "annotations: id 1 is there twice (entries 0 and 1)"),
    (doubled("categories"), "categories: id 1 is there twice (entries 0 and 1)"),
    (changed("images", file_name="../a.png"), "file_name '../a.png' leaves the folder of the images"),
    (changed("images", file_name="/a.png"), "file_name '/a.png' is absolute"),
    (changed("images", width=65), "RLE size is [40, 64], but the image is [40, 65]"),
    (
        changed("annotations", segmentation={"size": [40, 64], "counts": [1, 2]}),
        "RLE counts are corrupt: the runs do not add up to 40 x 64 pixels",
    ),
    ([], "is a bare list of results"),
]  # fmt: skip


@pytest.mark.parametrize("defect, message", DEFECTS, ids=lambda value: str(value)[:40])
def test_broken_coco_files(fails, desk, photos, defect, message):
    (desk / "x.json").write_text(json.dumps(defect))
    said = fails(1, "segment", photos / "a.png", *WORDS, "--proposals", "x.json")
    assert said.startswith("x.json") and message in said
    if "images" in message or "list" in message or "file_name" in message:  # all that is read there
        assert fails(1, "segment", "--coco", "x.json", "--images", photos, *WORDS) == said


def test_text_that_is_no_json(fails, desk, photos):
    (desk / "x.json").write_text('{"images": [')
    said = fails(1, "segment", "--coco", "x.json", "--images", photos, *WORDS)
    assert said.startswith("x.json is not JSON: ") and "line 1" in said


# --- proposals that do not belong ----------------------------------------------------------------


def write_proposals(path, name, height, width):
    mask = rle.encode(torch.ones(height, width, dtype=torch.bool).numpy())
    image = coco.Image(1, name, width, height)
    entry = coco.annotation(1, 1, 1, mask, 0.5)
    coco.write(coco.Dataset({}, [image], [entry], [coco.Category(1, "object")]), path)


def test_proposals_for_other_images(fails, desk, photos):
    write_proposals(desk / "p.json", "other.png", 40, 64)
    said = fails(2, "segment", photos / "a.png", *WORDS, "--proposals", "p.json")
    assert (
        said
        == "p.json has no proposals for a.png; make them for the same images, with the split where they are a data set's (coco:train2017)"
    )


def test_proposals_for_images_of_another_size(desk, photos, capsys):
    write_proposals(desk / "p.json", "a.png", 40, 65)
    line = ["segment", str(photos / "a.png"), *WORDS, "--proposals", "p.json", "--model", "tiny"]
    assert run(line) == 2
    assert capsys.readouterr().err == (
        "error: p.json: a.png is 65 x 40 there and 64 x 40 here; make the proposals for these "
        "images\n"
    )
    assert [path.name for path in desk.rglob("*.json")] == ["p.json"]


# --- options that exclude each other -------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        (["--stride", "16"], "--stride is the step of --window; give that too"),
        (
            ["--window", "32", "--stride", "64"],
            "--stride 64 is more than --window 32: pixels would",
        ),
        (
            ["--method", "patch", "--proposals", "p.json"],
            "--proposals belongs to --method fused or two-stage",
        ),
        (["--resume", "-o", "-"], "--resume needs a file as output"),
        (["--coco", "x.json", "--images", "."], "not both"),
        (["--label-maps", "x", "--overlays", "x"], "need a folder each"),
        (["--device", "cuda:99"], "this machine has no device cuda:99"),
        (["--min-score", "2"], "--min-score"),
        (["--method", "magic"], "--method"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_cannot_be_meant(fails, photos, options, message):
    assert message in fails(2, "segment", photos, *WORDS, *options)
