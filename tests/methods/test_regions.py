"""Regions: the rules that every set of them keeps, what is found, and twins of what computes them."""

import itertools

import numpy as np
import pytest

from ovtool.methods import regions
from ovtool.methods.regions import Regions, from_masks, propose_regions

RECTANGLES = {
    (20, 15, 70, 60): (200, 40, 40),
    (30, 90, 60, 150): (40, 70, 200),
    (85, 40, 115, 120): (230, 210, 60),
}  # top, left, bottom, right: colour


def textured(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A grey-green ground with noise of several sizes."""
    rng = np.random.default_rng(seed)
    ground = np.full((height, width, 3), (90, 120, 90), float)
    for size in (1, 3, 9):
        noise = rng.normal(0, 5, (height // size + 1, width // size + 1, 1))
        ground += noise.repeat(size, 0).repeat(size, 1)[:height, :width]
    return ground.clip(0, 255).astype(np.uint8)


def three_rectangles(seed: int = 0) -> np.ndarray:
    image = textured(130, 170, seed)
    for (top, left, bottom, right), colour in RECTANGLES.items():
        image[top:bottom, left:right] = colour
    return image


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)


def iou(masks: np.ndarray) -> np.ndarray:
    """Of all pairs of masks (N, h, w): (N, N)."""
    flat = masks.reshape(len(masks), -1).astype(np.int64)
    both = flat @ flat.T
    areas = flat.sum(axis=1)
    return both / np.maximum(1, areas[:, None] + areas - both)


PICTURES = {
    "rectangles": three_rectangles(),
    "texture": textured(60, 90),
    "noise": noise(50, 70),
    "one colour": np.full((40, 50, 3), 77, np.uint8),
    "black": np.zeros((40, 50, 3), np.uint8),
    "one pixel": noise(1, 1),
    "two pixels": noise(1, 2),
    "a row": noise(1, 300),
    "flat": noise(8, 2000),
    "tall": noise(2000, 8),
}


@pytest.mark.parametrize("name", PICTURES)
def test_rules(name: str) -> None:
    image = PICTURES[name]
    found = propose_regions(image, max_regions=40, min_area=0.01)
    assert found.superpixels.shape == image.shape[:2] and found.superpixels.dtype == np.int32
    count = found.superpixels.max() + 1
    assert np.array_equal(np.unique(found.superpixels), np.arange(count))
    assert found.members.shape == (len(found.quality), count) and found.members.dtype == np.bool_
    assert found.quality.dtype == np.float32
    assert (np.diff(found.quality) <= 0).all()
    assert 0 <= found.quality.min() and found.quality.max() <= 1
    assert 1 <= len(found.quality) <= 40
    masks = found.masks()
    for mask, members in zip(masks, found.members, strict=True):
        assert np.array_equal(mask, np.isin(found.superpixels, np.flatnonzero(members)))
    assert (masks.mean(axis=(1, 2)) >= 0.01).all()
    overlaps = iou(masks)
    np.fill_diagonal(overlaps, 0)
    assert overlaps.max() <= regions.MAX_IOU


@pytest.mark.parametrize("name", ["rectangles", "noise", "flat"])
def test_regions_are_connected(name: str) -> None:
    """Every region is a node of a tree of merges of neighbours (superpixels join at corners too)."""
    from skimage.measure import label

    for mask in propose_regions(PICTURES[name], 40).masks():
        assert label(mask, connectivity=2).max() == 1


def test_bounds() -> None:
    image = three_rectangles()
    every = propose_regions(image, max_regions=10_000, min_area=0)
    assert len(every.quality) > 20
    for most in (0, 1, 7):
        few = propose_regions(image, max_regions=most, min_area=0)
        assert np.array_equal(few.members, every.members[:most])
        assert few.masks().shape == (most, 130, 170)
    large = every.masks().mean(axis=(1, 2)) >= 0.05
    assert 3 <= large.sum() < len(large)
    assert (propose_regions(image, 10_000, 0.05).masks().mean(axis=(1, 2)) >= 0.05).all()
    assert propose_regions(image, min_area=2).masks().shape == (0, 130, 170)


@pytest.mark.parametrize("seed", range(4))
def test_flat_rectangles_are_found_on_a_textured_ground(seed: int) -> None:
    masks = propose_regions(three_rectangles(seed)).masks()
    for top, left, bottom, right in RECTANGLES:
        truth = np.zeros((130, 170), np.bool_)
        truth[top:bottom, left:right] = True
        found = (masks & truth).sum(axis=(1, 2)) / (masks | truth).sum(axis=(1, 2))
        assert found.max() > 0.9
        assert found.argmax() < 10  # among the best


def test_the_same_image_gives_the_same_regions() -> None:
    image = three_rectangles()
    first, second = propose_regions(image), propose_regions(image.copy(order="F"))
    assert np.array_equal(first.superpixels, second.superpixels)
    assert np.array_equal(first.members, second.members)
    assert np.array_equal(first.quality, second.quality)
    assert np.array_equal(image, three_rectangles())


def random_masks(count: int, height: int, width: int, seed: int) -> np.ndarray:
    """Boxes that overlap."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, height, width), np.bool_)
    for mask in masks:
        top, left = rng.integers(height), rng.integers(width)
        mask[top : top + rng.integers(1, height), left : left + rng.integers(1, width)] = True
    return masks


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 40, 300])
def test_masks_come_back(count: int) -> None:
    masks = random_masks(count, 37, 53, count)
    quality = np.random.default_rng(count).random(count)
    found = from_masks(masks, quality)
    assert isinstance(found, Regions)
    assert np.array_equal(found.masks(), masks)
    assert found.masks().dtype == np.bool_ and found.superpixels.dtype == np.int32
    assert np.array_equal(found.quality, quality.astype(np.float32))
    kinds = found.superpixels.max() + 1
    assert np.array_equal(np.unique(found.superpixels), np.arange(kinds))
    assert len({tuple(pixel) for pixel in masks.reshape(count, -1).T}) == kinds  # none too many


def test_proposed_regions_come_back() -> None:
    found = propose_regions(three_rectangles())
    again = from_masks(found.masks(), found.quality)
    assert np.array_equal(again.masks(), found.masks())
    assert np.array_equal(again.quality, found.quality)
    assert again.superpixels.max() <= found.superpixels.max()


def test_odd_masks() -> None:
    none = from_masks(np.zeros((0, 5, 7), np.bool_), np.zeros(0, np.float32))
    assert none.masks().shape == (0, 5, 7) and none.members.shape == (0, 1)
    assert (none.superpixels == 0).all()
    masks = np.zeros((4, 5, 7), np.bool_)
    masks[1] = True  # everything; 0 is empty
    masks[2, 2, 3] = masks[3, 2, 3] = True  # twice the same
    found = from_masks(masks, np.array([0.2, 1, 0, 0.5]))
    assert np.array_equal(found.masks(), masks) and found.members.shape == (4, 2)
    alone = from_masks(np.ones((1, 1, 1), np.bool_), np.ones(1))
    assert alone.masks().tolist() == [[[True]]]


def test_masks_that_are_views() -> None:
    masks = random_masks(20, 30, 40, 3)
    assert np.array_equal(from_masks(masks[::2, ::-1], np.ones(10)).masks(), masks[::2, ::-1])
    flipped = np.asfortranarray(masks)
    assert np.array_equal(from_masks(flipped, np.ones(20)).masks(), masks)


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    masks = random_masks(3, 4, 5, 0)
    with pytest.raises(ValueError, match="do not belong together"):
        from_masks(masks, np.ones(2))
    with pytest.raises(ValueError, match="do not belong together"):
        from_masks(masks[0], np.ones(4))
    with pytest.raises(ValueError, match="do not belong together"):
        from_masks(masks[:, :0], np.ones(3))
    for wrong in (1.01, -0.1, np.nan):
        with pytest.raises(ValueError, match=r"in \[0, 1\]"):
            from_masks(masks, np.array([0, wrong, 1]))


def lab_and_superpixels(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A Lab image, colours beyond the histogram's range among them, and its superpixels."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 12, 2)
    lab = rng.uniform((-5, -80, -80), (105, 80, 80), (height, width, 3)).astype(np.float32)
    labels = rng.integers(0, 6, (height, width))
    return lab, np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)


@pytest.mark.parametrize("seed", range(10))
def test_histograms(seed: int) -> None:
    lab, superpixels = lab_and_superpixels(seed)
    count = superpixels.max() + 1
    table = np.zeros((count, 22))
    for y, x in np.ndindex(superpixels.shape):
        start = 0
        for value, low, high, bins in zip(
            lab[y, x], (0, -60, -60), (100, 60, 60), (6, 8, 8), strict=True
        ):
            share = min(max((float(value) - low) / (high - low), 0), 0.999)
            for k in range(bins):  # a triangle about each centre, flat beyond the outermost
                place = min(max(share * bins - 0.5, 0), bins - 1)
                table[superpixels[y, x], start + k] += max(0, 1 - abs(place - k))
            start += bins
    areas = np.bincount(superpixels.ravel())
    found = regions._histograms(lab, superpixels) * areas[:, None]
    assert np.abs(found - table).max() < 1e-4
    assert np.allclose(found.sum(axis=1), 3 * areas)


def slow_borders(lab: np.ndarray, labels: np.ndarray) -> dict[tuple[int, int], tuple[float, int]]:
    borders: dict[tuple[int, int], tuple[float, int]] = {}
    height, width = labels.shape
    for y, x in np.ndindex(height, width):
        for down, right in ((y + 1, x), (y, x + 1)):
            if down < height and right < width and labels[y, x] != labels[down, right]:
                pair = tuple(sorted((int(labels[y, x]), int(labels[down, right]))))
                step = float(np.linalg.norm(lab[y, x].astype(float) - lab[down, right]))
                total, length = borders.get(pair, (0.0, 0))
                borders[pair] = (total + step, length + 1)
    return borders


@pytest.mark.parametrize("seed", range(10))
def test_borders(seed: int) -> None:
    lab, superpixels = lab_and_superpixels(seed)
    found, slow = regions.borders_of(lab, superpixels), slow_borders(lab, superpixels)
    assert [(a, b) for a, b in found.ends.tolist()] == sorted(slow)
    for pair, total, length in zip(sorted(slow), found.contrasts, found.lengths, strict=True):
        assert length == slow[pair][1] and total == pytest.approx(slow[pair][0], rel=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_merging_keeps_what_counting_anew_gives(seed: int) -> None:
    """After every merge of neighbours: the state of a image that had those superpixels at once."""
    lab, superpixels = lab_and_superpixels(seed)
    rng = np.random.default_rng(seed)
    state = regions._Merging(
        superpixels,
        regions.borders_of(lab, superpixels),
        regions._histograms(lab, superpixels),
        regions._colour_distance,
    )
    labels = superpixels.copy()
    for new in range(state.count, 2 * state.count - 1):
        pairs = [(a, b) for a, near in enumerate(state.borders) for b in near]
        a, b = pairs[rng.integers(len(pairs))]
        state.merge(a, b, new)
        labels[(labels == a) | (labels == b)] = new
        slow = slow_borders(lab, labels)
        living = np.unique(labels)
        found = {(a, b): border for a in living for b, border in state.borders[a].items() if a < b}
        assert found.keys() == slow.keys()
        for pair, (total, length) in found.items():
            assert length == slow[pair][1] and total == pytest.approx(slow[pair][0], rel=1e-5)
        for node in living:
            assert state.area[node] == (labels == node).sum()
            assert state.perimeter[node] == sum(n for pair, (_, n) in slow.items() if node in pair)
        assert np.allclose(
            state.mean[new], regions._histograms(lab, (labels != new).astype(int))[0]
        )


@pytest.mark.parametrize("seed", range(5))
def test_suppression_is_that_of_the_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = 12
    members = list(np.eye(count, dtype=np.bool_))
    living = set(range(count))
    while len(living) > 1:
        a, b = rng.choice(sorted(living), 2, replace=False)
        members.append(members[a] | members[b])
        living = living - {a, b} | {len(members) - 1}
    tree = np.array(members)
    sizes = rng.integers(1, 200, count) ** 2.0
    order = rng.permutation(len(tree))
    kept: list[int] = []
    for node in order:
        both = [(tree[node] & tree[other]) @ sizes for other in kept]
        either = [(tree[node] | tree[other]) @ sizes for other in kept]
        if all(x / y <= 0.85 for x, y in zip(both, either, strict=True)):
            kept.append(int(node))
    assert len(kept) < len(tree)
    for most in (3, 100):
        assert regions._best(order, tree, tree @ sizes, most) == kept[:most]


def test_merges_are_nested_or_apart() -> None:
    masks = propose_regions(three_rectangles(), 30).masks()
    for one, other in itertools.combinations(masks, 2):
        both = (one & other).sum()
        assert both in (0, one.sum(), other.sum())
