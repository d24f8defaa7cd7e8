"""What a stage works on, and what its output is called."""

import io
from pathlib import Path

import pytest

from ovtool.datasets import registry
from ovtool.errors import InputError, UsageError
from ovtool.formats import coco
from ovtool.formats.images import ImageItem
from ovtool.inputs import images as image_inputs

NAMES = ["a.png", "b.jpg", "deep/c.png"]


def names(items):
    return [item.name for item in items]


def test_folders_files_and_the_limit(photos):
    assert names(image_inputs.find([str(photos)])) == NAMES
    assert names(image_inputs.find([str(photos)], limit=2)) == NAMES[:2]
    assert names(image_inputs.find([str(photos / "deep/c.png"), str(photos / "a.png")])) == [
        "c.png",
        "a.png",
    ]


def test_a_list_on_stdin(photos, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{photos}/a.png\n{photos}/deep\n"))
    assert names(image_inputs.find(["-"])) == ["a.png", "c.png"]


@pytest.fixture
def listing(photos, tmp_path):
    """A COCO file that lists two of the images and one that is not there."""
    images = [
        coco.Image(7, "deep/c.png", 64, 56),
        coco.Image(2, "a.png", 64, 40),
        coco.Image(3, "gone.png", 9, 9),
    ]
    coco.write(coco.Dataset({}, images, [], [coco.Category(1, "x")]), tmp_path / "list.json")
    return tmp_path / "list.json"


def test_a_coco_file_gives_names_and_order(photos, listing):
    items = image_inputs.find([], listing, photos)
    assert names(items) == ["deep/c.png", "a.png", "gone.png"]
    assert items[0] == ImageItem(photos / "deep/c.png", "deep/c.png", 7)


def test_a_coco_file_on_stdin(photos, listing, monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO(listing.read_bytes()))
    monkeypatch.setattr("sys.stdin", stdin)
    assert len(image_inputs.find([], Path("-"), photos)) == 3


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([],), "no images; give files, folders, a data set such as collage:demo, or -"),
        ((["x.jpg"], Path("l.json"), Path(".")), "not both"),
        (([], Path("l.json")), "--coco needs --images DIR"),
        ((["x.jpg"], None, Path(".")), "--images is the folder of --coco FILE"),
        ((["collage:nowhere"],), "collage has no split 'nowhere'; choose from"),
    ],
)
def test_what_cannot_be_meant(arguments, message):
    with pytest.raises(UsageError, match=message):
        image_inputs.find(*arguments)


def test_what_is_not_there(photos, listing, tmp_path):
    for arguments, message in (
        ((["gone.jpg"],), "no such file or folder: gone.jpg"),
        ((["collage:demo", str(photos)],), "no such file or folder: collage:demo"),
        (([], listing, tmp_path / "gone"), "no such folder: .*gone"),
        (([], listing, tmp_path), "holds none of the images of .*list.json"),
    ):
        with pytest.raises(InputError, match=message):
            image_inputs.find(*arguments)
    empty = tmp_path / "empty.json"
    coco.write(coco.Dataset({}, [], [], []), empty)
    with pytest.raises(InputError, match="empty.json lists no images"):
        image_inputs.find([], empty, photos)


def test_a_data_set_by_name(photos, monkeypatch, tmp_path):
    found = registry.DataSet("collage:demo", photos)
    monkeypatch.setattr(registry, "locate", lambda text: found)
    assert names(image_inputs.find(["collage"])) == NAMES
    monkeypatch.chdir(tmp_path)
    (tmp_path / "collage").mkdir()  # a folder of that name wins
    assert not image_inputs.is_data_set(["collage"])
    with pytest.raises(InputError, match="no image in collage"):
        image_inputs.find(["collage"])


@pytest.mark.parametrize(
    "inputs, coco_file, expected",
    [
        (["photos/x.y.jpg"], None, "x.y"),
        (["-"], None, "images"),
        (["a.jpg", "b.jpg"], None, "images"),
        (["collage:test"], None, "collage"),
        ([], Path("some/list.json"), "list"),
        ([], Path("-"), "images"),
        (["/"], None, "images"),
    ],
)
def test_the_name_of_the_output(inputs, coco_file, expected):
    items = [ImageItem(Path("a.jpg"), "a.jpg"), ImageItem(Path("b.jpg"), "b.jpg")]
    named = image_inputs.default_output(inputs, items, coco_file, "segments")
    assert named == f"{expected}.segments.json"


def test_the_name_of_the_output_for_folders_and_single_images(photos, monkeypatch):
    items = image_inputs.find([str(photos)])
    assert (
        image_inputs.default_output([str(photos)], items, None, "proposals")
        == "photos.proposals.json"
    )
    monkeypatch.chdir(photos)
    assert image_inputs.default_output(["."], items, None, "segments") == "photos.segments.json"
    assert image_inputs.default_output(["-"], items[:1], None, "segments") == "a.segments.json"
