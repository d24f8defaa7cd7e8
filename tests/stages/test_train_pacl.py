"""The story of `train-pacl` with a small CLIP at random weights."""

import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from ovtool.batches import captions as caption_batches
from ovtool.datasets import registry
from ovtool.errors import InputError, MismatchError, OutputExistsError, OvtoolError, UsageError
from ovtool.formats import coco, rle, tensors
from ovtool.inputs import captions as caption_inputs
from ovtool.methods import patch_alignment
from ovtool.models import clip as clips
from ovtool.models import pacl, text
from ovtool.settings.pacl import Pacl
from ovtool.settings.shared import Compute, Run
from ovtool.stages import train_pacl
from ovtool.trainers import pacl as pacl_trainer
from ovtool.trainers import pacl_features, patch_validation
from ovtool.training.distributed import Ranks
from ovtool.training.loop import TrainingError

ALONE = Ranks(0, 1, torch.device("cpu"))
COLOURS = {"cow": (200, 40, 40), "apple": (40, 200, 40), "train": (40, 40, 200)}
PLACES = {"grass": (90, 120, 60), "snow": (230, 235, 240)}


def scene(number):
    """A picture of one thing on one ground, and its caption: uint8 (40, 60, 3)."""
    thing, ground = list(COLOURS)[number % 3], list(PLACES)[number % 2]
    rgb = np.random.default_rng(number).integers(0, 30, (40, 60, 3)) + PLACES[ground]
    rgb[8:32, 5 + number % 7 : 38] = COLOURS[thing]
    return np.clip(rgb, 0, 255).astype(np.uint8), f"a {thing} on {ground}"


@pytest.fixture
def said(tmp_path):
    """said.json, the captions of twelve pictures in photos/; one of them has two captions."""
    folder = tmp_path / "photos"
    folder.mkdir()
    images, annotations = [], []
    for number in range(12):
        rgb, caption = scene(number)
        Image.fromarray(rgb).save(folder / f"{number:02d}.png")
        images.append({"id": number + 1, "file_name": f"{number:02d}.png"})
        annotations.append({"id": number + 1, "image_id": number + 1, "caption": caption})
    annotations.append({"id": 99, "image_id": 1, "caption": "the first picture"})
    (tmp_path / "said.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return tmp_path / "said.json"


@pytest.fixture
def train(said, tmp_path, loads_small):
    def trained(name="h.safetensors", source=said, images=tmp_path / "photos", **options):
        given = {"steps": 6, "batch_size": 8, "lr": 1e-3, "held_out": 0.0, **options}
        precision = given.pop("precision", "auto")
        how = {flag: given.pop(flag) for flag in ("resume", "dry_run", "strict") if flag in given}
        return train_pacl.run(
            source,
            Pacl(**given),
            images=images,
            out=tmp_path / name,
            compute=Compute(precision=precision),
            run=Run(**how),
        )

    return trained


def test_a_head_is_learned_and_nothing_else(train, tmp_path, small):
    before = {name: value.clone() for name, value in small.model.state_dict().items()}
    found = train(steps=60)
    assert all(torch.equal(v, before[k]) for k, v in small.model.state_dict().items())
    header, content = tensors.load(tmp_path / "h.safetensors", kind="pacl")
    assert sorted(content) == sorted(patch_alignment.VisionEmbedder(32, 24).state_dict())
    curve = header["settings"]["curve"]
    assert len(curve) == 60 and curve[-1]["loss"] < curve[0]["loss"] - 0.3
    assert curve[-1]["bound"] == pytest.approx(np.log(8) - curve[-1]["loss"], abs=1e-4)
    assert found.loss == pytest.approx(curve[-1]["loss"], rel=1e-4)
    assert (found.counts["images"], found.steps, found.counts["batch_size"]) == (12, 60, 8)
    assert found.parameters["head"] == 32 * 24 + 24 + 24 * 24 + 24 + 32 * 24 + 24
    assert found.notes["tokens_kept"] and found.notes["images_per_second"] > 0
    assert header["fingerprint"] == small.fingerprint
    assert header["settings"]["batch_size"] == 8 and header["settings"]["crop_size"] == 48
    assert str(tmp_path) not in json.dumps(header)
    assert Image.open(tmp_path / "h.png").size == (960, 600)
    assert sorted(path.name for path in tmp_path.glob("h*")) == ["h.png", "h.safetensors"]


def test_the_first_loss_is_that_of_the_formula(train, said, tmp_path, small):
    train(steps=1, cache="off")
    header, _ = tensors.load(tmp_path / "h.safetensors")
    listed = caption_batches.listed(str(said), said, tmp_path / "photos", 0, 0.0)
    batch = caption_batches.ListedBatches(listed, 48, 8, range(8), 0)[0]
    pixels = clips.normalise(small, batch.pixels.permute(0, 2, 3, 1))
    patches = clips.patch_features(small, pixels, "clip").flatten(1, 2)  # the zero-shot start
    lengths = (pacl.tokens(small, pixels) @ small.model.visual.proj).flatten(1, 2)
    patches = patches * lengths.norm(dim=-1, keepdim=True)
    scores = patch_alignment.compatibility(
        patches, text.encode_texts(small, batch.captions), patch_alignment.Pooling()
    )
    expected, _ = patch_alignment.loss_and_gradient(small.logit_scale * scores, torch.eye(8))
    assert header["settings"]["curve"][0]["loss"] == pytest.approx(expected.item(), rel=1e-4)


def test_a_head_that_starts_as_the_clip_is_the_clip(train, small, tmp_path):
    train(steps=1, lr=0.0)
    head = pacl.load(tmp_path / "h.safetensors", small)
    pixels = torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    own = clips.patch_features(small, pixels, "clip")
    assert torch.allclose(pacl.patch_features(small, head, pixels), own, atol=1e-5)


def test_tokens_of_several_last_blocks_lie_side_by_side(train, small, tmp_path):
    pixels = torch.randn(2, 3, 48, 32, generator=torch.Generator().manual_seed(1))
    both = pacl.tokens(small, pixels, "naclip+clip")
    parts = [pacl.tokens(small, pixels, name) for name in ("naclip", "clip")]
    assert torch.equal(both, torch.cat(parts, dim=-1))
    train(
        lr=1e-12, weight_decay=0.0, steps=1, last_block="naclip+clip"
    )  # it starts as the first of them
    head = pacl.load(tmp_path / "h.safetensors", small)
    found = pacl.patch_features(small, head, pixels)
    assert head.last_block == "naclip+clip"
    assert torch.allclose(found, clips.patch_features(small, pixels, "naclip"), atol=1e-5)


def losses(tmp_path, name):
    header, _ = tensors.load(tmp_path / name)
    return [record["loss"] for record in header["settings"]["curve"]]


def weights(tmp_path, name):
    return tensors.load(tmp_path / name)[1]


def test_micro_batches_change_nothing(train, tmp_path):
    train("one.safetensors", micro_batch=8)
    train("small.safetensors", micro_batch=3)
    assert losses(tmp_path, "small.safetensors") == pytest.approx(
        losses(tmp_path, "one.safetensors"), rel=1e-5
    )
    one, small = (weights(tmp_path, f"{name}.safetensors") for name in ("one", "small"))
    assert all(torch.allclose(small[name], value, atol=2e-5) for name, value in one.items())


def test_options_change_what_is_learned(train, tmp_path):
    plain = train(steps=4).loss
    for number, options in enumerate(
        (
            {"patch_scale": 1.0},
            {"pooling": "sparse"},
            {"pairs": "own"},
            {"start": "random"},
            {"last_block": "naclip"},
            {"last_block": "naclip+clip"},
            {"logit_scale": 5.0},
            {"nouns": True},
            {"seed": 1},
            {"window": 32},
            {"cache": "off"},
        )
    ):
        found = train(f"{number}.safetensors", steps=4, **options)
        assert abs(found.loss - plain) > 1e-5, options


def test_a_scale_is_learned_by_choice(train, tmp_path, small):
    fixed, learned = train("f.safetensors"), train("l.safetensors", learn_scale=True)
    assert fixed.notes["logit_scale"] == pytest.approx(small.logit_scale)
    assert abs(learned.notes["logit_scale"] - small.logit_scale) > 1e-3
    assert pacl.load(tmp_path / "l.safetensors", small).logit_scale == learned.notes["logit_scale"]
    assert (
        train("m.safetensors", learn_scale=True, logit_scale=99.99, lr=0.5).notes["logit_scale"]
        < 100.01
    )


def test_nouns_are_texts_of_their_own(train, tmp_path):
    train(nouns=True)
    header, _ = tensors.load(tmp_path / "h.safetensors")
    first = header["settings"]["curve"][0]
    assert first["loss"] == pytest.approx(first["captions"] + first["nouns"], rel=1e-4)
    train("w.safetensors", nouns=True, noun_weight=0.5)
    first = tensors.load(tmp_path / "w.safetensors")[0]["settings"]["curve"][0]
    assert first["loss"] == pytest.approx(first["captions"] + first["nouns"] / 2, rel=1e-4)


def test_naming_pulls_each_patch_to_the_nouns_of_its_captions(train, tmp_path):
    options = {"nouns": True, "steps": 60, "noun_weight": 0.0}
    with_naming = train("n.safetensors", naming=2.0, **options)
    curve = tensors.load(tmp_path / "n.safetensors")[0]["settings"]["curve"]
    assert curve[0]["loss"] == pytest.approx(
        curve[0]["captions"] + 2 * curve[0]["naming"], rel=1e-4
    )
    assert curve[-1]["naming"] < 0.8 * curve[0]["naming"]
    assert with_naming.loss != pytest.approx(train(**options).loss, abs=1e-4)


def test_the_texts_of_nouns_and_whose_they_are(small, said, tmp_path):
    settings, _ = pacl_trainer.settled(Pacl(batch_size=3, nouns=True, steps=1), small, 3, ALONE)
    one = pacl_trainer.begun(small, settings, torch.float32, ALONE)
    captions = [("a cow on grass",), ("two cows", "cows"), ("riding happily",)]
    texts, owned = one.features.noun_texts(captions, ALONE)
    assert owned.tolist() == [[1, 1], [1, 0], [0, 0]]  # cow, grass
    mean = text.embed_words(small, ["cow", "grass"], "pacl")
    assert torch.allclose(texts, mean, atol=1e-5)


# --- cut off and gone on ---------------------------------------------------------------------------


class Cut(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("cache", ["on", "off"])
def test_a_run_that_was_cut_off_ends_with_the_same_bytes(train, tmp_path, monkeypatch, cache):
    options = {"cache": cache, "nouns": True, "learn_scale": True, "save_every": 2}
    train("whole.safetensors", **options)
    step = pacl_trainer.PaclTraining.step

    seen = []

    def cut(self, batch):
        seen.append(batch)
        if len(seen) > 5:
            raise Cut
        return step(self, batch)

    monkeypatch.setattr(pacl_trainer.PaclTraining, "step", cut)
    with pytest.raises(Cut):
        train(**options)
    with pytest.raises(OutputExistsError, match="go on with --resume"):
        train(**options)
    with pytest.raises(MismatchError, match="other data or settings"):
        train(**options, resume=True, seed=1)
    threads = torch.get_num_threads()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: threads + 1)
        with pytest.raises(MismatchError, match="other data or settings"):
            train(**options, resume=True)
    monkeypatch.setattr(pacl_trainer.PaclTraining, "step", step)
    train(**options, resume=True)
    for ending in ("safetensors", "png"):
        whole, resumed = ((tmp_path / f"{name}.{ending}").read_bytes() for name in ("whole", "h"))
        assert whole == resumed
    assert not list(tmp_path.glob("*.checkpoint"))


def test_a_loss_that_is_no_number_stops_and_names_the_step(train, tmp_path, monkeypatch):
    compatibility = patch_alignment.compatibility
    calls = 0

    def broken(*arguments):
        nonlocal calls
        calls += 1
        return compatibility(*arguments) * (float("nan") if calls > 6 else 1)  # two calls a step

    monkeypatch.setattr(patch_alignment, "compatibility", broken)
    with pytest.raises(TrainingError, match="the loss is nan at step 4; train with a lower rate"):
        train(micro_batch=8, save_every=2)
    assert not (tmp_path / "h.safetensors").exists()
    assert (tmp_path / "h.safetensors.checkpoint").exists()


@pytest.mark.parametrize("where", ["step", "tokens"])
def test_out_of_memory_is_one_line(train, monkeypatch, where):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    owner = pacl_trainer.PaclTraining if where == "step" else pacl_features.Features
    monkeypatch.setattr(owner, where, full)
    said = "out of memory while .*training.*; give a smaller --micro-batch or --batch-size"
    with pytest.raises(OvtoolError, match=said):
        train()


def test_validation_may_be_left_out(train, masked):
    options = {"source": "collage:train", "images": None, "held_out": 0.25}
    found = train(validate_every=0, **options)
    assert found.before == {} == found.after and found.counts["held_out"] == 3


def test_the_header_says_where_values_come_from(train, tmp_path):
    train(steps=1, crop_size=64)
    origins = tensors.load(tmp_path / "h.safetensors")[0]["settings"]["origins"]
    assert (origins["crop_size"], origins["logit_scale"]) == ("given", "model")
    assert origins["epochs"] == "default" and "loader_workers" not in origins


def test_other_processes_read_the_same_pictures(train, tmp_path):
    train("alone.safetensors", steps=3, cache="off")
    train("helped.safetensors", steps=3, cache="off", loader_workers=2)
    one, other = ((tmp_path / f"{n}.safetensors").read_bytes() for n in ("alone", "helped"))
    assert one == other


# --- what is seen ----------------------------------------------------------------------------------


def test_an_epoch_shows_each_picture_once_in_a_new_order(said, tmp_path):
    listed = caption_batches.listed(str(said), said, tmp_path / "photos", 3, 0.0)
    batches = caption_batches.ListedBatches(listed, 48, 4, range(4), 3)
    epochs = [[i for s in range(3) for i, _ in batches.drawn(3 * e + s)] for e in range(2)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs) and epochs[0] != epochs[1]
    assert torch.equal(batches[4].pixels, batches[4].pixels)
    captions = {caption for step in range(30) for caption in batches[step].captions}
    assert {"the first picture", "a cow on grass"} <= captions  # both of one picture, in turn


def test_ranks_share_the_rows_of_a_batch(said, tmp_path):
    listed = caption_batches.listed(str(said), said, tmp_path / "photos", 3, 0.0)
    whole = caption_batches.ListedBatches(listed, 32, 6, range(6), 3)[1]
    halves = [
        caption_batches.ListedBatches(listed, 32, 6, range(3 * r, 3 * r + 3), 3)[1] for r in (0, 1)
    ]
    assert torch.equal(torch.cat([half.pixels for half in halves]), whole.pixels)
    assert halves[0].captions + halves[1].captions == whole.captions


def test_a_picture_smaller_than_a_patch_is_resized_like_all(train, tmp_path):
    Image.new("RGB", (3, 2), (9, 200, 9)).save(tmp_path / "photos" / "00.png")
    assert train(steps=2).counts["images"] == 12
    assert train("w.safetensors", steps=2, cache="off").loss > 0


def test_windows_are_as_few_as_cover_the_picture():
    assert pacl_features.window_starts(48, 48, 16) == [0]
    assert pacl_features.window_starts(160, 96, 16) == [0, 64]
    assert pacl_features.window_starts(96, 32, 16) == [0, 32, 64]


def test_tokens_are_those_of_the_windows(small):
    given = Pacl(batch_size=4, steps=1, crop_size=64, window=32)
    settings, _ = pacl_trainer.settled(given, small, 4, ALONE)
    one = pacl_trainer.begun(small, settings, torch.float32, ALONE)
    pixels = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    found = one.features.tokens(pixels)
    count = pacl_features.tokens_an_image(settings, small)
    assert found.shape == (3, count, 32) == (3, 16, 32)
    corner = clips.normalise(small, pixels[:, :, 32:, :32].permute(0, 2, 3, 1))
    assert torch.allclose(found[:, 8:12], pacl.tokens(small, corner).flatten(1, 2), atol=1e-5)


# --- captions that are no good ---------------------------------------------------------------------


def test_pictures_without_caption_or_file_are_counted(train, said, tmp_path):
    content = json.loads(said.read_text())
    content["images"].append({"id": 50, "file_name": "silent.png"})
    content["annotations"] = content["annotations"][1:-1]  # nor has the first one
    said.write_text(json.dumps(content))
    (tmp_path / "photos" / "05.png").unlink()
    found = train(dry_run=True)
    assert found.notes["left"] == {"no caption": 2, "no image": 1} and found.counts["images"] == 10
    assert found.is_plan and not (tmp_path / "h.safetensors").exists()


@pytest.mark.parametrize("cache", ["on", "off"])
def test_images_that_cannot_be_read_are_left_out(train, said, tmp_path, caplog, cache):
    content = (tmp_path / "photos" / "05.png").read_bytes()
    (tmp_path / "photos" / "05.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "photos" / "08.png").write_bytes(b"")
    trained = train(cache=cache, steps=3)
    assert trained.counts["images"] == 10 and trained.notes["left"]["broken image"] == 2
    assert [failure["file_name"] for failure in trained.failures] == ["05.png", "08.png"]
    settings = tensors.read_header(tmp_path / "h.safetensors")["settings"]
    assert settings["failures"] == list(trained.failures)
    assert str(tmp_path) not in json.dumps(settings)
    assert "left out 2 of the 12 images of" in caplog.text and "08.png is empty" in caplog.text
    with pytest.raises(InputError, match="^05.png is truncated or damaged"):
        train("q.safetensors", strict=True)
    for path in (tmp_path / "photos").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match="none of the 12 images of .* can be trained on"):
        train("q.safetensors")


def test_none_of_the_pictures_is_there(train, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="none of the 12 images of .*said.json is below"):
        train(images=tmp_path / "empty")
    (tmp_path / "empty/05.png").write_bytes((tmp_path / "photos/05.png").read_bytes())
    with pytest.raises(
        InputError, match=r"only 1 of the 12 images .* \(.*no image: 11\); give two"
    ):
        train(images=tmp_path / "empty")


def test_captions_longer_than_the_context_lose_their_end_and_are_counted(train, said, small):
    content = json.loads(said.read_text())
    content["annotations"][2]["caption"] = "a very long train " * 20
    said.write_text(json.dumps(content))
    found = train(steps=2)
    assert found.notes["too_long"] == 1 and found.loss > 0
    cut = text.encode_texts(small, ["a very long train " * 20], cut=True)
    assert torch.allclose(cut, text.encode_texts(small, ["a very long train " * 30], cut=True))


def test_what_cannot_be_meant(train, tmp_path):
    for options, said in (
        ({"batch_size": 1}, "--batch-size 1 leaves no other image to compare with; give 2 or more"),
        ({"start": "zero"}, "--start 'zero' is not one of 'projection', 'random'"),
        ({"pairs": "some"}, "--pairs 'some' is not one of 'all', 'own'"),
        ({"pairs": "own", "nouns": True}, "--pairs own pools by captions alone"),
        ({"pooling": "mean"}, "--pooling 'mean' is not one of 'softmax', 'sparse'"),
        ({"templates": "two"}, "--templates 'two' is not one of"),
        ({"naming": 2.0}, "--naming 2 compares patches with nouns; give --nouns too"),
        ({"last_block": "naclip+first"}, "unknown last block 'first'"),
        ({"cache": "yes"}, "--cache 'yes' is not one of 'auto', 'on', 'off'"),
        ({"precision": "float16"}, "--precision float16 is too coarse"),
    ):
        with pytest.raises(UsageError, match=said):
            train(**options)
    (tmp_path / "h.png").touch()
    with pytest.raises(OutputExistsError, match="h.png exists"):
        train()


def test_a_single_picture_is_a_batch_of_one(train, said):
    content = json.loads(said.read_text())
    said.write_text(json.dumps({**content, "annotations": content["annotations"][:1]}))
    with pytest.raises(UsageError, match="1 captioned image to train on; give two or more"):
        train()


def test_a_batch_that_processes_cannot_share(small):
    two = Ranks(0, 2, torch.device("cpu"))
    with pytest.raises(UsageError, match="--batch-size 9 cannot be shared by 2 processes"):
        pacl_trainer.settled(Pacl(batch_size=9, steps=1), small, 100, two)
    settings, _ = pacl_trainer.settled(Pacl(batch_size=4096, steps=1), small, 99, two)
    assert settings.batch_size == 98


# --- the head's file -------------------------------------------------------------------------------


def test_a_head_of_another_model_is_refused(train, tmp_path, small):
    from dataclasses import replace

    train(steps=1)
    with pytest.raises(MismatchError, match="h.safetensors was made with small"):
        pacl.load(tmp_path / "h.safetensors", replace(small, fingerprint="0" * 16, name="other"))


def test_which_head_is_meant(train, tmp_path, small):
    train(steps=1)
    assert pacl.choose("none", small) is None and pacl.choose(None, small) is None
    assert pacl.choose(str(tmp_path / "h.safetensors"), small).last_block == "clip"
    train("n.safetensors", steps=1, last_block="naclip")
    head = pacl.choose(str(tmp_path / "n.safetensors"), small)
    assert head.last_block == "naclip" and len(head.fingerprint) == 16


def test_a_head_that_is_broken(train, tmp_path, small):
    train(steps=1)
    path = tmp_path / "h.safetensors"
    header, content = tensors.load(path)
    tensors.save(path, {**content, "skip.bias": content["skip.bias"] * float("nan")}, header)
    with pytest.raises(InputError, match="holds numbers that are not finite"):
        pacl.load(path, small)
    tensors.save(path, {"skip.weight": content["skip.weight"]}, header)
    with pytest.raises(InputError, match="does not hold a whole PACL head"):
        pacl.load(path, small)


def test_half_precision_is_close(train, tmp_path, small):
    train(steps=2)
    head = pacl.load(tmp_path / "h.safetensors", small)
    pacl.save(tmp_path / "half.safetensors", small, head, half=True)
    again = pacl.load(tmp_path / "half.safetensors", small)
    pixels = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    whole, half = (pacl.patch_features(small, one, pixels) for one in (head, again))
    assert torch.allclose(whole, half, atol=2e-3) and not torch.equal(whole, half)
    assert again.pooling == head.pooling and again.logit_scale == head.logit_scale


# --- validation ------------------------------------------------------------------------------------


@pytest.fixture
def masked(said, tmp_path, monkeypatch):
    """The captioned pictures as a data set with semantic masks, known as `collage:train`."""
    names = [*COLOURS, *PLACES]
    entries = []
    for number in range(12):
        thing = np.zeros((40, 60), bool)
        thing[8:32, 5 + number % 7 : 38] = True
        for mask, name in ((thing, list(COLOURS)[number % 3]), (~thing, list(PLACES)[number % 2])):
            place = len(entries) + 1
            entries.append(
                coco.annotation(place, number + 1, names.index(name) + 1, rle.encode(mask), 1.0)
            )
    images = [coco.Image(number + 1, f"{number:02d}.png", 60, 40) for number in range(12)]
    categories = [coco.Category(k + 1, name) for k, name in enumerate(names)]
    coco.write(coco.Dataset({}, images, entries, categories), tmp_path / "semantic.json")
    files = registry.DataSet(
        "collage:train", tmp_path / "photos", semantic=tmp_path / "semantic.json", captions=said
    )
    monkeypatch.setattr(registry, "locate", lambda name: files)
    return files


def test_pictures_held_out_are_measured_and_not_trained_on(train, masked, tmp_path, small):
    found = train(source="collage:train", images=None, held_out=0.25, steps=40)
    assert (found.counts["images"], found.counts["held_out"]) == (9, 3)
    assert set(found.before) == set(found.after) == {"patch_accuracy", "miou"}
    header, _ = tensors.load(tmp_path / "h.safetensors")
    curve = header["settings"]["curve"]
    assert [r["step"] for r in curve if "miou" in r] == [8, 16, 24, 32, 40]
    assert found.after == {name: curve[-1][name] for name in found.after}
    listed = caption_batches.listed(
        "collage:train", *caption_inputs.locate("collage:train", None), 0, 0.25
    )
    assert {one.name for one in listed.held_out}.isdisjoint(one.name for one in listed.items)


def test_held_out_images_of_another_size_than_their_masks_are_not_measured(
    train, masked, tmp_path, caplog
):
    listed = caption_batches.listed(
        "collage:train", *caption_inputs.locate("collage:train", None), 0, 0.25
    )
    Image.new("RGB", (30, 30)).save(listed.held_out[0].path)
    options = {"source": "collage:train", "images": None, "held_out": 0.25, "steps": 2}
    assert train(**options).after.keys() == {"patch_accuracy", "miou"}
    name = listed.held_out[0].name
    assert (
        f"left out 1 of the 3 images of the validation on collage:train: {name} has 30 x 30 pixels, and "
        "its masks 60 x 40"
    ) in caplog.text
    with pytest.raises(InputError, match=f"{name} has 30 x 30 pixels"):
        train("q.safetensors", strict=True, **options)


def test_the_measures_are_those_of_a_slow_count(masked, small):
    listed = caption_batches.listed(
        "collage:train", *caption_inputs.locate("collage:train", None), 0, 0.25
    )
    validation = patch_validation.load("collage:train", listed.held_out, small)
    embedder = patch_alignment.VisionEmbedder(32, 24)
    embedder.start_at(small.model.visual.proj)
    head = pacl.Head(embedder, patch_alignment.Pooling(), 1.0, {})
    found = validation.measure(small, head)
    from ovtool.models import dense_scores

    right = count = 0
    names = [*COLOURS, *PLACES]
    words = text.embed_words(small, names)
    for item in listed.held_out:
        rgb = torch.from_numpy(np.array(Image.open(item.path).convert("RGB")))
        pixels = dense_scores.prepare(small, rgb, None)
        patches = clips.patch_features(small, pixels, "clip")[0]
        number = int(item.name[:2])
        labels = np.full((40, 60), names.index(list(PLACES)[number % 2]))
        labels[8:32, 5 + number % 7 : 38] = names.index(list(COLOURS)[number % 3])
        height, width = pixels.shape[2:]
        for row in range(height // 16):
            for column in range(width // 16):
                inside = [
                    labels[int((y + 0.5) * 40 / height), int((x + 0.5) * 60 / width)]
                    for y in range(16 * row, 16 * row + 16)
                    for x in range(16 * column, 16 * column + 16)
                ]
                label = max(set(inside), key=inside.count)
                if 2 * inside.count(label) > 256:
                    count += 1
                    right += int((patches[row, column] @ words.T).argmax()) == label
    assert found["patch_accuracy"] == pytest.approx(right / count, abs=1e-6)
    assert 0 <= found["miou"] <= 1


def test_without_masks_nothing_is_measured(train):
    found = train(held_out=0.3, steps=2)
    assert found.counts["held_out"] == 4 and found.before == {} == found.after


# --- shards ----------------------------------------------------------------------------------------


def encoded(rgb):
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def shards(tmp_path):
    """Three shards, of 5, 4 and 3 samples: the path with braces."""
    first = 0
    for number, size in enumerate((5, 4, 3)):
        with tarfile.open(tmp_path / f"{number:05d}.tar", "w") as shard:
            for place in range(first, first + size):
                rgb, caption = scene(place)
                for name, data in (
                    (f"{place}.png", encoded(rgb)),
                    (f"{place}.txt", caption.encode()),
                ):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(data)
                    shard.addfile(entry, io.BytesIO(data))
        first += size
    return tmp_path / "{00000..00002}.tar"


def test_shards_are_trained_on(train, shards, tmp_path):
    found = train(source=shards, images=None, steps=None, epochs=4, batch_size=4)
    assert (found.counts["images"], found.steps, found.counts["batch_size"]) == (12, 12, 4)
    assert (
        not found.notes["tokens_kept"]
        and found.notes["left"] == {}
        and found.notes["too_long"] is None
    )
    assert found.loss < losses(tmp_path, "h.safetensors")[0]


def test_shards_cut_off_end_with_the_same_bytes(train, shards, tmp_path, monkeypatch):
    options = {"source": shards, "images": None, "batch_size": 5, "nouns": True, "save_every": 1}
    train("whole.safetensors", **options)
    step = pacl_trainer.PaclTraining.step

    seen = []

    def cut(self, batch):
        seen.append(batch)
        if len(seen) > 4:
            raise Cut
        return step(self, batch)

    monkeypatch.setattr(pacl_trainer.PaclTraining, "step", cut)
    with pytest.raises(Cut):
        train(**options)
    monkeypatch.setattr(pacl_trainer.PaclTraining, "step", step)
    train(**options, resume=True)
    assert (tmp_path / "whole.safetensors").read_bytes() == (
        tmp_path / "h.safetensors"
    ).read_bytes()


def test_each_epoch_of_the_shards_shows_each_sample_once(shards):
    urls = caption_batches.shards.expand(str(shards))
    batches = caption_batches.ShardBatches(urls, 32, 4, 0, 1, 7)
    shown = [batches[step] for step in range(6)]
    epochs = [[c for batch in shown[3 * e : 3 * e + 3] for c in batch.captions] for e in (0, 1)]
    expected = sorted(scene(number)[1] for number in range(12))
    assert all(sorted(epoch) == expected for epoch in epochs) and epochs[0] != epochs[1]
    later = caption_batches.ShardBatches(urls, 32, 4, 0, 1, 7)
    assert torch.equal(later[4].pixels, shown[4].pixels)
    assert torch.equal(later[1].pixels, shown[1].pixels)  # an earlier step begins anew


def test_processes_have_shards_of_their_own_and_never_run_dry(shards):
    urls = caption_batches.shards.expand(str(shards))
    both = [caption_batches.ShardBatches(urls, 32, 2, rank, 2, 7) for rank in (0, 1)]
    shown = [[batches[step] for step in range(40)] for batches in both]  # uneven, and no end
    assert all(batch.pixels.shape == (2, 3, 32, 32) for rank in shown for batch in rank)
    with pytest.raises(UsageError, match="4 processes and 3 shards: each process reads its own"):
        caption_batches.require_shards(3, 4)


def test_a_shard_cut_in_the_middle_and_broken_pictures_are_counted(
    train, shards, tmp_path, monkeypatch
):
    said = []
    monkeypatch.setattr(
        "ovtool.formats.shards._logger.warning", lambda text, *values: said.append(text % values)
    )
    data = (tmp_path / "00000.tar").read_bytes()
    (tmp_path / "00000.tar").write_bytes(data[: len(data) // 2 + 100])
    with tarfile.open(tmp_path / "00001.tar", "a") as shard:
        for name, content in (("x.png", b"no png"), ("x.txt", b"a cow"), ("y.txt", b"alone")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            shard.addfile(entry, io.BytesIO(content))
    found = train(source=shards, images=None, steps=2, batch_size=10)
    assert (
        found.notes["left"]["broken image"] == 1 and found.notes["left"]["no image"] >= 1
    )  # y, and what was cut
    assert found.notes["cut"] == (str(tmp_path / "00000.tar"),)
    assert len(said) == 1 and "ends in the middle" in said[0]
    with pytest.raises(InputError, match="x is not an image that can be read"):
        train("q.safetensors", source=shards, images=None, steps=2, batch_size=10, strict=True)


def test_shards_ask_for_what_they_need(train, shards, tmp_path):
    with pytest.raises(UsageError, match="shards hold their images"):
        train(source=shards)
    with pytest.raises(UsageError, match="--cache on keeps the tokens of listed images"):
        train(source=shards, images=None, cache="on")
    with pytest.raises(UsageError, match="--steps N is needed for shards that are no local files"):
        train(source="https://example.org/{0..1}.tar", images=None, steps=None)
    with pytest.raises(InputError, match="no such shard"):
        train(source=tmp_path / "{7..8}.tar", images=None)
    with tarfile.open(tmp_path / "9.tar", "w"):
        pass
    with pytest.raises(InputError, match="hold no captioned image"):
        train(source=tmp_path / "9.tar", images=None)
