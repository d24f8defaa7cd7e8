"""The image tower of `photo` as the student of several trainings that began differently.

The mean of what such trainings answer is better than what each of them does, since a hundred photographs with masks
leave much to the beginning. `distil` has one tower answer as their mean does, at cells with masks and without, and
looks at no mask: it may be trained for longer than they are, and its dropout is half of theirs.
"""

from collections.abc import Sequence

import photo_tower
import torch
from photo_data import Cells
from photo_tower import Made, Recipe, Words
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ovtool.models.photo import HybridVisionTransformer

# longer than a training on masks, at half of its dropout
RECIPE = Recipe(
    steps=400, input_dropout=0.1, context_dropout=0.15, token_dropout=0.05, delta_rate=1e-3
)


@torch.no_grad()
def means(teachers: Sequence[Made], deep: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
    """The softmax of the mean of the teachers' scaled cosines with COCO's names, (N, 133), and with the classes,
    (N, 1000), at cells (N, 1280) and (N, 472 (1 + K)).
    """
    names, classes = [], []
    for teacher in teachers:
        tokens = photo_tower.tokens_of(teacher.tower, deep, local)
        features = photo_tower.answer(teacher.tower, tokens)
        scale = teacher.words.scale.exp()
        names.append(scale * features @ teacher.words.names().T)
        classes.append(scale * teacher.words.classes_of(features))
    return torch.stack(names).mean(0).softmax(1), torch.stack(classes).mean(0).softmax(1)


def distil(
    tower: HybridVisionTransformer,
    words: Words,
    teachers: Sequence[Made],
    cells: Cells,
    others: Cells,
    recipe: Recipe,
) -> None:
    """Trains the patch embedding, the last norm, the projection and the words, in place.

    Args:
        tower: begun by `photo_tower.begin`.
        words: the table; it begins as the mean of the teachers' tables.
        teachers: whose mean is learned.
        cells: of photographs with masks, which are not read; drawn by their weights.
        others: of photographs of many classes.
        recipe: the settings.
    """
    torch.manual_seed(recipe.seed)
    tables = [teacher.words for teacher in teachers]
    with torch.no_grad():
        words.classes.copy_(
            torch.stack([normalize(table.classes, dim=1) for table in tables]).mean(0)
        )
        words.delta.copy_(torch.stack([table.delta for table in tables]).mean(0))
        words.scale.copy_(tables[0].scale)
    fitting = photo_tower.Fitting(tower, words, recipe)
    for step in range(recipe.steps):
        own, other = (
            torch.multinomial(part.weights, recipe.batch, replacement=True)
            for part in (cells, others)
        )
        deep = torch.cat([cells.deep[own], others.deep[other]]).float()
        local = torch.cat([cells.local[own], others.local[other]]).float()
        named, classified = means(teachers, deep, local)
        features = photo_tower.noisy(tower, deep, local, recipe=recipe)
        scale = words.scale.exp()
        loss = cross_entropy(scale * features @ words.names().T, named)
        loss += recipe.distillation * cross_entropy(scale * words.classes_of(features), classified)
        fitting.step(loss)
        if step % 50 == 0:
            print(f"student {step}: {loss.item():.3f} x{scale.item():.1f}", flush=True)
    fitting.finish()
