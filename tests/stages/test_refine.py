"""The stories of `tune-prompts --kind background` and `refine` with a small CLIP at random weights."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ovtool.batches import maps as map_batches
from ovtool.cams.refined import Masking
from ovtool.errors import InputError, MismatchError, OutputExistsError, OvtoolError, UsageError
from ovtool.formats import cams, coco, label_maps, rle, tensors
from ovtool.inputs import category_texts
from ovtool.methods import background_prompts as losses
from ovtool.methods.pseudo_masks import Background
from ovtool.models import clip as clips
from ovtool.models import learned_text, mask_generator
from ovtool.models.mask_generator import Generator
from ovtool.settings import shared
from ovtool.settings.prompts import BackgroundPrompts
from ovtool.settings.refine import Apply, PromptStep, PseudoMasks, background_rule
from ovtool.settings.shared import Compute
from ovtool.stages import refine, tune_prompts
from ovtool.trainers import background_prompts as background_trainer
from ovtool.trainers import mask_generator as generator_trainer

NAMES = ("cow", "boat", "kite")
CATEGORIES = tuple(coco.Category(3 * k, name) for k, name in enumerate(NAMES, 1))


def blob(k, n):
    """The map of the k-th class on the n-th picture, 5 x 8."""
    found = torch.full((5, 8), 0.05)
    found[1 + k : 3 + k, 1 + n % 3 : 4 + n % 3] = 0.9
    return found


@pytest.fixture
def maps(tmp_path):
    """cams.safetensors beside its twelve pictures of 40 x 64; each shows one class or two."""
    random = np.random.default_rng(0)
    images, found = [], {}
    for n in range(12):
        rgb = random.integers(0, 90, (40, 64, 3), np.uint8)
        shown = [n % 3] if n % 2 else sorted({n % 3, (n + 1) % 3})
        for k in shown:
            rgb[8 + 8 * k : 24 + 8 * k, 8 + 8 * (n % 3) : 32 + 8 * (n % 3), k] = 230
        Image.fromarray(rgb).save(tmp_path / f"{n:02d}.png")
        ids = tuple(CATEGORIES[k].id for k in shown)
        images.append(cams.CamImage(n + 1, f"{n:02d}.png", 40, 64, ids))
        found[n + 1] = torch.stack([blob(k, n) for k in shown])
    path = tmp_path / "cams.safetensors"
    cams.write(path, images, CATEGORIES, found, {"method": "gradcam"})
    return path


@pytest.fixture
def tune(maps, tmp_path, loads_small):
    def tuned(name="b.safetensors", source=maps, **options):
        given = {"steps": 4, "batch_size": 6, "length": 4, **options}
        precision = given.pop("precision", "auto")
        how = {flag: given.pop(flag) for flag in ("resume", "dry_run", "strict") if flag in given}
        return tune_prompts.run(
            source,
            kind=BackgroundPrompts(**given),
            out=tmp_path / name,
            compute=Compute(precision=precision),
            run=shared.Run(**how),
        )

    return tuned


@pytest.fixture
def refined(maps, tmp_path, loads_small):
    def run(name="x.json", source=maps, how=None, images=None, prompts=None, **options):
        kept, apply = options.pop("save_generator", None), options.pop("apply", {})
        steps, proposals = options.pop("steps", ""), options.pop("proposals", None)
        return refine.run(
            source,
            Apply(apply=tuple(filter(None, steps.split(","))), proposals=proposals, **apply),
            dataclasses.replace(prompts or PromptStep(), save_generator=kept),
            PseudoMasks(**options),
            images=images,
            out=str(tmp_path / name),
            run=shared.Run(**(how or {})),
        )

    return run


def requested(prompts=None, **options):
    own = {"batch_size": 4, "epochs": 2.0, "similarity": "shifted", **options}
    return PromptStep(background_prompts=prompts, **own)


# --- background prompts -------------------------------------------------------------------------------
def test_vectors_are_learned_and_nothing_else(tune, tmp_path, small, maps):
    before = {name: value.clone() for name, value in small.model.state_dict().items()}
    found = tune(steps=30, similarity="shifted", init="normal")
    assert all(torch.equal(v, before[k]) for k, v in small.model.state_dict().items())
    header, content = tensors.load(tmp_path / "b.safetensors", kind="background-prompts")
    assert content["vectors"].shape == (3, 4, 32) and content["embeddings"].shape == (3, 24)
    settings = header["settings"]
    curve = [record["loss"] for record in settings["curve"]]
    assert np.mean(curve[-5:]) < np.mean(curve[:5]) - 0.05 and found.loss == pytest.approx(
        curve[-1], rel=1e-4
    )
    assert header["fingerprint"] == small.fingerprint
    assert [each["name"] for each in settings["categories"]] == list(NAMES)
    assert settings["cams"] == cams.read(maps).digest and settings["similarity"] == "shifted"
    assert set(settings["nearest"]) == set(NAMES) and len(settings["nearest"]["cow"]) == 5
    assert str(tmp_path) not in json.dumps(header)
    assert found.counts == {"images": 12, "held_out": 0, "classes": 3}
    assert (found.notes["length"], found.steps) == (4, 30)
    assert found.parameters == {"vectors": 3 * 4 * 32}
    assert Image.open(tmp_path / "b.png").size == (960, 600)
    assert not list(tmp_path.glob("*.checkpoint"))


def test_images_that_cannot_be_read_are_left_out(tune, tmp_path, maps, caplog):
    content = (tmp_path / "07.png").read_bytes()
    (tmp_path / "07.png").write_bytes(content[: len(content) // 2])
    Image.new("RGB", (30, 30)).save(tmp_path / "00.png")
    trained = tune(crop_scale=0.5, similarity="shifted")
    assert trained.counts["images"] == 10
    assert [failure["file_name"] for failure in trained.failures] == ["00.png", "07.png"]
    settings = tensors.read_header(tmp_path / "b.safetensors")["settings"]
    assert settings["failures"] == list(trained.failures)
    assert settings["cams"] == cams.read(maps).digest
    assert "left out 2 of the 12 images of" in caplog.text
    with pytest.raises(InputError, match="00.png has 30 x 30 pixels, and its maps 64 x 40"):
        tune("c.safetensors", strict=True)
    for path in tmp_path.glob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match="none of the 12 images of .* can be trained on"):
        tune("c.safetensors")


def test_maps_of_one_class_teach_nothing(tune, tmp_path, maps):
    whole = cams.read(maps)
    alone = {
        image.id: image.category_ids.index(6) for image in whole.images if 6 in image.category_ids
    }
    images = [
        dataclasses.replace(image, category_ids=(6,)) for image in whole.images if image.id in alone
    ]
    only = {number: whole.of(number)[place : place + 1] for number, place in alone.items()}
    cams.write(tmp_path / "boats.safetensors", images, CATEGORIES, only, {"method": "gradcam"})
    said = "every map of .*boats.safetensors is of 'boat', so that there is nothing to learn; add maps of"
    with pytest.raises(UsageError, match=said):
        tune(source=tmp_path / "boats.safetensors")
    assert not (tmp_path / "b.safetensors").exists()


@pytest.mark.parametrize("push", ["text", "foreground", "none"])
def test_the_first_loss_is_that_of_the_formula(tune, tmp_path, small, maps, push):
    tune(steps=1, push=push, similarity="shifted", push_weight=0.5, seed=3)
    header, _ = tensors.load(tmp_path / "b.safetensors")
    found = cams.read(maps)
    batch = map_batches.CamBatches(found, tmp_path, 6, 48, 3)[0]
    pixels = clips.normalise(small, batch.pixels)
    shown = batch.maps[:, None] * pixels[batch.owners]
    front, behind = (
        clips.encode_images(small, one) for one in (shown, pixels[batch.owners] - shown)
    )
    reader = learned_text.LearnedText.of(small, 4)
    with torch.no_grad():
        prompts = reader(learned_text.initial("uniform", reader, 3, 3))[batch.classes]
    texts = category_texts.embed(small, CATEGORIES)[batch.classes]
    expected = losses.pull(behind, prompts, "shifted")
    if push == "text":
        expected += 0.5 * losses.push_text(texts, prompts, "shifted")
    if push == "foreground":
        expected += 0.5 * losses.push_foreground(front, prompts, "shifted")
    assert header["settings"]["curve"][0]["loss"] == pytest.approx(expected.item(), rel=1e-4)


def test_whole_pictures_are_embedded_once(tune, tmp_path, small, maps, monkeypatch):
    calls = []
    real = background_trainer.MaskedImages.seen
    monkeypatch.setattr(
        background_trainer.MaskedImages,
        "seen",
        lambda self, batch: calls.append(1) or real(self, batch),
    )
    tune(steps=6, push="none", similarity="shifted", crop_scale=1.0, seed=3)
    assert len(calls) == 12
    header, _ = tensors.load(tmp_path / "b.safetensors")
    found = cams.read(maps)
    batches = map_batches.CamBatches(found, tmp_path, 6, 48, 3)
    reader = learned_text.LearnedText.of(small, 4)
    with torch.no_grad():
        prompts = reader(learned_text.initial("uniform", reader, 3, 3))
    pairs = []
    for number in batches.drawn(0):
        image = batches.images[number]
        rgb = torch.from_numpy(np.array(Image.open(tmp_path / image.file_name)))
        square = torch.nn.functional.interpolate(
            rgb.permute(2, 0, 1)[None].float(), (48, 48), mode="bicubic", antialias=True
        )
        pixels = clips.normalise(small, square.round().clamp(0, 255).byte().permute(0, 2, 3, 1))
        whole = torch.nn.functional.interpolate(found.of(image.id)[None], (40, 64), mode="bilinear")
        masks = torch.nn.functional.interpolate(whole, (48, 48), mode="bilinear")[0]
        for mask, category_id in zip(masks, image.category_ids, strict=True):
            behind = clips.encode_images(small, (1 - mask) * pixels)
            place = [each.id for each in CATEGORIES].index(category_id)
            pairs.append((behind[0], prompts[place]))
    behind, wanted = (torch.stack(several) for several in zip(*pairs, strict=True))
    expected = losses.pull(behind, wanted, "shifted").item()
    assert header["settings"]["curve"][0]["loss"] == pytest.approx(expected, rel=1e-3)


def test_crops_and_maps_are_cut_alike(tmp_path):
    """A picture whose red is its map."""
    ramp = torch.linspace(0, 1, 64).expand(40, 64) * torch.linspace(0.2, 1, 40)[:, None]
    rgb = (ramp * 255).round().byte()
    Image.fromarray(torch.stack([rgb, rgb, rgb], -1).numpy()).save(tmp_path / "a.png")
    image = cams.CamImage(1, "a.png", 40, 64, (1,))
    found = cams.Cams((image,), (coco.Category(1, "cow"),), {1: ramp[None]})
    batches = map_batches.CamBatches(found, tmp_path, 1, 32, 0)
    for step in range(12):
        batch = batches[step]
        assert (batch.pixels[0, ..., 0].float() / 255 - batch.maps[0]).abs().mean() < 0.02
        assert torch.equal(batch.pixels, batches[step].pixels)
    assert not torch.equal(batches[0].maps, batches[1].maps)


def test_an_epoch_sees_each_picture_once(maps, tmp_path):
    batches = map_batches.CamBatches(cams.read(maps), tmp_path, 5, 32, 0)
    epochs = [[i for s in range(2) for i in batches.drawn(2 * e + s)] for e in range(2)]
    assert all(len(set(epoch)) == 10 for epoch in epochs) and epochs[0] != epochs[1]


def test_masks_of_a_generator(tune, tmp_path, small):
    own = tune("own.safetensors", similarity="shifted")
    generator = Generator(mask_generator.Settings(hidden=0, side=48), CATEGORIES, small)
    mask_generator.save(tmp_path / "g.safetensors", generator, {})
    other = tune("other.safetensors", generator=tmp_path / "g.safetensors", similarity="shifted")
    assert other.loss != pytest.approx(own.loss, rel=1e-4)
    header, _ = tensors.load(tmp_path / "other.safetensors")
    assert len(header["settings"]["generator"]) == 16
    fewer = Generator(mask_generator.Settings(hidden=0, side=48), CATEGORIES[:2], small)
    mask_generator.save(tmp_path / "g.safetensors", fewer, {})
    with pytest.raises(MismatchError, match="has 2 classes and .* differ in kite"):
        tune("third.safetensors", generator=tmp_path / "g.safetensors")


def test_words_of_a_file_are_the_vocabulary(tune, tmp_path):
    (tmp_path / "words.txt").write_text("grass\nwater\n")
    found = tune(words=tmp_path / "words.txt")
    assert {word for word, _ in found.notes["nearest"]["cow"]} == {"grass", "water"}


class Cut(Exception):
    """Stands for a kill."""


def cut_after(monkeypatch, owner, name, count):
    """Makes a method of a class raise `Cut` from its call number `count` on."""
    original, calls = getattr(owner, name), []

    def counted(*arguments):
        calls.append(1)
        if len(calls) > count:
            raise Cut
        return original(*arguments)

    monkeypatch.setattr(owner, name, counted)
    return lambda: monkeypatch.setattr(owner, name, original)


def test_a_tuning_that_was_cut_off_ends_with_the_same_bytes(tune, tmp_path, monkeypatch):
    tune("whole.safetensors", save_every=2)
    mend = cut_after(monkeypatch, background_trainer.MaskedImages, "loss", 3)
    with pytest.raises(Cut):
        tune(save_every=2)
    with pytest.raises(OutputExistsError, match="go on with --resume"):
        tune(save_every=2)
    with pytest.raises(MismatchError, match="other data or settings"):
        tune(resume=True, seed=1)
    threads = torch.get_num_threads()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: threads + 1)
        with pytest.raises(MismatchError, match="other data or settings"):
            tune(resume=True)
    mend()
    tune(resume=True)
    for ending in ("safetensors", "png"):
        whole, resumed = ((tmp_path / f"{name}.{ending}").read_bytes() for name in ("whole", "b"))
        assert whole == resumed


def test_images_held_out_are_measured_and_not_trained_on(tune, tmp_path):
    options = {"similarity": "shifted", "held_out": 0.25, "steps": 20, "init": "normal"}
    found = tune(**options)
    assert found.counts == {"images": 9, "held_out": 3, "classes": 3}
    assert found.after["held_out_loss"] < found.before["held_out_loss"]
    curve = tensors.load(tmp_path / "b.safetensors")[0]["settings"]["curve"]
    assert [one["step"] for one in curve if "held_out_loss" in one] == [4, 8, 12, 16, 20]
    never = tune("never.safetensors", **options, validate_every=0)
    assert never.before == {} == never.after and never.loss == found.loss


def test_half_precision_is_for_the_arithmetic_of_towers_alone(tune, tmp_path):
    exact, coarse = (
        tune(f"{p}.safetensors", precision=p, similarity="shifted", steps=2)
        for p in ("float32", "bfloat16")
    )
    assert 0 < abs(exact.loss - coarse.loss) < 0.1
    _, content = tensors.load(tmp_path / "bfloat16.safetensors")
    assert content["vectors"].dtype == torch.float32


def test_out_of_memory_is_one_line(tune, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(background_trainer.MaskedImages, "loss", full)
    said = r"out of memory while tuning background prompts(: .* GB were free)?; give a smaller --batch-size"
    with pytest.raises(OvtoolError, match=said):
        tune()


def test_what_cannot_be_tuned(tune, tmp_path, maps):
    for options, said in (
        ({"push": "away"}, "--push 'away' is not one of 'text', 'foreground', 'none'"),
        ({"similarity": "dot"}, "--similarity 'dot' is not one of 'raw', 'shifted'"),
        ({"init": "zero"}, "--init 'zero' is not one of"),
        ({"length": 19}, "--length 19: the text tower of small has room for 1 to 18 vectors"),
    ):
        with pytest.raises(UsageError, match=said):
            tune(**options)
    (tmp_path / "03.png").unlink()
    with pytest.raises(InputError, match="lacks 1 of the 12 images of .* such as 03.png"):
        tune()


def test_images_of_another_size_and_maps_that_say_nothing(tune, tmp_path, maps):
    Image.new("RGB", (30, 30)).save(tmp_path / "03.png")
    with pytest.raises(InputError, match="03.png has 30 x 30 pixels, and its maps 64 x 40"):
        tune(strict=True)
    found = cams.read(maps)
    Image.new("RGB", (64, 40)).save(tmp_path / "03.png")
    flat = {key: torch.full_like(value, 0.5) for key, value in found.maps.items()}
    cams.write(maps, found.images, found.categories, flat, {})
    with pytest.raises(InputError, match="every map has one value everywhere"):
        tune()
    bare = [cams.CamImage(1, "00.png", 40, 64, ())]
    cams.write(maps, bare, found.categories, {1: torch.zeros(0, 1, 1)}, {})
    with pytest.raises(InputError, match="has no maps: no image in it has a class"):
        tune()


def test_a_dry_run_writes_nothing(tune, tmp_path):
    before = sorted(tmp_path.iterdir())
    plan = tune(dry_run=True, steps=None, epochs=3, length=None)
    assert plan.is_plan and plan.steps == 6 and plan.notes["length"] == 18 and plan.loss is None
    assert sorted(tmp_path.iterdir()) == before


# --- pseudo masks ---------------------------------------------------------------------------------------
def test_maps_become_pseudo_masks(refined, tmp_path, maps):
    outcome = refined(label_maps=tmp_path / "labels")
    dataset = coco.read(tmp_path / "x.json")
    assert [each.name for each in dataset.categories] == ["background", *NAMES]
    assert [each.id for each in dataset.categories] == [1, 2, 3, 4]
    of_first = {e.category_id: e for e in dataset.annotations if e.image_id == 1}
    assert set(of_first) == {1, 2, 3}  # the background, cow and boat
    masks = {k: rle.decode(e.segmentation, 40, 64) for k, e in of_first.items()}
    assert sum(mask.sum() for mask in masks.values()) == 40 * 64  # nothing is in doubt
    assert masks[2][12:20, 12:28].all() and not masks[2][:, 40:].any()
    assert all(0.5 < entry.score <= 1 for entry in of_first.values())
    labels = label_maps.read(tmp_path / "labels/00.png")
    assert all((labels == k - 1).sum() == mask.sum() for k, mask in masks.items())
    assert label_maps.read_classes(tmp_path / "labels/classes.txt") == ["background", *NAMES]
    made_by = dataset.info["ovtool"]
    assert made_by["command"] == "refine" and made_by["settings"]["cams"] == cams.read(maps).digest
    assert made_by["settings"]["masking"]["background"]["kind"] == "otsu"
    assert len(outcome.dataset.images) == 12


def test_pixels_in_doubt_are_left_out(refined, tmp_path):
    refined(background_score="constant:0.4", confidence=0.62)
    dataset = coco.read(tmp_path / "x.json")
    covered = sum(e.area for e in dataset.annotations if e.image_id == 2)
    assert 0 < covered < 40 * 64
    with pytest.raises(
        InputError, match="no pixel of any image is certain to 1, so all would be ignored"
    ):
        refined("y.json", background_score="constant:0.4", confidence=1.0)
    assert not (tmp_path / "y.json").exists()


def test_a_crf_leaves_the_rest_to_the_background():
    crf, sam = Apply(apply=("crf",)), Apply(apply=("crf", "sam"), proposals="p.json")
    assert Masking.of(PseudoMasks(), crf) == Masking(Background("rest"), 0.95)
    assert Masking.of(PseudoMasks(), sam) == Masking(Background("otsu"), 0.0)
    own = PseudoMasks(background_score="power:2", confidence=0.5)
    assert Masking.of(own, crf) == Masking(Background("power", 2.0), 0.5)
    for spec in ("power:x", "constant:2", "otsu:1", "best", "power:-1", "constant:nan"):
        with pytest.raises(UsageError, match="give otsu, rest, power:A"):
            background_rule(spec)


def test_steps_are_those_of_the_pictures(refined, tmp_path, maps):
    refined("y.safetensors", steps="walk,pamr", apply={"walk_on": "attention"})
    found = cams.read(tmp_path / "y.safetensors")
    assert found.of(1).shape == (2, 40, 64) and found.settings["method"] == "gradcam"
    assert found.settings["refined"]["apply"] == ["walk", "pamr"] and found.model == "small"
    assert found.images == cams.read(maps).images
    refined("z.safetensors", source=tmp_path / "y.safetensors", steps="crf", images=tmp_path)
    again = cams.read(tmp_path / "z.safetensors")
    assert again.of(1).sum(0).max() <= 1.001
    first, second = ((tmp_path / f"{n}.safetensors").read_bytes() for n in ("y", "z"))
    assert first != second


def test_proposals_vote(refined, tmp_path, maps):
    image = [coco.Image(n + 1, f"{n:02d}.png", 64, 40) for n in range(12)]
    mask = np.zeros((40, 64), bool)
    mask[6:22, 6:34] = True
    entries = [coco.annotation(n + 1, n + 1, 1, rle.encode(mask), 0.9) for n in range(12)]
    coco.write(coco.Dataset({}, image, entries, [coco.Category(1, "object")]), tmp_path / "p.json")
    refined("v.safetensors", steps="sam", proposals=tmp_path / "p.json")
    found = cams.read(tmp_path / "v.safetensors").of(2)  # of one class
    assert len(found[0][torch.from_numpy(mask)].unique()) == 1
    with pytest.raises(UsageError, match="the step sam needs proposals"):
        refined(steps="sam")
    with pytest.raises(UsageError, match="--proposals is read by the step sam"):
        refined(proposals=tmp_path / "p.json")


def test_a_run_that_was_cut_off_ends_with_the_same_bytes(refined, tmp_path, monkeypatch):
    for name in ("json", "safetensors"):
        steps = "walk,pamr"
        refined(f"whole.{name}", steps=steps, how={"part_size": 5})
        mend = cut_after(monkeypatch, refine.Refiner, "__call__", 7)
        with pytest.raises(Cut):
            refined(f"cut.{name}", steps=steps, how={"part_size": 5})
        mend()
        refined(f"cut.{name}", steps=steps, how={"part_size": 5, "resume": True})
        whole, cut = ((tmp_path / f"{one}.{name}").read_bytes() for one in ("whole", "cut"))
        assert whole == cut and not (tmp_path / f"cut.{name}.parts").exists()


def test_numbers_that_are_not_finite_are_told(refined, monkeypatch):
    from ovtool.cams import refine_steps

    broken = {**refine_steps.STEPS, "pamr": lambda picture, maps, context: maps * float("nan")}
    monkeypatch.setattr(refine_steps, "STEPS", broken)
    with pytest.raises(InputError, match="00.png: its maps are not finite after pamr"):
        refined(steps="pamr")


def test_what_cannot_be_refined(refined, tmp_path, maps):
    for options, said in (
        ({"steps": "crf,prompts"}, "prompts makes new maps, which would undo crf"),
        ({"steps": "pamr,affinity"}, "affinity works on patches and would undo pamr"),
        ({"steps": "blur"}, "--apply 'blur' is not one of 'prompts'"),
        ({"name": "x.txt"}, "end it in .json for pseudo masks, or in .safetensors for maps"),
        ({"name": "x.safetensors"}, "without --apply the maps stay as they are"),
        (
            {"name": "x.safetensors", "steps": "pamr", "overlays": tmp_path / "o"},
            "images are drawn of pseudo masks",
        ),
        ({"prompts": requested(Path("b"))}, "belong to the step prompts; add it to --apply"),
        ({"steps": "crf", "apply": {"crf": "none"}}, "--crf 'none' is not one of"),
    ):
        with pytest.raises(UsageError, match=said):
            refined(**options)
    found = cams.read(maps)
    named = (coco.Category(3, "Background"), *CATEGORIES[1:])
    cams.write(maps, found.images, named, found.maps, {})
    with pytest.raises(UsageError, match="a class of the maps is called background"):
        refined()


# --- the step prompts -------------------------------------------------------------------------------------
def test_a_generator_learns_from_prompts(tune, refined, tmp_path, small):
    tune(similarity="shifted")
    before = (tmp_path / "b.safetensors").read_bytes()
    kept = tmp_path / "g.safetensors"
    refined(
        "r.safetensors", steps="prompts", save_generator=kept,
        prompts=requested(tmp_path / "b.safetensors", refine_weight=0.2, fit_epochs=1.0),
    )  # fmt: skip
    assert (tmp_path / "b.safetensors").read_bytes() == before
    found = cams.read(tmp_path / "r.safetensors")
    assert found.settings["refined"]["prompts"]["fit_epochs"] == 1.0  # gradcam has no parameters
    assert found.of(1).shape[0] == 2 and found.of(1).std() > 0
    header = tensors.read_header(kept)
    curve = header["settings"]["curve"]
    assert [one["step"] for one in curve] == list(range(1, 10))  # 3 steps to fit, 6 to learn
    learned = curve[3:]
    assert all(
        one["loss"] == pytest.approx(one["match"] + 0.2 * one["refine"], rel=1e-4)
        for one in learned
    )
    assert [each.name for each in mask_generator.load(kept, small).categories] == list(NAMES)


def test_the_step_prompts_leaves_out_images_that_cannot_be_read(refined, tmp_path, maps, caplog):
    content = (tmp_path / "07.png").read_bytes()
    (tmp_path / "07.png").write_bytes(content[: len(content) // 2])  # its size can still be read
    (tmp_path / "03.png").write_bytes(b"no image")
    request, kept = requested(refine_weight=0.0, epochs=1.0), tmp_path / "g.safetensors"
    outcome = refined(steps="prompts", prompts=request, save_generator=kept)
    assert [failure["file_name"] for failure in outcome.failures] == ["03.png", "07.png"]
    names = {f"{n:02d}.png" for n in range(12)} - {"03.png", "07.png"}
    assert {image.file_name for image in coco.read(tmp_path / "x.json").images} == names
    assert "left out 2 of the 12 images of" in caplog.text
    assert len(tensors.read_header(kept)["settings"]["curve"]) == 2 + 10  # of 10 images, 4 a step
    for steps in ("prompts", "pamr"):
        with pytest.raises(InputError, match="03.png is not an image"):
            refined("y.json", steps=steps, prompts=request, how={"strict": True})
    assert not (tmp_path / "y.json").exists()


def test_maps_of_a_generator_are_not_fitted(maps, refined, tmp_path):
    found = cams.read(maps)
    cams.write(maps, found.images, found.categories, found.maps, {"method": "matching"})
    kept = tmp_path / "g.safetensors"
    request = requested(refine_weight=0.0, label_steps=2)
    refined("r.json", steps="prompts", save_generator=kept, prompts=request)
    curve = tensors.read_header(kept)["settings"]["curve"]
    assert len(curve) == 8 and set(curve[0]) == {"step", "loss"}


def test_fitting_alone_learns_the_maps(refined, tmp_path):
    request = requested(refine_weight=0.0, epochs=0.0, fit_epochs=20.0)
    kept = tmp_path / "g.safetensors"
    refined("r.safetensors", steps="prompts", prompts=request, save_generator=kept)
    curve = [one["loss"] for one in tensors.read_header(kept)["settings"]["curve"]]
    assert len(curve) == 60 and np.mean(curve[-5:]) < 0.7 * curve[0]
    assert not list(tmp_path.glob("r.safetensors.*"))


@pytest.mark.parametrize("cut_at", [2, 5])
def test_a_learning_that_was_cut_off_ends_with_the_same_bytes(
    tune, refined, tmp_path, monkeypatch, cut_at
):
    tune(similarity="shifted")
    monkeypatch.setattr(generator_trainer, "SAVE_EVERY", 1)
    options = {
        "steps": "prompts",
        "prompts": requested(tmp_path / "b.safetensors", fit_epochs=1.0),
    }
    refined("whole.safetensors", **options, save_generator=tmp_path / "gw.safetensors")
    mend = cut_after(monkeypatch, generator_trainer.Matching, "features_of", cut_at)
    cut = {**options, "save_generator": tmp_path / "gc.safetensors"}
    with pytest.raises(Cut):
        refined("cut.safetensors", **cut)
    mend()
    refined("cut.safetensors", **cut, how={"resume": True})
    for one, other in (("whole", "cut"), ("gw", "gc")):
        first, second = ((tmp_path / f"{n}.safetensors").read_bytes() for n in (one, other))
        assert first == second
    assert not list(tmp_path.glob("*.checkpoint"))


def never(*_, **__):
    pytest.fail("work was done")


@pytest.mark.parametrize("there", ["g.safetensors", "g.png"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_generator_and_its_curve_replace_nothing(refined, tmp_path, monkeypatch, there, resume):
    (tmp_path / there).write_bytes(b"of someone else")
    monkeypatch.setattr(generator_trainer.Matching, "train", never)
    monkeypatch.setattr(clips, "load", never)
    if resume and there == "g.safetensors":
        monkeypatch.undo()  # whether it is that of this run is told by its content
    options = {"steps": "prompts", "prompts": requested(refine_weight=0.0, epochs=0.0)}
    with pytest.raises((OutputExistsError, InputError), match="g.safetensors|g.png exists") as e:
        refined(**options, save_generator=tmp_path / "g.safetensors", how={"resume": resume})
    assert "\n" not in str(e.value) and not (tmp_path / "x.json").exists()
    assert (tmp_path / there).read_bytes() == b"of someone else"


def test_a_generator_of_other_settings_is_not_replaced_on_resume(refined, tmp_path):
    kept = tmp_path / "g.safetensors"
    request = requested(refine_weight=0.0, epochs=0.0, fit_epochs=1.0)
    refined("a.json", steps="prompts", prompts=request, save_generator=kept)
    before = kept.read_bytes(), kept.with_suffix(".png").read_bytes()
    options = {"steps": "prompts", "save_generator": kept}
    other = requested(refine_weight=0.0, epochs=0.0, fit_epochs=2.0)
    with pytest.raises(MismatchError, match="g.safetensors holds a generator of other data or set"):
        refined("b.json", **options, prompts=other, how={"resume": True})
    assert (kept.read_bytes(), kept.with_suffix(".png").read_bytes()) == before
    refined("b.json", **options, prompts=other, how={"overwrite": True})
    assert kept.read_bytes() != before[0]


@pytest.mark.parametrize("name", ["g.png", "x.safetensors"])
def test_a_generator_has_a_file_of_its_own(refined, tmp_path, name):
    request = requested(refine_weight=0.0)
    with pytest.raises(UsageError, match="would hold two outputs of this command"):
        refined("x.safetensors", steps="prompts", prompts=request, save_generator=tmp_path / name)


def test_prompts_that_do_not_belong(tune, refined, tmp_path, maps, monkeypatch, small):
    tune(similarity="shifted")
    prompts = tmp_path / "b.safetensors"
    with pytest.raises(UsageError, match="the step prompts needs --background-prompts FILE"):
        refined(steps="prompts", prompts=requested(None))
    found = cams.read(maps)
    other = (coco.Category(3, "horse"), *CATEGORIES[1:])
    cams.write(tmp_path / "o.safetensors", found.images, other, found.maps, {})
    with pytest.raises(
        MismatchError, match="holds the prompts of 3 classes, .* differ in cow, horse"
    ):
        refined(source=tmp_path / "o.safetensors", steps="prompts", prompts=requested(prompts))
    header, content = tensors.load(prompts)
    tensors.save(prompts, content, {**header, "fingerprint": "0" * 16, "model": "another"})
    with pytest.raises(MismatchError, match="was made with another .* use --model another"):
        refined(steps="prompts", prompts=requested(prompts))
    tensors.save(prompts, {**content, "embeddings": content["embeddings"] * float("nan")}, header)
    with pytest.raises(InputError, match="holds numbers that are not finite"):
        refined(steps="prompts", prompts=requested(prompts))
    with pytest.raises(
        MismatchError, match="holds class activation maps, .* needed here: background prompts"
    ):
        refined(steps="prompts", prompts=requested(maps))
