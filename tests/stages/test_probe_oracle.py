"""`probe oracle` with a small CLIP at random weights."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from ovtool.errors import InputError, UsageError
from ovtool.formats import coco, rle
from ovtool.methods.mask_prompts import MaskPrompts
from ovtool.models import region_clip, text
from ovtool.settings.probe import Oracle
from ovtool.settings.shared import Source
from ovtool.stages import probe_oracle

NOUNS = ("cow", "apple", "train", "sky")


@pytest.fixture
def truth(tmp_path, small):
    """Two pictures with three masks each, in truth.json."""
    random = np.random.default_rng(2)
    images, entries = [], []
    for n in range(2):
        coarse = Image.fromarray(random.integers(0, 256, (3, 4, 3), np.uint8))
        coarse.resize((64, 48), Image.Resampling.NEAREST).save(tmp_path / f"{n}.png")
        images.append(coco.Image(n + 1, f"{n}.png", 64, 48))
        for k in range(3):
            mask = np.zeros((48, 64), bool)
            mask[16 * k : 16 * k + 14, 5:50] = True
            mask[16 * k + 3 : 16 * k + 11, 5 : 30 + n] = False
            entries.append(coco.annotation(3 * n + k + 1, n + 1, k + 1, rle.encode(mask), None))
    categories = [coco.Category(k + 1, name) for k, name in enumerate(NOUNS)]
    coco.write(coco.Dataset({}, images, entries, categories), tmp_path / "truth.json")
    return tmp_path / "truth.json"


@pytest.fixture
def probe(truth, tmp_path, loads_small):
    def probed(data_set=None, coco=truth, images=tmp_path, limit=None, **options):
        own = options if "proposals" in options else {"proposer": "regions", **options}
        source = Source(coco=coco, images=images, limit=limit)
        return probe_oracle.run(data_set, Oracle(**own), source=source)

    return probed


def expected(clip, truth, folder, names, **how):
    """Accuracy and mean IoU of true masks named by the CLIP, mask by mask."""
    dataset = coco.read(truth)
    words = text.embed_words(clip, names, cache=False)
    right, hits, predicted = 0, np.zeros(3), np.zeros(len(names))
    for entry in dataset.annotations:
        image = next(i for i in dataset.images if i.id == entry.image_id)
        rgb = np.asarray(Image.open(folder / image.file_name))
        mask = rle.decode(entry.segmentation, 48, 64)
        vector = region_clip.encode_regions(clip, rgb.copy(), mask[None].copy(), **how)
        found = int((vector @ words.T).argmax())
        right += found == entry.category_id - 1
        predicted[found] += mask.sum()
        hits[entry.category_id - 1] += mask.sum() * (found == entry.category_id - 1)
    sizes = np.zeros(len(names))
    for entry in dataset.annotations:
        sizes[entry.category_id - 1] += entry.area
    union = sizes[:4] + predicted[:4]
    union[:3] -= hits
    ious = [np.append(hits, 0)[k] / union[k] for k in range(4) if union[k]]
    return right / 6, float(np.mean(ious))


def row(found, name):
    (one,) = (each for each in found["rows"] if each["name"] == name)
    return one


def test_true_masks_are_named_by_the_clip(probe, truth, tmp_path, small):
    prompts = MaskPrompts(torch.randn(1, 9, 32, generator=torch.Generator().manual_seed(1)), (3, 3))
    region_clip.save_prompts(tmp_path / "p.safetensors", small, prompts, None, {})
    found = probe(prompts=str(tmp_path / "p.safetensors"))
    names = [
        probe_oracle.MASKED,
        probe_oracle.PROMPTED,
        probe_oracle.UNMASKED,
        probe_oracle.PROPOSED,
    ]
    assert [each["name"] for each in found["rows"]] == names
    ways = ({}, {"prompts": prompts}, {"fill": False})
    for name, how in zip(names[:3], ways, strict=True):
        accuracy, miou = expected(small, truth, tmp_path, NOUNS, **how)
        one = row(found, name)
        assert one["accuracy"] == pytest.approx(accuracy) and one["miou"] == pytest.approx(miou)
    assert (found["images"], found["masks"], found["words_an_image"]) == (2, 6, 4)
    assert str(tmp_path) not in json.dumps(found["ovtool"])
    assert [each["name"] for each in probe(prompts="none")["rows"]] == [names[0], *names[2:]]


def test_intervals_reach_from_the_worse_image_to_the_better(probe, truth, tmp_path):
    """Of two images a sample holds one twice, or both: the ends are the figures of each alone."""
    both = probe(prompts="none")
    data = json.loads(truth.read_text())
    alone = []
    for image in data["images"]:
        own = [entry for entry in data["annotations"] if entry["image_id"] == image["id"]]
        (tmp_path / "one.json").write_text(
            json.dumps({**data, "images": [image], "annotations": own})
        )
        alone.append(probe(prompts="none", coco=tmp_path / "one.json"))
    assert "difference" not in both["rows"][0]
    for name in (probe_oracle.MASKED, probe_oracle.UNMASKED, probe_oracle.PROPOSED):
        for measure in ("miou", "pixel_accuracy", "accuracy"):
            ends = row(both, name)["intervals"][measure]
            values = [row(found, name)[measure] for found in alone]
            if name == probe_oracle.PROPOSED and measure == "accuracy":
                assert values == [None, None] and ends == {"low": None, "high": None}
                continue
            assert (ends["low"], ends["high"]) == pytest.approx((min(values), max(values)))
            if name != probe_oracle.MASKED:
                further = row(both, name)["difference"][measure]
                first = [row(found, probe_oracle.MASKED)[measure] for found in alone]
                differences = [own - base for own, base in zip(values, first, strict=True)]
                base = row(both, probe_oracle.MASKED)[measure]
                assert further["value"] == pytest.approx(row(both, name)[measure] - base)
                assert further["low"] == pytest.approx(min(differences))
                assert further["high"] == pytest.approx(max(differences))


def test_true_masks_as_proposals_are_right_everywhere(probe, truth):
    found = probe(proposals=truth, prompts="none")
    assert row(found, probe_oracle.PROPOSED)["miou"] == 1.0
    assert row(found, probe_oracle.PROPOSED)["accuracy"] is None


def test_proposals_that_cover_nothing_are_wrong_everywhere(probe, truth, tmp_path):
    data = json.loads(truth.read_text())
    (tmp_path / "empty.json").write_text(json.dumps({**data, "annotations": []}))
    found = probe(proposals=tmp_path / "empty.json", prompts="none")
    assert row(found, probe_oracle.PROPOSED)["miou"] == 0.0


def test_words_of_an_image_compete_and_the_rest_of_the_truth_is_not_counted(
    probe, truth, tmp_path, small
):
    lists = {"0.png": ["cow", "apple", "train", "teapot|kettle"], "1.png": ["Cow"]}
    (tmp_path / "words.json").write_text(json.dumps(lists))
    found = probe(classes_per_image=tmp_path / "words.json", prompts="none")
    assert found["masks"] == 4 and found["words_an_image"] == 2.5
    only = probe(classes_per_image=tmp_path / "words.json", prompts="none", limit=1)
    assert only["masks"] == 3
    data = json.loads(truth.read_text())
    first = {**data, "annotations": data["annotations"][:3]}
    (tmp_path / "first.json").write_text(json.dumps(first))
    words = text.embed_words(small, ["cow", "apple", "train", "teapot", "kettle"], cache=False)
    right = 0
    for entry in coco.read(tmp_path / "first.json").annotations:
        rgb = np.asarray(Image.open(tmp_path / "0.png")).copy()
        vector = region_clip.encode_regions(
            small, rgb, rle.decode(entry.segmentation, 48, 64)[None].copy()
        )
        right += int((vector @ words.T).argmax()) == entry.category_id - 1
    assert row(only, probe_oracle.MASKED)["accuracy"] == pytest.approx(right / 3)


def test_what_cannot_be_meant(probe, truth, tmp_path):
    for options, said in (
        ({"coco": None, "images": None}, "give a data set such as collage:test"),
        ({"data_set": "collage:demo"}, "give a data set such as collage:test"),
        ({"images": None}, "--coco needs --images DIR"),
        ({"coco": None, "data_set": "collage:demo"}, "--images is the folder of --coco"),
        ({"coco": None, "images": None, "data_set": "pets"}, "unknown data set 'pets'"),
    ):
        with pytest.raises(UsageError, match=said):
            probe(**options)
    (tmp_path / "words.json").write_text(json.dumps({"0.png": ["cow"]}))
    with pytest.raises(InputError, match="has no list of words for 1.png"):
        probe(classes_per_image=tmp_path / "words.json")
    data = json.loads(truth.read_text())
    truth.write_text(json.dumps({**data, "annotations": []}))
    with pytest.raises(InputError, match="holds no masks; give a file of masks"):
        probe(prompts="none")
    with pytest.raises(UsageError, match="--proposals are masks from a file, and --proposer makes"):
        Oracle(proposer="regions", proposals=truth)
