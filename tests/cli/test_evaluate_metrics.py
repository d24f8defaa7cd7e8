"""`ovtool evaluate --metric boundary-iou|panoptic|ap|seeds`, hIoU, images and processes, on files."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from ovtool.cli.errors import run
from ovtool.formats import cams, coco, label_maps, rle
from ovtool.methods import metrics
from ovtool.settings.evaluate import BoundaryIou, MeanIou, Panoptic, Seeds
from ovtool.settings.shared import Run
from ovtool.stages import evaluate

SIDE = 40
WORDS = ("cow", "duck", "grass")


def scene(random):
    """Two cows, a duck and grass around them: label map and masks."""
    labels = np.full((SIDE, SIDE), 2, np.int32)
    masks = []
    for k, (top, left) in ((0, (2, 2)), (0, (2, 22)), (1, (22, 4))):
        mask = np.zeros_like(labels, bool)
        height, width = random.integers(8, 15, 2)
        mask[top : top + height, left : left + width] = True
        labels[mask] = k
        masks.append((k, mask))
    return labels, [*masks, (2, labels == 2)]


def dataset(scenes, shift=0, scores=False):
    images, entries = [], []
    for number, (_, masks) in enumerate(scenes, start=1):
        images.append(coco.Image(number, f"{number}.jpg", SIDE, SIDE))
        for k, mask in masks:
            moved = np.roll(mask, shift, 1)
            score = 0.5 + 0.01 * len(entries) if scores else None
            entries.append(
                coco.annotation(len(entries) + 1, number, k + 1, rle.encode(moved), score)
            )
    categories = [
        coco.Category(k + 1, word, supercategory="ground" if word == "grass" else "")
        for k, word in enumerate(WORDS)
    ]
    return coco.Dataset({}, images, entries, categories)


@pytest.fixture
def scenes():
    random = np.random.default_rng(0)
    return [scene(random) for _ in range(4)]


@pytest.fixture
def files(desk, scenes):
    """truth.json, and shifted.json: the same masks two pixels to the right."""
    coco.write(dataset(scenes), desk / "truth.json")
    coco.write(dataset(scenes, 2, True), desk / "shifted.json")
    return ("evaluate", "shifted.json", "--ground-truth", "truth.json")


def write_maps(folder, maps, words=WORDS):
    folder.mkdir()
    for number, labels in enumerate(maps, start=1):
        label_maps.write(folder / f"{number}.png", labels, 3)
    label_maps.write_classes(folder / "classes.txt", words)


def measured(capsys, *words):
    capsys.readouterr()
    assert run([*words, "--json"]) == 0
    said = capsys.readouterr()
    return json.loads(said.out), said.err


def test_panoptic_quality_of_things_and_stuff(files, capsys, scenes):
    result, table = measured(capsys, *files, "--metric", "panoptic", "--per-image")
    ious = []
    for _, masks in scenes:
        for k, mask in masks[:2]:
            moved = np.roll(mask, 2, 1)
            ious.append((mask & moved).sum() / (mask | moved).sum())
            assert k == 0
    cow = result["classes"][0]
    assert (cow["name"], cow["thing"], cow["segments"]) == ("cow", True, 8)
    kept = [iou for iou in ious if iou > 0.5]
    assert cow["tp"] == len(kept) and cow["sq"] == pytest.approx(np.mean(kept))
    assert result["classes"][2]["thing"] is False and result["classes"][2]["segments"] == 4
    assert result["pq"] == pytest.approx(np.mean([row["pq"] for row in result["classes"]]))
    assert result["pq_stuff"] == result["classes"][2]["pq"]
    assert set(result["intervals"]) >= {"pq", "sq", "rq", "pq_things", "pq_stuff"}
    assert [row["file_name"] for row in result["per_image"]] == [f"{k}.jpg" for k in range(1, 5)]
    assert "PQ, things" in table and "lowest images" in table and "with 16 true segments" in table


def test_label_maps_have_a_segment_a_class(files, desk, scenes, capsys):
    write_maps(desk / "maps", [labels for labels, _ in scenes])
    words = ("evaluate", "truth.json", "--ground-truth", "maps", "--metric", "panoptic")
    result, table = measured(capsys, *words)
    assert result["pq"] == result["pq_stuff"] == 1 and result["pq_things"] is None
    assert result["segments"] == 12 and "PQ, things" in table


def test_average_precision(files, capsys, desk, scenes):
    result, table = measured(capsys, *files, "--metric", "ap")
    assert 0 < result["ap"] < result["ap_50"] <= 1 and result["ap_large"] is None
    assert [row["truth_masks"] for row in result["classes"]] == [8, 4, 4]
    assert set(result["intervals"]) == {"ap", "ap_50"}
    assert "AR, 100 masks of a class" in table and "16 true masks" in table
    perfect = dataset(scenes, 0, True)
    # ids and names of its own: classes are matched by name
    moved = {1: 30, 2: 10, 3: 20}
    categories = [replace(c, id=moved[c.id], name=c.name.upper()) for c in perfect.categories]
    entries = [replace(a, category_id=moved[a.category_id]) for a in perfect.annotations]
    own = replace(perfect, categories=sorted(categories, key=lambda c: c.id), annotations=entries)
    coco.write(own, desk / "own.json")
    both, _ = measured(capsys, files[0], files[1], "own.json", *files[2:], "--metric", "ap")
    assert both["other"]["ap"] == pytest.approx(1) and both["difference"]["ap"]["low"] > 0


def test_boundary_iou(files, capsys):
    area, _ = measured(capsys, *files)
    result, table = measured(capsys, *files, "--metric", "boundary-iou")
    assert 0 < result["boundary_miou"] < area["miou"] and "miou" not in result
    assert result["pixels"] < area["pixels"] and "pixels near contours" in table
    wide, _ = measured(capsys, *files, "--metric", "boundary-iou", "--boundary-width", "1")
    assert wide["boundary_miou"] == pytest.approx(area["miou"])
    assert set(result["intervals"]) == {"boundary_miou", "boundary_miou_union"}


def test_the_harmonic_mean_of_seen_and_novel(files, capsys, desk):
    result, table = measured(capsys, *files, "--novel", "duck")
    by_name = {row["name"]: row for row in result["classes"]}
    assert result["miou_novel"] == by_name["duck"]["iou"] and by_name["duck"]["novel"]
    seen = (by_name["cow"]["iou"] + by_name["grass"]["iou"]) / 2
    assert result["miou_seen"] == pytest.approx(seen)
    assert result["hiou"] == pytest.approx(
        2 * seen * result["miou_novel"] / (seen + result["miou_novel"])
    )
    assert set(result["intervals"]) >= {"hiou", "miou_seen", "miou_novel"}
    assert "duck (novel)" in table and "hIoU" in table
    (desk / "novel.txt").write_text("# a list\nduck\n")
    again, _ = measured(capsys, *files, "--novel", "novel.txt")
    assert again["hiou"] == result["hiou"] and again["ovtool"]["settings"]["novel"] == "novel.txt"
    edges, _ = measured(capsys, *files, "--novel", "duck", "--metric", "boundary-iou")
    assert edges["boundary_hiou"] < result["hiou"]


def test_each_image_is_measured(files, capsys, scenes):
    result, table = measured(capsys, *files, "--per-image")
    for row, (labels, masks) in zip(result["per_image"], scenes, strict=True):
        own = np.full_like(labels, -1)
        for k, mask in masks:
            own[np.roll(mask, 2, 1)] = k
        scores = metrics.scores(metrics.confusion(own, labels, 3))
        assert row["miou"] == pytest.approx(scores.miou_truth)
        assert row["pixel_accuracy"] == pytest.approx(scores.pixel_accuracy)
    lowest = min(result["per_image"], key=lambda row: row["miou"])["file_name"]
    lines = table.splitlines()
    place = next(k for k, line in enumerate(lines) if line.startswith("lowest images"))
    assert lines[place + 1].startswith(lowest)
    both, table = measured(
        capsys, "evaluate", "shifted.json", "truth.json", *files[2:], "--per-image"
    )
    assert all(row["miou"] == 1 for row in both["other"]["per_image"])
    assert "other's mIoU %" in table
    recalled, _ = measured(capsys, *files, "--metric", "recall", "--per-image")
    assert np.mean([row["average_recall"] for row in recalled["per_image"]]) == pytest.approx(
        recalled["average_recall"]
    )


@pytest.mark.parametrize(
    "metric",
    [
        Panoptic(per_image=True),  # these go through the same parts, with less to bring back:
        pytest.param(MeanIou(), marks=pytest.mark.slow),
        pytest.param(BoundaryIou(), marks=pytest.mark.slow),
    ],
)
def test_several_processes_give_the_same_result(files, metric):
    alone = evaluate.run("shifted.json", "truth.json", metric)
    assert evaluate.run("shifted.json", "truth.json", metric, run=Run(workers=2)) == alone


@pytest.mark.slow  # tests/runtime/test_processes.py says the same of any work
def test_an_error_in_another_process_is_one_line(files, desk, scenes, fails):
    write_maps(desk / "maps", [labels[: SIDE - k // 3] for k, (labels, _) in enumerate(scenes)])
    said = fails(1, "evaluate", "maps", *files[2:], "--workers", "2")
    assert said.startswith(
        "4.jpg: prediction and truth differ in size (40 x 39 and 40 x 40 pixels)"
    )


# --- seeds -----------------------------------------------------------------------------------------------
@pytest.fixture
def maps(files, desk, scenes):
    """maps.safetensors: .7 on the objects, .3 beside them; and things.json, whose rest is background."""
    truth = dataset(scenes)
    things = replace(
        truth,
        categories=truth.categories[:2],
        annotations=[a for a in truth.annotations if a.category_id < 3],
    )
    coco.write(things, desk / "things.json")
    images = [cams.CamImage(k, f"{k}.jpg", SIDE, SIDE, (1, 2)) for k in range(1, 5)]
    stored = {
        k: torch.stack(
            [torch.from_numpy(np.where(labels == c, 0.7, 0.3)).float() for c in range(2)]
        )
        for k, (labels, _) in enumerate(scenes, start=1)
    }
    cams.write(desk / "maps.safetensors", images, things.categories, stored, {})
    return ("evaluate", "maps.safetensors", "--ground-truth", "things.json", "--metric", "seeds")


def test_seeds_are_scored_at_a_threshold_of_the_other_half(maps, capsys):
    result, table = measured(capsys, *maps, "--per-image")
    assert result["miou"] == result["best_miou"] == 1 and result["images"] == 4
    assert all(0.3 <= threshold < 0.7 for threshold in result["thresholds"])
    assert [row["name"] for row in result["classes"]] == ["cow", "duck", "background"]
    assert result["intervals"]["miou"] == {"low": 1, "high": 1} and len(result["per_image"]) == 4
    assert "the best of the half that it does not score" in table


def test_the_background_of_the_truth_leaves_void_out(maps, desk, scenes, capsys):
    own = [np.array([1, 2, 0], np.int32)[labels] for labels, _ in scenes]
    for labels in own:
        labels[0] = -1  # void
    write_maps(desk / "voc", own, ("background", "cow", "duck"))
    result, _ = measured(capsys, *maps[:3], "voc", *maps[4:])
    assert result["miou"] == 1 and result["pixels_not_counted"] == 4 * SIDE


def test_bad_requests_of_seeds(maps, desk, fails, scenes):
    said = fails(1, "evaluate", "truth.json", *maps[2:])
    assert "needed here: class activation maps" in said
    coco.write(dataset(scenes[:1]), desk / "single.json")
    said = fails(1, *maps[:3], "single.json", *maps[4:])
    assert "there is a single one" in said
    assert "--workers is for --metric miou, boundary-iou, panoptic" in fails(
        2, *maps, "--workers", "2"
    )
    assert (
        evaluate.run("maps.safetensors", "things.json", Seeds(), run=Run(dry_run=True))["images"]
        == 4
    )


def test_bad_requests(files, fails):
    assert "has no class 'tree'; it has cow, duck, grass" in fails(2, *files, "--novel", "tree")
    assert "--novel names every class" in fails(2, *files, "--novel", "cow,duck,grass")
    assert "--per-image belongs to" in fails(2, *files, "--metric", "ap", "--per-image")
    assert "--boundary-width belongs to --metric boundary-iou" in fails(
        2, *files, "--boundary-width", "0.1"
    )
