"""The hybrid CLIP for photographs at a tiny size and random weights: every stage runs on it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch.nn.functional import normalize

from ovtool.cli.errors import run
from ovtool.errors import ModelError, UsageError
from ovtool.formats import coco, rle, tensors
from ovtool.methods.mask_prompts import MaskPrompts
from ovtool.models import build, masked_tower, maskformer, photo, segmenter, text, timm_backbone
from ovtool.models import clip as clips

WORDS = ["cat", "kitten", "dog", "grass", "sky", "apple", "couch", "sofa", "mouse", "mice"]
ROWS = [0, 0, 1, 2, 3, 4, 5, 5, 6, 6]
CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {
        "image_size": 64,
        "patch_size": 16,
        "width": 32,
        "head_width": 8,
        "layers": 2,
        "mlp_ratio": 2.0,
        "hidden": 12,
        "context": [3, 5],
        "stem": {
            "widths": [4, 6, 8, 8, 10, 12, 14],
            "depths": [1, 2, 1, 1, 1, 2, 1],
            "first": 4,
            "last": 20,
        },
    },
    "text_cfg": {"context_length": 40, "width": 16, "heads": 2, "layers": 1, "table": 7},
}


def sub_words(path):
    """A tokenizer of a few sub-words, its start and end of text last; the number of its ids."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    alphabet = list("abcdefghijklmnopqrstuvwxyz.,")
    trainer = trainers.BpeTrainer(
        vocab_size=60, special_tokens=["<pad>", "<unk>"], initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator([f"a photo of a {word}." for word in WORDS], trainer)
    tokenizer.add_special_tokens(["<start>", "<end>"])
    tokenizer.save(str(path))
    return tokenizer.get_vocab_size()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The three files of a model at random weights."""
    folder = tmp_path_factory.mktemp("model")
    size = sub_words(folder / "small.tokenizer.json")
    config = {**CONFIG, "text_cfg": {**CONFIG["text_cfg"], "vocab_size": size}}
    preprocess = {"mean": [127 / 255] * 3, "std": [128 / 255] * 3}
    described = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "small.json").write_text(json.dumps(described))
    torch.manual_seed(0)
    network = photo.from_config(config)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
            elif value.is_floating_point() and value.ndim == 1:
                value.add_(0.2 * torch.randn_like(value))
        network.word_table.copy_(normalize(network.word_table, dim=-1))
    settings = {"words": WORDS, "rows": ROWS, "stuff": ["grass", "sky"]}
    settings["dense"] = {"last_block": "clip", "short_side": 64}
    state = {
        name: value.half() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    network.load_state_dict(state)
    header = {"kind": "clip", "model": "small", "settings": settings}
    header["fingerprint"] = build.fingerprint(network)
    tensors.save(folder / "small.safetensors", state, header)
    return folder / "small.safetensors"


@pytest.fixture(scope="module")
def clip(weights):
    return clips.load(str(weights))


def test_the_file_is_loaded_as_its_header_says(clip, weights):
    assert clip.fingerprint == tensors.read_header(weights)["fingerprint"]
    assert (clip.pooling, clip.patch_size, clip.image_size) == ("token", 16, 64)
    assert clip.default_last_block == "clip"
    assert clip.mean == pytest.approx((127 / 255,) * 3)


def test_images_of_the_trained_size_are_the_towers_own(clip, pixels):
    images = pixels(64, 64)
    expected = normalize(clip.model.encode_image(images), dim=-1)
    torch.testing.assert_close(clips.encode_images(clip, images), expected)
    assert clips.patch_features(clip, pixels(32, 96)).shape == (2, 2, 6, 24)


def test_patches_of_the_tower_as_it_is_are_its_tokens_projected(clip, pixels):
    images, visual = pixels(64, 64), clip.model.visual
    tokens = visual.embed_patches(images) + visual.positional_embedding[1:]
    first = (visual.class_embedding + visual.positional_embedding[0]).expand(2, 1, -1)
    x = visual.transformer(torch.cat([first, tokens], 1))[:, 1:]
    expected = normalize(visual.ln_post(x) @ visual.proj, dim=-1)
    torch.testing.assert_close(clips.patch_features(clip, images).flatten(1, 2), expected)


@torch.no_grad()
@pytest.mark.parametrize("height, width", [(1, 1), (2, 7), (6, 5)])
def test_what_is_around_a_patch_is_the_mean_of_the_places_that_are_there(clip, height, width):
    """A token against its formula, place by place, in float64; squares are cut at the edges."""
    embed = clip.model.visual.patch_embed
    deep, local = torch.randn(2, 20, height, width), torch.randn(2, 24, height, width)
    tokens = embed(deep, local)
    weights = {name: value.double() for name, value in embed.state_dict().items()}
    for image, row, column in np.ndindex(2, height, width):
        parts = [local[image, :, row, column].double()]
        for reach in (1, 2):
            near = [
                local[image, :, y, x].double()
                for y in range(max(0, row - reach), min(height, row + reach + 1))
                for x in range(max(0, column - reach), min(width, column + reach + 1))
            ]
            parts.append(sum(near) / len(near))
        u = (torch.cat(parts) - weights["mean"]) / weights["deviation"]
        hidden = weights["hidden.weight"] @ u + weights["hidden.bias"]
        hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
        expected = weights["deep.weight"] @ deep[image, :, row, column].double()
        expected += weights["local.weight"] @ u + weights["mixed.weight"] @ hidden
        token = tokens[image, row * width + column].double()
        torch.testing.assert_close(token, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("context", [[2], [3, 4], [1]])
def test_squares_without_a_middle_are_refused(context):
    vision = {**CONFIG["vision_cfg"], "context": context}
    config = {**CONFIG, "vision_cfg": vision, "text_cfg": {**CONFIG["text_cfg"], "vocab_size": 60}}
    with pytest.raises(ValueError, match=r"not a list of odd sides"):
        photo.from_config(config)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_the_fast_way_of_masked_crops_is_the_plain_one(clip, pixels, depth):
    visual, foreground = clip.model.visual, torch.rand(2, 16) > 0.5
    values = torch.randn(depth, 16, 32)
    prompts = MaskPrompts(values, (4, 4)) if depth else None
    plain = masked_tower.embed_plain(visual, pixels(64, 64), foreground, prompts)
    fast = masked_tower.embed(visual, pixels(64, 64), foreground, prompts)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)


def test_the_stem_has_no_training_mode(clip):
    visual = clip.model.visual
    assert not any(module.training for module in visual.stem.modules())


@pytest.mark.parametrize(
    "sentence, word",
    [
        ("Cat", "cat"),
        ("the cats.", "cat"),
        ("a photo of a kitten.", "cat"),
        ("a bad photo of the sofa", "couch"),
        ("This is a photo of a small couch.", "sofa"),
        ("There is the mouse", None),
        ("mice", "mouse"),
        ("a photo of a large mouse.", "mouse"),
        ("a cat on a couch", None),
    ],
)
def test_words_of_the_table_come_out_exactly(clip, sentence, word):
    row = clip.table.row(sentence)
    assert row == (None if word is None else ROWS[WORDS.index(word)])
    if word is not None:
        expected = normalize(clip.model.word_table[row], dim=-1)
        assert torch.equal(text.encode_texts(clip, [sentence])[0], expected)


def test_templates_leave_words_of_the_table_as_they_are(clip):
    words = ["cat", "red cat", "sofa"]
    for templates in ("one", "vild"):
        embedded = text.embed_words(clip, words, templates, cache=False)
        exact = normalize(clip.model.word_table[[0, 5]], dim=-1)
        torch.testing.assert_close(embedded[[0, 2]], exact)
        assert abs(float(embedded[1] @ embedded[0])) < 0.99


@torch.no_grad()
def test_other_texts_are_read_by_the_tower(clip):
    sentences = ["a red cat", "zebra crossing", "cat", "two dogs and a mouse"]
    encoded = text.encode_texts(clip, sentences)
    tokens = clip.tokenizer(sentences, context_length=40)
    expected = normalize(clip.model.encode_text(tokens), dim=-1)
    torch.testing.assert_close(encoded[[0, 1, 3]], expected[[0, 1, 3]])
    assert not torch.allclose(encoded[2], expected[2], atol=1e-3)


def test_a_text_that_is_too_long_is_refused(clip):
    with pytest.raises(UsageError, match="is too long"):
        text.encode_texts(clip, ["zebra " * 20])
    assert text.encode_texts(clip, ["zebra " * 20], cut=True).shape == (1, 24)


def test_what_the_table_does_not_know_is_named_once(clip, caplog):
    text.warn_unlearned(clip, ["cats", "red quux", "Sofa"])
    (record,) = caplog.records
    assert "red quux" in record.getMessage() and "cats" not in record.getMessage()


def test_a_part_of_a_compound_is_no_word(caplog):
    photo = clips.load("photo")
    assert photo.table.row("garden truck") is not None and photo.table.row("garden") is None
    text.warn_unlearned(photo, ["garden", "wild garden", "brown bear", "wild dog", "garden truck"])
    (record,) = caplog.records
    assert "never learned: garden, wild garden; " in record.getMessage()


@torch.no_grad()
def test_a_kind_of_a_background_word_is_that_word(caplog):
    """Of a word that it never learned `photo` knows what WordNet says it is."""
    photo = clips.load("photo")
    assert "alley" not in photo.table.rows and "cyclist" not in photo.table.rows
    embedded = text.encode_texts(
        photo, ["alley", "road", "a photo of two cyclists", "Cyclists", "person"]
    )
    assert torch.equal(embedded[0], embedded[1]) and torch.equal(embedded[3], embedded[4])
    assert not torch.equal(embedded[2], embedded[4])  # a sentence is read by the tower
    assert photo.table.kind("cat") is None and photo.table.kind("object") is None
    text.warn_unlearned(photo, ["alley", "a cyclist", "cat"])
    (record,) = caplog.records
    assert "takes alley for road, a cyclist for person, which is all" in record.getMessage()


def test_what_photo_itself_says_of_words():
    """A plate is what ImageNet calls so, and no hockey puck; a rooster is a cock."""
    table = clips.load("photo").table
    same = [
        ("plate", "entree"),
        ("a plate", "main course"),
        ("rooster", "cock"),
    ]
    for word, meant in same:
        assert table.row(word) == table.rows[meant] != table.rows["hockey puck"]
    assert (table.kind("plate"), table.kind("rooster")) == (None, "cock")
    assert set(table.kinds.values()) <= table.rows.keys()
    assert not table.kinds.keys() & table.rows.keys()


@torch.no_grad()
def test_a_saucer_is_between_a_plate_and_a_cup():
    """ImageNet has no class of saucers, and a plate alone loses to the cup that stands on it."""
    saucer, plate, cup = text.encode_texts(clips.load("photo"), ["a saucer", "plate", "cup"])
    middle = torch.nn.functional.normalize(plate + cup, dim=0)
    torch.testing.assert_close(saucer, middle, atol=2e-3, rtol=0)
    assert plate @ cup < 0.9


def test_a_finer_patch_stride_is_refused(clip):
    assert clips.with_patch_stride(clip, 16).patch_stride == 16
    with pytest.raises(UsageError, match="--patch-stride 8 is finer than what small"):
        clips.with_patch_stride(clip, 8)


def test_files_that_do_not_belong_together_are_refused(weights, tmp_path):
    for file in weights.parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    described = json.loads((tmp_path / "small.json").read_text())
    described["model_cfg"]["vision_cfg"]["hidden"] = 13
    (tmp_path / "small.json").write_text(json.dumps(described))
    with pytest.raises(ModelError, match="not those of its configuration"):
        clips.load(str(tmp_path / "small.safetensors"))
    (tmp_path / "small.tokenizer.json").unlink()
    (tmp_path / "small.json").write_text((weights.parent / "small.json").read_text())
    with pytest.raises(ModelError, match="is no tokenizer that can be read"):
        text.encode_texts(clips.load(str(tmp_path / "small.safetensors")), ["zebra"])


# --- every stage ---------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """Four images of an apple or a cow, with captions, labels, and masks of both."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "images").mkdir()
    images, annotations, lines, captions = [], [], [], []
    for number in range(1, 5):
        rgb = np.full((64, 80, 3), 120, np.uint8)
        mask = np.zeros((64, 80), bool)
        mask[10:50, 5 * number : 5 * number + 40] = True
        rgb[mask] = (220, 20, 20) if number % 2 else (20, 20, 220)
        Image.fromarray(rgb).save(folder / "images" / f"{number}.png")
        images.append(coco.Image(number, f"{number}.png", 80, 64))
        for category, region in ((1 + number % 2, mask), (3, ~mask)):
            annotations.append(
                coco.annotation(len(annotations) + 1, number, category, rle.encode(region), 0.5)
            )
        name = ("cow", "apple")[number % 2]
        lines.append(f"{number}.png\t{name}\n")
        captions.append({"id": number, "image_id": number, "caption": f"a {name} on the grass"})
    categories = [coco.Category(id, name) for id, name in enumerate(("cow", "apple", "grass"), 1)]
    coco.write(coco.Dataset({}, images, annotations, categories), folder / "masks.json")
    (folder / "labels.tsv").write_text("".join(lines))
    listed = [vars_of(image) for image in images]
    (folder / "captions.json").write_text(json.dumps({"images": listed, "annotations": captions}))
    return folder


def vars_of(image):
    return {
        "id": image.id,
        "file_name": image.file_name,
        "height": image.height,
        "width": image.width,
    }


@pytest.fixture
def ovtool(desk, weights, monkeypatch):
    """A command on the desk with this model, which must succeed."""
    monkeypatch.chdir(desk)

    def command(line):
        arguments = [*line.split(), "--model", str(weights)]
        if "--dry-run" not in arguments and not line.startswith("probe"):
            arguments.append("--overwrite")
        assert run(arguments) == 0, line

    return command


@pytest.mark.parametrize(
    "method",
    [
        "patch",
        "patch --short-side 96 --window 64 --stride 32 --flip",
        "fused",
        "fused --proposer regions --scales 1,1.5",
        "two-stage --proposer regions",
        "two-stage --proposer regions --region-features both",
        "two-stage --proposer regions --background-tokens drop",
    ],
)
def test_segment(ovtool, method):
    ovtool(f"segment images --classes cow,apple --method {method} -o s.json --heatmaps heat")


@pytest.mark.parametrize("last_block", ["maskclip", "sclip", "clearclip", "naclip"])
def test_segment_with_other_last_blocks(ovtool, last_block):
    ovtool(f"segment images --classes cow,apple --method patch --last-block {last_block} -o s.json")


def test_segment_refuses_a_finer_patch_stride(desk, weights, monkeypatch, capsys):
    monkeypatch.chdir(desk)
    line = f"segment images --classes cow --patch-stride 8 -o s.json --overwrite --model {weights}"
    assert run(line.split()) == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith("error: --patch-stride 8 is finer than what small")


def test_regions_pairs_and_mask_prompts(ovtool):
    ovtool("propose images --proposer regions -o p.json")
    ovtool("mine-pairs --captions captions.json --images images --proposer regions -o pairs.json")
    for train in ("prompts", "tower", "tower-then-prompts"):
        ovtool(
            f"tune-prompts masks.json --images images --train {train} --steps 2 -o m.safetensors"
        )
        ovtool(
            "segment images --classes cow,apple --method two-stage --proposals p.json "
            "--prompts m.safetensors -o s.json"
        )


def test_train_pacl(ovtool):
    ovtool("train-pacl --captions captions.json --images images --steps 2 --nouns -o h.safetensors")
    ovtool("segment images --classes cow,apple --method patch --pacl h.safetensors -o s.json")


@pytest.mark.parametrize(
    "method", ["gradcam --affinity", "matching --steps 2", "classifier --steps 2", "pacl"]
)
def test_maps_background_prompts_and_refinement(ovtool, method):
    if method == "pacl":
        ovtool("train-pacl --captions captions.json --images images --steps 2 -o h.safetensors")
        method = "pacl --pacl h.safetensors"
    ovtool(f"cam --labels labels.tsv --images images --method {method} -o c.safetensors")
    ovtool(
        "tune-prompts c.safetensors --images images --kind background --steps 2 --length 4 "
        "-o b.safetensors"
    )
    ovtool(
        "refine c.safetensors --images images --apply prompts,affinity,crf --steps 2 "
        "--background-prompts b.safetensors -o pseudo.json"
    )


def test_trainings_on_its_patches(ovtool):
    ovtool(
        "train-segmenter masks.json --images images --arch clip --steps 2 --crop-size 64 "
        "-o s.safetensors"
    )


@pytest.mark.parametrize("name", ["alignment", "coherence", "oracle", "classify"])
def test_probes(ovtool, name):
    ovtool(
        f"probe {name} --coco masks.json --images images --proposer regions"
        if name == "oracle"
        else f"probe {name} --coco masks.json --images images"
    )


@torch.no_grad()
def test_the_stem_is_a_backbone_of_its_own(tmp_path, monkeypatch, caplog):
    """Its weights are those of the bundled file, and it takes what other backbones take."""
    monkeypatch.setattr(photo.sources, "bundled_folder", lambda: tmp_path)
    random = timm_backbone.Backbone(timm_backbone.name_of("photo"), 64)
    timm_backbone.say_start(random)
    assert not random.is_pretrained and "photo" in caplog.text
    state = {f"visual.stem.{name}": value for name, value in random.network.state_dict().items()}
    state["visual.stem.conv_head.weight"] = state["visual.stem.conv_head.weight"] + 0.01
    tensors.save(tmp_path / "photo.safetensors", state, {"kind": "clip"})
    backbone = timm_backbone.Backbone("photo", 64)
    assert backbone.is_pretrained and (backbone.divisor, backbone.width) == (16, 1280)
    rgb = torch.randint(0, 256, (1, 48, 64, 3), dtype=torch.uint8)
    seen = backbone(timm_backbone.normalise(rgb))
    expected = backbone.network((rgb.permute(0, 3, 1, 2).float() - 127) / 128)[0]
    assert seen.shape == (1, 1280, 3, 4)
    torch.testing.assert_close(seen, expected, rtol=1e-3, atol=1e-4)


def test_a_segmenter_begins_with_the_bundled_stem(tmp_path, monkeypatch):
    monkeypatch.setattr(photo.sources, "bundled_folder", lambda: tmp_path)
    network = segmenter.build("photo", 3)
    assert segmenter.start_backbone(network, "photo") is None
    state = photo.stem(pretrained=False).state_dict()
    named = {f"visual.stem.{name}": value for name, value in state.items()}
    tensors.save(tmp_path / "photo.safetensors", named, {"kind": "clip"})
    assert segmenter.start_backbone(network, "photo") == "photo.safetensors"
    begun = network.backbone.stem.state_dict()
    assert all(torch.equal(begun[name], value) for name, value in state.items())


def test_a_proposer_begins_with_the_bundled_stem(tmp_path, monkeypatch):
    monkeypatch.setattr(photo.sources, "bundled_folder", lambda: tmp_path)
    network = maskformer.MaskFormer(maskformer.configuration("photo", 4), 8)
    assert maskformer.start_backbone(network, "photo") is None
    state = photo.stem(pretrained=False).state_dict()
    named = {f"visual.stem.{name}": value for name, value in state.items()}
    tensors.save(tmp_path / "photo.safetensors", named, {"kind": "clip"})
    assert maskformer.start_backbone(network, "photo") == "photo.safetensors"
    encoder = network.model.pixel_level_module.encoder
    assert all(torch.equal(encoder.stem.state_dict()[name], value) for name, value in state.items())
    pixels = torch.rand(1, 3, 64, 96)
    maps = encoder(pixels).feature_maps
    assert [m.shape[1:] for m in maps] == [(24, 16, 24), (48, 8, 12), (472, 4, 6)]
    torch.testing.assert_close(maps[2], encoder.stem(photo.from_imagenet(pixels))[1])


def test_a_proposer_on_the_stem_is_trained_and_used(ovtool):
    ovtool(
        "train-proposer masks.json --images images --arch photo --steps 1 --batch-size 2 "
        "--crop-size 64 --queries 4 -o on_stem_proposer.safetensors"
    )
    assert run("propose images --proposer on_stem_proposer.safetensors -o found.json".split()) == 0


def test_a_segmenter_on_the_stem_is_trained_and_used(desk, monkeypatch):
    monkeypatch.chdir(desk)
    training = (
        "train-segmenter masks.json --images images --arch photo --steps 1 --batch-size 2 "
        "--crop-size 64 --short-side 64 -o on_stem.safetensors"
    )
    assert run(training.split()) == 0
    assert run("segment images --segmenter on_stem.safetensors -o on_stem.json".split()) == 0


def test_maps_of_a_classifier_on_the_stem(ovtool):
    ovtool(
        "cam --labels labels.tsv --images images --method classifier --arch photo --steps 1 "
        "--short-side 32 -o c.safetensors"
    )
    ovtool(
        "cam --labels labels.tsv --images images --method matching --generator photo --steps 1 "
        "--short-side 32 -o c.safetensors"
    )
