"""`segment --method two-stage` with a small CLIP at random weights, against slow versions of its steps."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from ovtool.errors import InputError, MismatchError, UsageError
from ovtool.formats import coco, label_maps, rle
from ovtool.formats import images as image_files
from ovtool.methods import mask_prompts, regions
from ovtool.methods.mask_prompts import MaskPrompts
from ovtool.models import clip as clips
from ovtool.models import masked_tower, region_clip, text
from ovtool.proposers import proposal_sources
from ovtool.proposers.proposal_sources import ProposalSource
from ovtool.proposers.proposals import Proposals
from ovtool.segmenters import two_stage

NAMES = ["cow", "bull", "teapot", "sky", "wall"]
OWNER = [0, 0, 1, 2, 3]
WORDS = {"classes": "cow|bull,teapot,sky", "background": "wall"}
NONE_LEFT = -1


@pytest.fixture(autouse=True)
def warn_again():
    two_stage._say_clip_alone.cache_clear()
    region_clip._say_resized.cache_clear()


@pytest.fixture
def go(photos, tmp_path, loads_small, segmenting):
    """Segments one image of 40 x 64; its label map, -1 for none, and the data set."""

    def segmented(name="o", **options):
        out = tmp_path / f"{name}.json"
        given = {**WORDS, "method": "two-stage", "proposer": "regions", **options}
        segmenting(photos / "a.png", out=out, label_maps=tmp_path / name, **given)
        return label_maps.read(tmp_path / name / "a.png"), coco.read(out)

    return segmented


def embeddings(clip, rgb, masks, prompts=None):
    """One crop after another through the plain tower: (N, D) of length 1."""
    found = []
    for mask in masks:
        crops = region_clip.crops(clip, rgb, torch.from_numpy(mask[None]), clip.image_size)
        with torch.no_grad():
            out = masked_tower.embed_plain(
                clip.model.visual, crops.pixels, crops.foreground, prompts
            )
        found.append(normalize(out, dim=1)[0])
    return torch.stack(found)


def per_class(cosines, owner):
    return np.stack([cosines[:, np.array(owner) == k].max(1) for k in sorted(set(owner))], 1)


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def slow(clip, vectors, masks, soft=None, own=None, weight=1.0):
    """Label and probability of each pixel: (H, W) and (H, W); the background is -1 too."""
    words = text.embed_words(clip, NAMES, cache=False)
    q = softmax(clip.logit_scale * per_class((vectors @ words.T).double().numpy(), OWNER))
    if own is not None:
        mine, nothing = (each.astype(np.float64) for each in own)
        cosines = per_class(mine @ words.double().numpy().T, OWNER)
        p = softmax(np.concatenate([cosines, (mine @ nothing)[:, None]], 1) / 0.01)[:, :-1]
        q = p ** (1 - weight) * q**weight
    total = np.einsum("nk,nhw->khw", q, masks if soft is None else soft)
    label, share = total.argmax(0), total.max(0) / np.maximum(total.sum(0), 1e-12)
    gone = (label == 3) | ~masks.any(0)
    return np.where(gone, NONE_LEFT, label), np.where(masks.any(0), share, 1.0)


def agree(found, expected):
    assert (found == expected).mean() > 0.995, (found == expected).mean()


def test_masks_are_named_one_by_one(go, photos, loads_small):
    rgb = image_files.read_rgb(photos / "a.png")
    masks = regions.propose_regions(rgb).masks()
    labels, dataset = go()
    expected, share = slow(loads_small, embeddings(loads_small, rgb, masks), masks)
    agree(labels, expected)
    for entry in dataset.annotations:
        inside = labels == entry.category_id - 1
        assert entry.score == pytest.approx(share[inside].mean(), abs=1e-3)
    settings = dataset.info["ovtool"]["settings"]
    assert settings["method"]["ensemble"] == 1.0 and settings["method"]["proposer"] == "regions"
    assert settings["method"]["short_side"] is None and settings["batch_size"] == 32


def test_words_come_from_the_clip_alone_and_that_is_said_once(go, monkeypatch):
    said = []
    monkeypatch.setattr(two_stage._logger, "warning", said.append)
    two_stage._say_clip_alone.cache_clear()
    go("a", ensemble=0.3)
    go("b")
    go("c", ensemble=1.0)
    said = [message for message in said if "embeddings" in message]
    assert said == [
        "these proposals have no embeddings: words come from the CLIP alone, as with --ensemble 1"
    ]


@pytest.fixture
def maskformer(photos, small, monkeypatch):
    """A proposer with soft masks and embeddings; the last of its masks is empty."""
    generator = torch.Generator().manual_seed(5)
    soft = torch.rand(4, 40, 64, generator=generator).numpy()
    soft[0, :, 30:], soft[3] = 0.1, 0.4
    soft[:3, 35:] = 0.2  # rows that no mask covers
    masks = soft > 0.5
    vectors = normalize(torch.randn(4, 24, generator=generator), dim=1).numpy()
    nothing = normalize(torch.randn(24, generator=generator), dim=0).numpy()
    found = Proposals.of(regions.from_masks(masks, np.ones(4, np.float32)), soft, vectors)
    source = ProposalSource(lambda item, rgb: found, "made-up", None, nothing)
    monkeypatch.setattr(proposal_sources, "from_proposer", lambda name, **_: source)
    return masks, soft, vectors, nothing


@pytest.mark.parametrize("weight", [0.0, 0.4, None, 1.0])
def test_two_probabilities_are_fused_and_soft_masks_summed(go, photos, small, maskformer, weight):
    masks, soft, vectors, nothing = maskformer
    rgb = image_files.read_rgb(photos / "a.png")
    seen = embeddings(small, rgb, masks[:3])
    expected, _ = slow(
        small, seen, masks[:3], soft[:3], (vectors[:3], nothing), 0.7 if weight is None else weight
    )
    labels, dataset = go(ensemble=weight, proposer="made-up.safetensors")
    agree(labels, expected)
    assert (labels[35:] == NONE_LEFT).all() and (labels[:35] != NONE_LEFT).any()
    assert dataset.info["ovtool"]["settings"]["method"]["ensemble"] == (
        weight if weight is not None else 0.7
    )


def test_a_image_is_summed_in_blocks(go, maskformer, monkeypatch):
    from ovtool.methods import class_maps

    whole, _ = go("whole")
    monkeypatch.setattr(class_maps, "MAX_BLOCK_ELEMENTS", 700)
    monkeypatch.setattr(two_stage, "MAX_MASK_PIXELS", 40 * 64)
    blocks, _ = go("blocks")
    assert (whole == blocks).all()


def proposals_file(tmp_path, masks, name="a.png"):
    image, category = coco.Image(1, name, 64, 40), coco.Category(1, "object")
    entries = [coco.annotation(n + 1, 1, 1, rle.encode(m), 1.0) for n, m in enumerate(masks)]
    coco.write(coco.Dataset({}, [image], entries, [category]), tmp_path / "proposals.json")
    return tmp_path / "proposals.json"


@pytest.mark.parametrize("count", [0, 1, 3])
def test_zero_one_and_more_masks_from_a_file(go, photos, small, tmp_path, count):
    random = np.random.default_rng(6)
    masks = random.random((3, 40, 64)) > 0.7
    masks[:, :, 50:] = False
    empty = np.zeros((1, 40, 64), bool)  # takes no part
    path = proposals_file(tmp_path, [*masks[:count], *empty])
    labels, dataset = go(proposals=path, background="none")
    assert (labels[:, 50:] == NONE_LEFT).all()
    assert (labels[masks[:count].any(0)] != NONE_LEFT).all()
    assert (labels[~masks[:count].any(0)] == NONE_LEFT).all()
    if count == 0:
        assert dataset.annotations == [] and len(dataset.images) == 1
    if count == 1:
        assert len(dataset.annotations) == 1


def test_an_image_without_proposals_has_no_words(go, tmp_path):
    labels, dataset = go(proposals=proposals_file(tmp_path, []))
    assert (labels == NONE_LEFT).all() and dataset.annotations == []


def test_prompts_of_a_file_are_used(go, photos, small, tmp_path):
    random = np.random.default_rng(7)
    masks = np.zeros((6, 40, 64), bool)
    for n, mask in enumerate(masks):  # thin and tilted, so that crops have blank patches
        rows = np.arange(40)
        mask[rows, (rows + 9 * n) % 64] = mask[rows, (rows + 9 * n + 1) % 64] = True
    path = proposals_file(tmp_path, masks)
    values = torch.from_numpy(random.standard_normal((2, 9, 32)).astype(np.float32))
    prompts = MaskPrompts(values, (3, 3))
    region_clip.save_prompts(tmp_path / "p.safetensors", small, prompts, None, {})
    rgb = image_files.read_rgb(photos / "a.png")
    bare, without = go("bare", proposals=path, prompts="none")
    tuned, dataset = go("tuned", proposals=path, prompts=str(tmp_path / "p.safetensors"))
    agree(bare, slow(small, embeddings(small, rgb, masks), masks)[0])
    agree(tuned, slow(small, embeddings(small, rgb, masks, prompts), masks)[0])
    digests = [d.info["ovtool"]["settings"]["method"]["prompts"] for d in (without, dataset)]
    assert digests == [None, two_stage.digest_of(tmp_path / "p.safetensors")]
    assert str(tmp_path) not in json.dumps(dataset.info)


def test_prompts_that_come_with_a_bundled_model_are_the_default(go, small, tmp_path, monkeypatch):
    monkeypatch.setattr(region_clip.sources, "bundled_folder", lambda: tmp_path)
    assert region_clip.bundled_prompts(small) is None
    made = MaskPrompts(torch.randn(1, 9, 32), (3, 3))
    region_clip.save_prompts(tmp_path / "small_prompts.safetensors", small, made, None, {})
    assert region_clip.bundled_prompts(small) == tmp_path / "small_prompts.safetensors"
    _, dataset = go("default")
    assert dataset.info["ovtool"]["settings"]["method"]["prompts"] is not None
    _, dataset = go("without", prompts="none")
    assert dataset.info["ovtool"]["settings"]["method"]["prompts"] is None


def test_prompts_of_another_model_or_grid(go, small, tmp_path, monkeypatch):
    path = tmp_path / "p.safetensors"
    made = mask_prompts.initial(1, (2, 2), 32, torch.Generator().manual_seed(0))
    region_clip.save_prompts(path, small, made, None, {})
    said = []
    monkeypatch.setattr(
        region_clip._logger, "warning", lambda text, *given: said.append(text % given)
    )
    go("a", prompts=str(path))
    assert sum("resized to 3 x 3" in message for message in said) == 1
    other = replace(small, fingerprint="0" * 16, name="other")
    region_clip.save_prompts(path, other, made, None, {})
    with pytest.raises(MismatchError, match="was made with other"):
        go("b", prompts=str(path))
    with pytest.raises(InputError, match="no such file"):
        go("c", prompts=str(tmp_path / "none.safetensors"))


def test_tokens_take_one_pass(go, photos, small):
    rgb = image_files.read_rgb(photos / "a.png")
    masks = regions.propose_regions(rgb).masks()
    vectors = region_clip.encode_region_tokens(small, rgb, masks, short_side=96)
    labels, dataset = go(region_features="tokens", short_side=96)
    agree(labels, slow(small, vectors, masks)[0])
    assert dataset.info["ovtool"]["settings"]["method"]["short_side"] == 96


def test_both_is_the_mean_of_crops_and_tokens_of_the_untuned_clip(go, photos, small, tmp_path):
    tower = copy.deepcopy(small.model.visual)
    with torch.no_grad():
        for weight in tower.parameters():
            weight += 0.05 * torch.randn_like(weight)
    path = tmp_path / "p.safetensors"
    region_clip.save_prompts(path, small, MaskPrompts(torch.randn(1, 9, 32), (3, 3)), tower, {})
    tuned, made = region_clip.with_prompts(small, path)
    rgb = image_files.read_rgb(photos / "a.png")
    masks = regions.propose_regions(rgb).masks()
    tokens = region_clip.encode_region_tokens(small, rgb, masks, short_side=96)
    crops = embeddings(tuned, rgb, masks, made)
    labels, _ = go(region_features="both", short_side=96, prompts=str(path))
    agree(labels, slow(small, (tokens + crops) / 2, masks)[0])


def test_blank_patches_left_out_leave_no_place_for_prompts(go, photos, small, tmp_path):
    rgb = image_files.read_rgb(photos / "a.png")
    masks = regions.propose_regions(rgb).masks()
    encode = region_clip.encoder(small, None, 32, drop_blank=True)
    vectors = region_clip.encode_regions(small, rgb, masks, encode=encode)
    labels, dataset = go(background_tokens="drop", prompts="none")
    agree(labels, slow(small, vectors, masks)[0])
    assert dataset.info["ovtool"]["settings"]["method"]["background_tokens"] == "drop"
    path = tmp_path / "p.safetensors"
    made = mask_prompts.initial(1, (3, 3), 32, torch.Generator().manual_seed(0))
    region_clip.save_prompts(path, small, made, None, {})
    with pytest.raises(UsageError, match="p.safetensors stand for tokens that --background-tokens"):
        go("refused", background_tokens="drop", prompts=str(path))


def test_pixels_of_no_mask_have_no_heat(go, tmp_path):
    mask = np.zeros((1, 40, 64), bool)
    mask[0, :, :20] = True
    go(proposals=proposals_file(tmp_path, mask), heatmaps=tmp_path / "heat")
    assert len(list((tmp_path / "heat").rglob("*.png"))) == 3


@pytest.mark.parametrize(
    "options, said",
    [
        ({"short_side": 64}, "--short-side is for --region-features tokens and both"),
        ({"ensemble": 1.5}, "--ensemble 1.5 is out of range; give 0 to 1"),
        ({"region_features": "pixels"}, "--region-features 'pixels' is not one of 'crops'"),
        ({"region_features": "tokens", "prompts": "p"}, "give --region-features crops"),
        ({"region_features": "tokens", "crop_size": 64}, "--crop-size belongs to"),
        ({"background_tokens": "blur"}, "--background-tokens 'blur' is not one of 'keep'"),
        ({"region_features": "tokens", "background_tokens": "drop"}, "--background-tokens belongs"),
        ({"crop_size": 50}, "--crop-size 50: small has patches of 16 pixels"),
        ({"proposer": "sma"}, "unknown proposer 'sma'; choose from regions"),
        ({"embeddings": "e.safetensors"}, "--embeddings go with the masks of --proposals"),
        ({"proposer": None, "proposals": "p", "max_proposals": 9}, "leave it out with --proposals"),
    ],
)
def test_what_cannot_be_meant(go, options, said):
    with pytest.raises(UsageError, match=said):
        go(**options)


def test_embeddings_that_are_not_there(go, tmp_path):
    path = proposals_file(tmp_path, np.ones((1, 40, 64), bool))
    with pytest.raises(InputError, match="no such file: .*e.safetensors"):
        go(proposals=path, embeddings=tmp_path / "e.safetensors")


def test_embeddings_of_a_file_are_fused(go, photos, small, tmp_path):
    from ovtool.formats import tensors

    random = np.random.default_rng(8)
    masks = random.random((3, 40, 64)) > 0.4
    path = proposals_file(tmp_path, masks)
    vectors = normalize(
        torch.from_numpy(random.standard_normal((3, 24)).astype(np.float32)), dim=1
    ).half()
    nothing = normalize(torch.ones(24), dim=0)
    header = {"kind": "proposals", "model": "small", "fingerprint": small.fingerprint}
    digest = coco.digest(coco.read(path))
    settings = {"annotations": 3, "proposals": digest, "temperature": 0.01}
    content = {"embeddings": vectors, "no_object": nothing}
    tensors.save(tmp_path / "e.safetensors", content, {**header, "settings": settings})
    labels, dataset = go(proposals=path, embeddings=tmp_path / "e.safetensors", ensemble=0.5)
    rgb = image_files.read_rgb(photos / "a.png")
    own = normalize(vectors.float(), dim=1).numpy(), nothing.numpy()
    agree(labels, slow(small, embeddings(small, rgb, masks), masks, None, own, 0.5)[0])
    settings = dataset.info["ovtool"]["settings"]["method"]
    assert settings["ensemble"] == 0.5 and len(settings["embeddings"]) == 16


def test_a_clip_without_a_class_token(go, small, monkeypatch):
    from dataclasses import replace

    pooled = replace(small, pooling="attention", name="pooled")
    monkeypatch.setattr(clips, "load", lambda *_: pooled)
    with pytest.raises(UsageError, match="--region-features tokens needs"):
        go(region_features="tokens")
