"""Class maps made block by block against the whole map at once."""

import pytest
import torch
from torch.nn.functional import interpolate

from ovtool.methods import class_maps, windows

SIZE = (37, 29)


def whole_map(scores, owner, size):
    """Labels and probabilities by the straight way: class maximum, upsampling, softmax, argmax."""
    classes = max(owner) + 1
    best = torch.stack(
        [scores[[i for i, o in enumerate(owner) if o == c]].amax(0) for c in range(classes)]
    )
    up = interpolate(best[None].double(), size=size, mode="bilinear", align_corners=False)[0]
    probability, label = up.softmax(0).max(0)
    return label, probability


def labelled(scores, owner, size, **options):
    best = class_maps.class_scores(scores, owner)
    rows = class_maps.upsampled(best, size)
    return class_maps.label_blocks(rows, size, len(best), **options)


@pytest.mark.parametrize("owner", [[0, 1, 2, 3, 4, 5], [0, 0, 1, 2, 2, 2], [2, 0, 1, 0, 3, 3]])
@pytest.mark.parametrize("block", [1, 300, 1 << 20])
def test_blocks_give_the_labels_of_the_whole(owner, block, monkeypatch):
    monkeypatch.setattr(class_maps, "MAX_BLOCK_ELEMENTS", block)
    scores = 5 * torch.randn(6, 7, 5, generator=torch.Generator().manual_seed(0))
    label, probability = whole_map(scores, owner, SIZE)
    got = labelled(scores, owner, SIZE)
    assert got.label.dtype == torch.int32
    assert torch.equal(got.label.long(), label)
    for c in range(max(owner) + 1):
        where = label == c
        assert got.pixels[c] == where.sum()
        mean = probability[where].mean() if where.any() else torch.tensor(0.0)
        torch.testing.assert_close(got.mean_probability[c], mean.double(), rtol=1e-5, atol=1e-6)


def test_background_competes_and_is_dropped_and_so_is_doubt():
    scores = 2 * torch.randn(4, 6, 6, generator=torch.Generator().manual_seed(1))
    label, probability = whole_map(scores, [0, 1, 2, 3], SIZE)
    got = labelled(scores, [0, 1, 2, 3], SIZE, keep=2, min_score=0.5)
    expected = torch.where((label < 2) & (probability >= 0.5), label, -1)
    assert {-1, 0, 1} == set(expected.flatten().tolist())
    assert torch.equal(got.label.long(), expected)
    assert got.pixels.tolist() == [(expected == 0).sum(), (expected == 1).sum()]
    assert len(got.mean_probability) == 2


def test_probability_blocks_are_the_softmax():
    scores = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(2))
    up = interpolate(scores[None], size=SIZE, mode="bilinear", align_corners=False)[0]
    rows = class_maps.upsampled(scores, SIZE)
    blocks = [p for _, _, p in class_maps.probability_blocks(rows, SIZE, 3)]
    torch.testing.assert_close(torch.cat(blocks, dim=1), up.softmax(0), rtol=1e-5, atol=1e-5)


def test_rows_of_windows_and_dense_rows_are_reduced_alike_and_left_untouched():
    pixels = torch.randn(1, 3, 24, 40, generator=torch.Generator().manual_seed(3))
    (image,) = windows.score_windows(pixels, 16, 8, lambda x: x[:, :, ::4, ::4])
    dense = image.rows(0, 24)
    before = dense.clone()
    from_windows = class_maps.label_blocks(image.rows, (24, 40), 3)
    from_dense = class_maps.label_blocks(lambda a, b: dense[:, a:b], (24, 40), 3)
    assert torch.equal(from_windows.label, from_dense.label)
    assert torch.equal(dense, before)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_class_scores_take_the_best_name_along_any_dimension(dim):
    scores = torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(4))
    got = class_maps.class_scores(scores, [1, 0, 1, 2], dim=dim).movedim(dim, 0)
    moved = scores.movedim(dim, 0)
    expected = torch.stack([moved[1], torch.maximum(moved[0], moved[2]), moved[3]])
    assert torch.equal(got, expected)


def test_pixels_in_doubt_have_no_label():
    random = torch.Generator().manual_seed(5)
    logits = 3 * torch.randn(4, 9, 11, generator=random)
    share = logits.double().softmax(0)
    doubt = -(share * share.log()).sum(0)
    torch.testing.assert_close(class_maps.entropy(logits).double(), doubt, rtol=0, atol=1e-5)
    plain = class_maps.label_blocks(lambda a, b: logits[:, a:b], (9, 11), 4)
    found = class_maps.label_blocks(lambda a, b: logits[:, a:b], (9, 11), 4, max_entropy=0.7)
    assert 0.2 < (doubt > 0.7).double().mean() < 0.8
    expected = torch.where(doubt > 0.7, -1, plain.label)
    assert torch.equal(found.label.long(), expected.long())
    assert found.pixels.sum() == (doubt <= 0.7).sum()
    # probabilities of exactly 0 and 1 are in no doubt
    sure = torch.tensor([1e4, -1e4])[:, None, None].expand(2, 3, 3)
    assert class_maps.entropy(sure).abs().max() == 0
    kept = class_maps.label_blocks(lambda a, b: sure[:, a:b], (3, 3), 2, max_entropy=0.0)
    assert (kept.label == 0).all()


def test_the_mean_of_views():
    first, second = torch.randn(2, 3, 8, 6).unbind()
    views = [lambda a, b: first[:, a:b], class_maps.mirrored(lambda a, b: second[:, a:b])]
    expected = (first + second.flip(2)) / 2
    torch.testing.assert_close(class_maps.mean_of(views)(2, 5), expected[:, 2:5])
    assert class_maps.mean_of(views[:1]) is views[0]


@pytest.mark.parametrize("target", [(37, 29), (80, 31), (11, 64)])
def test_rows_are_brought_to_another_size_as_the_whole_is(target):
    scores = torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(0))
    rows = class_maps.resized(lambda start, stop: scores[:, start:stop], SIZE, target)
    expected = interpolate(scores[None], size=target, mode="bilinear")[0]
    torch.testing.assert_close(rows(0, target[0]), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(rows(5, 9), expected[:, 5:9], atol=1e-4, rtol=1e-4)


def test_each_class_is_raised_by_its_gain():
    scores = torch.randn(2, 4, 3)
    rows = class_maps.raised(lambda start, stop: scores[:, start:stop], torch.tensor([0.0, 2.5]))
    assert torch.equal(rows(1, 3)[0], scores[0, 1:3])
    assert torch.equal(rows(1, 3)[1], scores[1, 1:3] + 2.5)
