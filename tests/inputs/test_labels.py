"""Image-level labels: wherever they come from, only which classes an image shows is read."""

import json

import pytest

from ovtool.datasets import registry
from ovtool.errors import InputError, UsageError
from ovtool.inputs import labels as label_inputs

DATA = {
    "images": [
        {"id": 1, "file_name": "a.png", "width": 64, "height": 40},
        {"id": 2, "file_name": "b.jpg", "width": 64, "height": 48},
        {"id": 3, "file_name": "deep/c.png", "width": 64, "height": 56},
    ],
    "categories": [{"id": 4, "name": "cow"}, {"id": 9, "name": "boat"}],
    "annotations": [  # no masks, no boxes
        {"id": 1, "image_id": 1, "category_id": 9},
        {"id": 2, "image_id": 1, "category_id": 4},
        {"id": 3, "image_id": 1, "category_id": 9},
        {"id": 4, "image_id": 3, "category_id": 4},
    ],
}


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(label_inputs._logger, "warning", lambda text, *of: lines.append(text % of))
    return lines


@pytest.fixture
def source(tmp_path):
    def write(data, name="labels.json"):
        text = data if isinstance(data, str) else json.dumps(data)
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def shown(found):
    names = {category.id: category.name for category in found.categories}
    return {one.item.name: [names[k] for k in one.category_ids] for one in found.images}


def test_a_coco_file_without_masks(source, photos, said):
    found = label_inputs.read(source(DATA), photos)
    assert shown(found) == {"a.png": ["cow", "boat"], "deep/c.png": ["cow"]}
    assert [category.id for category in found.categories] == [4, 9]
    assert len(said) == 1 and "1 of the 3 images" in said[0] and "such as b.jpg" in said[0]


def test_what_exporters_write_is_repaired_as_masks_are(source, photos, said):
    """Ids that are floats and texts, an annotation counted from 0, and a name with the backslashes of Windows."""
    data = json.loads(json.dumps(DATA))
    data["images"][0]["id"], data["images"][2]["file_name"] = 1.0, "deep\\c.png"
    for annotation, id in zip(data["annotations"], (0, 1, "2", 3), strict=True):
        annotation |= {"id": id, "category_id": str(annotation["category_id"])}
    plain = label_inputs.read(source(DATA), photos)
    assert label_inputs.read(source(data), photos).images == plain.images
    assert len(said) == 3 and "6 numbers that were floats or texts are now integers" in said[1]


def test_masks_that_are_there_are_not_looked_at(source, photos, said):
    broken = [{**one, "segmentation": "nonsense", "bbox": [None]} for one in DATA["annotations"]]
    plain = label_inputs.read(source(DATA), photos)
    assert label_inputs.read(source({**DATA, "annotations": broken}), photos).images == plain.images


@pytest.mark.parametrize(
    "text",
    [
        "a.png\tcow,boat\nb.jpg\tcow\n",
        "a.png,cow,boat\nb.jpg,cow\n",
        "a.png cow boat\n\n# a remark\nb.jpg cow\n",
        'a.png,"boat,cow"\nb.jpg,cow\n',
        "a.png cow\na.png boat\nb.jpg cow\n",
    ],
)
def test_files_of_two_columns(source, photos, text):
    found = label_inputs.read(source(text, "labels.txt"), photos)
    assert shown(found) == {"a.png": ["boat", "cow"], "b.jpg": ["cow"]}
    named = label_inputs.read(source(text, "labels.txt"), photos, classes="cow|cattle,boat")
    assert shown(named)["a.png"] == ["cow", "boat"]
    assert named.categories[0].synonyms == ("cattle",) and named.digest != found.digest


def test_images_without_labels(source, photos, said):
    found = label_inputs.read(source("a.png\tcow\nb.jpg\t\n", "l.tsv"), photos)
    assert shown(found) == {"a.png": ["cow"]} and "such as b.jpg" in said[0]
    with pytest.raises(InputError, match="none of the 2 images of .* has a label"):
        label_inputs.read(source("a.png\t\nb.jpg\t\n", "l.tsv"), photos)


def test_a_label_that_is_no_class(source, photos):
    with pytest.raises(InputError, match=r"line 2: 'ship' is none of the classes \(cow, boat\)"):
        label_inputs.read(source("a.png cow\nb.jpg ship\n", "l.txt"), photos, classes="cow,boat")
    wrong = [{"id": 1, "image_id": 1, "category_id": 5}]
    with pytest.raises(InputError, match="category_id 5"):
        label_inputs.read(source({**DATA, "annotations": wrong}), photos)


def test_labels_for_images_that_do_not_exist(source, photos):
    with pytest.raises(
        InputError, match="labels for 1 images that do not exist, such as .*gone.png"
    ):
        label_inputs.read(source("a.png cow\ngone.png cow\n", "l.txt"), photos)
    with pytest.raises(InputError, match="no such folder"):
        label_inputs.read(source(DATA), photos / "nowhere")
    with pytest.raises(InputError, match="no such file: .*gone.txt, and no data set of that name"):
        label_inputs.read("gone.txt", photos)


def test_what_cannot_be_meant(source, photos):
    with pytest.raises(UsageError, match="needs --images DIR"):
        label_inputs.read(source(DATA))
    with pytest.raises(UsageError, match="--classes is for a file of two columns"):
        label_inputs.read(source(DATA), photos, classes="cow")
    with pytest.raises(UsageError, match="collage:demo has its own"):
        label_inputs.read("collage:demo", photos)


# --- data sets ---------------------------------------------------------------------------------------


@pytest.fixture
def voc(tmp_path, monkeypatch, photos):
    """VOC 2012 with two images in train, three in train_aug."""
    root = tmp_path / "sets" / "VOC2012"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    objects = {"2007_1": ("cow", "cow", "person"), "2007_2": ("diningtable",), "2007_3": ("cat",)}
    for stem, names in objects.items():
        (root / "JPEGImages" / f"{stem}.jpg").write_bytes((photos / "b.jpg").read_bytes())
        listed = "".join(f"<object><name>{name}</name></object>" for name in names)
        (root / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{listed}</annotation>")
    lists = root / "ImageSets" / "Segmentation"
    (lists / "train.txt").write_text("2007_2\n2007_1\n")
    pairs = (f"/JPEGImages/{one}.jpg /SegmentationClassAug/{one}.png\n" for one in objects)
    (lists / "trainaug.txt").write_text("".join(pairs))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "sets"))
    return root


def test_voc_by_the_names_in_its_xml(voc):
    found = label_inputs.read("voc:train")
    assert shown(found) == {"2007_2.jpg": ["diningtable"], "2007_1.jpg": ["cow", "person"]}
    assert len(found.categories) == 20 and found.categories[0].name == "aeroplane"
    table = next(one for one in found.categories if one.name == "diningtable")
    assert "dining table" in table.synonyms
    assert list(shown(label_inputs.read("voc:train_aug"))) == [
        "2007_1.jpg",
        "2007_2.jpg",
        "2007_3.jpg",
    ]
    assert len(label_inputs.read("voc:train_aug", limit=1).images) == 1


def test_voc_that_is_broken(voc):
    path = voc / "Annotations" / "2007_1.xml"
    path.write_text("<annotation><object><name>unicorn</name></object></annotation>")
    with pytest.raises(InputError, match="2007_1.xml names 'unicorn', which is no class of VOC"):
        label_inputs.read("voc:train")
    for broken in ("<annotation>", '<?xml version="1.0" encoding="utf-100"?><annotation/>'):
        path.write_text(broken)
        with pytest.raises(InputError, match="2007_1.xml is no XML: "):
            label_inputs.read("voc:train")
    path.unlink()
    with pytest.raises(InputError, match="no such file: .*2007_1.xml"):
        label_inputs.read("voc:train")
    with pytest.raises(InputError, match="needs the list of its images at .*val.txt"):
        label_inputs.read("voc:val")


def test_coco_2014(tmp_path, monkeypatch, photos, source, said):
    root = tmp_path / "sets" / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "train2014").symlink_to(photos)
    (root / "annotations" / "instances_train2014.json").write_text(json.dumps(DATA))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "sets"))
    assert shown(label_inputs.read("coco14:train"))["a.png"] == ["cow", "boat"]
    with pytest.raises(InputError, match="coco14:val is not at .*val2014"):
        label_inputs.read("coco14:val")


def test_the_labels_of_a_collage_are_its_objects(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.COLLAGE_IMAGES, "demo", 2)
    found = label_inputs.read("collage:demo")
    names = {category.name for category in found.categories}
    assert "cow" in names and "grass" not in names and len(found.images) == 2
