"""`ovtool propose` on files, end to end."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from ovtool.cli.errors import run
from ovtool.errors import InputError
from ovtool.formats import coco, rle, tensors
from ovtool.formats import images as pictures
from ovtool.methods import regions
from ovtool.runtime.outcome import Outcome
from ovtool.settings.propose import Propose
from ovtool.settings.shared import Compute, Run, Source
from ovtool.stages import propose as stage

PLANNED = Outcome(coco.Dataset({}, (), (), ()), "x.json", planned=0)


def test_every_option_reaches_the_function(handed):
    seen = handed(stage, PLANNED)
    line = (
        "propose x.jpg --proposer regions --nms 0.5 --max-proposals 5 --min-area 0.5 --model tiny"
    )
    line += " --device cpu --threads 2 --save-embeddings e.safetensors --limit 7 -o x.json"
    line += " --coco i.json --images i --format results"
    flags = " --resume --overwrite --strict --dry-run --part-size 9"
    flags += " --workers 2 --shard 3/16 --engine ray --ray-address auto"
    assert run((line + flags).split()) == 0
    assert seen == {
        "inputs": ("x.jpg",),
        "masks": Propose(proposer="regions", max_proposals=5, min_area=0.5, nms=0.5),
        "out": "x.json",
        "format": "results",
        "save_embeddings": Path("e.safetensors"),
        "source": Source(coco="i.json", images="i", limit=7),
        "run": Run(
            part_size=9,
            resume=True,
            overwrite=True,
            strict=True,
            dry_run=True,
            workers=2,
            shard="3/16",
            engine="ray",
            ray_address="auto",
        ),
        "compute": Compute(model="tiny", device="cpu", threads=2),
    }
    assert run(["propose", "x.jpg"]) == 0
    assert seen["masks"] == Propose() and seen["run"] == Run() and seen["compute"] == Compute()


def test_the_old_name_of_a_flag_is_answered_with_the_new_one(fails):
    said = fails(2, "propose", "x.jpg", "--embeddings", "e.safetensors")
    assert said.startswith("--embeddings is now --save-embeddings; give that instead")


def test_a_path_alone_is_one_image(desk, photos):
    outcome = stage.run(photos / "a.png", Propose(proposer="regions", max_proposals=3))
    assert outcome.out == "a.proposals.json"
    assert [image.file_name for image in outcome.dataset.images] == ["a.png"]
    assert stage.run(str(photos), Propose(proposer="regions"), run=Run(dry_run=True)).planned == 3


def test_proposals_are_masks_of_one_category_best_first(desk, photos, capsys):
    assert run(["propose", str(photos), "--proposer", "regions", "--json"]) == 0
    said = capsys.readouterr()
    dataset = coco.read("photos.proposals.json", root=photos)
    masks = len(dataset.annotations)
    assert json.loads(said.out) == {
        "output": "photos.proposals.json",
        "images": 3,
        "masks": masks,
        "images_without_masks": [],
        "failures": [],
        "dry_run": False,
    }
    assert said.err == f"3 images, {masks} masks, 0 failed: photos.proposals.json\n"
    assert [c.name for c in dataset.categories] == ["object"]
    for image in dataset.images:
        own = [a for a in dataset.annotations if a.image_id == image.id]
        scores = [a.score for a in own]
        assert scores == sorted(scores, reverse=True) and 0 <= scores[-1] <= scores[0] <= 1
        found = regions.propose_regions(pictures.read_rgb(photos / image.file_name))
        for mask, entry in zip(found.masks(), own, strict=True):
            assert np.array_equal(mask, rle.decode(entry.segmentation, *mask.shape))
    made_by = dataset.info["ovtool"]
    assert made_by["command"] == "propose" and "model" not in made_by
    assert made_by["settings"] == {"proposer": "regions", "max_proposals": 100, "min_area": 0.001}
    assert run(["check", "photos.proposals.json"]) == 0


def test_the_bundled_proposer_is_the_default_of_tiny(desk, photos):
    line = ["propose", str(photos / "a.png"), "-o", "o.json", "--save-embeddings", "e.safetensors"]
    assert run(line) == 0
    dataset = coco.read("o.json")
    made_by = dataset.info["ovtool"]["settings"]
    assert made_by["proposer"] == "tiny" and len(made_by["weights"]) == 16
    assert len(dataset.annotations) > 1
    header, found = tensors.load("e.safetensors", kind="proposals")
    assert header["model"] == "tiny"
    assert found["embeddings"].shape == (len(dataset.annotations), 192)
    assert run(["check", "o.json", "e.safetensors"]) == 0


def test_the_most_and_the_least(desk, photos):
    line = ["propose", str(photos), "-o", "o.json", "--max-proposals", "4", "--min-area", "0.05"]
    assert run(line) == 0
    dataset = coco.read("o.json")
    sizes = {image.id: image.height * image.width for image in dataset.images}
    counts = np.bincount([a.image_id for a in dataset.annotations], minlength=4)[1:]
    assert (counts == 4).all()
    assert all(a.area >= 0.05 * sizes[a.image_id] for a in dataset.annotations)


def test_standard_output_gets_the_json_alone(desk, photos, capsys):
    assert run(["propose", str(photos), "-o", "-"]) == 0
    dataset = coco.parse(json.loads(capsys.readouterr().out), "stdout")
    assert len(dataset.images) == 3 and list(desk.iterdir()) == []


def test_a_dry_run_writes_nothing(desk, photos, capsys):
    assert run(["propose", str(photos / "a.png"), "--dry-run"]) == 0
    first, second = capsys.readouterr().err.splitlines()
    assert first == "would propose 1 image, into a.proposals.json"
    assert second.startswith("1 part of up to 256 images, on cpu with ")
    assert list(desk.iterdir()) == []


def test_one_broken_picture_among_good_ones(desk, photos, capsys):
    (photos / "b.jpg").write_bytes((photos / "b.jpg").read_bytes()[:200])
    assert run(["propose", str(photos), "-o", "o.json"]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("failed: b.jpg is truncated or damaged")
    dataset = coco.read("o.json")
    assert [i.file_name for i in dataset.images] == ["a.png", "deep/c.png"]
    (failure,) = dataset.info["ovtool"]["failures"]
    assert failure["file_name"] == "b.jpg"


def test_bad_proposers_are_one_line(desk, photos, fails, monkeypatch):
    from ovtool.models import sources

    monkeypatch.setattr(sources, "hub_answers", lambda: False)
    line = ("propose", photos / "a.png", "--proposer")
    assert "unknown proposer 'magic'; choose from regions" in fails(2, *line, "magic")
    assert fails(1, *line, "gone.safetensors") == "no such file: gone.safetensors"
    said = fails(2, *line, "maskformer:facebook/none")
    assert "the hub does not answer" in said and "`hf download facebook/none`" in said
    assert "`hf download some/sam`" in fails(2, *line, "sam:some/sam")
    said = fails(2, *line, "regions", "--save-embeddings", "e.safetensors")
    assert said.startswith("--proposer regions has no embeddings")
    (desk / "broken.safetensors").write_bytes(b"nonsense")
    assert "truncated or not a safetensors file" in fails(1, *line, "broken.safetensors")


def test_a_proposer_of_another_clip_names_both(desk, photos, fails):
    from ovtool.formats import tensors

    header = {"kind": "proposer", "model": "large", "fingerprint": "f" * 16}
    tensors.save(desk / "p.safetensors", {"words": np.zeros((1, 2))}, header)
    line = ("propose", photos / "a.png", "--proposer", "p.safetensors", "--model", "tiny")
    said = fails(2, *line)
    assert "p.safetensors was made with large (ffffffffffffffff)" in said and "tiny (" in said


def test_suppression_is_kept_in_the_output(desk, photos):
    assert run(["propose", str(photos / "a.png"), "-o", "o.json", "--nms", "0.3"]) == 0
    loose = len(regions.propose_regions(pictures.read_rgb(photos / "a.png")).quality)
    dataset = coco.read("o.json")
    assert 0 < len(dataset.annotations) < loose
    assert dataset.info["ovtool"]["settings"]["nms"] == 0.3
    masks = [a.segmentation for a in dataset.annotations]
    overlaps = coco_mask.iou(masks, masks, [0] * len(masks)) - np.eye(len(masks))
    assert overlaps.max() <= 0.3


@pytest.mark.parametrize(
    ("own", "reason"),
    [
        ({}, "the parts have no embeddings"),
        ({"no_object": (3,)}, "the parts have no embeddings"),
        ({"no_object": (3,), "embeddings": (1, 3)}, "not those of their masks"),
        ({"no_object": (3,), "embeddings": (2, 4)}, "not those of their masks"),
        ({"no_object": (3,), "embeddings": (2,)}, "not those of their masks"),
        ({"no_object": (), "embeddings": (2,)}, "not those of their masks"),
    ],
)
def test_embeddings_of_other_masks_are_not_written(tmp_path, own, reason):
    """As parts that were changed by hand could have them."""
    mask = rle.encode(np.ones((2, 2), bool))
    entries = [coco.Annotation(k, 1, 1, mask, (0, 0, 2, 2), 4.0, 1.0) for k in (1, 2)]
    dataset = coco.Dataset({}, [coco.Image(1, "a.png", 2, 2)], entries, stage.CATEGORIES)
    part = tensors.Anew({k: functools.partial(torch.zeros, shape) for k, shape in own.items()})
    places = {"embeddings": str(tmp_path / "e.safetensors")}
    with pytest.raises(InputError, match=reason):
        stage.finish(dataset, [part], places, {})
    assert list(tmp_path.iterdir()) == []
    good = {"no_object": torch.zeros(3), "embeddings": torch.zeros(2, 3)}
    stage.finish(dataset, [good], places, {})
    assert tensors.names(tmp_path / "e.safetensors")["embeddings"] == ("F32", (2, 3))
