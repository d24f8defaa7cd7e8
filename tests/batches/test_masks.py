"""What a proposer learns from: targets of a COCO file, augmentation, order, and the rows of many ranks."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ovtool.batches import masks as examples
from ovtool.batches.loader import Loader
from ovtool.errors import InputError
from ovtool.formats import coco, rle
from ovtool.training import augmentation

HEIGHT, WIDTH = 40, 60


@pytest.fixture
def dataset(tmp_path):
    """Four images; the first has two masks of one category and one of another, the last none."""
    images, annotations = [], []
    random = np.random.default_rng(0)
    for number in range(1, 5):
        name = f"{number}.png"
        Image.fromarray(random.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / name)
        images.append(coco.Image(number, name, WIDTH, HEIGHT))
    for image, category, columns, crowd in (
        (1, 7, slice(0, 10), 0),
        (1, 7, slice(30, 40), 0),
        (1, 9, slice(40, 60), 0),
        (2, 9, slice(0, 30), 0),
        (2, 7, slice(30, 60), 1),
        (3, 7, slice(10, 50), 0),
    ):
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[:, columns] = True
        made = coco.annotation(len(annotations) + 1, image, category, rle.encode(mask), None)
        annotations.append(replace(made, extra={"iscrowd": crowd} if crowd else {}))
    categories = [coco.Category(9, "dog"), coco.Category(7, "cat")]
    return coco.Dataset({}, images, annotations, categories)


def test_targets_are_one_mask_a_category_or_every_instance(dataset, tmp_path):
    whole = examples.truth_of(dataset, tmp_path, "categories", 0.0)
    assert whole.names == ("dog", "cat") and len(whole.images) == 3
    masks, labels = whole.targets(0)
    assert labels.tolist() == [0, 1]
    columns = np.flatnonzero(masks[1].all(0))
    assert columns.tolist() == [*range(10), *range(30, 40)] and masks[0].sum() == 20 * HEIGHT
    assert whole.targets(1)[1].tolist() == [0, 1]  # a crowd is part of its category
    single = examples.truth_of(dataset, tmp_path, "instances", 0.0)
    assert single.targets(0)[1].tolist() == [1, 1, 0] and single.targets(1)[1].tolist() == [0]


def test_held_out_images_are_not_learned_from(dataset, tmp_path):
    truth = examples.truth_of(dataset, tmp_path, held_out=0.3)
    assert len(truth.held_out) == 1 and len(truth.training) == 2
    assert sorted((*truth.held_out, *truth.training)) == [0, 1, 2]
    most = examples.truth_of(dataset, tmp_path, held_out=1.0)
    assert len(most.training) == 1  # something is left to learn from


def test_a_truth_without_masks(dataset, tmp_path):
    with pytest.raises(InputError, match="no image of the truth has a mask"):
        examples.truth_of(replace(dataset, annotations=[]), tmp_path)
    empty = coco.annotation(1, 1, 7, rle.encode(np.zeros((HEIGHT, WIDTH), bool)), None)
    with pytest.raises(InputError, match="has a mask"):
        examples.truth_of(replace(dataset, annotations=[empty]), tmp_path)


def test_a_image_of_another_size_or_none(dataset, tmp_path):
    truth = examples.truth_of(dataset, tmp_path, held_out=0.0)
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(tmp_path / "1.png")
    with pytest.raises(InputError, match="1.png has 60 x 41 pixels, and its masks 60 x 40"):
        truth.rgb(0)
    (tmp_path / "2.png").unlink()
    with pytest.raises(InputError, match="2.png"):
        truth.rgb(1)


def test_masks_stay_on_what_they_cover():
    """An image that is white where its mask is, however it is cut, scaled and mirrored."""
    rng = np.random.default_rng(0)
    masks = np.zeros((2, 90, 120), bool)
    masks[0, 20:60, 30:80] = True
    masks[1, :5, :5] = True
    rgb = np.where(masks[0][..., None], 255, 0).astype(np.uint8).repeat(3, -1)
    plain = pytest.MonkeyPatch()
    plain.setattr(augmentation, "jittered", lambda rng, rgb: rgb)
    shares, dropped = [], 0
    for _ in range(60):
        made = examples.augment(rng, rgb, masks, np.array([4, 6]), 64)
        assert made.rgb.shape == (64, 64, 3) and made.masks.shape[1:] == (64, 64)
        assert len(made.masks) == len(made.labels) and made.masks.any((1, 2)).all()
        dropped += 6 not in made.labels
        if 4 in made.labels:
            mask = made.masks[made.labels.tolist().index(4)]
            bright = made.rgb[..., 0] > 160
            shares.append((mask & bright).sum() / (mask | bright).sum())
            grey = (made.rgb == 128).all(-1)
            assert (mask & grey).sum() <= 0.1 * mask.sum() + 4
    plain.undo()
    assert min(shares) > 0.75 and np.mean(shares) > 0.93 and 0 < dropped < 60


def test_colours_move_within_bounds():
    rgb = np.full((4, 4, 3), (90, 120, 150), np.uint8)
    found = {
        tuple(augmentation.jittered(np.random.default_rng(seed), rgb)[0, 0]) for seed in range(200)
    }
    assert len(found) > 100 and (90, 120, 150) in found
    grey = np.full((2, 2, 3), 100, np.uint8)
    for seed in range(20):
        pixel = augmentation.jittered(np.random.default_rng(seed), grey)[0, 0].astype(int)
        assert np.ptp(pixel) <= 1  # grey stays grey under saturation and hue
        assert 0.5 * (100 - 32) - 1 <= pixel[0] <= 1.5 * 132 + 1


def test_every_image_comes_once_an_epoch_and_ranks_share_a_batch(dataset, tmp_path):
    truth = examples.truth_of(dataset, tmp_path, held_out=0.0)
    seen = []
    watched = replace(truth)
    object.__setattr__(watched, "rgb", lambda row: seen.append(row) or truth.rgb(row))
    example_of = examples.examples_of(watched, 5, 2, 32)
    for step in range(3):  # six rows are two epochs of three images
        for row in range(2):
            example_of(step, row)
    assert sorted(seen[:3]) == sorted(seen[3:]) == [0, 1, 2]
    plain = examples.examples_of(truth, 5, 2, 32)
    whole, first, second = (
        [examples.Batches(plain, rows)[step] for step in (4, 5)]
        for rows in (range(2), range(0, 1), range(1, 2))
    )
    for batch, a, b in zip(whole, first, second, strict=True):
        assert np.array_equal(batch.pixels, np.concatenate([a.pixels, b.pixels]))
        for mask, one in zip(batch.masks, (*a.masks, *b.masks), strict=True):
            assert np.array_equal(mask, one)
    other = examples.examples_of(truth, 6, 2, 32)(4, 0)
    assert not np.array_equal(other.rgb, whole[0].pixels[0])


def test_workers_change_nothing(dataset, tmp_path):
    truth = examples.truth_of(dataset, tmp_path, held_out=0.0)
    example_of = examples.examples_of(truth, 5, 2, 32)
    batches = examples.Batches(example_of, range(2))
    alone, helped = Loader(batches, 4), Loader(batches, 4, workers=2)
    for step in (1, 2, 3):
        one, other = alone(step), helped(step)
        assert np.array_equal(one.pixels, other.pixels)
