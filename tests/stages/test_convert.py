"""`convert`: there and back, what is said of what a format cannot hold, and bad input."""

import json
import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from ovtool.errors import InputError, OutputExistsError, UpToDate, UsageError
from ovtool.formats import coco, folders, label_maps, rle
from ovtool.settings.convert import Conversion
from ovtool.settings.shared import Run
from ovtool.stages import convert

# commas, quotes, brackets of XML, emoji, right-to-left, a line end, blanks that count
NAMES = ("cow, brown", '"it\'s" <b>&', "🐮 cow", "بقرة", "two\nlines\ttab", " x")
FILES = ("a,b.jpg", 'deep/"c" <d>&.png', "🐮.jpg", "بقرة.jpg")
FORMATS = (
    "coco",
    "coco-results",
    "coco-panoptic",
    "yolo-seg",
    "label-maps",
    "cvat",
    "voc-submission",
)
FORMATS += ("webdataset",)


def pixels(number, height=40, width=52):
    """Masks of six classes that share no pixel, one of them with a hole, int (H, W), -1 for none."""
    labels = np.full((height, width), -1)
    labels[2:20, 3:20], labels[6:10, 8:12] = number % 6, -1
    labels[5:30, 25:40] = (number + 1) % 6
    labels[32:, :5] = (number + 2) % 6
    return labels


@pytest.fixture
def data(tmp_path):
    """A data set of four images: `data.json` and the folder `photos`."""
    images, masks = [], []
    for number, name in enumerate(FILES, start=1):
        labels = pixels(number)
        images.append(coco.Image(number, name, 52, 40))
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 52, 3), 40 * number, np.uint8)).save(path)
        for index in np.unique(labels[labels >= 0]):
            mask = rle.encode(labels == index)
            masks.append(coco.annotation(len(masks) + 1, number, int(index) + 1, mask, None))
    categories = [coco.Category(number, name) for number, name in enumerate(NAMES, start=1)]
    dataset = coco.Dataset({}, images, masks, categories)
    coco.write(dataset, tmp_path / "data.json")
    return dataset


def went(tmp_path, to, source="data.json", **options):
    """Converts, and gives what was made and its path."""
    target = (
        tmp_path / f"out-{to}{'' if to in ('yolo-seg', 'label-maps', 'webdataset') else '.json'}"
    )
    return convert.run(tmp_path / source, to, out=target, **options), target


def came(tmp_path, source, **options):
    """The data set that a converted file is."""
    back = tmp_path / "back.json"
    convert.run(source, "coco", out=back, run=Run(overwrite=True), **options)
    return coco.read(back)


def plain(dataset):
    """What all formats hold: names, sizes, classes and pixels, by the names of images and classes."""
    names = {category.id: category.name for category in dataset.categories}
    files = {image.id: image.file_name for image in dataset.images}
    sizes = {(image.file_name, image.width, image.height) for image in dataset.images}
    masks = sorted(
        (files[a.image_id], names[a.category_id], a.segmentation["counts"])
        for a in dataset.annotations
    )
    return sizes, list(names.values()), masks


@pytest.mark.parametrize("to", ["coco", "coco-panoptic", "yolo-seg", "cvat", "webdataset"])
def test_names_ids_and_pixels_come_back(data, tmp_path, to):
    made, target = went(tmp_path, to, images=tmp_path / "photos")
    back = came(tmp_path, target)
    assert plain(back) == plain(data)
    assert [entry.id for entry in back.categories] == [entry.id for entry in data.categories]
    assert (made.images, made.masks, made.classes, list(made.lost)) == (4, 12, 6, [])


def test_label_maps_come_back(data, tmp_path):
    line_end = NAMES[4]
    with pytest.raises(InputError, match="is not a name of one line"):
        went(tmp_path, "label-maps")
    assert not (tmp_path / "out-label-maps").exists()
    names = [coco.Category(c.id, c.name.replace("\n", " ").strip()) for c in data.categories]
    renamed = replace(data, categories=names)
    coco.write(renamed, tmp_path / "data.json")
    made, target = went(tmp_path, "label-maps")
    assert not made.lost and line_end not in (target / "classes.txt").read_text()
    assert plain(came(tmp_path, target, images=tmp_path / "photos")) == plain(renamed)
    alone = came(tmp_path, target)  # the maps have the names of the images without their endings
    assert {image.file_name for image in alone.images} == {
        str(Path(n).with_suffix(".png")) for n in FILES
    }


def test_results_come_back_with_their_ground_truth(data, tmp_path):
    scored = [replace(mask, score=mask.id / 32) for mask in data.annotations]
    coco.write(replace(data, annotations=scored), tmp_path / "scored.json")
    made, target = went(tmp_path, "coco-results", "scored.json")
    needs_truth = "names of images and classes, for which it needs its ground truth"
    assert made.lost == [needs_truth]
    bare = convert.run(tmp_path / "data.json", "coco-results", out=tmp_path / "bare.json")
    assert bare.lost == [needs_truth, "that 12 masks had no score, which is 1 now"]
    with pytest.raises(UsageError, match="give its images and classes with --ground-truth"):
        came(tmp_path, target)
    back = came(tmp_path, target, ground_truth=tmp_path / "data.json")
    assert list(back.annotations) == scored
    loaded = COCO(tmp_path / "data.json").loadRes(str(target))
    assert len(loaded.anns) == 12


@pytest.mark.parametrize("to", ["coco", "coco-panoptic", "cvat", "webdataset"])
def test_scores_crowds_and_ids_come_back_where_there_is_a_place_for_them(data, tmp_path, to):
    masks = [replace(m, score=0.123456) for m in data.annotations]
    masks[1] = replace(masks[1], extra={"iscrowd": 1}, score=None)
    images = [replace(image, id=image.id + 100) for image in data.images]
    masks = [replace(mask, image_id=mask.image_id + 100) for mask in masks]
    own = replace(data, images=images, annotations=masks)
    coco.write(own, tmp_path / "own.json")
    made, target = went(tmp_path, to, "own.json", images=tmp_path / "photos")
    back = came(tmp_path, target)
    assert not made.lost
    assert [(m.score, dict(m.extra), m.image_id) for m in back.annotations] == [
        (m.score, dict(m.extra), m.image_id) for m in masks
    ]


def test_what_a_format_cannot_hold_is_said(data, tmp_path):
    twice = replace(data.annotations[0], id=99, score=0.5)
    crowd = replace(data.annotations[1], extra={"iscrowd": 1, "colour": "red"})
    masks = [data.annotations[0], crowd, *data.annotations[2:], twice]
    words = [replace(data.categories[0], synonyms=("cattle",)), *data.categories[1:]]
    images = [replace(data.images[0], extra={"license": 1}), *data.images[1:]]
    coco.write(
        replace(data, images=images, annotations=masks, categories=words), tmp_path / "own.json"
    )
    made, _ = went(tmp_path, "yolo-seg", "own.json")
    assert made.lost[:4] == [
        "1 score", "1 crowd flag", "1 supercategory or synonym", "2 other fields (colour, license)",
    ]  # fmt: skip
    assert "images, which it expects in images/" in made.lost[-1]
    made, _ = went(tmp_path, "coco-panoptic", "own.json")
    assert made.lost == ["1 mask of which no pixel is left"]
    made, _ = went(tmp_path, "cvat", "own.json")
    assert made.lost[0] == "1 supercategory or synonym"


def test_overlaps_follow_the_order_of_painting(tmp_path):
    low, high = np.zeros((2, 8, 10), bool)
    low[1:6, 1:6], high[3:8, 3:8] = True, True
    masks = [
        coco.annotation(1, 1, 1, rle.encode(high), 0.9),
        coco.annotation(2, 1, 2, rle.encode(low), 0.1),
    ]
    data = coco.Dataset(
        {}, [coco.Image(1, "a.png", 10, 8)], masks, [coco.Category(1, "x"), coco.Category(2, "y")]
    )
    coco.write(data, tmp_path / "data.json")
    made, target = went(tmp_path, "label-maps")
    assert made.lost == ["2 scores", "9 pixels of masks below others"]
    assert np.array_equal(label_maps.read(target / "a.png") == 0, high)
    made, target = went(tmp_path, "coco-panoptic")
    assert made.lost == ["the pixels of 1 mask that others hide"]
    back = came(tmp_path, target)
    assert [rle.area(mask.segmentation) for mask in back.annotations] == [25, 16]


def test_panoptic_segments_follow_the_rules_of_panopticapi(data, tmp_path):
    """The checks that pq_compute makes of a prediction, and what its docs ask of the truth."""
    _, target = went(tmp_path, "coco-panoptic")
    content = json.loads(target.read_text())
    assert all(category["isthing"] in (0, 1) for category in content["categories"])
    for entry in content["annotations"]:
        colours = np.asarray(
            Image.open(tmp_path / "out-coco-panoptic" / entry["file_name"]), np.uint32
        )
        ids, areas = np.unique(colours @ np.array([1, 256, 65536], np.uint32), return_counts=True)
        pixels_of = dict(zip(ids.tolist(), areas.tolist(), strict=True))
        for segment in entry["segments_info"]:
            assert pixels_of.pop(segment["id"]) == segment["area"]
        assert set(pixels_of) <= {0}
    with pytest.raises(
        InputError, match=r"a,b\.png has pixels of the segment \d+, which .* does not list"
    ):
        del content["annotations"][0]["segments_info"][0]
        target.write_text(json.dumps(content))
        came(tmp_path, target)


def test_voc_has_its_own_numbers_and_background(tmp_path):
    labels = np.zeros((6, 8), int)
    labels[:3], labels[3:, :4], labels[3:, 4:6] = 1, 2, 3
    names = ("background", "cow", "dining table", "grass")
    masks = [coco.annotation(k + 1, 1, k + 1, rle.encode(labels == k), 0.5) for k in range(4)]
    categories = [coco.Category(k + 1, name) for k, name in enumerate(names)]
    data = coco.Dataset({}, [coco.Image(1, "2007_000001.jpg", 8, 6)], masks, categories)
    coco.write(data, tmp_path / "data.json")
    target = tmp_path / "out"
    made = convert.run(tmp_path / "data.json", "voc-submission", out=target)
    assert made.lost == ["4 scores", "classes that VOC lacks, which are background: grass"]
    path = target / "results/VOC2012/Segmentation/comp6_test_cls/2007_000001.png"
    image = Image.open(path)
    assert image.mode == "P" and image.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
    assert np.array_equal(np.array(image), np.array([0, 10, 11, 0])[labels])
    back = came(tmp_path, target)
    assert [(m.category_id, m.area) for m in back.annotations] == [(10, 24.0), (11, 12.0)]
    assert (back.categories[9].name, back.categories[10].name) == ("cow", "diningtable")


def test_colours_of_rgb_maps(data, tmp_path):
    plain_names = [coco.Category(c.id, f"class {c.id}") for c in data.categories]
    coco.write(replace(data, categories=plain_names), tmp_path / "data.json")
    table = tmp_path / "colours.txt"
    lines = [f"{40 * k} {255 - k} 7\tclass {k}" for k in (3, 1, 2, 6, 5, 4)]
    table.write_text("r g b name\n" + "\n".join(lines) + "\n0 0 0\n")
    made, target = went(tmp_path, "label-maps", how=Conversion(colours=table))
    rgb = np.asarray(Image.open(target / "a,b.png"))
    assert rgb.shape == (40, 52, 3) and tuple(rgb[2, 3]) == (80, 253, 7) and not rgb[0, 0].any()
    back = came(tmp_path, target, how=Conversion(colours=table), images=tmp_path / "photos")
    assert [category.name for category in back.categories] == [
        f"class {k}" for k in (3, 1, 2, 6, 5, 4)
    ]
    own = coco.read(tmp_path / "data.json")
    assert plain(back)[0] == plain(own)[0] and plain(back)[2] == plain(own)[2]
    table.write_text("\n".join(line for line in lines if "class 1" not in line) + "\n0,0,0\n")
    with pytest.raises(
        InputError, match=r"has \d+ pixels of colours that .*colours\.txt lacks, the first 40 254 7"
    ):
        came(tmp_path, target, how=Conversion(colours=table))
    with pytest.raises(InputError, match="has no colour for class 1; add a line"):
        convert.run(
            tmp_path / "data.json", "label-maps", Conversion(colours=table), out=tmp_path / "x"
        )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 2 300 cow\n", "line 1 has no colour of three numbers up to 255"),
        ("cow 1 2\n", "line 1 has no colour"),
        ("1 2 3 cow\n1 2 3 dog\n", "line 2 has a colour or a name of a line before"),
        ("0 0 0\n", "names no class; write R G B NAME"),
    ],
)
def test_tables_of_colours_that_are_broken(tmp_path, text, said):
    (tmp_path / "maps").mkdir()
    (tmp_path / "c.txt").write_text(text)
    label_maps.write(tmp_path / "maps" / "a.png", np.zeros((4, 4), int), 2)
    with pytest.raises(InputError, match=said):
        convert.run(
            tmp_path / "maps",
            "coco",
            Conversion(colours=tmp_path / "c.txt"),
            out=tmp_path / "o.json",
        )


def test_maps_of_16_bits(tmp_path):
    names = [f"class {k}" for k in range(300)]
    folder = tmp_path / "maps"
    folder.mkdir()
    labels = np.full((6, 8), 299)
    labels[0] = -1
    label_maps.write(folder / "a.png", labels, 300)
    label_maps.write_classes(folder / "classes.txt", names)
    back = came(tmp_path, folder)
    assert [(mask.category_id, mask.area) for mask in back.annotations] == [(300, 40.0)]
    label_maps.write_classes(folder / "classes.txt", names[:299])
    with pytest.raises(
        InputError, match="a holds the label 299, but 299 classes are named; complete their names"
    ):
        came(tmp_path, folder)
    _, target = went(tmp_path, "label-maps", "back.json")
    assert np.array_equal(label_maps.read(target / "a.png"), labels)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 0.1 0.1 0.5", "has 3 numbers, which are no polygon"),
        ("0 0.1 0.1 0.5 0.1 0.5 1.5", "has points outside 0 to 1"),
        ("0 0.1 0.1 0.5 0.1 0.5 nan", "has points outside 0 to 1"),
        ("0 0.1 0.1 0.5 0.1 0.5 0.5 1.5", "has points outside 0 to 1"),
        ("7 0.1 0.1 0.5 0.1 0.5 0.5", "class 7 has no name in data.yaml"),
        ("cow 0.1 0.1 0.5 0.1 0.5 0.5", "not numbers; mend or remove it"),
    ],
)
def test_lines_of_yolo_that_are_broken(data, tmp_path, line, said):
    _, target = went(tmp_path, "yolo-seg", images=tmp_path / "photos")
    path = target / "labels/a,b.txt"
    path.write_text(path.read_text() + "\n" + line + "\n")
    with pytest.raises(InputError, match=rf"a,b\.txt: line 5 .*{said}|a,b\.txt: line 5: {said}"):
        came(tmp_path, target)


def test_boxes_among_the_polygons_of_yolo_are_left_out(data, tmp_path, caplog):
    """supervision writes a box where an object is too small for a polygon."""
    _, target = went(tmp_path, "yolo-seg", images=tmp_path / "photos")
    path = target / "labels/a,b.txt"
    path.write_text(path.read_text() + "0 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.2 0.2 0.9\n")
    assert plain(came(tmp_path, target)) == plain(data)
    assert f"{target} has 2 boxes beside its polygons, which are left out" in caplog.text
    for path in (target / "labels").rglob("*.txt"):
        path.write_text("0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(InputError, match="holds boxes alone, and polygons are needed"):
        came(tmp_path, target)


def test_scores_that_ultralytics_writes_behind_a_polygon(data, tmp_path):
    """`save_txt` with `save_conf` of ultralytics.engine.results."""
    _, target = went(tmp_path, "yolo-seg", images=tmp_path / "photos")
    path = target / "labels/a,b.txt"
    rows = path.read_text().splitlines()
    path.write_text("".join(f"{row} 0.{k + 1}25\n" for k, row in enumerate(rows)))
    found = came(tmp_path, target)
    number = next(image.id for image in found.images if image.file_name == "a,b.jpg")
    own = [mask.score for mask in found.annotations if mask.image_id == number]
    assert own == [0.125 + k / 10 for k in range(len(rows))] and plain(found) == plain(data)


def test_label_studio_and_roboflow_lay_yolo_out_in_ways_of_their_own(data, tmp_path):
    """label_studio_sdk.converter writes classes.txt for data.yaml; Roboflow has a folder a split."""
    _, target = went(tmp_path, "yolo-seg", images=tmp_path / "photos")
    names = [f"class {k}" for k in range(len(NAMES))]
    yaml = (target / "data.yaml").read_text()
    (target / "data.yaml").unlink()
    (target / "classes.txt").write_text("\n".join(names))
    found = came(tmp_path, target)
    assert [category.name for category in found.categories] == names
    assert sorted(mask[2] for mask in plain(found)[2]) == sorted(mask[2] for mask in plain(data)[2])
    (target / "classes.txt").write_text("\n\n" + "\n".join(names))  # a number is that of its line
    with pytest.raises(InputError, match="class [01] has no name in .*classes.txt; add it there"):
        came(tmp_path, target)
    (target / "classes.txt").unlink()
    (target / "data.yaml").write_text(yaml)
    (target / "train").mkdir()
    for name in ("images", "labels"):
        (target / name).rename(target / "train" / name)
    found = came(tmp_path, target)
    assert {image.file_name.partition("/images/")[0] for image in found.images} == {"train"}
    assert len(found.annotations) == len(data.annotations)
    shutil.rmtree(target / "train")
    with pytest.raises(InputError, match="has no folder labels; put the labels there"):
        came(tmp_path, target, images=tmp_path / "photos")


def test_labels_of_yolo_without_names_or_images(data, tmp_path):
    _, target = went(tmp_path, "yolo-seg")
    with pytest.raises(
        InputError, match="with the images of .*; put them there, or name their folder"
    ):
        came(tmp_path, target)
    assert plain(came(tmp_path, target, images=tmp_path / "photos")) == plain(data)
    (tmp_path / "photos/a,b.jpg").unlink()
    with pytest.raises(
        InputError, match=r"a,b\.txt has no image in .*; add it, or remove the labels"
    ):
        came(tmp_path, target, images=tmp_path / "photos")
    for text, said in (
        ("names: [a", "is no YAML"),
        ("nc: 3", "has no names of classes"),
        ("names: [a, a]", "that of"),
        ("a: &a [x, x]\nnames: [*a, *a]", "has no names of classes"),
    ):
        (target / "data.yaml").write_text(text)
        with pytest.raises(InputError, match=said):
            came(tmp_path, target, images=tmp_path / "photos")


def test_other_shapes_of_cvat(data, tmp_path, caplog):
    _, target = went(tmp_path, "cvat")
    target = target.rename(tmp_path / "out.xml")
    tree = ElementTree.parse(target)
    first = tree.getroot().find("image")
    ElementTree.SubElement(first, "box", label="new", xtl="1", ytl="1", xbr="9", ybr="9")
    ElementTree.SubElement(first, "polygon", label="new", points="1.0,1.0;9.0,1.0;9.0,5.0;1.0,5.0")
    tree.write(target, "utf-8")
    back = came(tmp_path, target)
    assert "shapes that are no masks, which are left out: 1 of box" in caplog.text
    assert back.categories[-1].name == "new" and back.annotations[3].area == 32
    for points, said in (
        ("1,1;9,x", "cannot be read"),
        ("1,1;9,999;2,2", "polygon .* near the image"),
    ):
        first.find("polygon").set("points", points)
        tree.write(target, "utf-8")
        with pytest.raises(InputError, match=f"a polygon of a,b.jpg.*{said}"):
            came(tmp_path, target)
    first.find("mask").set("rle", "1, 2")
    tree.write(target, "utf-8")
    with pytest.raises(
        InputError, match="a mask of a,b.jpg cannot be read .its runs do not add up"
    ):
        came(tmp_path, target)
    for broken in ("<annotations>", '<?xml version="1.0" encoding="utf-100"?><annotations/>'):
        target.write_text(broken)
        with pytest.raises(InputError, match="is no XML that can be read"):
            came(tmp_path, target)


def test_shards_are_read_by_the_reader_of_shards_and_broken_ones_are_refused(data, tmp_path):
    _, target = went(tmp_path, "webdataset", images=tmp_path / "photos")
    shard = target / "000000.tar"
    with tarfile.open(shard) as opened:
        assert opened.getnames()[:3] == ["__ovtool__", "000000000.jpg", "000000000.json"]
        content = opened.extractfile("000000001.png").read()
    assert content == (tmp_path / "photos" / FILES[1]).read_bytes()
    webdataset = pytest.importorskip("webdataset")
    samples = list(webdataset.WebDataset(str(shard), shardshuffle=False))
    assert [set(sample) - {"__key__", "__url__", "__local_path__"} for sample in samples] == [
        {Path(name).suffix[1:], "json"} for name in FILES
    ]
    shard.write_bytes(shard.read_bytes()[:3000])
    with pytest.raises(InputError, match="is no whole tar file"):
        came(tmp_path, target)
    with pytest.raises(UsageError, match="shards hold the images too; give --images DIR"):
        convert.run(tmp_path / "data.json", "webdataset", out=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_instances_are_parts_or_follow_proposals(tmp_path):
    mask = np.zeros((12, 20), bool)
    mask[2:6, 2:8] = mask[8:11, 2:18] = True
    image, category = [coco.Image(1, "a.png", 20, 12)], [coco.Category(1, "cow")]
    coco.write(
        coco.Dataset({}, image, [coco.annotation(1, 1, 1, rle.encode(mask), 0.5)], category),
        tmp_path / "data.json",
    )
    parts = convert.run(
        tmp_path / "data.json", "coco", Conversion(instances="parts"), out=tmp_path / "p.json"
    )
    assert parts.masks == 2
    left = np.zeros_like(mask)
    left[8:11, 2:10] = True
    right = np.zeros_like(mask)
    right[8:11, 10:18] = True
    found = [
        coco.annotation(k, 1, 1, rle.encode(m), 0.9) for k, m in enumerate((left, right), start=1)
    ]
    coco.write(
        coco.Dataset({}, image, found, [coco.Category(1, "object")]), tmp_path / "proposals.json"
    )
    how = Conversion(instances=tmp_path / "proposals.json")
    convert.run(tmp_path / "data.json", "coco", how, out=tmp_path / "q.json")
    made = coco.read(tmp_path / "q.json")
    assert sorted(entry.area for entry in made.annotations) == [24.0, 24.0, 24.0]
    assert {entry.score for entry in made.annotations} == {0.5}
    other = replace(found[0], segmentation=rle.encode(np.ones((5, 5), bool)))
    coco.write(
        coco.Dataset({}, [coco.Image(1, "a.png", 5, 5)], [other], category),
        tmp_path / "proposals.json",
    )
    with pytest.raises(UsageError, match="a.png has another size in"):
        convert.run(tmp_path / "data.json", "coco", how, out=tmp_path / "r.json")


@pytest.mark.parametrize("to", FORMATS)
def test_outputs_are_kept_replaced_and_made_again(data, tmp_path, to):
    names = ("cow", "dog", "sheep", "cat", "horse", "train")
    categories = [coco.Category(number, name) for number, name in enumerate(names, start=1)]
    coco.write(replace(data, categories=categories), tmp_path / "data.json")
    planned, target = went(tmp_path, to, images=tmp_path / "photos", run=Run(dry_run=True))
    assert planned.masks == 12 and not target.exists()
    made, _ = went(tmp_path, to, images=tmp_path / "photos")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        went(tmp_path, to, images=tmp_path / "photos")
    with pytest.raises(UpToDate):
        went(tmp_path, to, images=tmp_path / "photos", run=Run(update=True))
    with pytest.raises(UpToDate):
        went(tmp_path, to, images=tmp_path / "photos", run=Run(update=True, dry_run=True))
    later = (target.stat().st_mtime + 100,) * 2
    os.utime(tmp_path / "data.json", later)
    again, _ = went(tmp_path, to, images=tmp_path / "photos", run=Run(update=True))
    assert again == made
    how = Conversion(instances="parts")
    if to != "coco-results":  # a list keeps no settings
        assert went(tmp_path, to, images=tmp_path / "photos", how=how, run=Run(update=True))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_folder_of_the_users_is_never_replaced(data, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputExistsError, match="is not empty; replace it with --overwrite"):
        convert.run(tmp_path / "data.json", "yolo-seg", out=folder)
    with pytest.raises(
        OutputExistsError, match="was not written by this command; name another folder"
    ):
        convert.run(tmp_path / "data.json", "yolo-seg", out=folder, run=Run(overwrite=True))
    assert (folder / "thesis.txt").read_text() == "years of work"


def test_a_folder_is_there_whole_or_not_at_all(data, tmp_path, monkeypatch):
    target = tmp_path / "out"
    convert.run(tmp_path / "data.json", "yolo-seg", out=target)
    before = sorted(path.name for path in target.rglob("*"))
    (target / "labels/a,b.txt").write_text("kept")
    monkeypatch.setattr(folders, "place", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        convert.run(tmp_path / "data.json", "yolo-seg", out=target, run=Run(overwrite=True))
    assert sorted(path.name for path in target.rglob("*")) == before
    assert (target / "labels/a,b.txt").read_text() == "kept"
    left, other = tmp_path / ".out.0123456789ab.tmp", tmp_path / ".out.x.0123456789ab.tmp"
    left.mkdir()  # of a writer that was killed
    other.mkdir()  # of out.x
    folders.check(target, True)
    assert not left.exists() and other.exists()


def test_what_is_read_is_never_replaced(data, tmp_path):
    _, target = went(tmp_path, "yolo-seg", images=tmp_path / "photos")
    for source, images in ((target, None), (tmp_path / "data.json", target / "images")):
        with pytest.raises(UsageError, match="is in .*, which this run writes; write to another"):
            convert.run(source, "yolo-seg", images=images, out=target, run=Run(overwrite=True))
    assert plain(came(tmp_path, target)) == plain(data)
    with pytest.raises(UsageError, match="data.json, which this run writes"):
        convert.run(
            tmp_path / "data.json", "coco", out=tmp_path / "data.json", run=Run(overwrite=True)
        )


def test_a_table_of_colours_that_nothing_needs(data, tmp_path):
    how = Conversion(colours=tmp_path / "data.json")
    with pytest.raises(UsageError, match="none are read or written; leave it out"):
        convert.run(tmp_path / "data.json", "cvat", how, out=tmp_path / "x.xml")


def test_colours_become_numbers(tmp_path):
    (tmp_path / "rgb").mkdir()
    Image.fromarray(np.full((4, 6, 3), (1, 2, 3), np.uint8)).save(tmp_path / "rgb/a.png")
    (tmp_path / "c.txt").write_text("9 9 9 sky\n1 2 3 road\n")
    how = Conversion(colours=tmp_path / "c.txt")
    convert.run(tmp_path / "rgb", "label-maps", how, out=tmp_path / "maps")
    assert (label_maps.read(tmp_path / "maps/a.png") == 1).all()
    assert (tmp_path / "maps/classes.txt").read_text() == "sky\nroad\n"


def test_what_cannot_go_to_stdout_and_what_is_not_there(data, tmp_path):
    with pytest.raises(UsageError, match="cannot go to stdout"):
        convert.run(tmp_path / "data.json", "yolo-seg", out="-")
    with pytest.raises(InputError, match="no such file, folder or data set: gone"):
        convert.run("gone", "coco", out=tmp_path / "x.json")
    with pytest.raises(UsageError, match="name a file that ends in .json"):
        convert.run(tmp_path / "data.json", "coco-panoptic", out=tmp_path / "panoptic")


def test_colours_of_cvat(tmp_path):
    """CVAT's export "Segmentation mask 1.1": label:color_rgb:parts:actions."""
    colours = np.zeros((6, 8, 3), np.uint8)
    colours[1:4, 2:6], colours[5] = (250, 50, 83), (50, 183, 250)
    (tmp_path / "SegmentationClass").mkdir()
    Image.fromarray(colours).save(tmp_path / "SegmentationClass" / "a.png")
    lines = (
        "# label:color_rgb:parts:actions",
        "background:0,0,0::",
        "cow:250,50,83::",
        "grass:50,183,250:a,b:c",
    )
    (tmp_path / "labelmap.txt").write_text("\n".join(lines))
    how = Conversion(colours=tmp_path / "labelmap.txt")
    convert.run(tmp_path / "SegmentationClass", "coco", how, out=tmp_path / "o.json")
    made = coco.read(tmp_path / "o.json")
    names = {category.id: category.name for category in made.categories}
    areas = {names[mask.category_id]: mask.area for mask in made.annotations}
    assert areas == {"background": 48 - 12 - 8, "cow": 12, "grass": 8}
