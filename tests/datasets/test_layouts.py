"""Public data sets in the layouts of their authors, from the folder to the class of each row of pixels."""

import numpy as np
import pytest

from ovtool.datasets import label_files, layouts, registry
from ovtool.errors import InputError, UsageError
from ovtool.formats import coco, labelled
from ovtool.inputs import captions, images, labels, predictions, truths, words
from ovtool.settings import protocols
from ovtool.settings.convert import Conversion
from ovtool.settings.words import Words
from ovtool.stages import convert, data_list
from tests.datasets import sets


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "sets"))
    return tmp_path / "sets"


def truth_of(name):
    return predictions.open_truth(predictions.truth_file(name, instances=False))


def classes_of_rows(truth):
    """The class of each row of the first image."""
    labels = truth.decode(truth.names[0])
    assert labels.shape == sets.SIZE and (labels == labels[:, :1]).all()
    return [truth.classes[k][0] if k >= 0 else None for k in labels[:, 0]]


@pytest.mark.parametrize(("make", "name", "classes"), sets.MADE)
def test_a_data_set_is_read_as_its_authors_lay_it_out(root, make, name, classes):
    make(root)
    truth = truth_of(name)
    assert classes_of_rows(truth) == classes
    items = images.find([name])
    assert len(items) == len(truth.names) == 1
    assert items[0].name == truth.names[0] and items[0].rgb().shape == (*sets.SIZE, 3)
    if registry.DATA_SETS[name.partition(":")[0]].has_numbers:
        assert items[0].id == 139


@pytest.mark.parametrize(("make", "name"), [(sets.voc, "voc"), (sets.ade20k, "ade20k")])
def test_label_maps_are_probed_and_learned_from(root, make, name):
    """Background is no word to compete, and for labels of images no class."""
    make(root)
    probed = truths.open_probed(name)
    assert probed.name == name and ("background",) not in probed.words.classes
    assert len(probed.items) == 1 and list(probed.groups) == ["all", "things"]
    assert (probed.read(probed.items[0])[1][0] >= 0).all() == (name == "ade20k")
    found = labels.read(name)
    listed = {category.id: category.name for category in found.categories}
    present = {listed[id] for id in found.images[0].category_ids}
    assert present == ({"boat", "person"} if name == "voc" else {"wall", "flag", "boat"})


@pytest.mark.parametrize(("make", "name", "classes"), sets.MADE)
def test_a_data_set_gives_its_own_words_and_ids(root, make, name, classes):
    """Without --classes its own classes are looked for, background aside, and nothing competes with them."""
    make(root)
    given = words.gather((), [name], Words())
    first = {synonyms[0] for synonyms in given.classes}
    assert set(classes) - {"background", None} <= first and "background" not in first
    assert given.background == () and not given.default_background
    official = {category.name: category.id for category in given.categories}
    known = {
        "boat": {"voc": 4, "coco": 9, "coco-panoptic": 9, "lvis": 118, "ade20k": 77},
        "road": {"cityscapes": 7},
    }
    for word, ids in known.items():
        if name in ids:
            assert official[word] == ids[name]


@pytest.mark.parametrize(
    ("make", "name"), [(sets.voc, "voc"), (sets.ade20k, "ade20k"), (sets.lvis, "lvis")]
)
def test_the_classes_of_a_data_set_stand_for_captions_that_it_lacks(root, make, name, caplog):
    make(root)
    items, captioned = captions.find(name, None)
    assert [item.name for item in items] == [item.name for item in images.find([name])]
    assert captions.has_names_alone(name) and "names of its classes" in caplog.text
    lemmas = [[mention.noun.lemma for mention in own] for own in captions.named(captioned)]
    expected = {"voc": ["boat", "person"], "ade20k": ["wall", "boat", "flag"], "lvis": ["boat"]}
    assert lemmas == [expected[name]]


def test_a_list_of_images_has_each_once_and_is_not_empty(root):
    sets.voc(root)
    listed = root / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt"
    listed.write_text("2007_000001\n2007_000002\n\n2007_000001\n")
    assert [item.name for item in images.find(["voc"])] == ["2007_000001.jpg", "2007_000002.jpg"]
    listed.write_text("\n")
    with pytest.raises(InputError, match="needs the list of its images at [^ ]*val.txt; unpack"):
        images.find(["voc"])


def test_the_root_may_be_below_the_home_folder_and_empty_means_none(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DETECTRON2_DATASETS", "~/data")
    assert registry.root() == tmp_path / "data"
    monkeypatch.setenv("DETECTRON2_DATASETS", "")
    assert str(registry.root()) == "datasets"


def test_a_name_in_one_word_is_spoken_as_two(root):
    sets.voc(root)
    path = root / "VOC2012" / "Annotations" / "2007_000001.xml"
    path.write_text(path.read_text().replace("boat", "diningtable"))
    _, captioned = captions.find("voc", None)
    assert [caption.text for caption in captioned[0].captions] == ["dining table", "person"]


def test_there_is_a_test_of_every_data_set():
    tested = {name.partition(":")[0] for _, name, _ in sets.MADE}
    assert tested == set(layouts.DATA_SETS) - {"collage"}


def test_train_aug_reads_the_maps_that_have_its_images(root):
    sets.voc(root)
    truth = truth_of("voc:train_aug")
    assert truth.names == ("2007_000002.jpg", "2008_000003.jpg")
    assert classes_of_rows(truth) == ["background", "background", "aeroplane", None]


def test_train_aug_has_the_maps_of_voc_where_sbd_has_none(root):
    """mmsegmentation's voc_aug.py makes maps of what SBD has, and lists the whole of VOC's training split too."""
    sets.voc(root)
    (root / "VOC2012" / "SegmentationClassAug" / "2007_000002.png").unlink()
    truth = truth_of("voc:train_aug")
    assert truth.names == ("2007_000002.jpg", "2008_000003.jpg")
    assert classes_of_rows(truth) == sets.VOC
    assert truth.decode("2008_000003.jpg")[2, 0] == truth.classes.index(("aeroplane",))


def test_lists_that_windows_wrote(root):
    sets.voc(root)
    listed = root / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt"
    listed.write_bytes(b"\xef\xbb\xbf2007_000001\r\n")
    assert truth_of("voc").names == ("2007_000001.jpg",)


def test_the_labels_of_pascal_context_may_lie_in_their_archive(root):
    """trainval.tar.gz holds labels.txt beside the maps."""
    sets.pascal_context(root)
    home = root / "VOCdevkit" / "VOC2010"
    (home / "labels.txt").rename(home / "trainval" / "labels.txt")
    assert classes_of_rows(truth_of("pascal-context"))[:2] == ["aeroplane", "wood"]
    assert classes_of_rows(truth_of("pascal-context-459"))[2:] == ["accordion", "wool"]
    state = {entry["name"]: entry["state"] for entry in data_list.run()}
    assert "not there" not in state["pascal-context:val"]
    (home / "trainval" / "labels.txt").unlink()
    state = {entry["name"]: entry["state"] for entry in data_list.run()}
    for name in ("pascal-context:val", "pascal-context-459:val"):
        assert f"names of the classes ({home / 'labels.txt'})" in state[name]


def test_the_59_classes_of_pascal_context_in_their_own_spelling(root):
    """Its 59_labels.txt says diningtable, bedcloth and clothes, as FCN's pascalcontext_layers.py tells and mends."""
    sets.pascal_context(root, layout="ovseg")
    home = root / "VOCdevkit" / "VOC2010"
    (home / "59_labels.txt").write_text("1: diningtable\n2: bedcloth\n3: clothes\n")
    sets.label_map(
        home / "annotations_detectron2" / "pc59_val" / "2008_000002.png", sets.rows(0, 1, 2, 255)
    )
    assert classes_of_rows(truth_of("pascal-context")) == ["table", "bedclothes", "cloth", None]


# --- what is missing or broken -----------------------------------------------------------------------
@pytest.mark.parametrize("name", [name for name in layouts.DATA_SETS if name != "collage"])
def test_a_root_that_is_missing_is_said_with_what_to_get(root, name):
    with pytest.raises(InputError) as caught:
        images.find([name])
    line = str(caught.value)
    assert f"is not at {root}" in line and line.endswith("or set DETECTRON2_DATASETS")
    assert registry.how_to_get(name) in line


def test_a_data_set_that_is_half_there(root):
    sets.voc(root)
    home = root / "VOC2012"
    (home / "SegmentationClass" / "2007_000001.png").unlink()
    with pytest.raises(InputError) as caught:
        truth_of("voc:val")
    assert str(caught.value) == (
        f"voc:val lacks the label maps of 1 of its 1 images (the first is "
        f"{home / 'SegmentationClass' / '2007_000001.png'}); {registry.how_to_get('voc')}"
    )
    (home / "ImageSets" / "Segmentation" / "val.txt").unlink()
    with pytest.raises(InputError, match="voc:val needs the list of its images at .*val.txt"):
        truth_of("voc:val")
    sets.coco(root)
    (root / "coco" / "panoptic_val2017" / "000000000139.png").unlink()
    with pytest.raises(InputError, match="lacks 1 of the 1 PNG files of"):
        truth_of("coco-panoptic")
    (root / "coco" / "annotations" / "panoptic_val2017.json").unlink()
    with pytest.raises(InputError, match="panoptic_val2017.json"):
        truth_of("coco-panoptic")
    (root / "coco" / "annotations" / "instances_val2017.json").unlink()
    with pytest.raises(InputError, match="instances_val2017.json is not there"):
        truth_of("coco")


def test_a_value_that_is_no_class(root):
    sets.ade20k(root)
    path = root / "ADEChallengeData2016" / "annotations" / "validation" / "ADE_val_00000001.png"
    sets.label_map(path, sets.rows(1, 151, 0, 0))
    truth = truth_of("ade20k")
    with pytest.raises(InputError) as caught:
        truth.decode(truth.names[0])
    assert str(caught.value).startswith(
        f"{path} holds the value 151, which is no class of ade20k:val; correct the file"
    )
    sets.camvid(root, colours=True)
    path = root / "CamVid" / "test_labels" / "0001TP_008550_L.png"
    sets.label_map(path, np.full((4, 6, 3), 7))
    truth = truth_of("camvid")
    with pytest.raises(InputError, match=r"holds the value \(7, 7, 7\), which is no class"):
        truth.decode(truth.names[0])


def test_colours_that_are_not_those_of_voc(root):
    sets.voc(root)
    path = root / "VOC2012" / "SegmentationClass" / "2007_000001.png"
    sets.label_map(path, np.full((4, 6, 3), 9))
    truth = truth_of("voc")
    with pytest.raises(
        InputError, match=r"has the colour \(9, 9, 9\), which is none of the palette"
    ):
        truth.decode(truth.names[0])


def test_label_maps_of_16_bit(root):
    sets.ade20k(root)
    path = root / "ADEChallengeData2016" / "annotations" / "validation" / "ADE_val_00000001.png"
    sets.label_map(path, sets.rows(1, 150, 77, 0), np.uint16)
    assert classes_of_rows(truth_of("ade20k")) == ["wall", "flag", "boat", None]


def test_a_segment_that_the_panoptic_json_does_not_list(root):
    sets.coco(root)
    path = root / "coco" / "panoptic_val2017" / "000000000139.png"
    sets.label_map(path, np.full((4, 6, 3), 1))
    truth = truth_of("coco-panoptic")
    with pytest.raises(InputError, match="has the segment 65793, which its JSON does not list"):
        truth.decode(truth.names[0])


def test_a_command_that_needs_objects_says_how_to_make_them_of_label_maps(root, tmp_path):
    sets.ade20k(root)
    lines = (
        "label maps, of which `ovtool convert ade20k:val --to coco --instances parts -o FILE` makes"
    )
    with pytest.raises(InputError, match=lines):
        predictions.truth_file("ade20k", instances=True)
    made = convert.run(
        "ade20k:val", "coco", Conversion(instances="parts"), out=tmp_path / "objects.json"
    )
    pair = predictions.open_masks(
        made.out, predictions.truth_file(made.out, instances=True), "refuse"
    )
    objects = pair.truth["ADE_val_00000001.jpg"]
    names = {category.id: category.name for category in pair.datasets[0].categories}
    assert [(names[mask.category_id], mask.area) for mask in objects] == [
        ("wall", 6),
        ("boat", 6),
        ("flag", 6),
    ]


def test_panoptic_segments_are_converted_one_by_one(root, tmp_path):
    sets.coco(root)
    made = convert.run("coco-panoptic", "coco", out=tmp_path / "objects.json")
    masks = coco.read(made.out).annotations
    assert [(mask.category_id, mask.area) for mask in masks] == [(9, 12), (155, 6)]


# --- classes that the data set's own file names ------------------------------------------------------
def test_the_classes_of_pascal_context_come_from_its_file(root):
    with pytest.raises(
        InputError, match="the names of pc459 are read from .*labels.txt; put it there"
    ):
        label_files.vocabulary("pc459")
    sets.pascal_context(root)
    known = label_files.vocabulary("pc459")
    assert dict(zip(known.names, known.ids, strict=True))["wool"] == 459


def test_the_classes_of_the_whole_ade20k_come_from_its_index(root):
    with pytest.raises(InputError, match="the names of ade847 are read from .*index_ade20k.mat"):
        label_files.vocabulary("ade847")
    sets.ade20k_full(root)
    known = label_files.vocabulary("ade847")
    assert len(set(known.names)) == len(known.ids) == 847
    assert known.classes[:2] == (("wall",), ("building", "edifice")) and known.ids[:2] == (
        2978,
        312,
    )
    bags = {id: name for id, name in zip(known.ids, known.names, strict=True) if id in (95, 96, 97)}
    assert bags == {95: "bag", 97: "grip", 96: "purse"}
    (root / "ADE20K_2021_17_01" / "index_ade20k.mat").write_bytes(b"no index")
    with pytest.raises(InputError, match="is no MATLAB file that can be read"):
        label_files.vocabulary("ade847")
    with pytest.raises(UsageError, match="unknown vocabulary"):
        label_files.vocabulary("ade")


def test_colours_whose_names_are_doubled(root):
    sets.camvid(root, colours=True)
    table = root / "CamVid" / "class_dict.csv"
    table.write_text(table.read_text().replace("Road", "sky"))
    assert classes_of_rows(truth_of("camvid"))[:2] == ["Sky", "sky (2)"]
    table.write_text("name,red\nSky,1\n")
    with pytest.raises(InputError, match="class_dict.csv is no table of colours"):
        truth_of("camvid")


def test_categories_that_are_doubled(root):
    sets.coco(root)
    path = root / "coco" / "annotations" / "instances_val2017.json"
    path.write_text(path.read_text().replace("bottle", "boat"))
    with pytest.raises(InputError, match="'boat'"):
        truth_of("coco")


def test_names_that_several_classes_have():
    listed = [("pot", "flowerpot"), ("pot",), ("pot",), ("toilet", "pot"), ("pot",)]
    assert label_files.unlike(listed) == [
        ("flowerpot",), ("pot",), ("pot (2)",), ("toilet",), ("pot (3)",)
    ]  # fmt: skip


def test_the_truth_of_a_protocol_has_its_classes(root):
    sets.voc(root)
    truth, known = truth_of("voc"), protocols.PROTOCOLS
    assert classes_of_rows(label_files.of_protocol(truth, known["voc20"])) == [
        None, "boat", "person", None
    ]  # fmt: skip
    assert classes_of_rows(label_files.of_protocol(truth, known["voc21"])) == sets.VOC
    sets.coco_stuff(root)
    assert classes_of_rows(label_files.of_protocol(truth_of("coco-stuff"), known["coco-object81"])) == [
        "boat", "person", "background", "background"
    ]  # fmt: skip
    assert classes_of_rows(label_files.of_protocol(truth_of("coco"), known["coco14-val"])) == [
        "boat", "person", "background", "background"
    ]  # fmt: skip
    other = labelled.LabelledImages("t", (("teapot",),), ("a",), lambda name: np.zeros((2, 2), int))
    with pytest.raises(UsageError, match="t has none of the 20 classes of the protocol"):
        label_files.of_protocol(other, known["voc20"])
