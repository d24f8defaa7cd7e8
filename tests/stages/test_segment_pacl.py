"""`segment` with a PACL head, a finer grid, several views and a limit of entropy, against slow versions."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate, normalize

from ovtool.errors import InputError, MismatchError, UsageError
from ovtool.formats import coco, label_maps, tensors
from ovtool.formats import images as pictures
from ovtool.inputs import embedded_words
from ovtool.methods.patch_alignment import Pooling, VisionEmbedder
from ovtool.models import clip as clips
from ovtool.models import dense_scores, pacl, text
from ovtool.settings.segment import Patch

WORDS = ["cow", "apple", "train", "sky"]


@pytest.fixture
def head(small):
    torch.manual_seed(3)
    embedder = VisionEmbedder(32, 24).requires_grad_(False)
    return pacl.Head(embedder, Pooling(5.0), 12.5, {})


@pytest.fixture
def head_file(small, head, tmp_path):
    pacl.save(tmp_path / "head.safetensors", small, head)
    return str(tmp_path / "head.safetensors")


@pytest.fixture
def go(photos, tmp_path, loads_small, segmenting):
    """Segments a.png by four words; returns its labels, -1 for none, and what the file says."""

    def segmented(name="o", image="a.png", **options):
        given = {"classes": ",".join(WORDS), "background": "none", "method": "patch", **options}
        out, maps = tmp_path / f"{name}.json", tmp_path / f"{name}-maps"
        segmenting(photos / image, out=out, label_maps=maps, **given)
        labels = label_maps.read(next(maps.rglob("*.png")))
        return labels, coco.read(out).info["ovtool"]["settings"]["method"]

    return segmented


def slow_cosines(clip, head, rgb, side=None):
    """The cosine of each patch's embedding with each word: (N, h, w)."""
    pixels = dense_scores.prepare(clip, torch.from_numpy(rgb), side)
    found = normalize(head.embedder(clips.layer_tokens(clip, pixels, [-1])[0].float()), dim=-1)[0]
    words = text.embed_words(clip, WORDS, cache=False)
    return torch.stack([(found * word).sum(-1) for word in words])


def upsampled(scores, size):
    return interpolate(scores[None], size=size, mode="bilinear", align_corners=False)[0]


def test_a_head_names_the_patches(go, head, head_file, small, photos):
    rgb = pictures.read_rgb(photos / "a.png")
    labels, said = go(pacl=head_file)
    expected = upsampled(slow_cosines(small, head, rgb), rgb.shape[:2]).argmax(0)
    assert (labels == expected.numpy()).mean() > 0.999
    assert (labels != go("plain", pacl="none")[0]).mean() > 0.1
    assert said["pacl"] == head.fingerprint and said["logit_scale"] == 12.5
    assert said["last_block"] == "clip"
    assert go("own", pacl=head_file, logit_scale=3.0)[1]["logit_scale"] == 3.0


def test_the_bundled_head_is_taken_unless_a_last_block_is_named(go, head, head_file, monkeypatch):
    monkeypatch.setattr(pacl, "bundled", lambda clip: head_file)
    asked = go("asked", pacl=head_file)
    labels, said = go()
    assert said["pacl"] == head.fingerprint and np.array_equal(labels, asked[0])
    assert go("block", last_block="naclip")[1]["pacl"] is None
    assert go("none", pacl="none")[1]["pacl"] is None
    assert go("fused", method="fused")[1]["pacl"] is None
    assert go("given", method="fused", pacl=head_file)[1]["pacl"] == head.fingerprint
    assert "pacl" not in go("two", method="two-stage", proposer="regions")[1]


def test_fused_pools_the_scores_of_the_head(go, head_file):
    labels, said = go(method="fused", pacl=head_file)
    assert said["proposer"] == "regions" and (labels >= 0).all()
    assert (labels != go("plain", method="fused", pacl="none")[0]).any()


def test_windows_of_a_head_are_averaged(go, head, head_file, small, photos):
    rgb = pictures.read_rgb(photos / "a.png")
    labels, _ = go(pacl=head_file, short_side=32, window=32, stride=16)
    pixels = dense_scores.prepare(small, torch.from_numpy(rgb), 32)
    _, _, height, width = pixels.shape
    assert min(height, width) == 32 < max(height, width)
    total, count = torch.zeros(4, height, width), torch.zeros(height, width)
    words = text.embed_words(small, WORDS, cache=False)
    for top in range(0, height - 31, 16):
        for left in range(0, width - 31, 16):
            crop = pixels[:, :, top : top + 32, left : left + 32]
            found = pacl.patch_features(small, head, crop)[0]
            total[:, top : top + 32, left : left + 32] += upsampled(
                torch.einsum("hwd,nd->nhw", found, words), (32, 32)
            )
            count[top : top + 32, left : left + 32] += 1
    expected = upsampled(total / count, rgb.shape[:2]).argmax(0)
    assert (labels == expected.numpy()).mean() > 0.99


@pytest.mark.parametrize("with_head", [True, False])
def test_scales_and_mirror_images_are_averaged(go, head, head_file, small, photos, with_head):
    rgb = pictures.read_rgb(photos / "a.png")
    words = text.embed_words(small, WORDS, cache=False)

    def scores(shown, side):
        if with_head:
            return slow_cosines(small, head, shown, side)
        pixels = dense_scores.prepare(small, torch.from_numpy(shown), side)
        return torch.einsum("hwd,nd->nhw", clips.patch_features(small, pixels)[0], words)

    side = dense_scores.default_short_side(small)
    total = torch.zeros(4, *rgb.shape[:2])
    for scale in (0.5, 1.0):
        total += upsampled(scores(rgb, round(scale * side)), rgb.shape[:2])
        mirror = scores(rgb[:, ::-1].copy(), round(scale * side))
        total += upsampled(mirror, rgb.shape[:2]).flip(2)
    given = {"pacl": head_file if with_head else "none"}
    labels, said = go(scales=(0.5, 1), flip=True, **given)
    assert (labels == total.argmax(0).numpy()).mean() > 0.995
    assert (labels != go("once", **given)[0]).any()
    assert (said["scales"], said["flip"]) == ([0.5, 1.0], True)


def test_scales_that_cannot_be_meant():
    assert Patch().scales is None and Patch(scales=[0.75, 1]).scales == (0.75, 1.0)
    for wrong in (0, -1, float("nan"), float("inf"), 99, 10.1):
        with pytest.raises(UsageError, match="^--scales .* is out of range; give 0.1 to 10$"):
            Patch(scales=(1, wrong))
    with pytest.raises(UsageError, match="^--scales '1,0.5,1' names 1 twice; name each once$"):
        Patch(scales=(1, 0.5, 1.0))
    with pytest.raises(UsageError, match="^--scales is an empty list"):
        Patch(scales=())


def test_a_finer_grid_of_patches(go, head_file, head, small, photos):
    rgb = pictures.read_rgb(photos / "a.png")
    labels, said = go(pacl=head_file, patch_stride=8)
    fine = clips.with_patch_stride(small, 8)
    pixels = dense_scores.prepare(small, torch.from_numpy(rgb), None)
    found = pacl.patch_features(fine, head, pixels)[0]  # every 8 pixels, the first centre at 8
    assert found.shape[0] == (pixels.shape[2] - 16) // 8 + 1
    words = text.embed_words(small, WORDS, cache=False)
    scores = torch.einsum("hwd,nd->nhw", found, words)
    down, across = (
        ((torch.arange(n) + 0.5) * m / n - 8) / 8 for n, m in zip(rgb.shape, pixels.shape[2:], strict=False)
    )  # fmt: skip
    down, across = down.clamp(0, found.shape[0] - 1), across.clamp(0, found.shape[1] - 1)
    i, j = down.long().clamp(max=found.shape[0] - 2), across.long().clamp(max=found.shape[1] - 2)
    y, x = (down - i)[:, None], across - j

    def at(di, dj):
        return scores[:, i + di][:, :, j + dj]

    expected = (1 - y) * ((1 - x) * at(0, 0) + x * at(0, 1)) + y * (
        (1 - x) * at(1, 0) + x * at(1, 1)
    )
    assert (labels == expected.argmax(0).numpy()).mean() > 0.995
    assert said["patch_stride"] == 8
    assert (labels != go("plain", pacl=head_file)[0]).any()


@pytest.mark.parametrize("method, scale", [("patch", 9.0), ("fused", 60.0)])
def test_pixels_in_doubt_get_no_word(go, head_file, method, scale):
    given = {"pacl": head_file, "method": method, "logit_scale": scale}
    plain, _ = go(**given)
    shares = []
    for most in (0.3, 0.6, 0.9, 1.1, 1.2, 1.3, 1.38):
        labels, _ = go(f"cut{most}", max_entropy=most, **given)
        assert (labels[labels >= 0] == plain[labels >= 0]).all()
        shares.append((labels == -1).mean())
    assert shares == sorted(shares, reverse=True) and len(set(shares)) > 2


def test_a_limit_that_cuts_nothing_is_told(go, monkeypatch):
    said = []
    monkeypatch.setattr(
        embedded_words._logger, "warning", lambda text, *rest: said.append(text % rest)
    )
    go(max_entropy=1.3)
    assert said == []
    labels, _ = go("all", max_entropy=1.39)
    assert (labels >= 0).all()
    assert said == [
        "--max-entropy 1.39 leaves out no pixel: among 4 classes the entropy is at most ln 4 = 1.39"
    ]


@pytest.mark.parametrize("scale", [5.0, 0.5])
def test_heat_maps_show_the_patch_weights(go, head, small, photos, tmp_path, scale, monkeypatch):
    weighed = pacl.Head(head.embedder, Pooling(scale), 12.5, {})
    pacl.save(tmp_path / "w.safetensors", small, weighed)
    drawn = {}
    from ovtool.outputs import drawn_files

    monkeypatch.setattr(
        drawn_files.overlays, "heatmap", lambda rgb, heat: drawn.setdefault(len(drawn), heat) * 0 + rgb[..., 0]
    )  # fmt: skip
    monkeypatch.setattr(drawn_files.image_files, "write_png", lambda path, array: None)
    go(pacl=str(tmp_path / "w.safetensors"), heatmaps=tmp_path / "heat")
    rgb = pictures.read_rgb(photos / "a.png")
    weights = (scale * slow_cosines(small, weighed, rgb).flatten(1)).softmax(1)
    low, high = weights.amin(1, keepdim=True), weights.amax(1, keepdim=True)
    grid = slow_cosines(small, weighed, rgb).shape[1:]
    expected = upsampled(((weights - low) / (high - low)).unflatten(1, grid), rgb.shape[:2])
    assert len(drawn) == 4
    for k in range(4):
        assert np.abs(drawn[k] - expected[k].numpy()).max() < 2e-3
    go("without", pacl="none", heatmaps=tmp_path / "other")
    total = sum(drawn[k] for k in range(4, 8))
    assert np.abs(total - 1).max() < 1e-2  # probabilities


def test_an_image_smaller_than_a_patch(go, head_file, photos):
    Image.new("RGB", (5, 3), (200, 10, 10)).save(photos / "dot.png")
    labels, _ = go(image="dot.png", pacl=head_file, patch_stride=4, scales=(0.5, 1), flip=True)
    assert labels.shape == (3, 5) and (labels >= 0).all()


def test_what_cannot_be_meant_is_refused(go, head, head_file, small, tmp_path):
    with pytest.raises(
        InputError, match=r"no such file: gone; --pacl is a file of train-pacl, or none"
    ):
        go(pacl="gone")
    with pytest.raises(UsageError, match="--pacl reads the last block that it was trained on"):
        go(pacl=head_file, last_block="naclip")
    with pytest.raises(UsageError, match="--patch-stride 5 does not divide the patches of small"):
        go(patch_stride=5)
    header, content = tensors.load(tmp_path / "head.safetensors")
    foreign = tmp_path / "foreign.safetensors"
    tensors.save(foreign, content, {**header, "model": "other", "fingerprint": "0" * 16})
    with pytest.raises(MismatchError, match="was made with other"):
        go(pacl=str(foreign))
    assert not (tmp_path / "o.json").exists()
