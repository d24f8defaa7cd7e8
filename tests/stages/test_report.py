"""`report` of files whose regions and IoU are worked out by hand."""

import errno
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from ovtool.errors import InputError, OutputExistsError
from ovtool.formats import cams, coco, report_page, rle
from ovtool.settings.evaluate import MeanIou, Panoptic
from ovtool.settings.report import Page
from ovtool.settings.shared import Run
from ovtool.stages import evaluate, report


def figures(path):
    html = path.read_text(encoding="utf-8")
    found = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.DOTALL)
    *images, data = (json.loads(text) for text in found)
    return images, data


def masks(path, columns, names=("cat", "dog"), score=None):
    """A COCO JSON of a.png, 4 x 8: for each name the columns that it covers."""
    annotations = []
    for id, (first, last) in enumerate(columns, start=1):
        mask = np.zeros((4, 8), bool)
        mask[:, first:last] = True
        annotations.append(
            coco.annotation(id, 1, min(id, len(names)), rle.encode(mask), score=score)
        )
    categories = [coco.Category(id, name) for id, name in enumerate(names, start=1)]
    coco.write(coco.Dataset({}, [coco.Image(1, "a.png", 8, 4)], annotations, categories), path)
    return path


@pytest.fixture
def folder(tmp_path):
    Image.fromarray(np.full((4, 8, 3), 100, np.uint8)).save(tmp_path / "a.png")
    return tmp_path


def test_the_iou_of_an_image_is_the_mean_over_its_true_classes(folder):
    truth = masks(folder / "truth.json", [(0, 4), (4, 8)])
    guess = masks(folder / "guess.json", [(0, 6), (6, 8)], score=0.5)
    out = folder / "page.html"
    written = report.run([guess], ground_truth=truth, images=folder, out=out)
    assert (written.images, written.failures) == (1, [])
    (image,), data = figures(out)
    assert image["measures"]["IoU"] == pytest.approx((4 / 6 + 2 / 4) / 2)
    assert data["layers"] == ["truth", "guess.json"]
    assert [layer["shares"] for layer in image["layers"]] == [[0.5, 0.5], [0.75, 0.25]]
    assert image["layers"][1]["scores"] == [0.5, 0.5]


def test_images_that_the_truth_alone_has_are_left_out_and_counted(folder, monkeypatch):
    """Of COCO's 40,504 validation images a run with --limit predicts few; a page of the first of the truth would
    show none of them."""
    made = {name: masks(folder / f"{name}.json", [(0, 4), (4, 8)]) for name in ("truth", "guess")}
    content = json.loads(made["truth"].read_text())
    content["images"].insert(0, {"id": 7, "file_name": "b.png", "width": 8, "height": 4})
    made["truth"].write_text(json.dumps(content))
    Image.new("RGB", (8, 4)).save(folder / "b.png")
    said = []
    monkeypatch.setattr(report._logger, "warning", lambda text, *of: said.append(text % of))
    written = report.run(
        [made["guess"]],
        ground_truth=made["truth"],
        images=folder,
        out=folder / "page.html",
        limit=1,
    )
    assert (written.images, written.failures) == (1, [])
    (image,), _ = figures(folder / "page.html")
    assert image["measures"] == {"IoU": 1.0}
    assert said == [f"1 of the 2 images of {made['truth']} are in no other file, and are left out"]


def test_without_a_truth_two_files_are_compared(folder):
    first = masks(folder / "first.json", [(0, 4), (4, 8)])
    second = masks(folder / "second.json", [(0, 3), (4, 8)])  # a column of neither
    report.run([first, second], images=folder, out=folder / "page.html")
    (image,), _ = figures(folder / "page.html")
    assert image["measures"]["disagreement"] == pytest.approx(1 / 8)


def test_an_image_that_a_file_lacks_counts_in_no_disagreement_and_is_counted(folder, monkeypatch):
    """Of two images one is in both files and differs in 1 of 8 columns; the other is in the first alone."""
    first = masks(folder / "first.json", [(0, 4), (4, 8)])
    second = masks(folder / "second.json", [(0, 3), (4, 8)])
    more = json.loads(first.read_text())
    more["images"].append({"id": 7, "file_name": "b.png", "width": 8, "height": 4})
    first.write_text(json.dumps(more))
    Image.new("RGB", (8, 4)).save(folder / "b.png")
    said = []
    monkeypatch.setattr(report._logger, "warning", lambda text, *of: said.append(text % of))
    report.run([first, second], images=folder, out=folder / "page.html")
    (image, alone), _ = figures(folder / "page.html")
    assert image["measures"]["disagreement"] == pytest.approx(1 / 8)
    assert alone["measures"] == {"disagreement": None} and alone["layers"][1] is None
    html = (folder / "page.html").read_text(encoding="utf-8")
    assert re.search(r"mean over the 1 images that both hold</bdi></th>.*>12\.5<", html)
    assert re.search(r"images that second\.json lacks, left out</bdi></th><td>1</td>", html)
    lacks = "second.json lacks 1 of the images that are drawn; they count in no "
    assert said == [f"{lacks}disagreement"]

    truth = masks(folder / "truth.json", [(0, 4), (4, 8)])
    more["annotations"] = json.loads(truth.read_text())["annotations"]
    truth.write_text(json.dumps(more))
    report.run([first, second], ground_truth=truth, images=folder, out=folder / "of.html")
    (image, alone), _ = figures(folder / "of.html")
    assert alone["measures"]["IoU of second.json"] is None
    assert image["measures"] == {"IoU of first.json": 1.0, "IoU of second.json": 0.875}
    assert said[1:] == [f"{lacks}measure of it"]


def test_proposals_lie_with_the_smallest_on_top_and_are_not_compared(folder):
    proposals = masks(folder / "p.json", [(2, 4), (0, 8), (0, 5)], names=("object",), score=0.9)
    report.run([proposals, proposals], images=folder, out=folder / "page.html")
    (image,), _ = figures(folder / "page.html")
    assert image["measures"] == {}
    layer = image["layers"][0]
    assert layer["distinct"]
    assert layer["shares"] == [3 / 8, 3 / 8, 2 / 8]  # what is to be seen of 8, 5 and 2 columns


def test_activation_maps_and_a_file_without_the_image(folder, tmp_path):
    import torch

    kept = cams.CamImage(4, "a.png", 4, 8, (2,))
    maps = folder / "cams.safetensors"
    cams.write(maps, [kept], [coco.Category(1, "cat"), coco.Category(2, "dog")],
               {4: torch.ones(1, 2, 4)}, {"method": "gradcam"})  # fmt: skip
    segments = masks(folder / "s.json", [(0, 4), (4, 8)])
    report.run([segments, maps], images=folder, out=folder / "page.html")
    (image,), data = figures(folder / "page.html")
    assert [data["words"][word] for word in image["layers"][1]["words"]] == ["dog"]


def test_measures_of_evaluate_become_a_table(folder):
    scores = folder / "scores.json"
    rows = [{"name": "cat", "iou": 0.25, "accuracy": None}]
    scores.write_text(json.dumps({"metric": "miou", "images": 3, "classes": rows}))
    report.run([scores], Page(title="Scores"), out=folder / "page.html")
    html = (folder / "page.html").read_text(encoding="utf-8")
    assert re.search(r"<bdi>cat</bdi></th>.*25\.0.*<td>–</td>", html)
    assert "<h1>Scores</h1>" in html


def test_a_difference_of_two_predictions_stands_with_its_interval(folder):
    truth = masks(folder / "truth.json", [(0, 4), (4, 8)])
    guess = masks(folder / "guess.json", [(0, 6), (6, 8)])
    evaluate.run(guess, truth, MeanIou(), out=folder / "one.json")
    evaluate.run(guess, truth, MeanIou(), other=truth, out=folder / "two.json")
    report.run([folder / "one.json", folder / "two.json"], out=folder / "page.html")
    html = (folder / "page.html").read_text(encoding="utf-8")
    texts = re.findall(r"<td>([^<]*)</td>|<span>([^<]*)</span>|<bdi>([^<]*)</bdi>", html)
    cells = ["".join(text) for text in texts]
    first = cells.index("mIoU, classes of the truth")
    assert cells[first + 1 : first + 3] == ["58.3", "[58.3, 58.3]"]  # (4 / 6 + 2 / 4) / 2
    second = cells.index("mIoU, classes of the truth", first + 1)
    assert cells[second + 1 : second + 4] == ["58.3", "100.0", "[41.7, 41.7]"]


def test_measures_of_images_stand_with_the_images(folder):
    truth = masks(folder / "truth.json", [(0, 4), (4, 8)])
    guess = masks(folder / "guess.json", [(0, 6), (6, 8)], score=0.5)
    for metric in (MeanIou(per_image=True), Panoptic(per_image=True)):
        evaluate.run(guess, truth, metric, out=folder / f"{type(metric).__name__}.json")
    scores = [folder / "MeanIou.json", folder / "Panoptic.json"]
    report.run([guess, *scores], images=folder, out=folder / "page.html")
    (image,), _ = figures(folder / "page.html")
    assert image["measures"] == {
        "miou (MeanIou.json)": pytest.approx((4 / 6 + 2 / 4) / 2),
        "pixel_accuracy (MeanIou.json)": 0.75,
        "pq (Panoptic.json)": pytest.approx(4 / 6 / 2),
    }
    html = (folder / "page.html").read_text(encoding="utf-8")
    assert "<th" in html and "PQ %" in html and "Classes of Panoptic.json" in html


def test_a_broken_image_is_left_out_and_a_lone_one_is_an_error(folder):
    truth = masks(folder / "truth.json", [(0, 4), (4, 8)])
    (folder / "a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="not one image could be drawn"):
        report.run([truth], images=folder, out=folder / "page.html")
    assert not (folder / "page.html").exists()


def test_a_page_is_not_replaced_and_other_files_are_refused(folder):
    truth = masks(folder / "truth.json", [(0, 4), (4, 8)])
    out = folder / "page.html"
    report.run([truth], images=folder, out=out)
    with pytest.raises(OutputExistsError):
        report.run([truth], images=folder, out=out)
    report.run([truth], images=folder, out=out, run=Run(overwrite=True))
    with pytest.raises(
        InputError, match=r"a report can show nothing of .*a.png \(image\); it reads COCO masks"
    ):
        report.run([folder / "a.png"], out=folder / "other.html")


def test_an_image_of_another_size_is_named(folder):
    truth = masks(folder / "truth.json", [(0, 4), (4, 8)])
    Image.fromarray(np.zeros((5, 8, 3), np.uint8)).save(folder / "a.png")
    with pytest.raises(InputError, match="8 x 5 pixels, but 8 x 4 in truth.json"):
        report.run([truth], images=folder, out=folder / "page.html")


def test_a_full_folder_of_temporary_files_is_said_as_that(folder, monkeypatch):
    truth = masks(folder / "truth.json", [(0, 4), (4, 8)])

    class Full(io.BytesIO):
        def write(self, content):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(report_page.tempfile, "TemporaryFile", lambda prefix: Full())
    with pytest.raises(InputError, match="cannot keep temporary files in .*; set TMPDIR to"):
        report.run([truth], images=folder, out=folder / "page.html")
    assert not (folder / "page.html").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"classes": "x"}, "classes is 'x', not a list"),
        ({"classes": [3]}, r"classes\[0\] is 3, not an object"),
        ({"classes": [{"iou": 0.5}]}, r"classes\[0\].name is missing"),
        ({"classes": [{"name": "cat", "iou": [1]}]}, r"classes\[0\].iou is \[1\], not a number"),
        ({"per_image": [{"miou": 0.5}]}, r"per_image\[0\].file_name is missing"),
        (
            {"per_image": [{"file_name": "a.png", "miou": "x"}]},
            "per_image.miou is 'x', not a number",
        ),
        ({"per_image": [{"file_name": "/"}]}, "per_image: file_name '/' is absolute"),
        ({"per_image": [{"file_name": ""}]}, "per_image: file_name '' names no file"),
        ({"ovtool": 3}, "ovtool is 3, not an object"),
    ],
)
def test_measures_that_evaluate_did_not_write_are_refused(folder, change, said):
    (folder / "scores.json").write_text(json.dumps({"metric": "miou", **change}))
    with pytest.raises(InputError, match=said):
        report.run([folder / "scores.json"], out=folder / "page.html")


def test_masks_made_by_something_else_are_drawn(folder):
    truth = masks(folder / "truth.json", [(0, 4), (4, 8)])
    truth.write_text(json.dumps(json.loads(truth.read_text()) | {"info": {"ovtool": "mine"}}))
    assert report.run([truth], images=folder, out=folder / "page.html").images == 1
