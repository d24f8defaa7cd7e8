"""What a segmenter learns from: labels of files, augmentation, order, and the labels of a validation."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ovtool.batches import label_maps as label_map_batches
from ovtool.batches.readable import Check
from ovtool.errors import InputError, MismatchError, UsageError
from ovtool.formats import coco, label_maps

SIDE = 64


def test_what_no_mask_covers_is_ignored(pseudo, block_image):
    labels = label_map_batches.read(str(pseudo[0]), pseudo[1])
    assert labels.names == ("apple", "cow", "background") and labels.left_out == 0
    rgb, found = labels.example(2)
    _, true = block_image(3)
    assert rgb.shape == (SIDE, SIDE, 3)
    assert (found[-8:] == -1).all()
    assert np.array_equal(found[:-8], np.array([2, 0, 1])[true[:-8]])


def test_with_background_it_is_a_class(pseudo, tmp_path, block_image):
    labels = label_map_batches.read(str(pseudo[0]), pseudo[1], with_background=True)
    assert (labels.example(0)[1][-8:] == 2).all()
    dataset = coco.read(pseudo[0])
    kept = [one for one in dataset.annotations if one.category_id != 3]
    objects = replace(dataset, annotations=kept, categories=dataset.categories[:2])
    coco.write(objects, tmp_path / "objects.json")
    labels = label_map_batches.read(str(tmp_path / "objects.json"), pseudo[1], True)
    assert labels.names == ("background", "apple", "cow")
    expected = block_image(5)[1]
    expected[-8:] = 0
    assert np.array_equal(labels.example(4)[1], expected)


def test_label_maps_say_the_same(pseudo, block_maps, block_image):
    labels = label_map_batches.read(str(block_maps), pseudo[1])
    assert labels.names == ("background", "apple", "cow")
    expected = block_image(1)[1]
    expected[-8:] = -1
    assert np.array_equal(labels.example(0)[1], expected)


def test_images_in_which_all_is_ignored_are_left_out(pseudo, block_maps):
    label_maps.write(block_maps / "3.png", np.full((SIDE, SIDE), -1), 3)
    labels = label_map_batches.read(str(block_maps), pseudo[1])
    assert labels.left_out == 1 and "3" not in labels.keys and len(labels.images) == 7
    assert label_map_batches.read(str(block_maps), pseudo[1], with_background=True).left_out == 0


def test_bad_labels_are_one_line(pseudo, block_maps, tmp_path):
    read = label_map_batches.read
    dataset = coco.read(pseudo[0])
    coco.write(replace(dataset, annotations=[]), tmp_path / "empty.json")
    with pytest.raises(InputError, match="empty.json: every pixel is ignored"):
        read(str(tmp_path / "empty.json"), pseudo[1])
    one = [entry for entry in dataset.annotations if entry.category_id == 1]
    coco.write(
        replace(dataset, annotations=one, categories=dataset.categories[:1]), tmp_path / "one.json"
    )
    with pytest.raises(UsageError, match="one class, apple, .* give --with-background"):
        read(str(tmp_path / "one.json"), pseudo[1])
    with pytest.raises(UsageError, match="needs --images DIR"):
        read(str(pseudo[0]), None)
    with pytest.raises(InputError, match="no such folder"):
        read(str(pseudo[0]), tmp_path / "gone")
    (pseudo[1] / "5.png").unlink()
    with pytest.raises(InputError, match=r"lacks 1 of the 8 images .*\(the first is 5.png\)"):
        read(str(pseudo[0]), pseudo[1])
    (block_maps / "5.png").unlink()
    Image.fromarray(np.zeros((SIDE, 32, 3), np.uint8)).save(pseudo[1] / "2.png")
    with pytest.raises(InputError, match="2.png has 32 x 64 pixels, and its labels 64 x 64"):
        read(str(block_maps), pseudo[1], check=Check(strict=True))
    with pytest.raises(InputError, match="2.png has 32 x 64 pixels"):
        coco.write(
            replace(
                dataset,
                images=[dataset.images[1]],
                annotations=[one for one in dataset.annotations if one.image_id == 2],
            ),
            tmp_path / "two.json",
        )
        read(str(tmp_path / "two.json"), pseudo[1]).example(0)
    label_maps.write(block_maps / "1.png", np.full((SIDE, SIDE), 7), 8)
    with pytest.raises(InputError, match="1 holds the label 7, but classes.txt names 3 classes"):
        read(str(block_maps), pseudo[1])


def test_a_validation_takes_the_segmenters_classes(pseudo, block_maps, tmp_path, block_image):
    def found(names, source=pseudo[0]):
        return label_map_batches.read_truth(str(source), pseudo[1], names).example(0)[1]

    _, true = block_image(1)
    doubt = np.arange(SIDE)[:, None].repeat(SIDE, 1) >= SIDE - 8
    # the apple, which is not known, is background; what the labels leave in doubt is ignored
    expected = np.where(doubt, -1, np.array([0, 0, 1])[true])
    assert np.array_equal(found(("background", "cow", "pig")), expected)
    assert np.array_equal(found(("background", "cow", "pig"), block_maps), expected)
    expected = np.where(doubt, -1, np.array([-1, -1, 0])[true])
    assert np.array_equal(found(("cow", "pig")), expected)
    # masks without a background: what they leave is background
    dataset = coco.read(pseudo[0])
    kept = [one for one in dataset.annotations if one.category_id == 2]
    objects = replace(dataset, annotations=kept, categories=dataset.categories[1:2])
    coco.write(objects, tmp_path / "objects.json")
    expected = np.where((true == 2) & ~doubt, 1, 0)
    assert np.array_equal(found(("background", "cow"), tmp_path / "objects.json"), expected)
    with pytest.raises(MismatchError, match="has none of the classes that are learned"):
        found(("background", "pig"))


def test_pixels_and_labels_stay_together(block_image):
    rgb, labels = block_image(1)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        pixels, found = label_map_batches.augment(rng, rgb, labels, 48, (0.5, 2.0))
        assert pixels.shape == (48, 48, 3) and found.shape == (48, 48)
        red = pixels[..., 0].astype(int) - pixels[..., 2]
        inside = [red[found == category] for category in (1, 2)]
        if len(inside[0]) > 50:
            assert np.median(inside[0]) > 30
        if len(inside[1]) > 50:
            assert np.median(inside[1]) < -30
        assert ((found == -1) <= (pixels == 128).all(-1)).all()  # beyond the image: grey, ignored


def test_an_epoch_shows_every_image_once(pseudo, block_image):
    labels = label_map_batches.read(str(pseudo[0]), pseudo[1])
    seen = []
    watched = replace(labels, images=list(range(8)))
    object.__setattr__(watched, "example", lambda row: seen.append(row) or block_image(row))
    of = label_map_batches.examples_of(watched, [1, 3, 5, 7], 0, 2, 32, (1.0, 1.0))
    first = [of(step, row) for step in range(2) for row in range(2)]
    assert sorted(seen) == [1, 3, 5, 7]
    again = [of(step, row) for step in range(2) for row in range(2)]
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1])
