"""The story of `tune-prompts` with a small CLIP at random weights."""

import json
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from ovtool.batches import pairs as pair_batches
from ovtool.errors import InputError, MismatchError, OutputExistsError, OvtoolError, UsageError
from ovtool.formats import coco, rle, tensors
from ovtool.formats import images as pictures
from ovtool.methods import contrastive, masked_crops
from ovtool.models import clip as clips
from ovtool.models import masked_tower, region_clip
from ovtool.settings.prompts import MaskPrompts
from ovtool.settings.shared import Compute, Run
from ovtool.stages import tune_prompts
from ovtool.trainers import mask_prompts as prompt_trainer
from ovtool.training.loop import TrainingError

NOUNS = ("cow", "apple", "train")


def dataset(count, nouns=NOUNS):
    """Two masks on each of `count` pictures of 40 x 64: a block of a noun's colour, and a strip."""
    images = [coco.Image(n + 1, f"{n:02d}.png", 64, 40) for n in range(count)]
    entries = []
    for n in range(count):
        for k in range(2):
            mask = np.zeros((40, 64), bool)
            mask[4 + 18 * k : 18 + 18 * k, 6 + n % 5 : 50] = True
            mask[6 + 18 * k : 18 + 18 * k, 8:40] = False
            noun = (n + k) % len(nouns)
            entries.append(coco.annotation(2 * n + k + 1, n + 1, noun + 1, rle.encode(mask), 0.5))
    categories = [coco.Category(k + 1, name) for k, name in enumerate(nouns)]
    return coco.Dataset({}, images, entries, categories)


@pytest.fixture
def pairs(tmp_path):
    """pairs.json beside its pictures, each object of its noun's colour."""
    found = dataset(12)
    random = np.random.default_rng(0)
    for n, image in enumerate(found.images):
        rgb = random.integers(0, 60, (40, 64, 3), np.uint8)
        for k in range(2):
            rgb[4 + 18 * k : 18 + 18 * k, :, (n + k) % 3] = 220
        Image.fromarray(rgb).save(tmp_path / image.file_name)
    coco.write(found, tmp_path / "pairs.json")
    return tmp_path / "pairs.json"


@pytest.fixture
def tune(pairs, tmp_path, loads_small):
    def tuned(name="p.safetensors", source=pairs, **options):
        given = {"steps": 6, "batch_size": 8, "lr": 0.05, "tower_lr": 1e-3, **options}
        precision, images = given.pop("precision", "auto"), given.pop("images", None)
        how = {flag: given.pop(flag) for flag in ("resume", "dry_run", "strict") if flag in given}
        return tune_prompts.run(
            source,
            MaskPrompts(**given),
            images=images,
            out=tmp_path / name,
            compute=Compute(precision=precision),
            run=Run(**how),
        )

    return tuned


def test_prompts_are_learned_and_nothing_else(tune, tmp_path, small):
    before = {name: value.clone() for name, value in small.model.state_dict().items()}
    found = tune(steps=40)
    assert all(torch.equal(v, before[k]) for k, v in small.model.state_dict().items())
    header, content = tensors.load(tmp_path / "p.safetensors", kind="mask-prompts")
    assert list(content) == ["prompts"] and content["prompts"].shape == (3, 9, 32)
    settings = header["settings"]
    curve = [record["loss"] for record in settings["curve"]]
    assert len(curve) == 40 and np.mean(curve[-5:]) < np.mean(curve[:5]) - 0.2
    assert found.loss == pytest.approx(curve[-1], rel=1e-4)
    assert found.parameters == {"prompts": 3 * 9 * 32}
    assert found.counts == {"pairs": 22, "held_out": 2, "nouns": 3} and found.steps == 40
    assert set(found.before) == set(found.after) == {"accuracy"}
    assert settings["accuracy_after"] == found.after["accuracy"]
    assert settings["grid"] == [3, 3] and settings["depth"] == 3 and settings["loss"] == "shared"
    assert "accuracy" in settings["curve"][-1] and header["fingerprint"] == small.fingerprint
    assert str(tmp_path) not in json.dumps(header)
    assert Image.open(tmp_path / "p.png").size == (960, 600)
    assert sorted(path.name for path in tmp_path.glob("p*")) == [
        "p.png",
        "p.safetensors",
        "pairs.json",
    ]


def test_the_first_loss_is_that_of_the_formula(tune, pairs, tmp_path, small):
    tune(steps=1, held_out=0.0)
    header, _ = tensors.load(tmp_path / "p.safetensors")
    found = pair_batches.read(str(pairs), None, 0, 0.0)
    cutter = pair_batches.Cutter(tmp_path, 48, small.mean, small.std)
    batch = pair_batches.Batches(found.train, cutter, 8, 0)[0]
    from ovtool.methods import mask_prompts
    from ovtool.models import text

    start = mask_prompts.initial(3, (3, 3), 32, torch.Generator().manual_seed(0))
    shown = mask_prompts.patch_masks(batch.masks, 16)
    with torch.no_grad():
        out = masked_tower.embed_plain(small.model.visual, batch.pixels, shown, start)
    words = text.encode_texts(small, NOUNS)[batch.nouns]
    out = torch.nn.functional.normalize(out, dim=1)
    expected = contrastive.shared_info_nce(out, words, batch.nouns, small.logit_scale)
    assert header["settings"]["curve"][0]["loss"] == pytest.approx(expected.item(), rel=1e-4)


def test_the_paper_s_loss_is_another(tune):
    shared, paper = (
        tune(f"{loss}.safetensors", loss=loss, steps=1).loss for loss in ("shared", "paper")
    )
    assert abs(shared - paper) > 1e-4


def test_tower_and_both(tune, tmp_path, small):
    alone = tune("tower.safetensors", train="tower")
    count = sum(one.numel() for one in small.model.visual.parameters())
    assert alone.parameters == {"tower": count}
    clip, prompts = region_clip.with_prompts(small, tmp_path / "tower.safetensors")
    assert prompts is None
    assert not torch.equal(clip.model.visual.conv1.weight, small.model.visual.conv1.weight)
    both = tune("both.safetensors", train="tower-then-prompts")
    assert both.parameters == {"tower": count, "prompts": 3 * 9 * 32} and both.steps == 12
    header, content = tensors.load(tmp_path / "both.safetensors")
    assert [record["step"] for record in header["settings"]["curve"]] == list(range(1, 13))
    _, first = tensors.load(tmp_path / "tower.safetensors")
    assert all(torch.equal(content[name], value) for name, value in first.items())
    assert content["tower.conv1.weight"].dtype == torch.float16 and "prompts" in content


class Cut(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize(
    "train, cut_at", [("prompts", 4), ("tower-then-prompts", 3), ("tower-then-prompts", 10)]
)
def test_a_run_that_was_cut_off_ends_with_the_same_bytes(
    tune, tmp_path, monkeypatch, train, cut_at
):
    tune("whole.safetensors", train=train, save_every=2)
    steps = 0
    loss = prompt_trainer.NamedCrops.loss

    def cut(self, *arguments):
        nonlocal steps
        steps += 1
        if steps > cut_at:
            raise Cut
        return loss(self, *arguments)

    monkeypatch.setattr(prompt_trainer.NamedCrops, "loss", cut)
    with pytest.raises(Cut):
        tune(train=train, save_every=2)
    with pytest.raises(OutputExistsError, match="go on with --resume"):
        tune(train=train)
    with pytest.raises(MismatchError, match="other data or settings"):
        tune(train=train, resume=True, seed=1)
    threads = torch.get_num_threads()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: threads + 1)
        with pytest.raises(MismatchError, match="other data or settings"):
            tune(train=train, resume=True)
    monkeypatch.setattr(prompt_trainer.NamedCrops, "loss", loss)
    tune(train=train, resume=True)
    for ending in ("safetensors", "png"):
        whole, resumed = ((tmp_path / f"{name}.{ending}").read_bytes() for name in ("whole", "p"))
        assert whole == resumed
    assert not list(tmp_path.glob("*.checkpoint"))


def test_other_processes_cut_the_same_crops(tune, tmp_path):
    tune("alone.safetensors", steps=3)
    tune("helped.safetensors", steps=3, loader_workers=2)
    assert (tmp_path / "alone.safetensors").read_bytes() == (
        tmp_path / "helped.safetensors"
    ).read_bytes()


def test_a_loss_that_is_no_number_stops_the_training(tune, tmp_path, monkeypatch):
    steps = 0
    loss = prompt_trainer.NamedCrops.loss

    def broken(self, *arguments):
        nonlocal steps
        steps += 1
        return loss(self, *arguments) * (float("nan") if steps == 4 else 1)

    monkeypatch.setattr(prompt_trainer.NamedCrops, "loss", broken)
    with pytest.raises(TrainingError, match="the loss is nan at step 4; train with a lower rate"):
        tune(save_every=2)
    assert (
        not (tmp_path / "p.safetensors").exists()
        and (tmp_path / "p.safetensors.checkpoint").exists()
    )


@pytest.mark.parametrize("train, name", [("prompts", "prompts"), ("tower", "tower")])
def test_out_of_memory_is_one_line(tune, monkeypatch, train, name):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(prompt_trainer.NamedCrops, "loss", full)
    said = (
        rf"out of memory while tuning the {name}(: .* GB were free)?; give a smaller --batch-size"
    )
    with pytest.raises(OvtoolError, match=said):
        tune(train=train)


def test_validation_may_be_left_out(tune):
    with_it, without = tune(), tune("q.safetensors", validate_every=0)
    assert without.before == {} == without.after and without.loss == with_it.loss


def test_depth_is_up_to_the_number_of_blocks(tune):
    assert tune(depth="all", dry_run=True).parameters == {"prompts": 3 * 9 * 32}
    assert tune(depth=1, dry_run=True).parameters == {"prompts": 9 * 32}
    with pytest.raises(UsageError, match="--depth 4: small has 3 blocks, so give 1 to 3, or all"):
        tune(depth=4)


@pytest.mark.parametrize(
    "name, prompts, tower",
    [("ViT-B-16", 451_584, 86_192_640), ("ViT-L-14", 786_432, 303_966_208)],
)
def test_as_many_parameters_as_the_paper_has(name, prompts, tower):
    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config(name))
    patch = model.visual.patch_size[0]
    clip = SimpleNamespace(
        model=model, name=name, image_size=224, patch_size=patch, pooling="token"
    )
    both = prompt_trainer.parameters(clip, MaskPrompts(train="tower-then-prompts"))
    assert both == {"prompts": prompts, "tower": tower}


def test_half_precision_is_for_the_arithmetic_alone(tune, tmp_path):
    exact, coarse = (
        tune(f"{p}.safetensors", precision=p, steps=2) for p in ("float32", "bfloat16")
    )
    assert 0 < abs(exact.loss - coarse.loss) < 0.1
    _, content = tensors.load(tmp_path / "bfloat16.safetensors")
    assert content["prompts"].dtype == torch.float32


def test_a_dry_run_writes_nothing(tune, tmp_path):
    before = sorted(tmp_path.iterdir())
    plan = tune(dry_run=True, steps=None, epochs=2)
    assert plan.is_plan and plan.steps == 4 and plan.loss is None  # 22 pairs are 2 batches of 8
    assert sorted(tmp_path.iterdir()) == before


def test_what_cannot_be_meant(tune, tmp_path):
    for options, said in (
        ({"train": "all"}, "--train 'all' is not one of 'prompts', 'tower'"),
        ({"loss": "best"}, "--loss 'best' is not one of 'shared', 'paper'"),
        ({"depth": 0}, "--depth 0 is out of range; give 1 or more"),
        ({"weight_decay": 0.1}, "--weight-decay is that of the image tower; give --train tower"),
        ({"batch_size": 1}, "--batch-size 1"),
        ({"crop_size": 50}, "--crop-size 50: small has patches of 16 pixels"),
        ({"precision": "float16"}, "--precision float16 is too coarse"),
    ):
        with pytest.raises(UsageError, match=said):
            tune(**options)
    (tmp_path / "p.png").touch()
    with pytest.raises(OutputExistsError, match="p.png exists"):
        tune()


def test_another_crop_size_has_another_grid(tune, tmp_path):
    tune(crop_size=64, steps=1)
    header, content = tensors.load(tmp_path / "p.safetensors")
    assert header["settings"]["grid"] == [4, 4] and content["prompts"].shape == (3, 16, 32)


# --- pairs that are no good ------------------------------------------------------------------------


def test_a_file_of_zero_pairs(tune, pairs):
    text = json.loads(pairs.read_text())
    pairs.write_text(json.dumps({**text, "annotations": []}))
    with pytest.raises(InputError, match="has no pairs: no mask in it has a pixel"):
        tune()


def test_one_pair_is_too_few(tune, pairs):
    text = json.loads(pairs.read_text())
    pairs.write_text(json.dumps({**text, "annotations": text["annotations"][:1]}))
    with pytest.raises(
        UsageError, match="every mask of .*pairs.json is named 'cow', so that there"
    ):
        tune()


def test_pairs_of_an_unknown_category(tune, pairs):
    text = json.loads(pairs.read_text())
    text["annotations"][3]["category_id"] = 99
    pairs.write_text(json.dumps(text))
    with pytest.raises(InputError, match=r"annotations.*category_id.*99"):
        tune()


def test_images_that_are_not_there(tune, pairs, tmp_path):
    (tmp_path / "05.png").unlink()
    with pytest.raises(
        InputError, match="lacks 1 of the 12 images of .* such as 05.png; give the folder"
    ):
        tune()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds none of the images"):
        tune(images=tmp_path / "empty")


def test_images_that_cannot_be_read_are_left_out(tune, tmp_path, caplog):
    content = (tmp_path / "07.png").read_bytes()
    (tmp_path / "07.png").write_bytes(content[: len(content) // 2])
    Image.new("RGB", (30, 30)).save(tmp_path / "00.png")
    trained = tune(steps=2, held_out=0.0)
    assert trained.counts["pairs"] == 20  # of ten images
    assert [failure["file_name"] for failure in trained.failures] == ["00.png", "07.png"]
    settings = tensors.read_header(tmp_path / "p.safetensors")["settings"]
    assert settings["failures"] == list(trained.failures) == trained.as_data()["failures"]
    assert str(tmp_path) not in json.dumps(settings)
    (said,) = caplog.messages
    assert "left out 2 of the 12 images of" in said
    assert "00.png has 30 x 30 pixels, and its masks 64 x 40; 07.png is truncated" in said
    with pytest.raises(InputError, match="00.png has 30 x 30 pixels, and its masks 64 x 40"):
        tune("q.safetensors", strict=True)
    for path in tmp_path.glob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match="none of the 12 images of .* can be trained on"):
        tune("q.safetensors")


def test_pairs_of_one_noun_teach_nothing(tune, pairs):
    text = json.loads(pairs.read_text())
    for entry in text["annotations"]:
        entry["category_id"] = 2
    pairs.write_text(json.dumps(text))
    with pytest.raises(
        UsageError, match="every mask of .*pairs.json is named 'apple', so that there"
    ):
        tune()


def test_masks_without_a_pixel_are_left_out(tune, pairs):
    text = json.loads(pairs.read_text())
    text["annotations"][0]["segmentation"] = rle.encode(np.zeros((40, 64), bool))
    pairs.write_text(json.dumps(text))
    assert tune(dry_run=True, held_out=0.0).counts["pairs"] == 23


def test_a_clip_that_takes_no_prompts(tune, small, monkeypatch):
    from dataclasses import replace

    pooled = replace(small, pooling="attention", name="pooled")
    monkeypatch.setattr(clips, "load", lambda *_: pooled)
    with pytest.raises(UsageError, match=r"mask prompts need a vision transformer \(ViT\)"):
        tune()


# --- batches ---------------------------------------------------------------------------------------


@pytest.fixture
def batches(pairs, tmp_path):
    found = pair_batches.read(str(pairs), None, 3)
    cutter = pair_batches.Cutter(tmp_path, 48, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    return pair_batches.Batches(found.train, cutter, 5, 3)


def test_an_epoch_sees_each_pair_once_in_a_new_order(batches):
    epochs = [[i for s in range(4) for i in batches.drawn(4 * e + s)] for e in range(2)]
    assert all(len(set(epoch)) == 20 for epoch in epochs) and epochs[0] != epochs[1]
    assert torch.equal(batches[5].pixels, batches[5].pixels)
    assert not torch.equal(batches[5].pixels, batches[6].pixels)


def test_images_of_the_validation_are_not_trained_on(pairs):
    found = pair_batches.read(str(pairs), None, 3, 0.25)
    held = {pair.image.id for pair in found.held_out}
    assert len(held) == 3 and len(found.held_out) == 6
    assert held.isdisjoint(pair.image.id for pair in found.train)
    assert held != {pair.image.id for pair in pair_batches.read(str(pairs), None, 4, 0.25).held_out}


def test_a_crop_is_the_masked_crop_of_its_pair(batches, tmp_path):
    pair = batches.pairs[3]
    found = batches.cutter.batch([pair])
    rgb = (
        torch.from_numpy(pictures.read_rgb(tmp_path / pair.image.file_name)).permute(2, 0, 1) / 255
    )
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (batches.cutter.mean, batches.cutter.std))
    mask = torch.from_numpy(rle.decode(pair.mask, 40, 64).copy())
    crops, masks = masked_crops.masked_crops((rgb - mean) / std, mask[None], 48)
    assert torch.allclose(found.pixels, crops, atol=1e-5) and torch.equal(found.masks, masks)
    assert found.nouns.tolist() == [pair.noun]


def test_random_boxes_are_most_of_the_box():
    random = np.random.default_rng(1)
    shares, whole = [], 0
    for _ in range(300):
        top, left, bottom, right = pair_batches.random_box(random, (10, 20, 110, 220))
        assert 10 <= top < bottom <= 110 and 20 <= left < right <= 220
        shares.append((bottom - top) * (right - left) / 20000)
        whole += shares[-1] == 1.0
    assert 0.88 < min(shares) < 0.92 and 0 < whole < 150
    assert pair_batches.random_box(random, (3, 4, 4, 5)) == (3, 4, 4, 5)  # a single pixel


def test_a_mask_that_a_random_box_would_lose_keeps_its_whole_box(batches, tmp_path):
    mask = np.zeros((40, 64), bool)
    mask[0, 0] = mask[39, 63] = True
    pair = pair_batches.Pair(batches.pairs[0].image, rle.encode(mask), 0)
    for seed in range(20):
        found = batches.cutter.batch([pair], np.random.default_rng(seed))
        assert found.masks.any()
