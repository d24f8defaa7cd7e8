"""The training of `photo`'s image tower and table of words on what its frozen stem sees.

Two steps. `train_head`: the tokens of single cells (`PatchEmbed`, last norm, projection) and the words. A word is
unit(mean of its classes' rows + delta), where delta is left out now and then, so that words without masks compete
with those that have them. `train_blocks`: class token, positions and blocks, whose residual branches begin at zero, on
the tokens of whole photographs. Both keep the mean of the weights over the last half of their steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import photo_data
import photo_stem
import torch
from photo_data import NAMES, Cells, Photograph
from photo_words import Row
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout, interpolate, normalize

from ovtool.models.photo import HybridVisionTransformer


@dataclass(frozen=True)
class Recipe:
    """How the head is trained.

    Attributes:
        steps, batch: the number of steps, and of cells in each.
        distillation: the weight of the classifier's answer at each cell.
        delta_dropout: how often a word with classes is its classes alone.
        input_dropout: of what the stem sees.
        seed: of the order and of dropout.
        masks: the weight of what the masks say; 0 for the twin that sees none.
    """

    steps: int = 600
    batch: int = 512
    distillation: float = 0.4
    delta_dropout: float = 0.25
    input_dropout: float = 0.2
    seed: int = 0
    masks: float = 1.0


@dataclass(frozen=True)
class BlocksRecipe:
    """How the blocks are trained: steps, photographs in each, the weight of the class token's loss, the seed,
    and the weight of what the masks say; 0 for the twin that sees none.
    """

    steps: int = 300
    batch: int = 6
    whole: float = 0.5
    seed: int = 0
    masks: float = 1.0


class Words(nn.Module):
    """The table while it is learned.

    Args:
        rows: the table; COCO's names are its first rows.
        classifier: the rows of the stem's classifier, (1000, 1280), and the basis of the space, (D, 1280).
    """

    has_classes: Tensor
    under: Tensor

    def __init__(self, rows: Sequence[Row], classifier: Tensor, basis: Tensor) -> None:
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
        self.delta = nn.Parameter(torch.randn(len(NAMES), len(basis)) * len(basis) ** -0.5 * 0.3)
        self.scale = nn.Parameter(torch.tensor(12.0).log())

    def names(self, delta_dropout: float = 0.0) -> Tensor:
        """The embeddings of COCO's names, (133, D), of length 1."""
        base = normalize(self.under_names @ normalize(self.classes, dim=1), dim=1)
        kept = torch.rand(len(base), 1) >= delta_dropout
        kept |= ~self.has_classes[: len(base), None]
        return normalize(base + self.delta * kept, dim=1)

    @torch.no_grad()
    def table(self) -> Tensor:
        """The embeddings of all rows, (R, D), of length 1."""
        base = normalize(self.under @ normalize(self.classes, dim=1), dim=1)
        base[: len(NAMES)] = self.names()
        return base


def basis_of(classifier: Tensor, dimensions: int) -> Tensor:
    """The first right singular vectors of the centred, normalised rows, (D, 1280)."""
    centred = normalize(classifier - classifier.mean(0), dim=1)
    return torch.linalg.svd(centred, full_matrices=False)[2][:dimensions]


def begin(tower: HybridVisionTransformer, cells: Cells, basis: Tensor) -> None:
    """Sets the tower to what the classifier knows: tokens in its space, branches of the blocks at zero."""
    embed = tower.patch_embed
    local = cells.local[:: max(1, len(cells.local) // 20_000)].float()
    deep = cells.deep[:: max(1, len(cells.deep) // 20_000)].float()
    with torch.no_grad():
        embed.mean.copy_(local.mean(0))
        embed.deviation.copy_(local.std(0) + 1e-3)
        embed.deep.weight.copy_(basis / (deep @ basis.T).std())
        embed.local.weight.normal_(std=0.02)
        embed.mixed.weight.normal_(std=0.02)
        tower.proj.copy_(torch.eye(*tower.proj.shape))
        tower.class_embedding.zero_()
        tower.positional_embedding.zero_()
        for block in tower.transformer.resblocks:
            nn.init.zeros_(block.attn.out_proj.weight)
            nn.init.zeros_(block.mlp.c_proj.weight)
            nn.init.zeros_(block.mlp.c_proj.bias)


def tokens_of(tower: HybridVisionTransformer, deep: Tensor, local: Tensor) -> Tensor:
    """Tokens of cells, (N, 1280) and (N, 472) to (N, width)."""
    tokens: Tensor = tower.patch_embed(deep.T[None, :, :, None], local.T[None, :, :, None])[0]
    return tokens


def answer(tower: HybridVisionTransformer, tokens: Tensor) -> Tensor:
    """Tokens after the blocks, (..., width), in the space of words, of length 1."""
    return normalize(tower.ln_post(tokens) @ tower.proj, dim=-1)


def train_head(
    tower: HybridVisionTransformer,
    words: Words,
    cells: Cells,
    classifier: tuple[Tensor, Tensor],
    recipe: Recipe,
) -> None:
    """Trains the patch embedding, the last norm, the projection and the words, in place."""
    torch.manual_seed(recipe.seed)
    embed = tower.patch_embed
    head = [*embed.parameters(), *tower.ln_post.parameters(), tower.proj]
    groups = [
        {"params": head, "lr": 1e-3, "weight_decay": 0.1},
        {"params": [words.classes], "lr": 2e-4, "weight_decay": 0.0},
        {"params": [words.delta], "lr": 4e-3, "weight_decay": 0.01},
        {"params": [words.scale], "lr": 1e-3, "weight_decay": 0.0},
    ]
    parameters = [*head, *words.parameters()]
    optimizer, mean = torch.optim.AdamW(groups, betas=(0.9, 0.98)), _Mean(parameters)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in groups], total_steps=recipe.steps, pct_start=0.1
    )
    rows, bias = classifier
    for step in range(recipe.steps):
        drawn = torch.multinomial(cells.weights, recipe.batch, replacement=True)
        deep, local = cells.deep[drawn].float(), cells.local[drawn].float()
        with torch.no_grad():
            taught = (deep @ rows.T + bias).softmax(1)
        local = embed.mean + dropout(local - embed.mean, recipe.input_dropout)
        features = answer(tower, dropout(tokens_of(tower, dropout(deep, 0.1), local), 0.1))
        scale = words.scale.exp()
        named = cross_entropy(
            scale * features @ words.names(recipe.delta_dropout).T,
            cells.shares[drawn],
            label_smoothing=0.02,
        )
        classes = scale * features @ normalize(words.classes, dim=1).T
        loss = recipe.masks * named + recipe.distillation * cross_entropy(classes, taught)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step >= recipe.steps // 2:
            mean.add()
        if step % 50 == 0:
            print(
                f"head {step}: {named.item():.3f} {loss.item():.3f} x{scale.item():.1f}", flush=True
            )
    mean.take()


@dataclass(frozen=True)
class TokenView:
    """A view of a photograph as the blocks learn from it.

    Attributes:
        tokens: (h, w, width), from the trained head.
        shares: of the names in each cell, (h, w, 133).
        weights: (h, w), 0 for cells without labels.
        taught: the classifier's answer to the whole view, (1000,).
    """

    tokens: Tensor
    shares: Tensor
    weights: Tensor
    taught: Tensor


@torch.no_grad()
def token_view(
    tower: HybridVisionTransformer,
    photograph: Photograph,
    cache: Path,
    side: int,
    is_mirrored: bool,
    classifier: tuple[Tensor, Tensor],
) -> TokenView:
    """A view of a photograph whose features are cached."""
    cells, rows, bias = photo_data.view(photograph, cache, side, is_mirrored), *classifier
    taught = (cells.deep.float().mean(0) @ rows.T + bias).softmax(0)
    tokens = tokens_of(tower, cells.deep.float(), cells.local.float())
    shape = photo_stem.grid(cache, photograph.path, side, is_mirrored)
    grids = (part.unflatten(0, shape) for part in (tokens, cells.shares, cells.weights))
    return TokenView(*grids, taught)


def train_blocks(
    tower: HybridVisionTransformer, words: Words, views: Sequence[TokenView], recipe: BlocksRecipe
) -> None:
    """Trains the class token, the positions and the blocks, in place; head and words stay."""
    torch.manual_seed(recipe.seed)
    positions = [tower.class_embedding, tower.positional_embedding]
    blocks = list(tower.transformer.parameters())
    groups = [
        {"params": positions, "lr": 3e-4, "weight_decay": 0.0},
        {"params": blocks, "lr": 5e-4, "weight_decay": 0.2},
    ]
    optimizer, mean = torch.optim.AdamW(groups, betas=(0.9, 0.98)), _Mean([*positions, *blocks])
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in groups], total_steps=recipe.steps, pct_start=0.1
    )
    names, classes = words.names().detach(), normalize(words.classes, dim=1).detach()
    scale = words.scale.exp().detach()
    for step in range(recipe.steps):
        optimizer.zero_grad()
        sums = torch.zeros(2)
        for index in torch.randint(len(views), (recipe.batch,)).tolist():
            crop = _crop(views[index])
            pooled, cells = read(tower, dropout(crop.tokens, 0.1))
            known = crop.weights.flatten() > 0
            patches = _balanced(
                scale * cells.flatten(0, 1)[known] @ names.T, crop.shares.flatten(0, 1)[known]
            )
            whole = _whole(scale * pooled @ names.T, crop)
            whole = recipe.masks * whole + 0.4 * cross_entropy(
                scale * pooled @ classes.T, crop.taught
            )
            ((recipe.masks * patches + recipe.whole * whole) / recipe.batch).backward()
            sums += torch.tensor([patches.item(), whole.item()]) / recipe.batch
        optimizer.step()
        schedule.step()
        if step >= recipe.steps // 2:
            mean.add()
        if step % 25 == 0:
            print(f"blocks {step}: {sums[0]:.3f} {sums[1]:.3f}", flush=True)
    mean.take()


def read(tower: HybridVisionTransformer, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The class token and the cells of one view in the space of words: (h, w, width) to (D,), (h, w, D)."""
    height, width = tokens.shape[:2]
    places = tower.positional_embedding[1:].unflatten(0, tower.grid_size).permute(2, 0, 1)[None]
    resized = interpolate(
        places, (height, width), mode="bicubic", antialias=True, align_corners=False
    )
    placed = tokens.flatten(0, 1) + resized[0].flatten(1).T
    first = (tower.class_embedding + tower.positional_embedding[0])[None]
    out = answer(tower, tower.transformer(torch.cat([first, placed])[None])[0])
    return out[0], out[1:].unflatten(0, (height, width))


def _crop(view: TokenView) -> TokenView:
    """A random part of a view, from half of each side to all of it."""
    height, width = view.tokens.shape[:2]
    h, w = (
        max(8, int(side * (0.5 + 0.5 * torch.rand(()).sqrt().item()))) for side in (height, width)
    )
    top, left = (int(torch.randint(n, ())) for n in (max(1, height - h + 1), max(1, width - w + 1)))
    rows, columns = slice(top, top + h), slice(left, left + w)
    return TokenView(
        view.tokens[rows, columns],
        view.shares[rows, columns],
        view.weights[rows, columns],
        view.taught,
    )


def _balanced(logits: Tensor, shares: Tensor) -> Tensor:
    """Cross entropy over cells, in which a name that is n times as frequent weighs n^.5 times as much."""
    weights = (shares / shares.sum(0).clamp(min=1).sqrt()).sum(1)
    losses = cross_entropy(logits, shares, reduction="none")
    return (losses * weights).sum() / weights.sum().clamp(min=1e-6)


def _whole(logits: Tensor, crop: TokenView) -> Tensor:
    """Cross entropy of the class token with the names that are there, the square root of their areas as weights."""
    area = (crop.shares * crop.weights[..., None]).mean((0, 1))
    present = area.sqrt() * (area > 0.002)
    return cross_entropy(logits, present / present.sum().clamp(min=1e-6))


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
