"""Reported cases from end to end, each as its reporter met it, in small; README.md beside this names the kinds."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle_tools

SIDE = 64
TRAIN = (
    "--arch tiny --steps 2 --batch-size 2 --crop-size 64 --short-side 64 --validate-every 0 --held-out 0 "
    "-o out.safetensors"
)


def picture(path, seed=0, **options):
    """Saves an image of flat blocks."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3))
    pixels = np.kron(blocks, np.ones((SIDE // 4, SIDE // 4, 1))).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def encoded(mask):
    mask = rle_tools.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": mask["size"], "counts": mask["counts"].decode()}


def halves():
    """Masks of the upper and the lower half of an image."""
    upper = np.zeros((SIDE, SIDE), bool)
    upper[: SIDE // 2] = True
    return upper, ~upper


def labelled(desk, count=4, areas=(None,), names=("ground", "thing"), first_id=1):
    """labels.json and images/: two masks an image, `area` as given, by turns, or right for None."""
    images, annotations = [], []
    for k in range(count):
        picture(desk / "images" / f"s{k}.jpg", seed=k)
        images.append({"id": first_id + k, "file_name": f"s{k}.jpg", "width": SIDE, "height": SIDE})
        for category, mask in enumerate(halves()):
            area = areas[k % len(areas)]
            annotations.append(
                {
                    "id": len(annotations) + first_id,
                    "image_id": first_id + k,
                    "category_id": first_id + category,
                    "segmentation": encoded(mask),
                    "area": int(mask.sum()) if area is None else area,
                    "bbox": [0, 0, SIDE, SIDE],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": first_id + k, "name": name} for k, name in enumerate(names)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (desk / "labels.json").write_text(json.dumps(document))
    return document


@pytest.mark.parametrize("areas", [(0,), (None, 0), (7, 1e9)])
def test_an_area_field_drops_no_image(desk, does, areas):
    labelled(desk, areas=areas)
    status, _, said = does(f"train-segmenter labels.json --images images {TRAIN}")
    assert status == 0 and "4 images of 2 classes, 0 held out, 0 without a label" in said


@pytest.mark.parametrize(
    ("words", "separator"), [("words.txt", "|"), ("words.txt", ";"), (None, ";"), (None, "|")]
)
def test_synonyms_are_written_alike(desk, does, words, separator):
    picture(desk / "a.jpg")
    (desk / "words.txt").write_text(f"# what is on the table\napple{separator}pear\ngrass\n")
    named = "--classes-file words.txt" if words else f"--classes apple{separator}pear,grass"
    assert does(f"segment a.jpg {named} --method patch -o out.json")[0] == 0
    first, second = json.loads((desk / "out.json").read_text())["categories"]
    assert (first["name"], first["synonyms"], second["name"]) == ("apple", ["pear"], "grass")


def test_a_broken_image_does_not_end_a_training(desk, does):
    labelled(desk)
    whole = (desk / "images" / "s2.jpg").read_bytes()
    (desk / "images" / "s2.jpg").write_bytes(whole[: len(whole) // 2])
    status, _, said = does(f"train-segmenter labels.json --images images {TRAIN}")
    assert status == 0 and "left out 1 of the 4 images" in said and "s2.jpg is truncated" in said
    line = f"train-segmenter labels.json --images images {TRAIN} --overwrite --strict"
    status, _, said = does(line)
    assert status == 1 and "s2.jpg" in said


def test_ids_from_zero_are_read(desk, does):
    labelled(desk, first_id=0)
    status, out, said = does("evaluate labels.json --ground-truth labels.json --json")
    assert status == 0 and json.loads(out)["miou"] == 1.0


def test_no_kind_of_image_is_left_out(desk, does):
    for name in ("a.JPG", "b.JPEG", "c.TIF", "f.PNG"):
        picture(desk / "images" / name)
    for name in ("d.jfif", "e.jpe"):
        picture(desk / "images" / name, format="JPEG")
    (desk / "images" / "film.mp4").touch()
    status, _, said = does("segment images --classes apple,grass --method patch -o out.json")
    assert status == 0 and "6 images, " in said and "left out: 1 .mp4" in said


def test_a_label_of_two_words_stays_whole(desk, does):
    for name in "abc":
        picture(desk / "images" / f"{name}.jpg")
    (desk / "labels.csv").write_text("a.jpg,hot dog\nb.jpg,hot dog,apple\nc.jpg,apple\n")
    status, _, said = does("cam --labels labels.csv --images images -o out.cams.safetensors")
    assert status == 0
    _, out, _ = does("info out.cams.safetensors --json")
    assert "hot dog" in out and '"hot"' not in out and '"dog"' not in out
    assert "2 classes on 3 images" in said


def test_lemmas_are_words(desk, does):
    picture(desk / "a.jpg")
    caption = "scissors, cookies and vases next to sunglasses &amp; an apple"
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": SIDE, "height": SIDE}],
        "annotations": [{"id": 1, "image_id": 1, "caption": caption}],
    }
    (desk / "captions.json").write_text(json.dumps(document))
    line = "mine-pairs --captions captions.json --images . --proposer regions -o pairs.json"
    assert does(line)[0] == 0
    names = [
        category["name"] for category in json.loads((desk / "pairs.json").read_text())["categories"]
    ]
    assert names == ["apple", "cookie", "scissors", "sunglasses", "vase"]


@pytest.mark.parametrize("space", ["\u202f", "\u00a0", "\u200d", ":", " "])
def test_names_of_screenshots_are_written(desk, does, space):
    name = f"Screenshot at 9.41.00{space}AM.png"
    picture(desk / "shots" / name)
    status, _, said = does("segment shots --classes apple,grass --method patch -o out.json")
    assert status == 0 and "0 failed" in said
    assert json.loads((desk / "out.json").read_text())["images"][0]["file_name"] == name


@pytest.mark.parametrize("best_first", [True, False])
def test_the_higher_score_lies_on_top(desk, does, best_first):
    document = labelled(desk, count=1, names=("person", "sky"))
    mask = document["annotations"][0]["segmentation"]
    results = [
        {"image_id": 1, "category_id": category, "segmentation": mask, "score": score}
        for category, score in ((1, 0.95), (2, 0.05))
    ]
    (desk / "results.json").write_text(json.dumps(results if best_first else results[::-1]))
    status, out, _ = does("evaluate results.json --ground-truth labels.json --json")
    ious = {row["name"]: row["iou"] for row in json.loads(out)["classes"]}
    assert status == 0 and ious["person"] == 1.0


def test_a_label_map_is_not_taken_for_its_image(desk, does):
    for k in range(4):
        picture(desk / "data" / f"s{k}.jpg", seed=k)
        labels = Image.fromarray(halves()[1].astype(np.uint8))
        labels.save(desk / "data" / f"s{k}.png")
    (desk / "data" / "classes.txt").write_text("ground\nthing\n")
    status, _, said = does(f"train-segmenter data --images data {TRAIN}")
    assert status == 0 and "4 images of 2 classes" in said
    for k in range(4):
        (desk / "data" / f"s{k}.jpg").write_bytes(b"")
    status, _, said = does(f"train-segmenter data --images data {TRAIN} --overwrite")
    assert status == 1 and "s0.jpg is empty" in said


def test_no_picture_of_the_user_is_replaced_by_a_curve(desk, does):
    for name in "ab":
        picture(desk / "images" / f"{name}.jpg")
    (desk / "labels.csv").write_text("a.jpg,apple\nb.jpg,cow\n")
    assert does("cam --labels labels.csv --images images -o x.cams.safetensors")[0] == 0
    picture(desk / "apple.png")
    before = (desk / "apple.png").read_bytes()
    line = (
        "refine x.cams.safetensors --images images --apply prompts --epochs 0.5 --refine-weight 0"
    )
    status, _, said = does(f"{line} --save-generator apple.safetensors -o x.json")
    assert status == 1 and "apple.png exists" in said
    assert (desk / "apple.png").read_bytes() == before
    assert not (desk / "x.json").exists() and not (desk / "apple.safetensors").exists()


def test_names_in_another_spelling_do_not_give_zero(desk, does):
    labelled(desk, count=1, names=("traffic_light", "door;double door"))
    (desk / "labels.json").rename(desk / "truth.json")
    labelled(desk, count=1, names=("traffic light", "door"))
    status, out, said = does("evaluate labels.json --ground-truth truth.json --json")
    assert status == 0 and json.loads(out)["miou"] == 1.0
    assert "'traffic light' is 'traffic_light', 'door' is 'door;double door'" in said
