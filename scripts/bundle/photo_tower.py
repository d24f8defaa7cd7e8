"""The training of `photo`'s image tower and table of words on what its frozen stem sees.

`train_head` learns the tokens of single cells (`PatchEmbed`, last norm, projection) and the words from masks. A word is
unit(mean of its classes' rows + delta), where delta is left out now and then, so that words without masks compete
with those that have them. It is short: twice as many steps know fewer of the rare words. `pool_things` sets the class
token, for which a hundred photographs are too few to learn it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from photo_data import NAMES, Captioned, Cells
from photo_words import Row
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout, normalize

from ovtool.models.efficientnet import LITE2
from ovtool.models.network import ResidualAttentionBlock
from ovtool.models.photo import HybridVisionTransformer

# of the class token's attention: times the cosine of a patch with what sets things apart
_SHARPNESS = 20.0
OWN = LITE2.local  # channels that are the cell's own; those of the means come after them
_CAPTIONED = 8  # photographs in a step


@dataclass(frozen=True)
class Recipe:
    """How the head is trained.

    Attributes:
        steps, batch: the number of steps, and of cells in each.
        distillation: the weight of the classifier's answer at each cell, with masks and without.
        delta_dropout: how often a word with classes is its classes alone.
        input_dropout, context_dropout: of what the stem sees in a cell, and of the means around it.
        token_dropout: of what follows the stem's last convolution, and of tokens.
        delta_rate: the learning rate of the words' deltas.
        seed: of the order and of dropout.
        masks: the weight of what the masks say; 0 for the twin that sees none.
        captions: the weight of which names captions say.
    """

    steps: int = 150
    batch: int = 384
    distillation: float = 0.4
    delta_dropout: float = 0.25
    input_dropout: float = 0.2
    context_dropout: float = 0.3
    token_dropout: float = 0.1
    delta_rate: float = 4e-3
    seed: int = 0
    masks: float = 1.0
    captions: float = 0.0


class Words(nn.Module):
    """The table while it is learned.

    Args:
        rows: the table; COCO's names are its first rows.
        classifier: the rows of the stem's classifier, (1000, 1280).
        basis: of the space, (D, 1280).
        has_masks: which of COCO's names have masks to learn from, bool (133,). A name that has classes and no masks is
            its classes: what it is not is all that could be learned.
    """

    has_classes: Tensor
    under: Tensor
    under_names: Tensor
    has_masks: Tensor

    def __init__(
        self, rows: Sequence[Row], classifier: Tensor, basis: Tensor, has_masks: Tensor
    ) -> None:
        super().__init__()
        centred = normalize(classifier - classifier.mean(0), dim=1)
        self.classes = nn.Parameter(normalize(centred @ basis.T, dim=1))
        under = torch.zeros(len(rows), len(classifier))
        for index, row in enumerate(rows):
            if row.classes:
                under[index, list(row.classes)] = 1 / len(row.classes)
        self.register_buffer("under", under.to_sparse_csr())
        self.register_buffer("under_names", under[: len(NAMES)])
        self.register_buffer("has_classes", under.sum(1) > 0)
        self.between = {index: row.between for index, row in enumerate(rows) if row.between}
        self.register_buffer("has_masks", has_masks)
        self.delta = nn.Parameter(torch.randn(len(NAMES), len(basis)) * len(basis) ** -0.5 * 0.3)
        self.scale = nn.Parameter(torch.tensor(12.0).log())

    def names(self, delta_dropout: float = 0.0) -> Tensor:
        """The embeddings of COCO's names, (133, D), of length 1."""
        base = normalize(self.under_names @ normalize(self.classes, dim=1), dim=1)
        kept = torch.rand(len(base), 1) >= delta_dropout
        kept &= self.has_masks[:, None]
        kept |= ~self.has_classes[: len(base), None]
        return normalize(base + self.delta * kept, dim=1)

    def classes_of(self, features: Tensor) -> Tensor:
        """The cosines of features, (N, D), of length 1, with the rows of the classes, (N, 1000)."""
        return features @ normalize(self.classes, dim=1).T

    @torch.no_grad()
    def table(self) -> Tensor:
        """The embeddings of all rows, (R, D), of length 1."""
        base = normalize(self.under @ normalize(self.classes, dim=1), dim=1)
        base[: len(NAMES)] = self.names()
        for index, rows in self.between.items():
            base[index] = normalize(base[list(rows)].mean(0), dim=0)
        return base


@dataclass(frozen=True)
class Made:
    """The image tower and its table after training."""

    tower: HybridVisionTransformer
    words: Words


def basis_of(classifier: Tensor, dimensions: int) -> Tensor:
    """The first right singular vectors of the centred, normalised rows, (D, 1280)."""
    centred = normalize(classifier - classifier.mean(0), dim=1)
    basis: Tensor = torch.linalg.svd(centred, full_matrices=False)[2]
    return basis[:dimensions]


def begin(tower: HybridVisionTransformer, cells: Cells, basis: Tensor) -> None:
    """Sets the tower to what the classifier knows: tokens in its space, no positions."""
    embed = tower.patch_embed
    local = cells.local[:: max(1, len(cells.local) // 20_000)].float()
    deep = cells.deep[:: max(1, len(cells.deep) // 20_000)].float()
    with torch.no_grad():
        embed.mean.copy_(local.mean(0))
        embed.deviation.copy_(local.std(0) + 1e-3)
        embed.deep.weight.copy_(basis / (deep @ basis.T).std())
        embed.local.weight.normal_(std=0.02)
        embed.local.weight[:, OWN:].zero_()
        embed.mixed.weight.normal_(std=0.02)
        tower.proj.copy_(torch.eye(*tower.proj.shape))
        tower.class_embedding.zero_()
        tower.positional_embedding.zero_()


def tokens_of(tower: HybridVisionTransformer, deep: Tensor, local: Tensor) -> Tensor:
    """Tokens of cells, (N, 1280) and (N, 472 (1 + K)) to (N, width)."""
    return tower.patch_embed.tokens(deep, local)


def answer(tower: HybridVisionTransformer, tokens: Tensor) -> Tensor:
    """Tokens after the blocks, (..., width), in the space of words, of length 1."""
    return normalize(tower.ln_post(tokens) @ tower.proj, dim=-1)


def train_head(
    tower: HybridVisionTransformer,
    words: Words,
    cells: Cells,
    others: Cells | None,
    captioned: Captioned | None,
    classifier: tuple[Tensor, Tensor],
    recipe: Recipe,
) -> None:
    """Trains the patch embedding, the last norm, the projection and the words, in place.

    A name that has no cell is no competitor of those that have some: it would only learn what it is not.

    Args:
        tower: begun by `begin`.
        words: the table.
        cells: with masks.
        others: of photographs of many classes, where the classifier alone is learned from; None for none.
        captioned: photographs whose captions are learned from; None for none.
        classifier: its rows and bias.
        recipe: the settings.
    """
    torch.manual_seed(recipe.seed)
    fitting = Fitting(tower, words, recipe)
    rows, bias = classifier
    has_cells = cells.shares.sum(0) > 0
    for step in range(recipe.steps):
        drawn = torch.multinomial(cells.weights, recipe.batch, replacement=True)
        deep, local = cells.deep[drawn].float(), cells.local[drawn].float()
        features = noisy(tower, deep, local, recipe=recipe)
        scale = words.scale.exp()
        names = words.names(recipe.delta_dropout)[has_cells]
        named = cross_entropy(scale * features @ names.T, cells.shares[drawn][:, has_cells])
        taught = (deep @ rows.T + bias).softmax(1)
        loss = recipe.masks * named
        loss += recipe.distillation * cross_entropy(scale * words.classes_of(features), taught)
        if others is not None:
            drawn = torch.multinomial(others.weights, recipe.batch, replacement=True)
            deep, local = others.deep[drawn].float(), others.local[drawn].float()
            taught = (deep @ rows.T + bias).softmax(1)
            features = noisy(tower, deep, local, recipe=recipe)
            loss += recipe.distillation * cross_entropy(scale * words.classes_of(features), taught)
        if captioned is not None:
            photographs = torch.randint(len(captioned.present), (_CAPTIONED,))
            deep, local = captioned.deep[photographs], captioned.local[photographs]
            flat = (part.flatten(0, 1).float() for part in (deep, local))
            patches = noisy(tower, *flat, recipe=recipe).unflatten(0, deep.shape[:2])
            present = captioned.present[photographs]
            loss += recipe.captions * _captions(patches, words.names(), present, scale)
        fitting.step(loss)
        if step % 50 == 0:
            print(
                f"head {step}: {named.item():.3f} {loss.item():.3f} x{scale.item():.1f}", flush=True
            )
    fitting.finish()


class Fitting:
    """The optimiser of patch embedding, last norm, projection and words, and their mean over the second half."""

    def __init__(self, tower: HybridVisionTransformer, words: Words, recipe: Recipe) -> None:
        head = [*tower.patch_embed.parameters(), *tower.ln_post.parameters(), tower.proj]
        groups = [
            _group(head, 1e-3, 0.1),
            _group([words.classes], 2e-4, 0.0),
            _group([words.delta], recipe.delta_rate, 0.01),
            _group([words.scale], 1e-3, 0.0),
        ]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            [group["lr"] for group in groups],
            total_steps=recipe.steps,
            pct_start=0.1,
        )
        self.mean = _Mean([*head, *words.parameters()])
        self.left, self.last_half = recipe.steps, recipe.steps - recipe.steps // 2

    def step(self, loss: Tensor) -> None:
        """One step down a loss."""
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
        if self.left <= self.last_half:
            self.mean.add()
        self.left -= 1

    def finish(self) -> None:
        """Leaves the mean of the parameters in their place."""
        self.mean.take()


def _group(parameters: Sequence[nn.Parameter], rate: float, decay: float) -> dict[str, Any]:
    return {"params": list(parameters), "lr": rate, "weight_decay": decay}


def noisy(tower: HybridVisionTransformer, deep: Tensor, local: Tensor, *, recipe: Recipe) -> Tensor:
    """Cells in the space of words, with dropout, (N, D)."""
    own, around = (local - tower.patch_embed.mean).tensor_split([OWN], dim=1)
    own, around = dropout(own, recipe.input_dropout), dropout(around, recipe.context_dropout)
    local = tower.patch_embed.mean + torch.cat([own, around], dim=1)
    tokens = tokens_of(tower, dropout(deep, recipe.token_dropout), local)
    return answer(tower, dropout(tokens, recipe.token_dropout))


def _captions(patches: Tensor, names: Tensor, present: Tensor, scale: Tensor) -> Tensor:
    """Cross entropy of photographs with the names that their captions have.

    A photograph's evidence for a name is the mean of its patches' cosines, weighted by their softmax.

    Args:
        patches: (B, P, D), of length 1.
        names: (K, D), of length 1.
        present: float32 (B, K), summing to 1.
        scale: of cosines.
    """
    cosines = patches @ names.T
    evidence = ((scale * cosines).softmax(1) * cosines).sum(1)
    return cross_entropy(scale * evidence, present)


def pool_things(tower: HybridVisionTransformer, names: Tensor, things: int) -> None:
    """Makes the class token a mean of the patches, weighted by how much more each is a thing than stuff, in place.

    The last block does it, and all other branches are zero, so that patches pass the blocks as they are: each takes
    a thirtieth of that mean with it, which the class token, itself 0 before, needs to have anything.

    Args:
        tower: whose patches are trained.
        names: the embeddings of words, (K, D), things first.
        things: how many of them are things.
    """
    *others, last = cast(Sequence[ResidualAttentionBlock], tower.transformer.resblocks)
    width, heads = tower.transformer.width, last.attn.num_heads
    direction = normalize(names[:things].mean(0) - names[things:].mean(0), dim=0)
    key = tower.ln_post.weight * (tower.proj @ direction)
    with torch.no_grad():
        for block in (*others, last):
            for branch in (block.attn.out_proj, block.mlp[2]):
                assert isinstance(branch, nn.Linear)
                nn.init.zeros_(branch.weight)
                nn.init.zeros_(branch.bias)
        weight, bias = torch.zeros(3, heads, width // heads, width), torch.zeros(3, width)
        # a query that is the same for all, and a key that is one number, in the first channel of each head
        bias[0].view(heads, -1)[:, 0] = (width // heads) ** 0.5
        weight[1, :, 0] = _SHARPNESS * key / width**0.5
        weight[2] = torch.eye(width).view(heads, -1, width)
        last.attn.in_proj_weight.copy_(weight.flatten(0, 2))
        last.attn.in_proj_bias.copy_(bias.flatten())
        last.attn.out_proj.weight.copy_(torch.eye(width) / 30)


class _Mean:
    """The mean of parameters over steps."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = parameters
        self.sums = [torch.zeros_like(parameter) for parameter in parameters]
        self.count = 0

    @torch.no_grad()
    def add(self) -> None:
        for total, parameter in zip(self.sums, self.parameters, strict=True):
            total += parameter
        self.count += 1

    @torch.no_grad()
    def take(self) -> None:
        for total, parameter in zip(self.sums, self.parameters, strict=True):
            parameter.copy_(total / self.count)
