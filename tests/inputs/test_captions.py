"""Captioned images of a run: where they come from, which captions, which nouns."""

import json
from collections import Counter

import pytest
from PIL import Image

from ovtool.errors import InputError, UsageError
from ovtool.formats.captions import Caption, CaptionedImage
from ovtool.inputs import captions as caption_inputs
from ovtool.inputs import images as image_inputs
from ovtool.inputs import labels as label_inputs
from ovtool.inputs import truths
from ovtool.models import nouns
from ovtool.settings.pairs import Nouns
from ovtool.settings.shared import Source


def image(name="a.jpg", texts=("a", "b", "c", "d", "e")):
    captions = tuple(Caption(10 + n, text) for n, text in enumerate(texts))
    return CaptionedImage(1, name, captions)


def coco_captions(folder, split="train2017"):
    """A COCO of one captioned image and one without, as detectron2 keeps it."""
    images = folder / "coco" / split
    images.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(images / "1.jpg")
    (folder / "coco" / "annotations").mkdir(exist_ok=True)
    data = {
        "images": [{"id": 2, "file_name": "2.jpg"}, {"id": 1, "file_name": "1.jpg"}],
        "annotations": [{"id": 1, "image_id": 1, "caption": "a dog"}],
    }
    (folder / "coco" / "annotations" / f"captions_{split}.json").write_text(json.dumps(data))


def test_coco_alone_is_its_training_part(tmp_path, monkeypatch):
    coco_captions(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for spec in ("coco", "coco:train2017"):
        items, found = caption_inputs.find(spec, None)
        assert [item.path for item in items] == [tmp_path / "coco" / "train2017" / "1.jpg"]
        assert [one.file_name for one in found] == ["1.jpg"]
    with pytest.raises(InputError, match="coco:val2017 is not at"):
        caption_inputs.find("coco:val2017", None)


def test_the_first_images_of_coco_are_the_same_for_every_command(tmp_path, monkeypatch):
    """COCO's own files list their images in no order; `propose --limit 2` takes the names as they are sorted."""
    names = ["3.jpg", "1.jpg", "2.jpg"]
    content = {
        "images": [
            {"id": int(name[0]), "file_name": name, "width": 8, "height": 8} for name in names
        ],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [
            {"id": id, "image_id": id, "category_id": 1, "caption": "a dog", "iscrowd": 0,
             "area": 4, "bbox": [0, 0, 2, 2], "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]}
            for id in (1, 2, 3)
        ],
    }  # fmt: skip
    folder, annotations = tmp_path / "coco" / "val2017", tmp_path / "coco" / "annotations"
    folder.mkdir(parents=True)
    annotations.mkdir()
    for name in names:
        Image.new("RGB", (8, 8)).save(folder / name)
    for kind in ("captions", "instances"):
        (annotations / f"{kind}_val2017.json").write_text(json.dumps(content))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    spec, first = "coco:val2017", ["1.jpg", "2.jpg"]
    assert [item.name for item in image_inputs.find([spec], limit=2)] == first
    assert [item.name for item in caption_inputs.find(spec, None, 2)[0]] == first
    assert [one.file_name for one in caption_inputs.find(spec, None, 2)[1]] == first
    assert [one.item.name for one in label_inputs.read(spec, limit=2).images] == first
    assert [item.name for item in truths.open_probed(spec, Source(limit=2)).items] == first
    file = annotations / "captions_val2017.json"
    assert [item.name for item in caption_inputs.find(str(file), folder, 2)[0]] == names[:2]


def test_a_file_with_its_folder(tmp_path):
    coco_captions(tmp_path)
    file = tmp_path / "coco" / "annotations" / "captions_train2017.json"
    items, _ = caption_inputs.find(str(file), tmp_path / "coco" / "train2017")
    assert [item.name for item in items] == ["1.jpg"]
    with pytest.raises(UsageError, match="needs --images DIR"):
        caption_inputs.find(str(file), None)
    with pytest.raises(InputError, match="no such folder"):
        caption_inputs.find(str(file), tmp_path / "none")
    with pytest.raises(InputError, match="none of the 1 images .* the first would be .*1.jpg"):
        caption_inputs.find(str(file), tmp_path)
    with pytest.raises(UsageError, match="coco is a data set"):
        caption_inputs.find("coco", tmp_path)


def test_the_name_of_the_output():
    assert caption_inputs.default_output("coco", "pairs.json") == "coco.pairs.json"
    assert caption_inputs.default_output("collage:train", "pairs.json") == "collage.pairs.json"
    assert caption_inputs.default_output("deep/mine.json", "pairs.json") == "mine.pairs.json"
    assert caption_inputs.default_output("-", "pairs.json") == "captions.pairs.json"


def test_captions_are_drawn_from_the_seed_and_the_image():
    names = [f"{n}.jpg" for n in range(400)]
    drawn = [caption_inputs.choose(image(name), "1", 0).captions[0].text for name in names]
    assert drawn == [caption_inputs.choose(image(name), "1", 0).captions[0].text for name in names]
    other = [caption_inputs.choose(image(name), "1", 1).captions[0].text for name in names]
    assert 200 < sum(a != b for a, b in zip(drawn, other, strict=True)) < 400
    assert all(50 < count < 110 for count in Counter(drawn).values())  # 80 of each


def test_more_captions_hold_those_of_fewer():
    whole = image(texts="abcdefgh")
    (one,) = caption_inputs.choose(whole, "1", 3).captions
    five = caption_inputs.choose(whole, "5", 3).captions
    assert one in five and len(five) == 5
    assert [caption.id for caption in five] == sorted(caption.id for caption in five)
    assert caption_inputs.choose(whole, "all", 3) == whole
    assert caption_inputs.choose(image(texts="ab"), "5", 3) == image(texts="ab")
    with pytest.raises(UsageError, match="--captions-per-image '2' is not one of '1', '5', 'all'"):
        Nouns(captions_per_image="2")


def test_each_lemma_of_an_image_once_where_it_is_said_first():
    images = [image("a", ("two dogs", "a dog and a cat")), image("b", ()), image("c", ("dogs",))]
    found = list(
        caption_inputs.mentions(images, nouns.load(), pos=("NOUN",), chunks=False, stop=frozenset())
    )
    said = [[(one.noun.lemma, one.noun.surface, one.caption_id) for one in each] for each in found]
    assert said == [[("dog", "dogs", 10), ("cat", "cat", 11)], [], [("dog", "dogs", 10)]]
