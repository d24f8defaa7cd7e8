"""What one image tower learns from several."""

import photo_student
import photo_tower
import pytest
import torch
import train_photo
from photo_data import NAMES, Cells
from photo_tower import Made, Recipe, Words
from photo_words import Row
from torch import Tensor

from ovtool.models import photo

TABLE = [*(Row((name,), (index,)) for index, name in enumerate(NAMES)), Row(("both",), (), (0, 2))]


def cells(count: int) -> Cells:
    """Random cells, whose shares are no numbers: whoever reads them learns nothing."""
    local = torch.randn(count, 3 * photo_tower.OWN)
    shares = torch.full((count, len(NAMES)), float("nan"))
    return Cells(torch.rand(count, 1280), local, shares, torch.full((count,), 1 / count))


def begun(seed: int, classifier: Tensor, seen: Cells) -> Made:
    torch.manual_seed(seed)
    tower = photo.from_config(train_photo.shape(TABLE)).visual
    assert isinstance(tower, photo.HybridVisionTransformer)
    basis = photo_tower.basis_of(classifier, tower.output_dim)
    words = Words(TABLE, classifier, basis, torch.ones(len(NAMES), dtype=torch.bool))
    photo_tower.begin(tower, seen, basis)
    return Made(tower, words)


@pytest.fixture(scope="module")
def world() -> tuple[Tensor, Cells]:
    torch.manual_seed(0)
    return torch.randn(1000, 1280), cells(64)


def test_a_row_between_others_is_their_mean(world):
    table = begun(1, *world).words.table()
    middle = table[0] + table[2]
    torch.testing.assert_close(table[-1], middle / middle.norm())


@torch.no_grad()
def test_the_mean_of_teachers_is_that_of_their_scaled_cosines(world):
    """Against one cell after another in float64."""
    classifier, seen = world
    teachers = [begun(seed, classifier, seen) for seed in (1, 2)]
    teachers[1].words.scale.fill_(2.0)
    named, classified = photo_student.means(teachers, seen.deep[:3], seen.local[:3])
    for cell in range(3):
        answers = []
        for teacher in teachers:
            tower, words = teacher.tower.double(), teacher.words.double()
            token = tower.patch_embed.tokens(seen.deep[cell].double(), seen.local[cell].double())
            feature = tower.ln_post(token) @ tower.proj
            cosines = words.table()[: len(NAMES)] @ (feature / feature.norm())
            classes = words.classes / words.classes.norm(dim=1, keepdim=True)
            scale = words.scale.exp()
            answers.append((scale * cosines, scale * (classes @ (feature / feature.norm()))))
            tower.float(), words.float()
        for found, parts in zip((named, classified), zip(*answers, strict=True), strict=True):
            expected = (sum(parts) / len(parts)).softmax(0)
            torch.testing.assert_close(found[cell].double(), expected, atol=1e-5, rtol=1e-4)


def test_a_student_comes_to_answer_as_its_teachers_do(world):
    classifier, seen = world
    teachers = [begun(seed, classifier, seen) for seed in (1, 2)]
    student = begun(3, classifier, seen)

    @torch.no_grad()
    def distance() -> float:
        ours, theirs = (
            photo_student.means(made, seen.deep, seen.local)[0] for made in ([student], teachers)
        )
        return float((theirs * (theirs / ours).log()).sum(1).mean())

    before = distance()
    recipe = Recipe(steps=30, batch=32, input_dropout=0, context_dropout=0, token_dropout=0)
    photo_student.distil(student.tower, student.words, teachers, seen, seen, recipe)
    assert distance() < before / 2
