"""`import ovtool` from Python: every name, the segmenter and its masks, and arguments of the wrong type."""

import importlib
import inspect
import pickle
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ovtool
import ovtool.settings
from ovtool.cli.app import COMMANDS, imported
from ovtool.errors import InputError, UsageError
from ovtool.formats import coco, label_maps, overlays, rle
from ovtool.formats import images as image_files
from ovtool.settings.option import is_settings

ROOT = Path(__file__).parent.parent
WORDS = "cow|bull,teapot,sky"
NAMES = ("cow", "teapot", "sky")


# --- the names -----------------------------------------------------------------------------------


def test_every_name_is_loaded_when_it_is_asked_for():
    assert ovtool.__all__ == sorted(ovtool.__all__) and set(ovtool.__all__) <= {*dir(ovtool)}
    for name in ovtool.__all__:
        assert getattr(ovtool, name) is not None
    with pytest.raises(AttributeError, match="module 'ovtool' has no attribute 'segmant'"):
        _ = ovtool.segmant


def test_a_settings_class_loads_no_torch():
    program = "import sys, ovtool; ovtool.TwoStage(ensemble=0.5), ovtool.Words(classes='a'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_type_checkers_see_the_names_that_are_loaded():
    source = (ROOT / "ovtool/__init__.py").read_text()
    block = source.split("TYPE_CHECKING:\n")[1].split("__all__")[0]
    seen = {word.strip(",()") for word in block.split()} | {"__version__"}
    assert set(ovtool.__all__) <= seen
    assert (ROOT / "ovtool/py.typed").exists()


def leaves(rows, above=""):
    for row in rows:
        name = f"{above}{row.name}".replace("-", "_")
        if isinstance(row.target, tuple):
            yield from leaves(row.target, f"{name}_")
        else:
            yield name, row.target


@pytest.mark.parametrize("name, target", [*leaves(COMMANDS)])
def test_every_command_is_a_function(name, target):
    assert inspect.isfunction(getattr(ovtool, name))
    assert callable(imported(target))


def test_every_settings_class_is_there():
    """All but those that are only the base of others."""
    modules = [
        importlib.import_module(f"ovtool.settings.{module.name}")
        for module in pkgutil.iter_modules(ovtool.settings.__path__)
    ]
    classes = {
        name
        for module in modules
        for name, kind in vars(module).items()
        if is_settings(kind) and not kind.__subclasses__()
    }
    assert classes <= set(ovtool.__all__), "add them to ovtool/__init__.py"


# --- the segmenter -------------------------------------------------------------------------------


@pytest.fixture
def command(photos, tmp_path, loads_small):
    """What the command writes for a.png: the labels, -1 for none, and the content of the JSON."""

    def written(method):
        drawn = ovtool.Drawn(label_maps=tmp_path / "maps")
        run = ovtool.Run(overwrite=True)
        out = tmp_path / "o.json"
        ovtool.segment(photos / "a.png", WORDS, method, out=out, drawn=drawn, run=run)
        return label_maps.read(tmp_path / "maps/a.png"), coco.document(coco.read(out))

    return written


@pytest.mark.parametrize(
    "method",
    [
        ovtool.Fused(),
        ovtool.Patch(min_score=0.3, logit_scale=8.0),
        ovtool.TwoStage(proposer="regions"),
        "patch",
    ],
    ids=repr,
)
def test_a_segmenter_gives_what_the_command_writes(photos, command, method):
    labels, document = command(method)
    masks = ovtool.Segmenter(WORDS, method)(photos / "a.png")
    assert masks.words == NAMES and tuple(masks) == NAMES and len(masks) == 3
    for index, word in enumerate(NAMES):
        assert masks[word].dtype == bool and np.array_equal(masks[word], labels == index)
    assert masks.label_map.dtype == np.uint16
    assert np.array_equal(masks.label_map, np.where(labels < 0, 65535, labels))
    assert document["info"]["ovtool"].pop("asked")  # of the command's files, for --update
    assert masks.to_coco() == document
    scores = {NAMES[one["category_id"] - 1]: one["score"] for one in document["annotations"]}
    assert masks.scores == {word: scores.get(word, 0.0) for word in NAMES}
    assert np.array_equal(masks["bull"], masks["cow"]) and "bull" in masks and "pig" not in masks


def test_arrays_pillow_images_and_paths_are_one_image(photos, loads_small):
    segmenter = ovtool.Segmenter(["cow", "teapot"], "patch")
    rgb = image_files.read_rgb(photos / "a.png")
    expected = segmenter(photos / "a.png").label_map
    turned = np.asfortranarray(rgb)
    for image in (str(photos / "a.png"), rgb, turned, Image.fromarray(rgb)):
        assert np.array_equal(segmenter(image).label_map, expected)
    rgba = Image.fromarray(rgb).convert("RGBA")
    assert np.array_equal(segmenter(rgba).label_map, expected)
    assert segmenter(Image.fromarray(rgb).convert("L")).label_map.shape == expected.shape
    named = segmenter(photos / "a.png").to_coco()["images"][0]["file_name"]
    assert (named, segmenter(rgb).to_coco()["images"][0]["file_name"]) == ("a.png", "image")
    assert not list(photos.parent.glob("*.json"))


def test_many_images_come_one_by_one(photos, loads_small):
    segmenter = ovtool.Segmenter("cow,teapot", "patch")
    taken = []

    def images():
        for name in ("a.png", "b.jpg", "deep/c.png"):
            taken.append(name)
            yield image_files.read_rgb(photos / name)

    stream = segmenter.map(images())
    assert taken == []
    next(stream)
    assert taken == ["a.png", "b.jpg"]
    shapes = [masks.label_map.shape for masks in segmenter.map(photos)]
    assert shapes == [(40, 64), (48, 64), (56, 64)]
    one = segmenter.map(image_files.read_rgb(photos / "a.png"))
    assert [masks.label_map.shape for masks in one] == [(40, 64)]
    with pytest.raises(InputError, match="no such file"):
        list(segmenter.map([photos / "a.png", photos / "gone.png"]))


def test_masks_can_be_looked_at(photos, loads_small):
    masks = ovtool.Segmenter(WORDS, "patch")(photos / "a.png")
    rgb = image_files.read_rgb(photos / "a.png")
    labels = np.where(masks.label_map == 65535, -1, masks.label_map.astype(np.int32))
    drawn = overlays.overlay(rgb, labels, masks.words, [*masks.scores.values()])
    assert np.array_equal(np.asarray(masks.overlay()), drawn)
    assert masks.overlay().size == masks.overlay(photos / "a.png").size
    grey = masks.overlay(np.full_like(rgb, 128))
    assert not np.array_equal(np.asarray(grey), np.asarray(masks.overlay()))
    assert masks._repr_png_().startswith(b"\x89PNG")
    assert repr(masks).startswith("Masks(64 x 40: ")
    with pytest.raises(KeyError, match="'pig' was not asked for; the words are cow, teapot, sky"):
        masks["pig"]
    with pytest.raises(UsageError, match="the image is 9 x 8 and the masks are 64 x 40; give"):
        masks.overlay(np.zeros((8, 9, 3), np.uint8))
    assert masks == masks and masks in [masks]


def test_the_masks_of_coco_are_those_of_the_words(photos, loads_small):
    masks = ovtool.Segmenter(WORDS)(photos / "a.png")
    for entry in masks.to_coco()["annotations"]:
        word = NAMES[entry["category_id"] - 1]
        assert np.array_equal(rle.decode(entry["segmentation"], 40, 64), masks[word])


def test_a_segmenter_says_what_it_is(loads_small):
    segmenter = ovtool.Segmenter("cow,sky", ovtool.Patch(flip=True))
    assert repr(segmenter) == "Segmenter('cow,sky', Patch(flip=True), model='small')"
    assert segmenter.method == ovtool.Patch(flip=True) and segmenter.words == ("cow", "sky")


# --- what is wrong is said -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "image, kind, said",
    [
        (
            np.zeros((4, 5), np.uint8),
            UsageError,
            r"uint8 of shape \(4, 5\); give uint8 \(H, W, 3\)",
        ),
        (np.zeros((4, 5, 3)), UsageError, r"the array is float64 of shape \(4, 5, 3\); give uint8"),
        (np.zeros((0, 5, 3), np.uint8), UsageError, r"of shape \(0, 5, 3\)"),
        (7, TypeError, r"the image is int; give an array \(H, W, 3\) uint8, a PIL image or a path"),
        (None, TypeError, "the image is NoneType; give an array"),
        (["a.jpg"], TypeError, "the image is list; give .* and several images to Segmenter.map"),
        ("gone.jpg", InputError, "no such file: gone.jpg"),
    ],
)
def test_images_that_are_none(loads_small, image, kind, said):
    segmenter = ovtool.Segmenter("cow", "patch")
    with pytest.raises(kind, match=said):
        segmenter(image)


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"words": 3}, "the words are int; give a text such as 'teapot,apple', a list of texts"),
        ({"words": ()}, "--classes is empty; name some"),
        ({"words": ["cow", 7]}, "the words are list with 7 in it; give a text"),
        ({"words": "cow,cow"}, "the class 'cow' is named twice"),
        ({"method": "magic"}, "unknown method 'magic'; give one of 'patch', 'fused', 'two-stage'"),
        ({"method": ovtool.Words()}, "unknown method Words"),
        ({"method": ovtool.Patch}, "unknown method <class .*Patch'>; give one of"),
        ({"precision": "int4"}, "--precision 'int4' is not one of 'auto'"),
        ({"device": "abacus"}, "unknown device 'abacus'"),
        (
            {"words": ovtool.Words(classes_per_image="w.json")},
            "need the images' names; give one list",
        ),
    ],
)
def test_a_segmenter_that_cannot_be_meant(loads_small, arguments, said):
    with pytest.raises(UsageError, match=said):
        ovtool.Segmenter(**({"words": "cow"} | arguments))


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"run": {"overwrite": True}}, r"run is dict; give ovtool.Run\(...\)"),
        ({"compute": "cpu"}, r"compute is str; give ovtool.Compute\(...\)"),
        ({"compute": None}, r"compute is NoneType; give ovtool.Compute\(...\)"),
        ({"source": ovtool.Run}, r"source is the class Run; give ovtool.Source\(...\)"),
        ({"drawn": "over"}, r"drawn is str; give ovtool.Drawn\(...\)"),
        ({"format": "xml"}, "format is 'xml'; give 'coco' or 'results'"),
    ],
)
def test_arguments_of_another_type(photos, tmp_path, arguments, said):
    with pytest.raises(UsageError, match=said):
        ovtool.segment(photos, "cow", out=tmp_path / "o.json", **arguments)
    assert not (tmp_path / "o.json").exists()


def test_arguments_of_several_classes(photos, tmp_path):
    with pytest.raises(
        UsageError, match=r"kind is str; give ovtool.MaskPrompts\(...\) or ovtool.B"
    ):
        ovtool.tune_prompts("pairs.json", "mask-prompts")
    with pytest.raises(UsageError, match="to is 'voc'; give 'coco' or 'coco-results' or"):
        ovtool.convert("a.json", to="voc")
    with pytest.raises(UsageError, match="--flip 'yes' is not allowed; give True or False"):
        ovtool.Patch(flip="yes")


def test_a_segmenter_is_copied_and_sent_to_processes(photos):
    segmenter = ovtool.Segmenter("cow,sky", ovtool.Patch(pacl="none"), model="tiny")
    again = pickle.loads(pickle.dumps(segmenter))
    image = photos / "a.png"
    assert repr(again) == repr(segmenter) and again(image).scores == segmenter(image).scores


def test_a_text_is_one_path(loads_small, photos, tmp_path):
    with pytest.raises(InputError, match="^no such file or folder: /x.jpg$"):
        ovtool.segment("/x.jpg", "cow", out=tmp_path / "o.json")
    for wrong in (3, None, [3], {"a.jpg": 1}):
        with pytest.raises(UsageError, match="the images are .*; give a path, a list of paths"):
            ovtool.segment(wrong, "cow", out=tmp_path / "o.json")
    both = [photos / "a.png", str(photos / "deep")]
    outcome = ovtool.segment(both, ["cow", "sky"], "patch", out=tmp_path / "o.json")
    assert [image.file_name for image in outcome.dataset.images] == ["a.png", "c.png"]


def test_a_path_as_the_model_is_in_no_output(photos, tmp_path, monkeypatch):
    from ovtool.models import sources

    model = sources.bundled_folder() / "tiny.safetensors"
    copy = tmp_path / "deep/my.safetensors"
    copy.parent.mkdir()
    copy.write_bytes(model.read_bytes())
    if (config := model.with_suffix(".json")).exists():
        copy.with_suffix(".json").write_bytes(config.read_bytes())
    monkeypatch.setenv("OVTOOL_CACHE", str(tmp_path / "cache"))
    compute = ovtool.Compute(model=str(copy))
    for method in (ovtool.Patch(pacl="none"), ovtool.TwoStage(proposer="regions", prompts="none")):
        out, run = tmp_path / "o.json", ovtool.Run(overwrite=True)
        outcome = ovtool.segment(photos / "a.png", "cow", method, out=out, compute=compute, run=run)
        assert outcome.dataset.info["ovtool"]["model"]["name"] == "my.safetensors"
        assert str(tmp_path) not in out.read_text()
