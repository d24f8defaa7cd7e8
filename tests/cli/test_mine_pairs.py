"""`ovtool mine-pairs` on files, end to end."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ovtool.cli.errors import run
from ovtool.formats import coco, rle
from ovtool.formats import images as pictures
from ovtool.methods import masked_crops
from ovtool.models import clip as clips
from ovtool.models import text
from ovtool.runtime.outcome import Outcome
from ovtool.settings.pairs import Matching, Nouns
from ovtool.settings.shared import Compute, Run
from ovtool.stages import mine_pairs as stage


def pairs_of(dataset):
    """Image to its pairs as noun, caption, span and surface."""
    names = {category.id: category.name for category in dataset.categories}
    found = {image.file_name: [] for image in dataset.images}
    files = {image.id: image.file_name for image in dataset.images}
    for one in dataset.annotations:
        extra = one.extra
        found[files[one.image_id]].append(
            (names[one.category_id], extra["caption_id"], extra["span"], extra["surface"])
        )
    return found


PLANNED = Outcome(coco.Dataset({}, (), (), ()), "x.json", planned=0)


def test_every_option_reaches_the_function(handed):
    seen = handed(stage, PLANNED)
    line = (
        "mine-pairs --captions c.json --images i --captions-per-image 5 --seed 8 --pos NOUN,PROPN"
    )
    line += (
        " --chunks --stop s.txt --spacy-model en_core_web_sm --proposer regions --templates vild"
    )
    line += " --recipe ovseg --matching softmax --quality-weight 0.5 --min-similarity 0.25 --crops c --limit 7"
    line += " --crop-size 96 --region-features both"
    line += " -o x.json --batch-size 3 --part-size 9 --resume --overwrite --strict --dry-run"
    line += " --model tiny --device cpu --precision float32 --threads 2"
    line += " --workers 2 --shard 3/16 --engine ray --ray-address auto"
    assert run(line.split()) == 0
    assert seen == {
        "captions": "c.json",
        "images": Path("i"),
        "nouns": Nouns(
            recipe="ovseg",
            captions_per_image="5",
            seed=8,
            pos=("NOUN", "PROPN"),
            chunks=True,
            stop="s.txt",
            spacy_model="en_core_web_sm",
        ),
        "matching": Matching(
            recipe="ovseg",
            proposer="regions",
            region_features="both",
            crop_size=96,
            templates="vild",
            matching="softmax",
            quality_weight=0.5,
            min_similarity=0.25,
        ),
        "crops": Path("c"),
        "limit": 7,
        "out": "x.json",
        "run": Run(
            batch_size=3,
            part_size=9,
            resume=True,
            overwrite=True,
            strict=True,
            dry_run=True,
            workers=2,
            shard="3/16",
            engine="ray",
            ray_address="auto",
        ),
        "compute": Compute(model="tiny", device="cpu", precision="float32", threads=2),
    }
    assert run("mine-pairs --captions coco --no-stop --proposals p.json".split()) == 0
    assert seen["nouns"] == Nouns(no_stop=True) and seen["matching"] == Matching(proposals="p.json")
    assert seen["run"] == Run() and seen["compute"] == Compute()


def test_each_noun_of_an_image_once_with_its_place(mining, desk, photos, capsys):
    assert run([*mining, "--captions-per-image", "all", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["output"] == "said.pairs.json"
    assert (
        "1.33 pairs an image, unique nouns: 4\n1 image without a mask (the first is deep/c.png)\n"
        "3 images, 4 masks, 0 failed: said.pairs.json\n" in said.err
    )
    dataset = coco.read("said.pairs.json", root=photos)
    assert [c.name for c in dataset.categories] == ["apple", "cow", "dog", "grass"]
    assert pairs_of(dataset) == {
        "a.png": [
            ("apple", 1, [3, 8], "apple"),
            ("dog", 1, [17, 21], "dogs"),
            ("grass", 2, [9, 14], "grass"),
        ],
        "b.jpg": [("cow", 3, [22, 25], "cow")],
        "deep/c.png": [],
    }
    made_by = dataset.info["ovtool"]
    assert made_by["command"] == "mine-pairs" and made_by["model"]["name"] == "tiny"
    assert made_by["settings"]["proposer"] == "regions"
    assert str(desk) not in json.dumps(dataset.info)
    assert run(["check", "said.pairs.json"]) == 0


def test_a_category_is_the_lemma_unless_the_model_knows_the_other_form_alone(
    desk, photos, captioned
):
    said = captioned({"a.png": ["some grapes, two dogs, red cherries and a chair"]})
    line = ["mine-pairs", "--captions", said, "--images", photos, "--proposer", "regions"]
    assert run([str(word) for word in [*line, "-o", "pairs.json"]]) == 0
    names = [
        category["name"] for category in json.loads(Path("pairs.json").read_text())["categories"]
    ]
    assert names == ["chair", "cherries", "dog", "grapes"]  # tiny learned grapes, and no grape


def test_each_noun_takes_the_masked_crop_of_highest_cosine(mining, desk, photos):
    assert run(["propose", str(photos), "-o", "p.json", "--proposer", "regions"]) == 0
    command = [*mining[:-2], "--proposals", "p.json", "-o", "o.json", "--recipe", "ovseg"]
    assert run(command) == 0
    proposals, dataset = coco.read("p.json"), coco.read("o.json")
    clip = clips.load("tiny")
    for image in dataset.images:
        rgb = pictures.read_rgb(photos / image.file_name)
        pixels = clips.normalise(clip, torch.from_numpy(rgb)[None])[0]
        there = [p.segmentation for p in proposals.annotations if p.image_id == image.id]
        masks = np.stack([rle.decode(one, *rgb.shape[:2]) for one in there])
        crops, _ = masked_crops.masked_crops(pixels, torch.from_numpy(masks), clip.image_size)
        regions = torch.cat([clips.encode_images(clip, crop[None]) for crop in crops])
        for pair in (p for p in dataset.annotations if p.image_id == image.id):
            said = pair.extra["surface"]
            word = "dog" if said == "dogs" else said  # the only form that the model learned
            words = text.embed_words(clip, [word], cache=False)
            cosines = (regions @ words[0]).tolist()
            assert pair.score == pytest.approx(max(cosines), abs=1e-4)
            taken = cosines[there.index(pair.segmentation)]
            assert taken == pytest.approx(max(cosines), abs=1e-4)


def test_one_caption_of_each_image_by_the_seed(mining, desk):
    seen = set()
    for seed in range(6):
        assert run([*mining, "--seed", str(seed), "-o", f"{seed}.json"]) == 0
        seen.add(tuple(noun for noun, *_ in pairs_of(coco.read(f"{seed}.json"))["a.png"]))
    assert seen == {("apple", "dog"), ("dog", "grass")}


def test_what_counts_as_a_noun_is_chosen(mining, desk, tmp_path):
    (tmp_path / "stop.txt").write_text("cow\n")
    rows = {
        "--no-stop": ["photo", "cow"],
        f"--stop {tmp_path / 'stop.txt'}": ["photo"],
        "--pos NOUN,PROPN": ["cow"],
    }
    for options, expected in rows.items():
        assert run([*mining, *options.split(" "), "-o", "o.json", "--overwrite"]) == 0
        assert [noun for noun, *_ in pairs_of(coco.read("o.json"))["b.jpg"]] == expected


def test_noun_phrases(mining, captioned):
    captioned({"a.png": ["a small brown dog on green grass"]})
    assert run([*mining, "--chunks"]) == 0
    assert [noun for noun, *_ in pairs_of(coco.read("said.pairs.json"))["a.png"]] == [
        "small brown dog",
        "green grass",
    ]


def test_pairs_below_a_cosine_are_left_out(mining, desk):
    assert run([*mining, "-o", "all.json"]) == 0
    scores = sorted(pair.score for pair in coco.read("all.json").annotations)
    assert run([*mining, "-o", "some.json", "--min-similarity", f"{scores[1] - 1e-6:.8f}"]) == 0
    kept = sorted(pair.score for pair in coco.read("some.json").annotations)
    assert kept == scores[1:]


def test_softmax_over_the_nouns_keeps_the_cosine_as_score(mining, desk):
    assert run([*mining, "-o", "c.json", "--captions-per-image", "all"]) == 0
    softmax = ["--captions-per-image", "all", "--matching", "softmax"]
    assert run([*mining, "-o", "s.json", *softmax]) == 0
    plain, soft = coco.read("c.json").annotations, coco.read("s.json").annotations
    assert all(b.score <= a.score for a, b in zip(plain, soft, strict=True))
    alone = [
        [one for one in d if one.image_id == 2] for d in (plain, soft)
    ]  # the image of one noun
    assert alone[0] == alone[1]


def test_the_quality_of_masks_counts_as_much_as_it_is_told(mining, desk):
    assert run([*mining, "-o", "c.json", "--recipe", "ovseg"]) == 0
    assert run([*mining, "-o", "q.json", "--recipe", "ovseg", "--quality-weight", "1000"]) == 0
    plain, best = coco.read("c.json").annotations, coco.read("q.json").annotations
    assert all(b.score <= a.score for a, b in zip(plain, best, strict=True))
    masks = [one.segmentation for one in best if one.image_id == 1]
    assert masks[0] == masks[1]  # the one of highest quality, for every noun


def test_a_data_set_is_a_whole_command(desk, monkeypatch, photos, captioned, tmp_path):
    root = tmp_path / "sets" / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "train2017").symlink_to(photos)
    captioned(path=root / "annotations" / "captions_train2017.json")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root.parent))
    assert run(["mine-pairs", "--captions", "coco", "--limit", "1"]) == 0
    assert [i.file_name for i in coco.read("coco.pairs.json").images] == ["a.png"]


def test_a_dry_run_writes_nothing(mining, desk, capsys):
    assert run([*mining, "--dry-run"]) == 0
    said = capsys.readouterr().err
    first, second = said.splitlines()
    assert first == "would mine pairs from 3 images, into said.pairs.json"
    assert second.startswith("1 part of up to 256 images, on cpu with ")
    assert list(desk.iterdir()) == []


def test_crops_as_files_and_as_a_tar_are_the_same(mining, desk, photos):
    assert run([*mining, "--crops", "crops"]) == 0
    assert run([*mining, "-o", "o.json", "--crops", "x.tar"]) == 0
    assert sorted(path.name for path in desk.iterdir()) == [
        "crops", "o.json", "said.pairs.json", "x.tar"
    ]  # fmt: skip
    dataset = coco.read("said.pairs.json")
    rows = [row.split("\t") for row in Path("crops/pairs.tsv").read_text().splitlines()]
    names = {category.id: category.name for category in dataset.categories}
    assert rows[0] == ["filepath", "title"]
    assert [title for _, title in rows[1:]] == [names[p.category_id] for p in dataset.annotations]
    with tarfile.open("x.tar") as tar:
        content = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
        assert {(member.mtime, member.uname) for member in tar.getmembers()} == {(0, "")}
    assert len(content) == 3 * len(dataset.annotations)
    for (path, title), pair in zip(rows[1:], dataset.annotations, strict=True):
        stem = path.removesuffix(".png")
        assert content[path] == (Path("crops") / path).read_bytes()
        assert content[f"{stem}.txt"].decode() == title
        said = json.loads(content[f"{stem}.json"])
        assert said["noun"] == title and said["score"] == pair.score
        assert said["span"] == pair.extra["span"] and said["file_name"] == path.split("/")[0]


def test_a_crop_is_what_the_model_was_shown(mining, desk, photos):
    assert run([*mining, "--crops", "crops"]) == 0
    dataset = coco.read("said.pairs.json")
    clip = clips.load("tiny")
    rows = [row.split("\t")[0] for row in Path("crops/pairs.tsv").read_text().splitlines()[1:]]
    files = {image.id: image.file_name for image in dataset.images}
    for path, pair in zip(rows, dataset.annotations, strict=True):
        crop = np.asarray(Image.open(Path("crops") / path))
        assert crop.shape == (clip.image_size, clip.image_size, 4)
        rgb = pictures.read_rgb(photos / files[pair.image_id])
        mask = rle.decode(pair.segmentation, *rgb.shape[:2])
        pixels = clips.normalise(clip, torch.from_numpy(rgb)[None])[0]
        shown, alpha = masked_crops.masked_crops(
            pixels, torch.from_numpy(mask)[None], clip.image_size
        )
        assert np.array_equal(crop[..., 3] == 255, alpha[0].numpy())
        again = clips.normalise(clip, torch.from_numpy(crop[None, ..., :3].copy()))[0]
        mean, std = (torch.tensor(value).view(3, 1, 1) for value in (clip.mean, clip.std))
        whole = (shown[0] * std + mean).clamp(0, 1)  # what bicubic threw beyond white is cut off
        assert (again * std + mean - whole).abs().max() <= 0.51 / 255


def test_one_broken_picture_and_one_that_is_not_there(mining, desk, photos, capsys):
    (photos / "a.png").write_bytes(b"no picture")
    (photos / "deep" / "c.png").unlink()
    assert run([*mining]) == 3
    lines = [row for row in capsys.readouterr().err.splitlines() if row.startswith("failed: ")]
    assert lines[0].startswith("failed: a.png") and "deep/c.png" in lines[1] and len(lines) == 2
    dataset = coco.read("said.pairs.json")
    assert [image.file_name for image in dataset.images] == ["b.jpg"]
    assert [f["file_name"] for f in dataset.info["ovtool"]["failures"]] == ["a.png", "deep/c.png"]


def test_a_run_with_other_crops_or_nouns_is_not_resumed(mining, desk, fails, monkeypatch):
    monkeypatch.setattr(coco, "write", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run([*mining, "-o", "o.json"]) == 130
    for other in (["--crops", "c"], ["--no-stop"], ["--seed", "5"], ["--templates", "vild"]):
        assert run([*mining, "-o", "o.json", "--resume", *other]) == 2


def test_the_tar_reads_as_shards_are_read(mining, desk):
    assert run([*mining, "--crops", "x.tar"]) == 0
    with tarfile.open("x.tar") as tar:
        for member in tar.getmembers():
            folder, _, name = member.name.rpartition("/")
            assert folder and name.count(".") == 1  # a sample's key ends at the first dot
            if name.endswith(".png"):
                Image.open(io.BytesIO(tar.extractfile(member).read())).load()
