"""`probe alignment`, `coherence` and `classify` with a small CLIP at random weights, against slow versions."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from ovtool.datasets import nouns
from ovtool.errors import InputError, OutputExistsError, UsageError
from ovtool.formats import coco, rle
from ovtool.methods import patch_alignment, roc
from ovtool.methods.patch_alignment import Pooling, VisionEmbedder
from ovtool.models import clip as clips
from ovtool.models import dense_scores, pacl, text, timm_backbone
from ovtool.models.timm_backbone import Backbone
from ovtool.settings.probe import Alignment, Classify, Coherence
from ovtool.settings.shared import Compute, Run, Source
from ovtool.stages import probe_alignment, probe_classify, probe_coherence

CLASSES = [("cow", "object"), ("apple", "object"), ("violin", "object"), ("sky", "ground")]
NAMES = [name for name, _ in CLASSES]


def write_truth(folder, labels):
    """Pictures of flat blocks, one for each label map int (H, W), and their masks."""
    random = np.random.default_rng(2)
    images, entries = [], []
    for n, found in enumerate(labels, start=1):
        height, width = found.shape
        coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8))
        coarse.resize((width, height), Image.Resampling.NEAREST).save(folder / f"{n}.png")
        images.append(coco.Image(n, f"{n}.png", width, height))
        for k in sorted(set(found.ravel().tolist()) - {-1}):
            mask = rle.encode(np.asfortranarray(found == k))
            entries.append(coco.annotation(len(entries) + 1, n, k + 1, mask, None))
    categories = [coco.Category(k + 1, *each) for k, each in enumerate(CLASSES)]
    coco.write(coco.Dataset({}, images, entries, categories), folder / "truth.json")
    return folder / "truth.json"


@pytest.fixture
def truth(tmp_path):
    """Three pictures of 96 x 96: a patch of 16, of a picture shown at 48, is 32 pixels there."""
    random = np.random.default_rng(4)
    coarse = np.kron(random.integers(-1, 4, (3, 3, 3)), np.ones((1, 2, 2), int))
    coarse = np.where(
        random.random(coarse.shape) < 0.25, random.integers(-1, 4, coarse.shape), coarse
    )
    return write_truth(tmp_path, [np.kron(each, np.ones((16, 16), int)) for each in coarse])


@pytest.fixture
def given(truth, tmp_path, loads_small):
    return {"source": Source(coco=truth, images=tmp_path)}


@pytest.fixture
def head_file(small, tmp_path):
    torch.manual_seed(3)
    embedder = VisionEmbedder(32, 24).requires_grad_(False)
    head = pacl.Head(embedder, Pooling(5.0), 12.5, {})
    pacl.save(tmp_path / "head.safetensors", small, head)
    return str(tmp_path / "head.safetensors")


def pictures_of(given):
    """Each picture, shown at 48 pixels, and its labels there: (1, 3, 48, 48) and (48, 48)."""
    dataset = coco.read(given["source"].coco)
    for image in dataset.images:
        rgb = np.array(Image.open(given["source"].images / image.file_name))
        labels = np.full(rgb.shape[:2], -1)
        for entry in dataset.annotations:
            if entry.image_id == image.id:
                labels[rle.decode(entry.segmentation, *labels.shape)] = entry.category_id - 1
        yield torch.from_numpy(rgb), labels[1::2, 1::2]


def majority(labels):
    """The class of more than half of each patch of 16: {(i, j): class}."""
    found = {}
    for i in range(3):
        for j in range(3):
            cell = labels[16 * i : 16 * i + 16, 16 * j : 16 * j + 16]
            for k in range(4):
                if (cell == k).sum() > 128:
                    found[i, j] = k
    return found


def test_alignment_is_the_share_of_patches_named_right(given, small, head_file):
    found = probe_alignment.run(
        **given, alignment=Alignment(short_side=48, window=0, pacl=head_file)
    )
    head = pacl.load(head_file, small)
    words = text.embed_words(small, NAMES, cache=False)
    right = {name: {} for name in ("last block clip", "last block naclip", "PACL head")}
    total = []
    for rgb, labels in pictures_of(given):
        pixels = dense_scores.prepare(small, rgb, 48)
        features = {
            "last block clip": clips.patch_features(small, pixels, "clip")[0],
            "last block naclip": clips.patch_features(small, pixels, "naclip")[0],
            "PACL head": pacl.patch_features(small, head, pixels)[0],
        }
        for (i, j), k in majority(labels).items():
            total.append(k)
            for name, each in features.items():
                hit = int((each[i, j] @ words.T).argmax()) == k
                right[name].setdefault(k, []).append(hit)
    base = {noun.name for noun in nouns.table() if noun.base}
    members = {
        "all": {0, 1, 2, 3},
        "things": {0, 1, 2},
        "stuff": {3},
        "base": {k for k in range(3) if NAMES[k] in base},
        "new": {k for k in range(3) if NAMES[k] not in base},
    }
    assert members["base"] and members["new"]
    assert found["patches"] == {
        group: sum(k in chosen for k in total) for group, chosen in members.items()
    }
    assert [row["name"] for row in found["rows"]] == list(right)
    for row in found["rows"]:
        hits = right[row["name"]]
        for group, chosen in members.items():
            each = [hit for k in chosen for hit in hits.get(k, [])]
            assert row["accuracy"][group] == pytest.approx(np.mean(each)), group
            ends, base = row["intervals"][group], found["rows"][0]["accuracy"][group]
            assert ends["low"] <= row["accuracy"][group] <= ends["high"]
            further = row.get("difference", {group: {"value": 0.0}})[group]["value"]
            assert further == pytest.approx(row["accuracy"][group] - base)
    assert found["rows"][2]["pacl"] == head.fingerprint
    assert len(total) + found["mixed"] + found["ignored"] == 27 and found["mixed"] > 0
    json.dumps(found, allow_nan=False)


def test_stages_of_a_network_that_is_no_clip_are_measured_on_the_same_patches(given):
    coherence = Coherence(short_side=48, window=0, layers="1", pacl="none", sample=200)
    plain = probe_coherence.run(**given, coherence=coherence)
    beside = probe_coherence.run(**given, coherence=replace(coherence, backbone="photo"))
    assert beside["rows"][0] == plain["rows"][0]
    names = [f"photo, stage {number}" for number in range(1, 9)]
    assert [row["name"] for row in beside["rows"][1:]] == names
    assert all(row["layer"] is None for row in beside["rows"][1:])
    with pytest.raises(UsageError, match="no network 'timm:nothing'"):
        probe_coherence.run(**given, coherence=replace(coherence, backbone="timm:nothing"))


@pytest.mark.parametrize("name", ["photo", "timm:resnet10t", "timm:vit_tiny_patch16_224"])
def test_the_last_stage_of_a_network_is_what_it_gives(name):
    backbone = Backbone(timm_backbone.name_of(name), 64).eval()
    pixels = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    *_, last = backbone.stages(pixels)
    with torch.no_grad():
        whole = backbone(pixels)
        if name.endswith("224"):  # the network's norm follows its last block
            last = backbone.network.norm(last.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    assert torch.allclose(last, whole, atol=1e-5)


def test_mixed_patches_count_by_choice_and_windows_show_patches_again(given):
    plain = probe_alignment.run(**given, alignment=Alignment(short_side=48, window=0, pacl="none"))
    mixed = probe_alignment.run(
        **given, alignment=Alignment(short_side=48, window=0, pacl="none", count_mixed=True)
    )
    assert mixed["mixed"] == 0 and mixed["ignored"] == plain["ignored"]
    assert mixed["patches"]["all"] == plain["patches"]["all"] + plain["mixed"]
    seen = probe_alignment.run(
        **given, alignment=Alignment(short_side=48, window=32, stride=16, pacl="none")
    )
    total = seen["patches"]["all"] + seen["mixed"] + seen["ignored"]
    assert total == 3 * 4 * 4  # four windows of four patches each
    assert [
        r["last_block"]
        for r in probe_alignment.run(**given, alignment=Alignment(last_block="clip"))["rows"]
    ] == ["clip"]


def test_coherence_is_the_area_over_pairs_of_patches(given, small, monkeypatch):
    monkeypatch.setattr(probe_coherence, "BOOTSTRAP", 20)
    options = {"short_side": 48, "window": 0, "pacl": "none", "layers": "1,3", "sample": 4000}
    found = probe_coherence.run(**given, coherence=Coherence(**options))
    assert [row["layer"] for row in found["rows"]] == [1, 3]
    for row, block in zip(found["rows"], (0, 2), strict=True):
        within, across = ([], [], []), ([], [], [])
        shown = []
        for rgb, labels in pictures_of(given):
            pixels = dense_scores.prepare(small, rgb, 48)
            features = normalize(clips.layer_tokens(small, pixels, [block])[0][0], dim=-1)
            shown.append([(features[place], k) for place, k in majority(labels).items()])
        for a, first in enumerate(shown):
            for b, second in enumerate(shown):
                for i, (x, k) in enumerate(first):
                    for j, (y, m) in enumerate(second):
                        if (a, i) != (b, j):
                            kept = within if a == b else across
                            kept[0].append(float(x @ y))
                            kept[1].append(k == m)
                            kept[2].append(1 / (len(first) - 1) if a == b else 1)
        for kind, (scores, same, often) in (("within", within), ("across", across)):
            expected = roc.auc(torch.tensor(scores), torch.tensor(same), torch.tensor(often))
            assert row[kind]["auc"] == pytest.approx(expected, abs=0.03), kind  # 4,000 are drawn
            assert row[kind]["low"] <= row[kind]["high"]
    assert probe_coherence.run(**given, coherence=Coherence(**options)) == found
    assert probe_coherence.run(**given, coherence=Coherence(**options, seed=1)) != found
    json.dumps(found, allow_nan=False)


def test_coherence_of_a_head_and_its_layers(given, head_file, tmp_path):
    found = probe_coherence.run(
        **given, coherence=Coherence(pacl=head_file, sample=200), plot=tmp_path / "p.png"
    )
    assert [row["name"] for row in found["rows"]] == ["block 1", "block 2", "block 3", "PACL head"]
    last = probe_coherence.run(
        **given,
        coherence=Coherence(pacl="none", sample=200, layers="last"),
        plot=tmp_path / "l.png",
    )
    assert [row["layer"] for row in last["rows"]] == [3]
    assert last["rows"][0] == found["rows"][2]
    for name in ("p.png", "l.png"):
        assert Image.open(tmp_path / name).size == (960, 600)
    for wrong in ("0", "4", "x", "1,,2", ""):
        with pytest.raises(UsageError, match="give all, last, or blocks of 1 to"):
            probe_coherence.run(**given, coherence=Coherence(layers=wrong))


def test_patches_of_one_class_are_no_test(tmp_path, loads_small):
    truth = write_truth(tmp_path, [np.full((48, 48), 2)] * 2)
    with pytest.raises(InputError, match="there are no patches of two classes to tell apart"):
        probe_coherence.run(
            coherence=Coherence(sample=50), source=Source(coco=truth, images=tmp_path)
        )


def test_classify_against_the_labels_of_each_image(given, small, head_file, tmp_path):
    lists = tmp_path / "lists.json"
    listed = [["cow", "apple", "violin", "sky"], ["sky", "cow", "apple"], ["drum", "cow", "violin"]]
    lists.write_text(json.dumps({f"{n}.png": each for n, each in enumerate(listed, 1)}))
    found = probe_classify.run(**given, classify=Classify(classes_per_image=lists, pacl=head_file))
    head = pacl.load(head_file, small)
    tops, scores = {"class token": [], "PACL head": []}, {}
    for (rgb, _), own, n in zip(pictures_of(given), listed, range(3), strict=True):
        whole = coco.read(given["source"].coco)
        labels = {NAMES[e.category_id - 1] for e in whole.annotations if e.image_id == n + 1}
        pixels = dense_scores.prepare(small, rgb, 48)
        words = text.embed_words(small, own, cache=False)
        tokens = head.embedder(clips.layer_tokens(small, pixels, [-1])[0].float()).flatten(1, 2)
        both = {
            "class token": clips.encode_images(small, pixels)[0] @ words.T,
            "PACL head": patch_alignment.compatibility(tokens, words, head.pooling)[0],
        }
        for name, each in both.items():
            tops[name].append(own[int(each.argmax())] in labels & set(own))
            for word, score in zip(own, each.tolist(), strict=True):
                scores.setdefault((name, word), []).append((score, word in labels))
    assert [row["name"] for row in found["rows"]] == ["class token", "PACL head"]
    for row in found["rows"]:
        assert row["top1"]["all"] == pytest.approx(np.mean(tops[row["name"]]))
        precisions = []
        for word in NAMES:
            each = scores[row["name"], word]
            if any(is_label for _, is_label in each):
                values, targets = zip(*each, strict=True)
                precisions.append(
                    roc.average_precision(torch.tensor(values), torch.tensor(targets))
                )
        assert row["map"]["all"] == pytest.approx(np.mean(precisions), abs=1e-6)
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("probe", [probe_alignment, probe_classify])
def test_the_pictures_of_a_probe(given, probe, tmp_path_factory):
    target = tmp_path_factory.mktemp("plots") / "p.png"  # not among the images, which are read
    probe.run(**given, plot=target)
    assert Image.open(target).size == (960, 600)
    with pytest.raises(OutputExistsError):
        probe.run(**given, plot=target)
    probe.run(**given, plot=target, run=Run(overwrite=True))


@pytest.mark.parametrize("probe", [probe_alignment, probe_coherence, probe_classify])
def test_a_file_without_masks_is_refused(given, probe, tmp_path):
    whole = json.loads(given["source"].coco.read_text())
    bare = tmp_path / "bare.json"
    bare.write_text(json.dumps({**whole, "annotations": []}))
    with pytest.raises(InputError, match="holds no masks; give a file of masks"):
        probe.run(source=Source(coco=bare, images=tmp_path))
    with pytest.raises(UsageError, match="give a data set such as collage:test"):
        probe.run()


@pytest.mark.parametrize(
    "probe, name, settings",
    [(probe_alignment, "alignment", Alignment), (probe_classify, "classify", Classify)],
)
def test_an_image_without_a_list_of_words_is_refused(given, probe, name, settings, tmp_path):
    lists = tmp_path / "lists.json"
    lists.write_text(json.dumps({"1.png": ["cow"]}))
    with pytest.raises(InputError, match="has no list of words for 2.png"):
        probe.run(**given, **{name: settings(classes_per_image=lists)})
    lists.write_text(json.dumps({f"{n}.png": ["drum", "lion"] for n in (1, 2, 3)}))
    with pytest.raises(InputError, match="that is among its words"):
        probe.run(**given, **{name: settings(classes_per_image=lists)})


@pytest.mark.parametrize(
    "probe, name, settings",
    [
        (probe_alignment, "alignment", Alignment()),
        (probe_coherence, "coherence", Coherence(sample=50, layers="last")),
        (probe_classify, "classify", Classify()),
    ],
)
def test_what_made_a_result_is_said_without_a_path(
    given, head_file, probe, name, settings, tmp_path
):
    lists = tmp_path / "lists.json"
    lists.write_text(json.dumps({f"{n}.png": NAMES for n in (1, 2, 3)}))
    more = {"pacl": Path(head_file)}
    more |= {} if name == "coherence" else {"classes_per_image": lists}
    result = probe.run(**given, **{name: replace(settings, **more)}, compute=Compute(device="cpu"))
    assert str(tmp_path) not in json.dumps(result)
    made_by = result["ovtool"]["settings"]
    assert made_by["data_set"] == "truth.json" and len(made_by["pacl"]) == 16
    assert made_by.get("classes_per_image", "lists.json") == "lists.json"


def test_where_the_values_of_views_come_from_is_said(given):
    shown = Alignment(short_side=48, pacl="none")
    made_by = probe_alignment.run(**given, alignment=shown)["ovtool"]["settings"]
    assert made_by["short_side"] == 48 and made_by["last_block"] == "naclip"
    assert made_by["origins"] == {
        "last_block": "default",
        "short_side": "given",
        "window": "default",
        "stride": "default",
    }
