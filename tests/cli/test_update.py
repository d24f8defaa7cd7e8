"""`--update`: nothing is done where the output is newer than its inputs and was made with these settings."""

import json
import os
import time
from pathlib import Path

import pytest
from PIL import Image

from ovtool.cli import app as app_commands
from ovtool.cli.errors import run
from ovtool.formats import coco, images, tensors
from ovtool.inputs import asked
from ovtool.settings.shared import Compute, Run

D = "scenes/annotations"
IMAGES = ["--images", "scenes/images/demo"]
SHORT = ["--steps", "1", "--batch-size", "2"]
# command, its output, an input, and an option that shapes the result
COMMANDS = {
    "segment": (
        ["segment", "scenes/images/demo", "--classes", "apple,cow"],
        "out.json",
        "scenes/images/demo/000001.jpg",
        ["--min-score", "0.5"],
    ),
    "propose": (
        ["propose", "scenes/images/demo", "--proposer", "regions"],
        "out.json",
        "scenes/images/demo/000002.jpg",
        ["--max-proposals", "3"],
    ),
    "convert": (
        ["convert", f"{D}/instances_demo.json", "--to", "coco"],
        "out.json",
        f"{D}/instances_demo.json",
        ["--instances", "parts"],
    ),
    "mine-pairs": (
        ["mine-pairs", "--captions", f"{D}/captions_demo.json", *IMAGES, "--proposer", "regions"],
        "out.json",
        f"{D}/captions_demo.json",
        ["--no-stop"],
    ),
    "cam": (
        ["cam", "--labels", f"{D}/instances_demo.json", *IMAGES],
        "out.safetensors",
        f"{D}/instances_demo.json",
        ["--flip"],
    ),
    "cam matching": (
        ["cam", "--labels", f"{D}/instances_demo.json", *IMAGES, "--method", "matching", *SHORT]
        + ["--save-generator", "generator.safetensors"],
        "out.safetensors",
        "scenes/images/demo/000003.jpg",
        ["--seed", "1"],
    ),
    "refine": (
        ["refine", "maps.safetensors", *IMAGES, "--apply", "pamr"],
        "out.json",
        "maps.safetensors",
        ["--confidence", "0.1"],
    ),
    "refine maps": (
        ["refine", "maps.safetensors", *IMAGES, "--apply", "affinity"],
        "out.safetensors",
        "scenes/images/demo/000001.jpg",
        ["--apply", "pamr"],
    ),
    "tune-prompts": (
        ["tune-prompts", f"{D}/instances_demo.json", *IMAGES, *SHORT],
        "out.safetensors",
        f"{D}/instances_demo.json",
        ["--seed", "1"],
    ),
    "tune-prompts background": (
        ["tune-prompts", "maps.safetensors", "--kind", "background", *IMAGES, *SHORT],
        "out.safetensors",
        "maps.safetensors",
        ["--seed", "1"],
    ),
    "train-pacl": (
        ["train-pacl", "--captions", f"{D}/captions_demo.json", *IMAGES, *SHORT],
        "out.safetensors",
        "scenes/images/demo/000002.jpg",
        ["--seed", "1"],
    ),
    "train-proposer": (
        ["train-proposer", f"{D}/instances_demo.json", *IMAGES, "--arch", "tiny", *SHORT],
        "out.safetensors",
        f"{D}/instances_demo.json",
        ["--seed", "1"],
    ),
    "train-segmenter": (
        ["train-segmenter", "scenes/label_maps/demo", *IMAGES, "--arch", "clip", *SHORT],
        "out.safetensors",
        "scenes/label_maps/demo/000001.png",
        ["--seed", "1"],
    ),
}


def every_command(rows=app_commands.COMMANDS, before=()):
    """The words of every command, with the command."""
    for row in rows:
        if isinstance(row.target, tuple):
            yield from every_command(row.target, (*before, row.name))
        else:
            yield (*before, row.name), app_commands.made(row)


@pytest.fixture
def scenes(desk):
    """Four scenes in `scenes/`, and maps of their objects in `maps.safetensors`."""
    made = ["data", "make", "collage", "scenes", "--count", "4", "--size", "64"]
    assert run(made) == 0
    labels = ["--labels", f"{D}/instances_demo.json", *IMAGES]
    assert run(["cam", *labels, "-o", "maps.safetensors"]) == 0
    return desk


def past(*paths, seconds=100):
    """Puts files into the past."""
    then = time.time() - seconds
    for path in paths:
        os.utime(path, (then, then))


@pytest.mark.parametrize("name", COMMANDS)
def test_an_output_is_made_again_only_for_newer_inputs_and_other_settings(name, scenes, capsys):
    command, out, source, other = COMMANDS[name]
    line = [*command, "-o", out, "--update"]

    def says(arguments, status=0):
        capsys.readouterr()
        assert run(arguments) == status
        said = capsys.readouterr()
        assert "up to date" not in said.out
        return said.err

    assert "up to date" not in says(line)
    first = Path(out).read_bytes()
    stamp = Path(out).stat().st_mtime_ns
    assert says(line) == f"{out} is up to date\n"
    assert Path(out).stat().st_mtime_ns == stamp
    past(out)
    assert "up to date" not in says(line)  # its inputs are newer now
    assert Path(out).read_bytes() == first
    assert "up to date" not in says([*line, *other])
    assert says([*line, *other]) == f"{out} is up to date\n"
    os.utime(source, (time.time() + 100, time.time() + 100))
    assert "up to date" not in says([*line, *other])


TRAININGS = [name for name in COMMANDS if name.startswith("t")]


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_that_leaves_an_image_out_is_done(name, scenes, capsys):
    """Its output is whole, unlike that of a command that makes something of each image (status 3)."""
    command, out, _, _ = COMMANDS[name]
    Path("scenes/images/demo/000002.jpg").write_bytes(b"no image")
    assert run([*command, "-o", out]) == 0
    assert "left out 1 of the 4 images of" in capsys.readouterr().err
    failures = tensors.read_header(Path(out))["settings"]["failures"]
    assert [failure["file_name"] for failure in failures] == ["000002.jpg"]
    assert run([*command, "-o", out, "--overwrite", "--strict"]) == 1


def test_every_command_that_writes_can_be_planned_and_updated():
    walked = {name.split()[0] for name in COMMANDS}
    for words, command in every_command():
        flags = {flag for parameter in command.params for flag in parameter.opts}
        if "--output" in flags or words == ("data", "make"):
            assert {"--dry-run", "--update", "--overwrite"} <= flags, words
            elsewhere = (("evaluate",), ("report",), ("merge",), ("check",), ("data", "make"))
            assert words in elsewhere or words[0] in walked, words
        if words[0] in ("evaluate", "probe"):
            assert "there is no --resume" in " ".join(command.text.paragraphs)


def test_a_new_image_and_one_that_is_gone_are_seen(scenes):
    line = ["propose", "scenes/images/demo", "--proposer", "regions", "-o", "p.json", "--update"]
    assert run(line) == 0
    new = Path("scenes/images/demo/new.jpg")
    new.write_bytes(Path("scenes/images/demo/000001.jpg").read_bytes())
    past(new)
    assert run(line) == 0
    assert len(coco.read(Path("p.json")).images) == 5
    new.unlink()
    assert run(line) == 0
    assert len(coco.read(Path("p.json")).images) == 4


def test_an_overlay_that_is_missing_is_drawn(scenes, capsys):
    line = ["segment", "scenes/images/demo/000001.jpg", "--classes", "cow", "--update"]
    assert run(line) == 0
    Path("000001.overlay.png").unlink()
    assert run(line) == 0
    assert Path("000001.overlay.png").exists()
    capsys.readouterr()
    assert run([*line, "--json"]) == 0
    said = capsys.readouterr()
    answer = {"output": "000001.segments.json", "up_to_date": True}
    assert json.loads(said.out) == answer
    assert run([*line, "-q"]) == 0
    assert capsys.readouterr().err == ""


def test_parts_that_fit_are_kept_and_others_are_made_again(scenes, monkeypatch):
    line = ["propose", "scenes/images/demo", "--proposer", "regions", "-o", "p.json"]
    line += ["--part-size", "2", "--update"]
    seen = []
    own = images.read_rgb
    monkeypatch.setattr(
        images, "read_rgb", lambda path, exif: seen.append(path.name) or own(path, exif)
    )

    def cut_off(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(coco, "write", cut_off)
        assert run(line) == 130
    assert len(seen) == 4 and len([*Path("p.json.parts").glob("*.jsonl")]) == 2
    Path("p.json.parts/part-00001.jsonl").unlink()
    assert run(line) == 0
    assert seen[4:] == ["000003.jpg", "000004.jpg"]  # the first part was kept
    with monkeypatch.context() as broken:
        broken.setattr(coco, "write", cut_off)
        assert run([*line, "--max-proposals", "2"]) == 130
    del seen[:]
    assert run([*line, "--max-proposals", "3"]) == 0  # with --resume this is an error
    assert len(seen) == 4
    assert not Path("p.json.parts").exists()


def test_the_checkpoint_of_another_training_is_removed(scenes, fails):
    line = ["tune-prompts", f"{D}/instances_demo.json", *IMAGES, *SHORT, "-o", "p.safetensors"]
    checkpoint = Path("p.safetensors.checkpoint")
    checkpoint.write_bytes(b"broken")
    assert "is broken" in fails(1, *line, "--resume")
    assert run([*line, "--update"]) == 0
    assert not checkpoint.exists()


@pytest.mark.parametrize(
    "command", [["propose", "--proposer", "regions"], ["segment", "--classes", "cow,apple"]]
)
def test_of_a_list_of_results_times_alone_are_compared(command, scenes, capsys):
    source = "scenes/images/demo/000001.jpg"
    line = [*command, source, "-o", "r.json", "--update"]

    def is_made(arguments):
        capsys.readouterr()
        before = Path("r.json").stat().st_mtime_ns if Path("r.json").exists() else 0
        assert run(arguments) == 0
        said = capsys.readouterr().err
        is_new = Path("r.json").stat().st_mtime_ns != before
        assert ("keeps no settings; only times were compared" in said) != is_new
        return is_new

    assert is_made(line)
    results = [*line, "--format", "results"]
    assert is_made(results)  # a data set is no list
    assert isinstance(json.loads(Path("r.json").read_text()), list)
    assert not is_made(results)
    past(Path("r.json"))
    assert is_made(results)
    assert is_made(line)  # a list is no data set


def test_a_file_is_repaired_only_where_it_is_newer(desk, capsys):
    image = {"id": 1, "file_name": "a.jpg", "width": 4, "height": 3}
    mask = {"id": 0, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]}
    data = {"images": [image], "annotations": [mask], "categories": [{"id": 1, "name": "cow"}]}
    Path("a.json").write_text(json.dumps(data))
    line = ["check", "--fix", "a.json", "-o", "b.json"]
    assert run([*line, "--dry-run"]) == 0
    assert capsys.readouterr().err.startswith("not written: b.json was repaired")
    assert not Path("b.json").exists()
    assert run([*line, "--update"]) == 0
    assert run(["check", "b.json"]) == 0
    stamp = Path("b.json").stat().st_mtime_ns
    capsys.readouterr()
    assert run([*line, "--update"]) == 0
    assert capsys.readouterr().err == "b.json is up to date\n"
    assert Path("b.json").stat().st_mtime_ns == stamp
    past(Path("b.json"))
    assert run([*line, "--update"]) == 0
    assert Path("b.json").stat().st_mtime_ns > stamp


def test_parts_are_merged_only_where_one_is_newer(scenes, capsys):
    line = ["propose", "scenes/images/demo", "--proposer", "regions", "-o", "p.json"]
    for shard in ("1/2", "2/2"):
        assert run([*line, "--part-size", "2", "--shard", shard]) == 0
    merge = ["merge", "p.json.parts", "--update"]
    assert run([*merge, "--dry-run"]) == 0
    assert "would merge 4 images, into p.json" in capsys.readouterr().err
    assert not Path("p.json").exists()
    assert run(merge) == 0
    stamp = Path("p.json").stat().st_mtime_ns
    capsys.readouterr()
    assert run(merge) == 0
    assert capsys.readouterr().err == "p.json is up to date\n"
    assert Path("p.json").stat().st_mtime_ns == stamp
    past(Path("p.json"))
    assert run(merge) == 0
    assert Path("p.json").stat().st_mtime_ns > stamp


def test_it_needs_a_file(scenes, fails):
    line = ["propose", "scenes/images/demo", "--proposer", "regions", "-o", "-", "--update"]
    assert "--update compares the times of files" in fails(2, *line)


def test_data_make(scenes, capsys):
    line = ["data", "make", "collage", "scenes", "--count", "4", "--size", "64", "--update"]
    capsys.readouterr()
    assert run(line) == 0
    assert capsys.readouterr().err == "scenes is up to date\n"
    line[5] = "3"
    assert run(line) == 0
    assert len([*Path("scenes/images/demo").iterdir()]) == 3
    Path("scenes/annotations/instances_demo.json").write_text("[]")
    assert run(line) == 0
    assert len(coco.read(Path("scenes/annotations/instances_demo.json")).images) == 3


def test_in_python_it_is_an_exception(scenes):
    import ovtool

    how = {"out": "p.json", "run": ovtool.Run(update=True)}
    ovtool.propose("scenes/images/demo", ovtool.Propose(proposer="regions"), **how)
    with pytest.raises(ovtool.UpToDate, match=r"p\.json is up to date") as caught:
        ovtool.propose("scenes/images/demo", ovtool.Propose(proposer="regions"), **how)
    assert caught.value.output == "p.json"


def test_a_request_is_its_content_and_not_its_paths(tmp_path, monkeypatch):
    monkeypatch.delenv("OVTOOL_MODEL", raising=False)
    for name, text in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / name).write_text(text)
    a, b, c = (asked.of("x", Compute(model=str(tmp_path / name))) for name in "abc")
    assert a.digest == b.digest != c.digest
    assert list(a.files) == [tmp_path / "a"]
    given = asked.of("x", Compute(model="tiny"))
    monkeypatch.setenv("OVTOOL_MODEL", "tiny")
    assert asked.of("x", Compute()).digest == given.digest
    assert asked.of("x", Compute(), Run(batch_size=2)).digest != given.digest
    assert asked.of("y", Compute()).digest != given.digest


def test_what_a_command_writes_into_a_folder_that_it_reads_is_not_its_input(tmp_path):
    (tmp_path / "a.png").write_bytes(b"a")
    curve = tmp_path / "out.png"
    before = asked.of("x", folder=tmp_path, outputs=(curve,))
    images.save_png(curve, Image.new("RGB", (2, 2)))
    (tmp_path / ".hidden.png").write_bytes(b"hidden")
    after = asked.of("x", folder=tmp_path, outputs=(curve,))
    assert before == after
    assert list(after.files) == [tmp_path / "a.png"]
    (tmp_path / "b.png").write_bytes(b"b")
    found = asked.of("x", folder=tmp_path, outputs=(curve,)).files
    assert list(found) == [tmp_path / "a.png", tmp_path / "b.png"]


def test_an_output_that_says_nothing_of_its_request_is_out_of_date(tmp_path):
    request = asked.of("x")
    for name, content in (
        ("a.json", b"{}"),
        ("b.json", b'{"info": {"ovtool": {"asked": 3}}}'),
        ("c.json", b'{"info": '),
        ("d.json", b""),
        ("e.safetensors", (10**15).to_bytes(8, "little") + b"{}"),
        ("f.safetensors", (2).to_bytes(8, "little") + b"{}"),
    ):
        (tmp_path / name).write_bytes(content)
        assert not asked.is_answered(request, tmp_path / name)
    good = tmp_path / "good.json"
    good.write_text(json.dumps({"info": {"ovtool": {"asked": request.digest}}}))
    assert asked.is_answered(request, good)
