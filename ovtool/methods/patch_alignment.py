"""PACL: patches aligned with texts by a contrastive loss on captions alone (Mukhoti et al., CVPR 2023).

With p[t] the embeddings of an image's T patches as they leave the embedder, and y a text's embedding,

    s[t] = cos(p[t], y)          a = softmax over t of (scale * s)
    v = sum over t of a[t] p[t]  phi = cos(v, y)

(section 4; its figure shows no scale, which is scale 1). The weights of a pair (image i, text j) come from
text j, so a batch of B images and N texts has B x N pooled vectors. None of them is made: v.y is
sum a[t] (p[t].y), and |v|^2 is aT G a with G = P PT, the Gram matrix of the patches.

The loss is InfoNCE over phi in both directions; `scores` below are the phi of a batch, (B, N).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ovtool.errors import UsageError

KINDS = ("softmax", "sparse")
SCALE = 10.0
CHUNK_ELEMENTS = 1 << 23  # of (images, T, N) at once: 32 MiB of float32, of which a few are held
_TINY = 1e-12


class VisionEmbedder(nn.Module):
    """Patch tokens to the space of texts: two linear layers with ReLU between them, plus one linear
    layer beside them (appendix A.1). 768 to 512 wide it has 1,050,112 parameters.

    Takes and gives (..., in_width) and (..., out_width), floating; what leaves it has no fixed length.
    """

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.first = nn.Linear(in_width, out_width)
        self.second = nn.Linear(out_width, out_width)
        self.skip = nn.Linear(in_width, out_width)

    def forward(self, tokens: Tensor) -> Tensor:
        """first, ReLU, second; plus skip."""
        embedded: Tensor = self.second(torch.relu(self.first(tokens))) + self.skip(tokens)
        return embedded

    @torch.no_grad()
    def start_at(self, projection: Tensor | None) -> None:
        """Makes the embedder the tower's own projection (in_width, out_width), None for a tower without
        a projection: the skip takes it over, and the branch starts at zero. Training then starts at zero-shot
        CLIP.

        Raises ValueError for a projection of another shape, or none where the widths differ.
        """
        width, out = self.skip.in_features, self.skip.out_features
        if projection is None and width == out:
            projection = torch.eye(width)
        if projection is None or tuple(projection.shape) != (width, out):
            shape = None if projection is None else tuple(projection.shape)
            raise ValueError(f"a projection of {shape}, not {(width, out)}")
        self.skip.weight.copy_(projection.T)
        self.skip.bias.zero_()
        self.second.weight.zero_()
        self.second.bias.zero_()


@dataclass(frozen=True)
class Pooling:
    """How patches are weighed for a text.

    kind: `softmax` of scale * cosine (PACL), or `sparse`: cosines brought to 0..1 between the least and
    the greatest of the image, what is below 1/T dropped, the rest divided by its sum (SPARC, Bica et al.,
    2024), which has no scale.

    Raises UsageError for an unknown kind or a scale below zero.
    """

    scale: float = SCALE
    kind: str = "softmax"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"unknown pooling '{self.kind}'; choose from {', '.join(KINDS)}")
        if not self.scale >= 0:
            raise UsageError(f"a patch-softmax scale of {self.scale}; give 0 or more")


def weights_of_cosines(cosines: Tensor, pooling: Pooling, dim: int) -> Tensor:
    """The weights of patches along `dim` from their cosines; they sum to one."""
    if pooling.kind == "softmax":
        return (pooling.scale * cosines).softmax(dim)
    least, greatest = cosines.amin(dim, keepdim=True), cosines.amax(dim, keepdim=True)
    spread = (cosines - least) / (greatest - least).clamp(min=_TINY)
    kept = torch.where(spread < 1 / cosines.shape[dim], torch.zeros_like(spread), spread)
    total = kept.sum(dim, keepdim=True)
    even = torch.full_like(kept, 1 / cosines.shape[dim])  # all patches alike
    return torch.where(total > 0, kept / total.clamp(min=_TINY), even)


def patch_weights(patches: Tensor, text: Tensor, pooling: Pooling) -> Tensor:
    """a(x, y): patches (..., T, D) and texts (..., D) of any length to weights (..., T) that sum to 1."""
    cosines = torch.einsum("...td,...d->...t", normalize(patches, dim=-1), normalize(text, dim=-1))
    return weights_of_cosines(cosines, pooling, -1)


def compatibility(patches: Tensor, texts: Tensor, pooling: Pooling) -> Tensor:
    """phi of every image with every text: patches (B, T, D), texts (N, D), of any length, to (B, N) in
    -1..1.

    Holds a few (B, T, N) at once: `chunks` says how many images fit.
    """
    unit = normalize(texts, dim=-1)
    dots = patches @ unit.T  # (B, T, N)
    lengths = patches.norm(dim=-1, keepdim=True).clamp(min=_TINY)
    weights = weights_of_cosines(dots / lengths, pooling, 1)
    along = (weights * dots).sum(1)  # v.y
    return along / _pooled_length(patches, weights)


def _pooled_length(patches: Tensor, weights: Tensor) -> Tensor:
    """|v| of every pair, (B, N): through the Gram matrix where an image has fewer patches than
    dimensions, else from v itself."""
    if patches.shape[1] < patches.shape[2]:
        gram = patches @ patches.mT  # (B, T, T)
        squared = (weights * (gram @ weights)).sum(1)
    else:
        squared = (patches.mT @ weights).square().sum(1)  # of (B, D, N)
    return squared.clamp(min=_TINY**2).sqrt()


def own_caption_compatibility(
    patches: Tensor, own: Tensor, texts: Tensor, pooling: Pooling
) -> Tensor:
    """phi as the public re-implementations have it: each image is pooled by its own text alone, and the
    pooled vector compared with every text. The text of the pair leaks into its image. patches (B, T, D),
    own (B, D), texts (N, D), to (B, N)."""
    weights = patch_weights(patches, own, pooling)  # (B, T)
    pooled = torch.einsum("bt,btd->bd", weights, patches)
    return normalize(pooled, dim=-1) @ normalize(texts, dim=-1).T


def naming(patches: Tensor, nouns: Tensor, owned: Tensor, scale: float | Tensor) -> Tensor:
    """How little each image's patches look like what is said of it, (B,) in nats: minus the logarithm of
    what a patch's softmax over all nouns, of scale * cosine, gives to the nouns of its image, mean over
    the patches; 0 for an image without nouns. It is the loss of learning from partial labels: each patch
    is one of these, but which is not known. Not of the paper, whose loss says little of patches that
    no text attends to.

    patches (B, T, D), nouns (K, D), of any length; owned (B, K), 1 where a noun belongs to an image.
    """
    has_nouns = owned.sum(1) > 0
    cosines = normalize(patches[has_nouns], dim=-1) @ normalize(nouns, dim=-1).T  # (b, T, K)
    logits = scale * cosines
    inside = logits.masked_fill(owned[has_nouns][:, None] == 0, -math.inf).logsumexp(-1)
    surprise = (logits.logsumexp(-1) - inside).mean(1)
    return surprise.new_zeros(len(has_nouns)).masked_scatter(has_nouns, surprise)


@dataclass(frozen=True)
class Reduce:
    """Sum and maximum of a tensor over the processes of a training, elementwise; alone, the tensor."""

    total: Callable[[Tensor], Tensor] = lambda value: value
    greatest: Callable[[Tensor], Tensor] = lambda value: value


ALONE = Reduce()


def loss_and_gradient(
    logits: Tensor, owned: Tensor, reduce: Reduce = ALONE
) -> tuple[Tensor, Tensor]:
    """Symmetric InfoNCE, the mean of a cross-entropy over the rows and of one over the columns, and, in
    closed form, its gradient with respect to the logits (b, N).

    owned: (b, N), 1 where a text belongs to an image and 0 elsewhere, a 1 in every column; the target of a
    row or column is spread evenly over its own, and a row without any has no part in the mean over the rows.

    The b rows are those of this process; the loss is that of all processes' rows, whose columns are the
    same texts. A column's log-sum-exp is put together from those of the processes, about the greatest
    logit, so that it is that of one process with all rows.
    """
    counted = (owned.sum(1, keepdim=True) > 0).to(logits)  # (b, 1)
    images = reduce.total(counted.sum())
    count = logits.shape[1]
    row_target = owned / owned.sum(1, keepdim=True).clamp(min=1)
    column_target = owned / reduce.total(owned.sum(0))
    rows = logits.logsumexp(1)
    peak = reduce.greatest(logits.detach().amax(0))
    columns = peak + reduce.total((logits - peak).exp().sum(0)).log()
    share = ((counted[:, 0] * rows).sum() - (row_target * logits).sum()) / images
    share = share - (column_target * logits).sum() / count
    loss = (reduce.total(share) + columns.mean()) / 2
    by_rows = (counted * (logits - rows[:, None]).exp() - row_target) / images
    by_columns = ((logits - columns).exp() - column_target) / count
    return loss, (by_rows + by_columns) / 2


def chunks(
    images: int, patches: int, texts: int, elements: int = CHUNK_ELEMENTS
) -> Iterator[slice]:
    """Slices of a batch's images whose (images, T, N) hold at most `elements`, or one image."""
    size = max(1, elements // max(1, patches * texts))
    return (slice(start, min(start + size, images)) for start in range(0, images, size))


def two_pass(
    scores_of: Callable[[slice], Tensor],
    slices: Sequence[slice],
    loss_of: Callable[[Tensor], tuple[Tensor, Tensor]],
) -> Tensor:
    """The backward pass of a loss over all pairs in memory that is linear in the number of images,
    the scores themselves aside: all scores without gradient, the gradient of the loss with respect to
    them, and then each slice again, back-propagated by itself.

    scores_of: the scores (b, N) of the images of a slice. loss_of: all scores (B, N) to the loss and its
    gradient with respect to them. Gradients are left where `scores_of` finds its parameters; returns the
    loss. It is the one-shot step exactly, but for the rounding of sums.
    """
    with torch.no_grad():
        scores = torch.cat([scores_of(images) for images in slices])
    loss, gradient = loss_of(scores)
    for images in slices:
        scores_of(images).backward(gradient[images])
    return loss


def information_bound(loss: float, candidates: int) -> float:
    """log k - L in nats: what an InfoNCE loss among k candidates proves of the mutual information of
    image and text (van den Oord et al., 2018, section 2.3); at most log k."""
    return math.log(candidates) - loss
