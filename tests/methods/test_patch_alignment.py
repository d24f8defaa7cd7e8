"""PACL's formulas against slow and obvious versions in float64, and its backward pass against one shot."""

import math

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy

from ovtool.errors import UsageError
from ovtool.methods import patch_alignment as pacl
from ovtool.methods.patch_alignment import Pooling, VisionEmbedder

D64 = {"dtype": torch.float64}


@pytest.fixture
def random():
    return torch.Generator().manual_seed(3)


@pytest.fixture
def batch(random):
    """Six images of 7 patches, and six texts, 5 wide; nothing has length 1."""
    patches = torch.randn(6, 7, 5, generator=random, **D64)
    return patches, 3 * torch.randn(6, 5, generator=random, **D64)


def slow_weights(patches, text, pooling):
    cosines = [float(cosine_similarity(patch, text, dim=0)) for patch in patches]
    if pooling.kind == "softmax":
        raised = [math.exp(pooling.scale * each) for each in cosines]
        return [each / sum(raised) for each in raised]
    spread = [(each - min(cosines)) / (max(cosines) - min(cosines)) for each in cosines]
    kept = [each if each >= 1 / len(spread) else 0.0 for each in spread]
    return [each / sum(kept) for each in kept]


def slow_compatibility(patches, texts, pooling):
    found = torch.empty(len(patches), len(texts), **D64)
    for i, image in enumerate(patches):
        for j, text in enumerate(texts):
            weights = slow_weights(image, text, pooling)
            pooled = sum(weight * patch for weight, patch in zip(weights, image, strict=True))
            found[i, j] = cosine_similarity(pooled, text, dim=0)
    return found


def slow_info_nce(scores, scale):
    target = torch.arange(len(scores))
    return (cross_entropy(scale * scores, target) + cross_entropy(scale * scores.T, target)) / 2


def test_the_embedder_has_the_paper_s_parameters():
    assert sum(one.numel() for one in VisionEmbedder(768, 512).parameters()) == 1_050_112
    assert sum(one.numel() for one in VisionEmbedder(1024, 768).parameters()) == 2_164_992


def test_the_embedder_is_a_branch_and_a_skip(random):
    embedder = VisionEmbedder(4, 3).double()
    x = torch.randn(2, 5, 4, generator=random, **D64)
    branch = embedder.second(embedder.first(x).clamp(min=0))
    assert torch.equal(embedder(x), branch + embedder.skip(x))


def test_it_starts_at_a_projection(random):
    embedder = VisionEmbedder(4, 3)
    projection, x = torch.randn(4, 3, generator=random), torch.randn(6, 4, generator=random)
    embedder.start_at(projection)
    assert torch.allclose(embedder(x), x @ projection, atol=1e-6)
    embedder(x).square().sum().backward()  # and the branch can move away from zero
    assert embedder.second.weight.grad.abs().max() > 0
    same = VisionEmbedder(4, 4)
    same.start_at(None)
    assert torch.allclose(same(x), x, atol=1e-6)
    for wrong, wide in ((torch.zeros(3, 4), 3), (None, 3)):
        with pytest.raises(ValueError, match=r"not \(4, 3\)"):
            VisionEmbedder(4, wide).start_at(wrong)


@pytest.mark.parametrize(
    "pooling", [Pooling(1.0), Pooling(10.0), Pooling(0.0), Pooling(kind="sparse")]
)
def test_weights_are_those_of_the_formula(batch, pooling):
    patches, texts = batch
    found = pacl.patch_weights(patches, texts, pooling)
    expected = [slow_weights(p, t, pooling) for p, t in zip(patches, texts, strict=True)]
    assert torch.allclose(found, torch.tensor(expected, **D64), atol=1e-12)
    assert torch.allclose(found.sum(1), torch.ones(6, **D64))


def test_sparse_weights_of_patches_all_alike_are_even():
    found = pacl.patch_weights(torch.ones(1, 4, 3), torch.ones(1, 3), Pooling(kind="sparse"))
    assert torch.equal(found, torch.full((1, 4), 0.25))


@pytest.mark.parametrize("pooling", [Pooling(1.0), Pooling(25.0), Pooling(kind="sparse")])
@pytest.mark.parametrize("patches_of", [3, 7])  # below and above the width: with and without Gram
def test_every_image_is_pooled_for_every_text(batch, pooling, patches_of):
    patches, texts = batch[0][:, :patches_of], batch[1][:4]
    found = pacl.compatibility(patches, texts, pooling)
    assert torch.allclose(found, slow_compatibility(patches, texts, pooling), atol=1e-12)


def test_own_captions_leak_into_their_images(batch):
    patches, texts = batch
    pooling = Pooling(10.0)
    own = pacl.own_caption_compatibility(patches, texts, texts, pooling)
    every = pacl.compatibility(patches, texts, pooling)
    assert torch.allclose(own.diagonal(), every.diagonal())  # a pair's own text is the same in both
    for i in range(6):
        weights = slow_weights(patches[i], texts[i], pooling)
        pooled = sum(weight * patch for weight, patch in zip(weights, patches[i], strict=True))
        assert torch.allclose(own[i], cosine_similarity(pooled[None], texts), atol=1e-12)
    assert (own - every).abs().max() > 0.05


def test_patches_that_are_zero_do_no_harm():
    patches = torch.zeros(1, 3, 4, requires_grad=True)
    found = pacl.compatibility(patches, torch.ones(2, 4), Pooling())
    found.sum().backward()
    assert found.isfinite().all() and patches.grad.isfinite().all()


def test_naming_asks_each_patch_for_one_of_its_image_s_nouns(batch, random):
    patches, nouns = batch
    owned = torch.tensor([[1, 0, 0, 1, 0, 0]] * 3 + [[0, 0, 0, 0, 0, 0]] + [[0, 1, 0, 0, 0, 0]] * 2)
    patches.requires_grad_()
    found = pacl.naming(patches, nouns, owned, 7.0)
    for i, image in enumerate(patches.detach()):
        surprises = []
        for patch in image:
            raised = [math.exp(7 * float(cosine_similarity(patch, noun, dim=0))) for noun in nouns]
            own = sum(each for each, is_own in zip(raised, owned[i], strict=True) if is_own)
            surprises.append(-math.log(own / sum(raised)) if owned[i].any() else 0.0)
        assert float(found[i]) == pytest.approx(sum(surprises) / len(surprises))
    found.sum().backward()
    assert patches.grad.isfinite().all() and not patches.grad[3].any()  # nothing is said of it
    assert pacl.naming(patches, nouns, torch.ones(6, 6), 7.0).abs().max() < 1e-9


def test_the_loss_is_a_cross_entropy_both_ways(random):
    scores = torch.rand(5, 5, generator=random, **D64)
    loss, _ = pacl.loss_and_gradient(7 * scores, torch.eye(5, **D64))
    assert torch.allclose(loss, slow_info_nce(scores, 7.0))


def test_texts_of_several_images_share_their_target(random):
    scores = torch.rand(4, 3, generator=random, **D64)
    owned = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]], **D64)
    rows = (4 * scores).log_softmax(1)
    columns = (4 * scores).log_softmax(0)
    by_row = -((rows[0, 0] + rows[0, 1]) / 2 + rows[1, 1] + rows[2, 2]) / 3  # one image has none
    by_column = -(columns[0, 0] + (columns[0, 1] + columns[1, 1]) / 2 + columns[2, 2]) / 3
    loss, _ = pacl.loss_and_gradient(4 * scores, owned)
    assert torch.allclose(loss, (by_row + by_column) / 2)


@pytest.mark.parametrize("is_owned", [False, True])
def test_the_gradient_is_autograd_s(random, is_owned):
    logits = torch.randn(5, 4 if is_owned else 5, generator=random, **D64).requires_grad_()
    owned = torch.eye(*logits.shape, **D64)
    if is_owned:
        owned[4, 1] = owned[0, 3] = 1
    loss, gradient = pacl.loss_and_gradient(logits, owned)
    (expected,) = torch.autograd.grad(loss, logits)
    assert torch.allclose(gradient, expected, atol=1e-15)
    assert loss > 0 and gradient.abs().max() > 0.01


def one_shot(embedder, tokens, texts, pooling, scale):
    embedder.zero_grad()
    scores = pacl.compatibility(embedder(tokens), texts, pooling)
    loss = slow_info_nce(scores, scale)
    loss.backward()
    return loss.detach(), [one.grad.clone() for one in embedder.parameters()]


def in_two_passes(embedder, tokens, texts, pooling, scale, slices):
    embedder.zero_grad()

    def loss_of(scores):
        loss, gradient = pacl.loss_and_gradient(scale * scores, torch.eye(len(scores)).to(scores))
        return loss, scale * gradient

    loss = pacl.two_pass(
        lambda chosen: pacl.compatibility(embedder(tokens[chosen]), texts, pooling), slices, loss_of
    )
    return loss, [one.grad.clone() for one in embedder.parameters()]


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float64, 1e-14), (torch.float32, 1e-6)], ids=str
)
@pytest.mark.parametrize("size", [1, 4, 11])
def test_two_passes_over_micro_batches_are_the_one_shot_step(random, dtype, tolerance, size):
    embedder = VisionEmbedder(6, 5).to(dtype)
    tokens = torch.randn(11, 4, 6, generator=random, dtype=dtype)
    texts = torch.randn(11, 5, generator=random, dtype=dtype)
    slices = [slice(start, start + size) for start in range(0, 11, size)]
    loss, expected = one_shot(embedder, tokens, texts, Pooling(10.0), 5.0)
    found, gradients = in_two_passes(embedder, tokens, texts, Pooling(10.0), 5.0, slices)
    assert torch.allclose(found, loss, atol=tolerance)
    for gradient, one in zip(gradients, expected, strict=True):
        assert torch.allclose(gradient, one, atol=tolerance * one.abs().max().clamp(min=1))
    assert expected[0].abs().max() > 1e-3


def test_ranks_that_hold_a_part_of_the_rows_find_the_whole_gradient(random):
    """Sums and maxima over the ranks, each rank with its own rows and all the texts."""
    logits = 30 * torch.randn(7, 7, generator=random, **D64)
    owned = torch.eye(7, **D64)
    loss, gradient = pacl.loss_and_gradient(logits, owned)
    shares = [slice(0, 3), slice(3, 7)]

    def reduce_for(calls):
        """What a collective would give: both ranks run in step, their calls in the same order."""
        return pacl.Reduce(
            lambda value: calls.append(value) or answers[len(calls) - 1][0],
            lambda value: calls.append(value) or answers[len(calls) - 1][1],
        )

    answers = [(torch.tensor(7.0, **D64),) * 2]
    for _ in range(4):  # the answer of the next collective needs both ranks' calls up to there
        seen = []
        for share in shares:
            calls = []
            try:
                pacl.loss_and_gradient(logits[share], owned[share], reduce_for(calls))
            except IndexError:
                pass
            seen.append(calls[len(answers)])
        answers.append((seen[0] + seen[1], torch.maximum(*seen)))
    for share in shares:
        found, part = pacl.loss_and_gradient(logits[share], owned[share], reduce_for([]))
        assert torch.allclose(found, loss, atol=1e-13)
        assert torch.allclose(part, gradient[share], atol=1e-13)


def test_slices_cover_the_batch_and_keep_within_the_bound():
    slices = list(pacl.chunks(10, 4, 5, elements=60))
    assert slices == [slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 10)]
    assert list(pacl.chunks(2, 100, 100, elements=10)) == [slice(0, 1), slice(1, 2)]


def test_the_bound_is_at_most_log_k():
    assert pacl.information_bound(0.0, 8) == pytest.approx(math.log(8))
    assert pacl.information_bound(math.log(8), 8) == pytest.approx(0.0)


def test_what_cannot_be_meant():
    with pytest.raises(UsageError, match="unknown pooling 'mean'; choose from softmax, sparse"):
        Pooling(kind="mean")
    with pytest.raises(UsageError, match="a patch-softmax scale of -1; give 0 or more"):
        Pooling(-1)
