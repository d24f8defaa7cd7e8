"""COCO captions: read whole, or refused in one line."""

import json

import pytest

from ovtool.errors import InputError
from ovtool.formats import captions
from ovtool.formats.captions import Caption

IMAGES = [{"id": 3, "file_name": "b.jpg"}, {"id": 1, "file_name": "deep/a.jpg", "width": 5}]


def write(tmp_path, annotations, images=IMAGES, **more):
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, **more}))
    return path


def caption(id, image_id, text="a dog"):
    return {"id": id, "image_id": image_id, "caption": text}


def test_images_keep_their_order_and_captions_that_of_their_ids(tmp_path):
    path = write(tmp_path, [caption(9, 3, "late"), caption(2, 3, "early"), caption(5, 1, "x")])
    found = captions.read(path)
    assert [image.file_name for image in found.images] == ["b.jpg", "deep/a.jpg"]
    assert found.images[0].captions == (Caption(2, "early"), Caption(9, "late"))
    assert found.images[1].captions == (Caption(5, "x"),)
    assert found.source == str(path)


def test_empty_captions_are_none_and_images_without_are_kept(tmp_path):
    found = captions.read(write(tmp_path, [caption(1, 3), caption(2, 1, "  \n")]))
    assert [len(image.captions) for image in found.images] == [1, 0]


@pytest.mark.parametrize(
    "annotations, said",
    [
        ([], "holds no captions"),
        ([caption(1, 3, " ")], "holds no captions"),
        ([caption(1, 7)], "annotations id 1: image_id 7 is not in images"),
        ([{"id": 1, "caption": "x"}], "annotations id 1: image_id is missing"),
        ([{"id": 1, "image_id": 3}], "annotations id 1 has no caption"),
        ([{"id": 1, "image_id": 3, "caption": 5}], "annotations id 1 has no caption"),
        ([{"id": 1, "image_id": 3, "segmentation": []}], "json holds masks and no captions; give"),
        ([{"image_id": 3, "segments_info": []}], "json holds panoptic segments and no captions"),
        ([{"id": 1, "image_id": 3, "bbox": []}, 5], "json holds boxes and no captions"),
        ([caption(1, 3), caption(1, 1)], "id 1 is there twice"),
        ("text", "annotations is 'text', not a list"),
    ],
)
def test_annotations_that_are_wrong(tmp_path, annotations, said):
    with pytest.raises(InputError, match=said) as error:
        captions.read(write(tmp_path, annotations))
    assert "captions.json" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "images, said",
    [
        ([{"id": 3}], "file_name is missing"),
        ([{"id": 3, "file_name": "/b.jpg"}], "is absolute"),
        ([{"id": 3, "file_name": "b"}, {"id": 4, "file_name": "b"}], "that of id 3 as well"),
        ([{"file_name": "b.jpg"}], "has no id"),
    ],
)
def test_images_that_are_wrong(tmp_path, images, said):
    with pytest.raises(InputError, match=said):
        captions.read(write(tmp_path, [caption(1, 3)], images))


@pytest.mark.parametrize(
    "content, said", [("[1]", "not a COCO object"), ("{", "is not JSON"), ("{}", "no section")]
)
def test_files_that_are_no_captions(tmp_path, content, said):
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(InputError, match=said):
        captions.read(tmp_path / "c.json")
    with pytest.raises(InputError, match="no such file"):
        captions.read(tmp_path / "d.json")


def test_a_caption_with_a_box_is_one(tmp_path):
    found = captions.read(write(tmp_path, [{**caption(1, 3, "a dog"), "bbox": [0, 0, 2, 2]}]))
    assert found.images[0].captions == (Caption(1, "a dog"),)


def test_masks_are_refused_by_the_first_before_all_are_repaired(tmp_path, monkeypatch):
    monkeypatch.setattr(captions.coco_repair, "repaired", lambda *_, **__: pytest.fail("repaired"))
    path = write(tmp_path, [{"id": 1, "image_id": 3, "segmentation": []}] * 3)
    with pytest.raises(InputError, match="holds masks and no captions"):
        captions.read(path)


def test_ids_of_exporters_are_read(tmp_path):
    path = tmp_path / "captions.json"
    data = {
        "images": [{"id": 0, "file_name": "a.jpg"}, {"id": "12", "file_name": "b.jpg"}],
        "annotations": [
            {"id": 0, "image_id": 12.0, "caption": "A cow."},
            {"id": 1, "image_id": 0, "caption": "A boat."},
        ],
    }
    path.write_text(json.dumps(data))
    found = captions.read(path).images
    assert [(one.id, one.captions[0].text) for one in found] == [(0, "A boat."), (12, "A cow.")]
