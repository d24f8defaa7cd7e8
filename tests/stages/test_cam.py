"""The story of `cam` with a small CLIP at random weights."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from ovtool.batches import labels as label_batches
from ovtool.cams import sources as cam_sources
from ovtool.cams.sources import Network
from ovtool.errors import InputError, MismatchError, OutputExistsError, OvtoolError, UsageError
from ovtool.formats import cams, tensors
from ovtool.inputs import category_texts
from ovtool.inputs import labels as label_inputs
from ovtool.models import clip as clips
from ovtool.settings.cam import ClassifierMaps, GivenMaps, Gradcam, LabelMatching, PaclMaps, Spread
from ovtool.settings.shared import Compute, Run
from ovtool.stages import cam
from ovtool.trainers import mask_generator as generator_trainer
from ovtool.training.loop import TrainingError

METHODS = {
    "classifier": ClassifierMaps,
    "gradcam": Gradcam,
    "matching": LabelMatching,
    "pacl": PaclMaps,
    "maps": GivenMaps,
}
COLOURS = {"cow": (200, 30, 30), "boat": (30, 30, 200), "cat": (30, 200, 30)}


@pytest.fixture
def source(tmp_path):
    """labels.tsv beside a folder of eight pictures: one or two blocks in the colours of their labels."""
    folder, lines = tmp_path / "pictures", []
    folder.mkdir()
    random = np.random.default_rng(0)
    for n in range(8):
        rgb = random.integers(100, 140, (48, 64, 3), np.uint8)
        shown = sorted(COLOURS)[n % 3 :][: 1 + n % 2]
        for k, name in enumerate(shown):
            rgb[8:40, 4 + 30 * k : 30 + 30 * k] = COLOURS[name]
        Image.fromarray(rgb).save(folder / f"{n}.png")
        lines.append(f"{n}.png\t{','.join(shown)}\n")
    (tmp_path / "labels.tsv").write_text("".join(lines))
    return tmp_path / "labels.tsv"


@pytest.fixture
def make(source, tmp_path, loads_small):
    def made(
        name="x.safetensors", resume=False, overwrite=False, strict=False, part_size=3, **options
    ):
        place = {k: options.pop(k) for k in ("limit", "images") if k in options}
        place.setdefault("images", tmp_path / "pictures")
        spread = {k: options.pop(k) for k in ("affinity", "box_threshold") if k in options}
        method = METHODS[options.pop("method", "maps" if "from_maps" in options else "gradcam")]
        if method is LabelMatching and not options.get("generator"):
            options.setdefault("label_steps", 0)
        given, is_dry = options.pop("source", source), options.pop("dry_run", False)
        compute = Compute(model=options.pop("model", None))
        run = Run(
            part_size=part_size, resume=resume, overwrite=overwrite, strict=strict, dry_run=is_dry
        )
        return cam.run(
            str(given), method(**options), Spread(**spread), out=str(tmp_path / name),
            compute=compute, run=run, **place,
        )  # fmt: skip

    return made


def test_gradcam_has_a_map_for_each_label(make, tmp_path, small):
    found = make(background="grass,water")
    assert (found.images, found.maps, found.categories) == (8, 11, 3)
    read = cams.read(tmp_path / "x.safetensors")
    assert [image.file_name for image in read.images] == [f"{n}.png" for n in range(8)]
    assert read.images[1].category_ids == (2, 3) and read.images[1].height == 48
    assert read.of(2).shape == (2, 6, 8) and read.fingerprint == small.fingerprint
    assert read.settings["method"] == "gradcam"
    assert read.settings["background_words"] == ["grass", "water"]
    assert str(tmp_path) not in json.dumps(tensors.read_header(tmp_path / "x.safetensors"))
    make("y.safetensors", background="grass,water", part_size=100)
    assert (tmp_path / "y.safetensors").read_bytes() == (tmp_path / "x.safetensors").read_bytes()
    assert not list(tmp_path.glob("*.parts"))


def test_scales_and_mirrors_are_merged():
    """A source whose map is the red of the picture: mirrored views are turned back, scales agree."""

    def show(rgb, scale):
        size = [round(n * scale) for n in rgb.shape[:2]]
        picture = rgb.permute(2, 0, 1)[None].float()
        return torch.nn.functional.interpolate(picture, size=size, mode="bilinear")

    red = Network(show, lambda pixels, classes: pixels[0, :1].repeat(len(classes), 1, 1))
    rgb = torch.zeros(8, 12, 3, dtype=torch.uint8)
    rgb[:, 8:, 0] = 200
    plain = cam_sources.maps_of(red, rgb, [0, 1])
    assert plain.shape == (2, 8, 12) and plain[0, 0].tolist() == pytest.approx([0] * 8 + [1] * 4)
    both = cam_sources.maps_of(red, rgb, [0, 1], (1.0, 0.5, 2.0), flip=True)
    assert both.shape == (2, 8, 12)
    assert both[:, :, 9:].min() > 0.8 and both[:, :, :7].max() < 0.2


def test_views_reach_the_file(make, tmp_path):
    make()
    make("y.safetensors", scales=(1.0, 0.5), flip=True)
    one, two = (cams.read(tmp_path / f"{name}.safetensors") for name in "xy")
    assert one.of(1).shape == two.of(1).shape and not torch.equal(one.of(1), two.of(1))
    assert two.settings["scales"] == [1.0, 0.5] and two.settings["flip"]


def test_matching_learns_its_head_and_nothing_else(make, tmp_path, small):
    before = {name: value.clone() for name, value in small.model.state_dict().items()}
    found = make(method="matching", steps=30, batch_size=4, lr=5e-3,
                 save_generator=tmp_path / "g.safetensors")  # fmt: skip
    assert all(torch.equal(v, before[k]) for k, v in small.model.state_dict().items())
    assert all(value.grad is None for value in small.model.parameters())
    header, _ = tensors.load(tmp_path / "g.safetensors", kind="mask-generator")
    curve = [record["loss"] for record in header["settings"]["curve"]]
    assert len(curve) == 30 and np.mean(curve[-5:]) < np.mean(curve[:5]) - 0.02
    assert found.loss == pytest.approx(curve[-1], rel=1e-4)
    assert Image.open(tmp_path / "x.png").size == (960, 600)
    assert not list(tmp_path.glob("*.checkpoint"))
    again = make("y.safetensors", method="matching", generator=str(tmp_path / "g.safetensors"))
    assert again.loss is None
    one, two = (cams.read(tmp_path / f"{name}.safetensors") for name in "xy")
    assert torch.equal(one.of(2), two.of(2))


def test_the_first_loss_is_that_of_the_formula(source, tmp_path, small):
    from ovtool.formats import coco
    from ovtool.models.mask_generator import Generator, Settings

    found = label_inputs.read(str(source), tmp_path / "pictures")
    network = Generator(Settings(), found.categories, small)
    assert all(isinstance(one, coco.Category) for one in network.categories)
    text = category_texts.embed(small, found.categories)
    settings = LabelMatching(batch_size=3, similarity="shifted", background_weight=0.5)
    matching = generator_trainer.Matching(small, network, found, text, settings)
    batch = matching.batches[0]
    slow_f, slow_b, pairs = 0.0, 0.0, 0
    for row in range(3):
        raw = network(network.normalise(batch.rgb[row : row + 1]))[0]
        picture = torch.nn.functional.interpolate(
            batch.rgb[row].permute(2, 0, 1)[None], size=(48, 48), mode="bilinear", antialias=True
        )
        pixels = clips.normalise(small, picture.permute(0, 2, 3, 1))
        for k in batch.labels[row].nonzero()[:, 0].tolist():
            grown = torch.nn.functional.interpolate(
                raw[None, k : k + 1], size=(48, 48), mode="bilinear", align_corners=True
            )[0, 0]
            mask = (grown - grown.min()) / (grown.max() - grown.min() + 0.1)
            s = [
                float(clips.encode_images(small, m * pixels)[0] @ text[k]) for m in (mask, 1 - mask)
            ]
            slow_f -= np.log((1 + s[0]) / 2)
            slow_b -= np.log(1 - (1 + s[1]) / 2)
            pairs += 1
    expected = slow_f / pairs + 0.5 * slow_b / pairs
    # features are kept in half precision
    assert float(matching.losses(batch)["loss"].detach()) == pytest.approx(expected, rel=1e-3)


def test_many_masked_images_need_the_memory_of_one_chunk(source, tmp_path, small, monkeypatch):
    from ovtool.models import towers
    from ovtool.models.mask_generator import Generator, Settings

    pictures = label_inputs.read(str(source), tmp_path / "pictures")
    network = Generator(Settings(), pictures.categories, small)
    text = category_texts.embed(small, pictures.categories)
    settings = LabelMatching(batch_size=3, similarity="shifted")
    matching = generator_trainer.Matching(small, network, pictures, text, settings)
    gradients, sizes = [], []
    real = towers.image_features
    monkeypatch.setattr(
        towers, "image_features", lambda v, chunk: sizes.append(len(chunk)) or real(v, chunk)
    )
    for chunk in (64, 2):
        monkeypatch.setattr(generator_trainer, "PIXELS_AT_ONCE", chunk * 48**2)
        sizes.clear()
        network.zero_grad()
        matching.losses(matching.batches[0])["loss"].backward()
        gradients.append([value.grad.clone() for value in network.trained()])
    assert max(sizes) == 2 and len(sizes) % 2 == 0  # each chunk again in the backward pass
    for whole, in_chunks in zip(*gradients, strict=True):
        assert torch.allclose(whole, in_chunks, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("start", ["rivals", "text"])
def test_without_a_step_maps_are_those_of_the_start(make, source, tmp_path, small, start):
    from ovtool.methods import activation_maps
    from ovtool.models.mask_generator import Generator, Settings, Texts

    made = make(method="matching", steps=0, begin=start, background="sky,grass")
    assert made.loss is None and not (tmp_path / "x.png").exists()
    found, read = (
        label_inputs.read(str(source), tmp_path / "pictures"),
        cams.read(tmp_path / "x.safetensors"),
    )
    own = category_texts.embed(small, found.categories, "a photo of a {}.")
    others = category_texts.embed_words(small, ["sky", "grass"], "a photo of a {}.")
    twin = Generator(Settings(start=start), found.categories, small, texts=Texts(own, others))
    for n, image in enumerate(read.images):
        rgb = torch.from_numpy(np.array(Image.open(tmp_path / "pictures" / image.file_name)))
        places = [[one.id for one in found.categories].index(k) for k in image.category_ids]
        expected = activation_maps.min_max(twin(twin.view(rgb))[0, places])
        assert torch.allclose(read.of(n + 1), expected, atol=2e-3)


def test_weights_of_the_losses_are_published_unless_the_model_recommends_others(
    source, tmp_path, small
):
    from ovtool.models.mask_generator import Generator, Settings

    found = label_inputs.read(str(source), tmp_path / "pictures")
    text = category_texts.embed(small, found.categories)
    taught = dataclasses.replace(small, recommended={"label_matching": {"background_weight": 0.75}})
    for clip, given, taken in ((small, None, 2.4), (taught, None, 0.75), (taught, 1.5, 1.5)):
        chosen = LabelMatching(background_weight=given, similarity="raw")
        network = Generator(Settings(), found.categories, clip)
        matching = generator_trainer.Matching(clip, network, found, text, chosen)
        assert matching.background_weight == taken and matching.label_steps == 200


def test_the_first_steps_are_on_the_labels_alone(make, tmp_path, monkeypatch):
    calls = []
    real = generator_trainer.Matching.losses
    monkeypatch.setattr(
        generator_trainer.Matching,
        "losses",
        lambda self, batch: calls.append(1) or real(self, batch),
    )
    make(method="matching", begin="random", steps=2, label_steps=30, batch_size=8, lr=5e-3,
         save_generator=tmp_path / "g.safetensors")  # fmt: skip
    header, _ = tensors.load(tmp_path / "g.safetensors")
    curve = [record["loss"] for record in header["settings"]["curve"]]
    assert len(calls) == 2 and len(curve) == 32
    assert curve[29] < 0.5 * curve[0] < curve[30]  # labels are learned; then another loss
    make("y.safetensors", method="matching", begin="random", steps=0, label_steps=30, batch_size=8, lr=5e-3,
         save_generator=tmp_path / "h.safetensors")  # fmt: skip
    header, _ = tensors.load(tmp_path / "h.safetensors")
    alone = [record["loss"] for record in header["settings"]["curve"]]
    assert len(calls) == 2 and len(alone) == 30 and alone[-1] < 0.5 * alone[0]


def test_features_are_kept_only_where_they_never_change(source, tmp_path, small):
    from ovtool.models.mask_generator import Generator, Settings

    found = label_inputs.read(str(source), tmp_path / "pictures")
    text = category_texts.embed(small, found.categories)
    for settings, scale, keeps in (
        (Settings(), 1.0, True), (Settings(), 0.5, False),
        (Settings("timm:lcnet_035", True, side=64), 1.0, False),
        (Settings("timm:lcnet_035", side=64), 1.0, True),
    ):  # fmt: skip
        network = Generator(settings, found.categories, small)
        chosen = LabelMatching(crop_scale=scale, similarity="raw", batch_size=2)
        matching = generator_trainer.Matching(small, network, found, text, chosen)
        assert matching.keeps is keeps
        matching.losses(matching.batches[0])
        assert len(matching._features) == (2 if keeps else 0)


def test_a_backbone_of_timm_is_tuned_only_where_that_is_asked_for(make, tmp_path):
    options = {
        "method": "matching",
        "generator": "timm:lcnet_035",
        "batch_size": 2,
        "short_side": 64,
    }
    weights = {}
    for name, steps, tuned in (("start", 0, True), ("frozen", 2, False), ("tuned", 2, True)):
        place = tmp_path / f"{name}.generator"
        make(f"{name}.safetensors", **options, steps=steps, label_steps=steps, fine_tune=tuned,
             save_generator=place)  # fmt: skip
        _, saved = tensors.load(place)
        weights[name] = {key: saved[key] for key in saved if key.startswith("backbone.")}
    changed = {
        name: [key for key in of if not torch.equal(of[key], weights["start"][key])]
        for name, of in weights.items()
    }
    assert changed["frozen"] == [] and len(changed["tuned"]) > 100


def test_the_similarity_is_measured(source, tmp_path, small, monkeypatch):
    from ovtool.models.mask_generator import Generator, Settings

    said = []
    monkeypatch.setattr(
        generator_trainer._logger, "warning", lambda text, *of: said.append(text % of)
    )
    found = label_inputs.read(str(source), tmp_path / "pictures")
    network = Generator(Settings(), found.categories, small)
    features = clips.encode_images(
        small, clips.normalise(small, label_batches.LabelBatches(found, 48, 1, 0).of_rows([0]).rgb)
    )
    for sign, kind, lines in ((1, "raw", 0), (-1, "shifted", 1)):
        text = sign * features.expand(3, -1)
        settings = LabelMatching()
        assert generator_trainer.Matching(small, network, found, text, settings).similarity == kind
        assert len(said) == lines
    assert "taking --similarity shifted" in said[0] and "100 % of the images" in said[0]


@pytest.mark.parametrize("method", ["matching", "classifier"])
def test_cut_off_and_resumed_it_writes_the_same_bytes(make, tmp_path, method, monkeypatch):
    from ovtool.trainers import classifier as classifier_trainer

    options = {"method": method, "steps": 4, "batch_size": 2, "short_side": 64}
    if method == "matching":
        options["label_steps"] = 2
    else:
        options["arch"] = "timm:lcnet_035"
    make("whole.safetensors", **options)
    monkeypatch.setattr(generator_trainer, "SAVE_EVERY", 1)
    monkeypatch.setattr(classifier_trainer, "SAVE_EVERY", 1)
    real = label_batches.LabelBatches.__getitem__

    def cut(self, step):
        if step == 2:
            raise KeyboardInterrupt
        return real(self, step)

    monkeypatch.setattr(label_batches.LabelBatches, "__getitem__", cut)
    with pytest.raises(KeyboardInterrupt):
        make("cut.safetensors", **options)
    monkeypatch.setattr(label_batches.LabelBatches, "__getitem__", real)
    with pytest.raises(OutputExistsError, match="checkpoint of a training that was cut off"):
        make("cut.safetensors", **options)
    with pytest.raises(MismatchError, match="with other data or settings"):
        make("cut.safetensors", **{**options, "seed": 3}, resume=True)
    make("cut.safetensors", **options, resume=True)
    for ending in ("safetensors", "png"):
        whole, again = (tmp_path / f"{name}.{ending}" for name in ("whole", "cut"))
        assert whole.read_bytes() == again.read_bytes()
    assert not list(tmp_path.glob("*.checkpoint"))


@pytest.mark.parametrize("there", ["g.safetensors", "x.png"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_generator_and_a_curve_replace_nothing(make, tmp_path, monkeypatch, there, resume):
    """`--resume` of a run that was never begun is no leave to replace files."""
    (tmp_path / there).write_bytes(b"of someone else")
    monkeypatch.setattr(generator_trainer.Matching, "train", None)
    kept = tmp_path / "g.safetensors"
    with pytest.raises(OutputExistsError, match=f"{there} exists"):
        make(method="matching", steps=2, batch_size=2, save_generator=kept, resume=resume)
    assert (tmp_path / there).read_bytes() == b"of someone else"


def test_a_run_cut_off_while_it_makes_maps_does_not_train_again(make, tmp_path, monkeypatch):
    options = {"method": "matching", "steps": 2, "batch_size": 2}
    make("whole.safetensors", **options)
    real, seen = cam_sources.maps_of, []

    def cut(*arguments):
        seen.append(1)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(cam_sources, "maps_of", cut)
    with pytest.raises(KeyboardInterrupt):
        make("cut.safetensors", **options)
    monkeypatch.setattr(cam_sources, "maps_of", real)
    monkeypatch.setattr(generator_trainer.Matching, "_step", None)
    make("cut.safetensors", **options, resume=True)
    assert (tmp_path / "cut.safetensors").read_bytes() == (
        tmp_path / "whole.safetensors"
    ).read_bytes()


def test_a_classifier_needs_no_clip_and_learns_colours(source, tmp_path, monkeypatch):
    monkeypatch.setattr(clips, "load", None)
    method = ClassifierMaps(
        arch="timm:lcnet_035", lr=1e-2, steps=25, batch_size=8, short_side=64, crop_scale=1.0
    )
    found = cam.run(
        str(source), method, images=tmp_path / "pictures", out=str(tmp_path / "c.safetensors")
    )
    read = cams.read(tmp_path / "c.safetensors")
    curve = [record["loss"] for record in read.settings["curve"]]
    assert curve[-1] < 0.5 * curve[0] and found.written == {"curve": str(tmp_path / "c.png")}
    assert read.fingerprint is None and read.of(1).shape[0] == 1
    assert read.settings["pretrained"] is False


def test_given_maps(make, tmp_path, source):
    folder, random = tmp_path / "maps", np.random.default_rng(1)
    folder.mkdir()
    given = {n: random.random((1 if n % 2 == 0 or n % 3 == 2 else 2, 5, 7)) for n in range(8)}
    for n, array in given.items():
        np.save(folder / f"{n}.npy", array)
    found = make(from_maps=folder)
    assert found.method == "maps" and found.maps == 11
    read = cams.read(tmp_path / "x.safetensors")
    assert torch.allclose(read.of(2), torch.from_numpy(given[1]).float(), atol=1e-3)
    assert read.fingerprint is None
    np.save(folder / "3.npy", np.full((2, 5, 7), np.nan))
    worse = make("y.safetensors", from_maps=folder)
    assert worse.images == 7 and worse.failures[0]["reason"].startswith(
        "3.npy holds numbers that are not finite"
    )
    (folder / "3.npy").unlink()
    with pytest.raises(InputError, match="no maps for 1 of the 8 images"):
        make("z.safetensors", from_maps=folder)


def test_constant_maps_are_counted_in_one_line(make, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(cam._logger, "warning", lambda text, *of: said.append(text % of))
    monkeypatch.setattr(
        cam_sources, "maps_of", lambda s, rgb, classes, *views: torch.zeros(len(classes), 2, 2)
    )
    assert make().constant == 11
    assert said == ["11 maps have one value everywhere and say nothing of where"]


def test_a_picture_that_is_broken_is_a_failure(make, tmp_path):
    (tmp_path / "pictures" / "2.png").write_bytes(b"nothing")
    found = make()
    assert found.images == 7 and found.failures[0]["file_name"] == "2.png"
    assert cams.read(tmp_path / "x.safetensors").failures[0]["file_name"] == "2.png"


@pytest.mark.parametrize("crop_scale", [1.0, 0.5])
@pytest.mark.parametrize("method", ["matching", "classifier"])
def test_a_training_leaves_out_images_that_cannot_be_read(
    make, tmp_path, method, crop_scale, caplog
):
    content = (tmp_path / "pictures" / "2.png").read_bytes()
    (tmp_path / "pictures" / "2.png").write_bytes(content[: len(content) // 2])
    options = {"method": method, "steps": 4, "batch_size": 4, "crop_scale": crop_scale}
    options |= {"arch": "timm:lcnet_035", "short_side": 64} if method == "classifier" else {}
    made = make(**options)
    assert made.images == 7 and made.loss is not None
    assert [failure["file_name"] for failure in made.failures] == ["2.png"]
    assert [dict(one) for one in cams.read(tmp_path / "x.safetensors").failures] == [
        dict(one) for one in made.failures
    ]
    assert "left out 1 of the 8 images of" in caplog.text
    with pytest.raises(InputError, match="^2.png is truncated or damaged"):
        make("y.safetensors", strict=True, **options)
    for path in (tmp_path / "pictures").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match="none of the 8 images of .* can be trained on"):
        make("y.safetensors", **options)


def test_a_loss_that_is_not_finite_stops_with_its_step(make, tmp_path, monkeypatch):
    real = generator_trainer.Matching.losses

    def broken(self, batch):
        return {"loss": real(self, batch)["loss"] * float("nan")}

    monkeypatch.setattr(generator_trainer.Matching, "losses", broken)
    with pytest.raises(TrainingError, match="the loss is nan at step 1"):
        make(method="matching", steps=2, batch_size=2)
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"box_threshold": 0.4}, "--box-threshold belongs to --affinity"),
        ({"method": "matching", "held_out": 0.1}, "hold no images out; leave --held-out"),
        ({"method": "classifier", "validate_every": 5}, "hold no images out; leave --held-out"),
        ({"method": "matching", "background": "sky", "begin": "random"}, "--background is of no use to"),
        ({"method": "matching", "generator": "timm:lcnet_035", "begin": "text"}, "--begin text reads the"),
        ({"method": "classifier", "steps": 0}, "--steps 0 leaves a classifier at random weights"),
        ({"method": "matching", "similarity": "cube"}, "--similarity 'cube' is not one of"),
        ({"background": "none"}, "5 images have one label only, such as 0.png, and the softmax needs"),
        ({"method": "matching", "fine_tune": True}, "the CLIP's own tower stays frozen"),
        ({"method": "classifier", "arch": "resnet18"}, "no network 'resnet18'; give timm:NAME"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant(make, options, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        make(**options)
    assert not (tmp_path / "x.safetensors").exists()


def test_one_label_only(make, tmp_path):
    (tmp_path / "one.tsv").write_text("0.png\tcow\n1.png\tcow\n")
    with pytest.raises(
        UsageError, match="has one label only, 'cow', so that a classifier has nothing"
    ):
        make(source=tmp_path / "one.tsv", method="classifier")
    with pytest.raises(UsageError, match="2 images have one label only"):
        make(source=tmp_path / "one.tsv", background="none")
    assert make(source=tmp_path / "one.tsv").maps == 2  # background words compete


def test_a_generator_of_other_classes_or_with_other_options(make, tmp_path):
    make(method="matching", steps=1, batch_size=2, save_generator=tmp_path / "g.safetensors")
    (tmp_path / "other.tsv").write_text("0.png\tcow,dog\n")
    trained = {"method": "matching", "generator": str(tmp_path / "g.safetensors")}
    with pytest.raises(
        MismatchError, match="has 3 classes and .*other.tsv.* has 2; they differ in"
    ):
        make("y.safetensors", source=tmp_path / "other.tsv", **trained)
    with pytest.raises(
        UsageError, match="--lr belongs to the training of a generator, and .* is trained already"
    ):
        make("y.safetensors", lr=0.1, **trained)
    with pytest.raises(InputError, match="no such file: .*gone.safetensors"):
        make("y.safetensors", method="matching", generator="gone.safetensors")


def test_nothing_is_written_over(make, tmp_path):
    make()
    with pytest.raises(OutputExistsError, match="x.safetensors exists"):
        make()
    assert make(dry_run=True, overwrite=True).is_plan
    (tmp_path / "y.png").touch()
    with pytest.raises(OutputExistsError, match="y.png exists"):
        make("y.safetensors", method="matching")


@pytest.mark.parametrize("method", ["matching", "classifier"])
def test_a_training_in_another_place_or_of_other_data_does_not_go_on(
    make, tmp_path, method, monkeypatch, source
):
    """The digest that guards --resume is that of all trainings: settings, data, threads, device."""
    options = {"method": method, "steps": 4, "batch_size": 2, "short_side": 64, "save_every": 1}
    if method == "classifier":
        options["arch"] = "timm:lcnet_035"
    real = label_batches.LabelBatches.__getitem__

    def cut(self, step):
        if step == 2:
            raise KeyboardInterrupt
        return real(self, step)

    monkeypatch.setattr(label_batches.LabelBatches, "__getitem__", cut)
    with pytest.raises(KeyboardInterrupt):
        make("cut.safetensors", **options)
    monkeypatch.setattr(label_batches.LabelBatches, "__getitem__", real)
    resume = {**options, "resume": True}
    other = tmp_path / "fewer.tsv"
    other.write_text("".join(source.read_text().splitlines(keepends=True)[:6]))
    with pytest.raises(MismatchError, match="with other data or settings"):
        make("cut.safetensors", **resume, source=other)
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    with pytest.raises(MismatchError, match="with other data or settings"):
        make("cut.safetensors", **resume)


@pytest.mark.parametrize("method", ["matching", "classifier"])
def test_out_of_memory_ends_in_one_line(make, method, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(label_batches.LabelBatches, "__getitem__", full)
    with pytest.raises(OvtoolError, match="out of memory while .*; give a smaller --batch-size"):
        make(method=method, steps=2, short_side=64, **({} if method == "matching" else
             {"arch": "timm:lcnet_035"}))  # fmt: skip


def test_where_settings_came_from_is_written(make, tmp_path):
    make(background="grass,water")
    settings = cams.read(tmp_path / "x.safetensors").settings
    assert settings["sentence"] == "a clean origami {}."  # the published one
    assert settings["origins"]["sentence"] == "default"
    assert settings["origins"]["background"] == "given"
