"""The dense CRF against an exact mean field, against its properties, and against pydensecrf."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from ovtool.datasets import collage_files
from ovtool.methods import dense_crf
from ovtool.methods.dense_crf import PRESETS, Preset

PHOTOS = ("astronaut", "coffee", "chelsea", "rocket", "retina", "hubble_deep_field", "moon")


def scene(seed, side=96):
    """A collage scene: uint8 (side, side, 3)."""
    spec = collage_files.CollageSpec("demo", 1, seed, side)
    return next(iter(collage_files.scenes(spec))).pixels.copy()


def smooth(labels, size, seed):
    """Probabilities of blobs, unsure at their borders: float32 (labels, H, W)."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(size=(labels, 5, 6)).astype(np.float32)
    fine = torch.nn.functional.interpolate(
        torch.from_numpy(coarse)[None], size=size, mode="bicubic"
    )[0]
    sharp = fine.clamp(min=0.02) ** 3
    return sharp / sharp.sum(0)


def exact(unary, image, preset):
    """The mean field with exact kernels over all pairs of pixels."""
    labels, height, width = unary.shape
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([column, row], -1).view(-1, 2).float()
    colour = image.view(-1, 3).float()
    features = (
        (place / preset.gaussian_sxy, preset.gaussian_weight),
        (
            torch.cat([place / preset.bilateral_sxy, colour / preset.bilateral_srgb], 1),
            preset.bilateral_weight,
        ),
    )
    total = torch.zeros(height * width, height * width)
    for points, weight in features:
        kernel = torch.exp(-0.5 * torch.cdist(points, points).square())
        root = kernel.sum(1).rsqrt()
        total += weight * root[:, None] * kernel * root
    energies = unary.flatten(1)
    q = (-energies).softmax(0)
    for _ in range(preset.iterations):
        q = (-energies + q @ total).softmax(0)
    return q.view(unary.shape)


@pytest.mark.parametrize("name", ["pydensecrf", "irn", "clip-es"])
def test_is_near_the_exact_mean_field(name):
    image = torch.from_numpy(scene(1, 48))  # `exact` holds all pairs of pixels
    unary = dense_crf.soft_unary(smooth(3, (48, 48), 0))
    ours = dense_crf.refine(unary, image, PRESETS[name])
    theirs = exact(unary, image, PRESETS[name])
    assert (ours.argmax(0) == theirs.argmax(0)).float().mean() >= 0.97
    assert (ours - theirs).abs().mean() < 0.015
    plain = (-unary).softmax(0)
    assert (plain - theirs).abs().mean() > 0.1  # the CRF does something here


def test_rows_sum_to_one_and_no_kernel_leaves_the_unary():
    unary = dense_crf.soft_unary(smooth(4, (20, 30), 1))
    image = torch.from_numpy(scene(2, 64)[:20, :30])
    q = dense_crf.refine(unary, image, PRESETS["clip-es"])
    torch.testing.assert_close(q.sum(0), torch.ones(20, 30))
    alone = dense_crf.refine(unary, image, Preset(3, 0, 80, 13, 0))
    torch.testing.assert_close(alone, (-unary).softmax(0))


def test_on_a_constant_image_the_bilateral_kernel_is_a_spatial_one():
    unary = dense_crf.soft_unary(smooth(2, (24, 24), 2))
    image = torch.full((24, 24, 3), 90, dtype=torch.uint8)
    bilateral = dense_crf.refine(unary, image, Preset(3, 0, 3, 13, 2))
    spatial = dense_crf.refine(unary, image, Preset(3, 2, 80, 13, 0))
    assert (bilateral - spatial).abs().max() < 0.1
    assert (spatial - (-unary).softmax(0)).abs().max() > 0.2


def test_the_order_of_labels_means_nothing():
    unary = dense_crf.soft_unary(smooth(4, (20, 30), 3))
    image = torch.from_numpy(scene(3, 64)[:20, :30])
    order = torch.tensor([2, 0, 3, 1])
    straight = dense_crf.refine(unary, image, PRESETS["irn"])
    torch.testing.assert_close(
        dense_crf.refine(unary[order], image, PRESETS["irn"]), straight[order], atol=1e-4, rtol=1e-3
    )


def test_energies_may_be_large():
    """A label that is as good as forbidden stays out, and the others are told apart."""
    unary = torch.tensor([0.0, 1.0, 1e4])[:, None, None].expand(3, 8, 8)
    q = dense_crf.refine(unary, torch.zeros(8, 8, 3, dtype=torch.uint8), Preset(3, 0, 80, 13, 0))
    torch.testing.assert_close(
        q[:, 0, 0], torch.tensor([math.e / (1 + math.e), 1 / (1 + math.e), 0])
    )


def test_one_label_has_everything():
    q = dense_crf.refine(
        torch.zeros(1, 5, 6), torch.zeros(5, 6, 3, dtype=torch.uint8), PRESETS["irn"]
    )
    assert torch.equal(q, torch.ones(1, 5, 6))


def test_unaries():
    p = torch.tensor([0.0, 0.25, 1.0])[:, None, None]
    wanted = torch.tensor([-math.log(1e-5), -math.log(0.25), 0.0])[:, None, None]
    torch.testing.assert_close(dense_crf.soft_unary(p), wanted)
    hard = dense_crf.hard_unary(torch.tensor([[1, 0]]), 3)
    low, high = -math.log(0.15), -math.log(0.7)
    torch.testing.assert_close(hard[:, 0], torch.tensor([[low, high], [high, low], [low, low]]))
    assert torch.equal(dense_crf.hard_unary(torch.zeros(2, 2).long(), 1), torch.zeros(1, 2, 2))


def test_presets_are_those_of_the_codes():
    table = {name: (p.gaussian_sxy, p.gaussian_weight, p.bilateral_sxy, p.bilateral_srgb,
                    p.bilateral_weight, p.unary) for name, p in PRESETS.items()}  # fmt: skip
    assert table["pydensecrf"] == (3, 3, 80, 13, 10, "soft")
    assert table["irn"] == (3, 3, 50, 5, 10, "hard")
    assert table["weaktr"] == (4, 3, 83, 5, 3, "hard")
    assert table["clip-es"] == (1, 3, 67, 3, 4, "soft")
    assert all(preset.iterations == 10 for preset in PRESETS.values())


@pytest.mark.parametrize(
    ("unary", "image", "words"),
    [
        (torch.zeros(2, 4, 5), torch.zeros(5, 4, 3, dtype=torch.uint8), "do not match"),
        (torch.zeros(2, 4, 5), torch.zeros(4, 5, 3), "do not match"),
        (torch.full((2, 4, 5), math.nan), torch.zeros(4, 5, 3, dtype=torch.uint8), "finite"),
    ],
)
def test_bad_input(unary, image, words):
    with pytest.raises(ValueError, match=words):
        dense_crf.refine(unary, image, PRESETS["irn"])


def peer(unary, image, preset):
    """The same by pydensecrf."""
    crf = pytest.importorskip("pydensecrf.densecrf", reason="the extra `peers` is not installed")
    labels, height, width = unary.shape
    field = crf.DenseCRF2D(width, height, labels)
    field.setUnaryEnergy(np.ascontiguousarray(unary.numpy().reshape(labels, -1)))
    field.addPairwiseGaussian(sxy=preset.gaussian_sxy, compat=preset.gaussian_weight)
    field.addPairwiseBilateral(
        sxy=preset.bilateral_sxy, srgb=preset.bilateral_srgb, rgbim=image.numpy(),
        compat=preset.bilateral_weight,
    )  # fmt: skip
    return torch.from_numpy(np.array(field.inference(preset.iterations))).view(unary.shape)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("labels", [2, 3, 6])
def test_agrees_with_pydensecrf(name, labels):
    image = torch.from_numpy(scene(labels))
    unary = dense_crf.soft_unary(smooth(labels, (96, 96), labels))
    theirs = peer(unary, image, PRESETS[name])
    ours = dense_crf.refine(unary, image, PRESETS[name])
    assert (ours.argmax(0) == theirs.argmax(0)).float().mean() >= 0.999
    assert (ours - theirs).abs().max() < 0.02


def pictures():
    """Twenty images of 500 x 375: photographs that scikit-image ships, and collage scenes."""
    from skimage import data

    for name in PHOTOS:
        photo = Image.fromarray(getattr(data, name)()).convert("RGB")
        yield np.array(photo.resize((500, 375)))
    for seed in range(20 - len(PHOTOS)):
        yield np.array(Image.fromarray(scene(100 + seed, 256)).resize((500, 375)))


@pytest.mark.slow
def test_agrees_with_pydensecrf_on_twenty_images():
    names = ("pydensecrf", "irn", "clip-es")
    for seed, rgb in enumerate(pictures()):
        image = torch.from_numpy(rgb)
        unary = dense_crf.soft_unary(smooth(3, (375, 500), seed))
        for name in names:
            theirs = peer(unary, image, PRESETS[name])
            ours = dense_crf.refine(unary, image, PRESETS[name])
            assert (ours.argmax(0) == theirs.argmax(0)).float().mean() >= 0.99, (seed, name)


@pytest.mark.parametrize("size", [(1, 5), (5, 1), (2, 40), (40, 3), (9, 30), (30, 9)])
def test_a_matrix_is_turned_however_many_rows_it_has(size):
    values = torch.randn(size)
    turned = dense_crf._turned(values)
    assert turned.is_contiguous() and torch.equal(turned, values.T)
