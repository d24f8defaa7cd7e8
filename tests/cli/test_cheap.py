"""What needs no network loads none: torch is not imported for it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
# a process that has imported what commands share, and answers each line from a fork of itself
PROGRAM = """
import json, os, sys, tempfile
import numpy, PIL.Image, scipy
from ovtool.cli import app, cheap_checks, errors
from ovtool.formats import coco, tensors
for line in sys.stdin:
    folder, arguments, model = json.loads(line)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as said:
        child = os.fork()
        if not child:
            os.dup2(out.fileno(), 1)
            os.dup2(said.fileno(), 2)
            os.chdir(folder)
            os.environ["OVTOOL_MODEL"] = model
            status = errors.run(arguments)
            print('torch' in sys.modules, file=sys.stderr)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        said.seek(0)
        print(json.dumps([status, out.read().decode(), said.read().decode()]), flush=True)
"""


@pytest.fixture(scope="module")
def server():
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=environment, **pipes) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def ran(server):
    """Runs a line in a folder: exit status, stdout, and stderr, whose last line says whether torch was imported."""

    def run(folder, *arguments, model=""):
        print(json.dumps([str(folder), arguments, model]), file=server.stdin, flush=True)
        status, out, said = json.loads(server.stdout.readline())
        lines = said.splitlines()
        assert lines[-1] == "False", said
        return status, out, lines[:-1]

    return run


def test_the_version_has_the_name(tmp_path, ran):
    import ovtool

    assert ran(tmp_path, "--version") == (0, f"ovtool {ovtool.__version__}\n", [])


@pytest.mark.parametrize(
    "line",
    [
        ["segment", "a.jpg", "--classes", "cow"],
        ["propose", "a.jpg"],
        ["mine-pairs", "--captions", "c.json", "--images", "."],
        ["cam", "--labels", "l.csv", "--images", "."],
        ["refine", "maps.safetensors"],
        ["tune-prompts", "p.json"],
        ["train-pacl", "--captions", "c.json", "--images", "."],
        ["train-proposer", "t.json"],
        ["train-segmenter", "t.json"],
        ["evaluate", "p.json", "--ground-truth", "t.json"],
        ["convert", "p.json", "--to", "coco"],
    ],
    ids=lambda line: line[0],
)
def test_an_output_that_exists(line, tmp_path, ran):
    (tmp_path / "out.json").write_text("{}")
    (tmp_path / "a.jpg").touch()
    status, out, said = ran(tmp_path, *line, "-o", "out.json")
    assert (status, out) == (1, "")
    assert said == ["error: out.json exists; replace it with --overwrite, or name another"]


@pytest.mark.parametrize("command", ["segment --classes cow", "propose"])
def test_an_image_that_is_not_there(command, tmp_path, ran):
    status, out, said = ran(tmp_path, *command.split(), "gone.jpg")
    assert (status, out) == (1, "")
    assert said == ["error: no such file or folder: gone.jpg"]


def test_info_and_check_of_a_coco_file_and_info_of_tensors(tmp_path, ran):
    from ovtool.formats import tensors

    empty = {"images": [], "annotations": [], "categories": []}
    (tmp_path / "x.json").write_text(json.dumps(empty))
    assert ran(tmp_path, "info", "x.json")[0] == 0
    assert ran(tmp_path, "check", "x.json")[0] == 0
    tensors.save(tmp_path / "x.safetensors", {"a": np.zeros((2, 3))}, {"kind": "pacl"})
    status, out, _ = ran(tmp_path, "info", "x.safetensors", "--json")
    assert status == 0 and "F64" in out and "pacl" in out
    assert ran(tmp_path, "info", "absent.json")[0] == 1
    assert ran(tmp_path, "check", "x.safetensors") == (0, "", [])
    bad = {"a": np.array([1, np.nan], np.float16), "b": np.array([3]), "c": np.array([np.inf])}
    tensors.save(tmp_path / "x.safetensors", bad, {"kind": "pacl"})
    status, _, said = ran(tmp_path, "check", "x.safetensors")
    assert status == 1 and [line.split()[3] for line in said] == ["a", "c"]


@pytest.mark.parametrize(
    "line, status, said",
    [
        ("segment a.jpg", 2, "no words to look for"),
        ("segment a.jpg --classes cow,,pig", 2, "class 2 is empty"),
        ("segment a.jpg --classes cow,cow", 2, "'cow'"),
        ("segment a.jpg --classes-file gone.txt", 1, "gone.txt"),
        ("segment a.jpg --classes cow --prompts gone.safetensors --method two-stage", 1, "gone."),
        ("segment --classes cow", 2, "no images; give files"),
        ("segment --coco gone.json --images . --classes cow", 1, "no such file: gone.json"),
        ("propose", 2, "no images; give files"),
        ("cam --labels gone.csv --images .", 1, "no such file: gone.csv"),
        ("cam --labels l.csv", 2, "l.csv needs --images DIR"),
        ("cam --labels l.csv --images gone", 1, "no such folder: gone"),
        ("mine-pairs --captions c.json", 2, "c.json needs --images DIR"),
        ("mine-pairs --captions gone.json --images .", 1, "no such file: gone.json"),
        ("refine gone.safetensors", 1, "no such file: gone.safetensors"),
        ("tune-prompts gone.json", 1, "no such file: gone.json"),
        ("train-proposer gone.json --images . -o x.safetensors", 1, "no such file: gone.json"),
        ("train-segmenter gone -o x.safetensors", 1, "no such file or folder: gone"),
        ("evaluate gone.json --ground-truth l.csv", 1, "no such file: gone.json"),
        ("evaluate l.csv", 2, "give the truth as --ground-truth GT"),
        ("segment a.jpg --classes cow --model tinny", 2, "'tinny'; did you mean tiny?"),
        ("propose a.jpg --model ViT-B-16/openia", 2, "choose from ViT-B-16/openai"),
        ("propose a.jpg --model RN50/openai", 2, "RN50 is not a plain vision transformer"),
        ("probe classify collage --model ./gone", 2, "no model at gone"),
        ("propose a.jpg --proposer none", 2, "unknown proposer 'none'"),
        ("propose a.jpg --proposer gone.safetensors", 1, "no such file: gone.safetensors"),
        ("refine p.json", 1, "p.json is a COCO JSON of pairs, which ovtool tune-prompts reads"),
        ("segment a.jpg --classes cow --segmenter p.json", 1, "made by ovtool train-segmenter"),
        ("segment a.jpg --classes cow --pacl a.jpg", 1, "a.jpg is truncated or not a safe"),
        ("merge gone.parts", 1, "no such folder: gone.parts"),
        ("probe oracle pets", 2, "unknown data set 'pets'"),
        ("probe classify --coco gone.json --images .", 1, "no such file: gone.json"),
        ("probe coherence collage --plot a.jpg", 1, "a.jpg exists"),
        ("segment a.jpg --classes cow --device gpu", 2, "unknown device 'gpu'; choose auto"),
        ("mine-pairs --captions c.json --images .", 1, "c.json has no section images"),
        ("train-pacl --captions e.json --images .", 1, "e.json holds no captions"),
        ("tune-prompts c.json --images .", 1, "c.json has no section images"),
        ("segment --coco c.json --images . --classes cow", 1, "c.json has no section images"),
        ("report l.csv", 1, "l.csv is not an image that can be read"),
        ("cam --labels c.json --images .", 1, "c.json has no section annotations"),
        ("train-segmenter c.json --images . -o x.safetensors", 1, "c.json has no section images"),
        ("cam --labels l.csv --images . --classes pig", 1, "l.csv, line 1: 'cow' is none of"),
        ("cam --labels l.csv --images . --classes pig,pig", 2, "the class 'pig' is named twice"),
        ("report c.json", 1, "c.json is JSON, but nothing that ovtool knows"),
        ("report e.json", 1, "e.json lists no images"),
        ("merge c.json", 1, "no such folder: c.json"),
        ("train-segmenter e.json --images . -o x.safetensors", 2, "e.json has one class, cow,"),
        ("train-segmenter maps --images . -o x.safetensors", 2, "maps has one class, cow,"),
        ("tune-prompts e.json --images .", 1, "e.json has no pairs"),
        ("train-proposer e.json --images . -o x.safetensors", 1, "no image of the truth has a"),
        ("cam --labels e.json --images .", 1, "e.json lists no images"),
        ("probe classify --coco e.json --images .", 1, "e.json holds no masks"),
        ("probe oracle --coco words.json --images .", 1, "words.json is a COCO JSON of captions"),
        ("mine-pairs --captions words.json --images maps", 1, "images of words.json is below"),
        ("tune-prompts panoptic.json", 1, "panoptic.json holds panoptic segments; give the masks"),
        ("segment --coco words.json --images maps --classes cow", 1, "maps holds none of the imag"),
        ("segment maps/none --classes cow", 1, "no image in maps/none"),
        ("mine-pairs --captions named.csv --images .", 1, "named.csv is no table of captions"),
        ("train-pacl --captions spoken.csv --images maps", 1, "images of spoken.csv is below"),
        ("segment a.jpg --classes cow grass", 1, 'write all in one: --classes "cow,grass"'),
        ("segment a.jpg --classes-file c.json", 1, "c.json is JSON; needed here: plain text"),
        ("segment a.jpg --classes-file e.json", 1, "e.json is a COCO JSON; needed here: plain"),
        ("propose maps/none", 1, "no image in maps/none"),
        ("cam --labels l.csv --images maps", 1, "such as maps/a.jpg"),
        (
            "segment a.jpg --classes cow --method two-stage --proposals words.json",
            1,
            "words.json is a COCO JSON of captions",
        ),
    ],
)
def test_what_is_missing_or_unknown(line, status, said, tmp_path, ran):
    (tmp_path / "a.jpg").touch()
    (tmp_path / "l.csv").write_text("a.jpg,cow\n")
    (tmp_path / "named.csv").write_text("image,label\na.jpg,cow\n")
    (tmp_path / "spoken.csv").write_text("image,caption\na.jpg,A cow on grass .\n")
    (tmp_path / "c.json").write_text("{}")
    empty = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cow"}]}
    (tmp_path / "e.json").write_text(json.dumps(empty))
    pairs = {"info": {"ovtool": {"command": "mine-pairs"}}, "images": []}
    (tmp_path / "maps" / "none").mkdir(parents=True)
    (tmp_path / "maps" / "classes.txt").write_text("cow\n")
    images = [{"id": 1, "file_name": "a.jpg", "width": 4, "height": 4}]
    spoken = [{"id": 1, "image_id": 1, "caption": "a cow on grass"}]
    whole = {"images": images, "annotations": spoken}
    (tmp_path / "words.json").write_text(json.dumps(whole))
    segments = [{"image_id": 1, "file_name": "a.png", "segments_info": []}]
    (tmp_path / "panoptic.json").write_text(json.dumps(whole | {"annotations": segments}))
    (tmp_path / "p.json").write_text(json.dumps(pairs))
    code, out, lines = ran(tmp_path, *line.split())
    assert (code, out, len(lines)) == (status, "", 1)
    assert said in lines[0]


@pytest.mark.parametrize(
    "line, status, said",
    [
        ("mine-pairs --captions masks.json --images .", 1, "masks.json holds masks"),
        ("train-pacl --captions masks.json --images .", 1, "masks.json holds masks"),
        ("tune-prompts spoken.json --images .", 1, "spoken.json is a COCO JSON of captions"),
        ("train-proposer results.json --images . -o x.safetensors", 1, "a bare list of results"),
        ("train-segmenter masks.json --images . -o x.safetensors", 2, "has one class, cow,"),
        ("cam --labels spoken.json --images .", 1, "spoken.json is a COCO JSON of captions"),
        ("segment --coco results.json --images . --classes cow", 1, "a bare list of results"),
        ("probe oracle --coco cut.json --images .", 1, "cut.json is not JSON: "),
    ],
)
def test_a_long_json_is_told_by_its_first_annotation(line, status, said, tmp_path, ran):
    from ovtool.cli import cheap_checks

    (tmp_path / "a.jpg").touch()
    image = {"id": 1, "file_name": "a.jpg", "width": 4, "height": 4, "note": "x" * 400_000}
    mask = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]}
    words = {"id": 1, "image_id": 1, "caption": "a cow", "note": "x" * 400_000}
    data = {"images": [image], "annotations": [mask], "categories": [{"id": 1, "name": "cow"}]}
    text = json.dumps(data)
    (tmp_path / "masks.json").write_text(text)
    (tmp_path / "cut.json").write_text(text[:-1])
    (tmp_path / "spoken.json").write_text(json.dumps(data | {"annotations": [words]}))
    (tmp_path / "results.json").write_text(json.dumps([words | mask | {"score": 0.5}]))
    assert (tmp_path / "masks.json").stat().st_size > cheap_checks.SHORT
    code, out, lines = ran(tmp_path, *line.split())
    assert (code, out, len(lines)) == (status, "", 1)
    assert said in lines[0]


def test_a_model_of_the_environment_that_is_unknown(tmp_path, ran):
    (tmp_path / "a.jpg").touch()
    status, _, said = ran(tmp_path, "segment", "a.jpg", "--classes", "cow", model="tinny")
    assert status == 2 and "unknown model 'tinny'; did you mean tiny?" in said[0]


def test_evaluate_of_two_files(tmp_path, ran):
    image = {"id": 1, "file_name": "a.jpg", "width": 4, "height": 4}
    mask = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [0, 0, 2, 2], "area": 4}
    mask["segmentation"] = [[0, 0, 2, 0, 2, 2, 0, 2]]
    data = {"images": [image], "annotations": [mask], "categories": [{"id": 1, "name": "cow"}]}
    (tmp_path / "t.json").write_text(json.dumps({"info": {}, "licenses": [], **data}))
    status, out, _ = ran(tmp_path, "evaluate", "t.json", "--ground-truth", "t.json", "--json")
    assert status == 0 and json.loads(out)["miou"] == 1.0


def test_label_maps_are_measured(tmp_path, ran):
    for side in ("truth", "prediction"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "classes.txt").write_text("cow\ngrass\n")
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / side / "a.png")
    line = ("evaluate", "prediction", "--ground-truth", "truth", "--json")
    status, out, _ = ran(tmp_path, *line)
    assert (status, json.loads(out)["miou"]) == (0, 1.0)
