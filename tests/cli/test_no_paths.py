"""What commands write names a model by its last name, and holds no path of the machine."""

import shutil
from pathlib import Path

import pytest

from ovtool.cli.errors import run
from ovtool.datasets import collage_files, registry
from ovtool.formats import coco, tensors
from ovtool.models import sources


@pytest.fixture
def model(tmp_path):
    """The bundled model as a file of the user's: its path."""
    place = tmp_path / "own-models" / "mine.safetensors"
    place.parent.mkdir()
    shutil.copy(sources.bundled_folder() / "tiny.safetensors", place)
    shutil.copy(sources.bundled_folder() / "tiny.json", place.with_suffix(".json"))
    return ["--model", str(place)]


def holds_no_path(desk, tmp_path):
    """Whether no file on the desk holds the folder of the test."""
    files = [path for path in desk.rglob("*") if path.is_file()]
    assert files
    leaking = [path.name for path in files if str(tmp_path).encode() in path.read_bytes()]
    return leaking == []


def test_segments_and_pairs(desk, photos, captioned, model, tmp_path):
    assert run(["segment", str(photos), "--classes", "cow,apple", *model, "-o", "s.json"]) == 0
    spoken = ["--captions", str(captioned()), "--images", str(photos)]
    assert run(["mine-pairs", *spoken, "--proposer", "regions", *model, "-o", "p.json"]) == 0
    for name in ("s.json", "p.json"):
        assert coco.read(Path(name)).info["ovtool"]["model"]["name"] == "mine.safetensors"
    assert holds_no_path(desk, tmp_path)


def test_maps_and_what_is_made_of_them(desk, photos, model, tmp_path, capsys):
    Path("labels.csv").write_text("a.png,cow,boat\nb.jpg,cow\ndeep/c.png,boat\n")
    images = ["--images", str(photos)]
    maps = ["cam", "--labels", "labels.csv", *images, "--method", "gradcam", *model]
    assert run([*maps, "-o", "c.safetensors"]) == 0
    tuned = ["tune-prompts", "c.safetensors", *images, "--kind", "background", *model]
    assert run([*tuned, "--steps", "2", "--length", "3", "-o", "b.safetensors"]) == 0
    for name in ("c.safetensors", "b.safetensors"):
        assert tensors.read_header(Path(name))["model"] == "mine.safetensors"
    trained = [
        "--background-prompts",
        "b.safetensors",
        "--epochs",
        "1",
        "--save-generator",
        "g.safetensors",
    ]
    refined = ["refine", "c.safetensors", *images, "--apply", "prompts,affinity", *trained]
    assert run([*refined, *model, "-o", "r.safetensors"]) == 0
    assert run([*refined, *model, "-o", "r.json", "--overwrite"]) == 0
    assert coco.read(Path("r.json")).info["ovtool"]["model"]["name"] == "mine.safetensors"
    assert holds_no_path(desk, tmp_path)
    capsys.readouterr()
    assert run([*refined, "-o", "q.safetensors", "--overwrite"]) == 2
    assert (
        capsys.readouterr()
        .err.strip()
        .endswith(
            "the input was made with the model mine.safetensors, which is not found here; say where it is "
            "with --model"
        )
    )


def test_a_head_and_the_probes(desk, photos, captioned, model, tmp_path, capsys):
    spoken = ["--captions", str(captioned()), "--images", str(photos)]
    assert run(["train-pacl", *spoken, *model, "--steps", "2", "-o", "h.safetensors"]) == 0
    assert tensors.read_header(Path("h.safetensors"))["model"] == "mine.safetensors"
    collage_files.make(collage_files.CollageSpec("demo", 2, 1, 96), tmp_path / "collage")
    data = registry.collage_in(tmp_path / "collage", "demo")
    given = ["--coco", str(data.semantic), "--images", str(data.images), "--json", *model]
    capsys.readouterr()
    for name in ("alignment", "coherence", "classify", "oracle"):
        assert (
            run(["probe", name, *given, *(["--proposer", "regions"] if name == "oracle" else [])])
            == 0
        )
        said = capsys.readouterr().out
        assert "mine.safetensors" in said and str(tmp_path) not in said, name
    assert holds_no_path(desk, tmp_path)
