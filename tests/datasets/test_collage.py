"""The scene law, measured on scenes and plans: what it promises, and that it is frozen."""

import hashlib
from dataclasses import astuple

import numpy as np
import pytest
from PIL import Image

from ovtool.datasets import collage
from ovtool.datasets.nouns import COOCCUR_NOUNS, table

CODE = collage.SPLIT_CODES["test"]


def scene_of(drawings, index, size=64, law=collage.LAW, split="test"):
    rng = collage.scene_generator(split, 7, index)
    return collage.compose(rng, law, drawings, collage.SPLIT_CODES[split], size)


@pytest.fixture(scope="module")
def composed(drawings):
    """Scenes of the law, each with the pixels that every object put in it has when nothing hides it."""
    placed = []
    blend = collage._blend

    def watch(canvas, sprite, corner):
        placed.append(int((sprite[..., 3] > 0.5).sum()))
        blend(canvas, sprite, corner)

    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collage, "_blend", watch)
        for index in range(400):
            placed.clear()
            found.append((scene_of(drawings, index), tuple(placed)))
    return found


def test_the_law_of_record_is_frozen():
    assert astuple(collage.LAW)[:-1] == ((1, 5), (0.18, 0.60), 20.0, 0.5, 0.6, 0.5)
    assert collage.LAW.nouns == tuple(noun.name for noun in table())
    assert collage.SPLIT_CODES == {"train": 1, "val": 2, "test": 3, "demo": 4}


def test_the_scenes_of_record_are_frozen(drawings):
    """What is where in the first scenes of the measure of record: figures compare only while it holds."""
    digest = hashlib.sha256()
    for index in range(6):
        scene = scene_of(drawings, index)
        digest.update(repr((scene.objects, scene.grounds)).encode())
    assert digest.hexdigest()[:16] == "576459a027ccb233"


def test_a_scene_is_a_image_with_its_maps(composed):
    for scene, _ in composed[:20]:
        assert scene.pixels.shape == (64, 64, 3) and scene.pixels.dtype == np.uint8
        for one in (scene.object_map, scene.ground_map):
            assert one.shape == (64, 64) and one.dtype == np.int16


def test_one_to_five_objects(composed):
    counts = [len(scene.objects) for scene, _ in composed]
    assert min(counts) == 1 and max(counts) == 5
    assert set(counts) == {1, 2, 3, 4, 5}
    known = set(collage.LAW.nouns)
    assert all(set(scene.objects) <= known for scene, _ in composed)


def test_every_object_is_at_least_half_visible(composed):
    shares = []
    for scene, whole in composed:
        seen = np.bincount(scene.object_map[scene.object_map >= 0], minlength=len(scene.objects))
        assert len(seen) == len(scene.objects) == len(whole)
        shares += list(seen / whole)
    assert min(shares) >= 0.5
    assert (
        min(shares) < 0.6 and np.mean(np.array(shares) < 0.999) > 0.1
    )  # and some are hidden in part


def test_one_or_two_grounds(composed):
    counts = np.bincount([len(scene.grounds) for scene, _ in composed], minlength=4)
    assert counts[[0, 3]].sum() == 0 and counts[1:3].min() > 0.3 * len(composed)
    for scene, _ in composed:
        assert len(set(scene.grounds)) == len(scene.grounds)
        assert list(np.unique(scene.ground_map)) == list(range(len(scene.grounds)))
        shares = np.bincount(scene.ground_map.ravel()) / scene.ground_map.size
        assert shares.min() > 0.1


def test_objects_and_grounds_are_drawn_where_the_maps_say(drawings):
    """A scene made again without its objects shows other pixels where they were, and those alone."""
    scene = scene_of(drawings, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collage, "_blend", lambda *arguments: None)
        bare = scene_of(drawings, 3)
    changed = (scene.pixels != bare.pixels).any(2)
    inside = scene.object_map >= 0
    assert np.array_equal(scene.object_map, bare.object_map)
    assert changed[inside].mean() > 0.95
    assert changed[~inside].mean() < 0.1  # soft edges only


def test_posed_drawings_keep_to_size_and_rotation():
    """A filled rectangle tells its own side (from its area) and turn (from its long axis)."""
    size, rng = 400, np.random.default_rng(5)
    drawing = Image.new("RGBA", (120, 40), (200, 30, 30, 255))
    sides, turns = [], []
    for _ in range(250):
        mask = collage._pose(rng, collage.LAW, drawing, size)[..., 3] > 0.5
        sides.append(np.sqrt(mask.sum() * 3) / size)
        rows, columns = np.nonzero(mask)
        values, axes = np.linalg.eigh(np.cov(columns, rows))
        turns.append(np.degrees(np.arctan(axes[1, 1] / axes[0, 1])))
    assert 0.175 < min(sides) < 0.20 and 0.58 < max(sides) < 0.605
    assert np.max(np.abs(turns)) < 20.5 and min(turns) < -18 and max(turns) > 18


def test_posed_drawings_are_mirrored_and_jittered():
    drawing = Image.new("RGBA", (60, 60), (100, 100, 100, 255))
    drawing.paste((100, 100, 100, 0), (0, 0, 30, 60))  # the right half alone is there
    rng = np.random.default_rng(6)
    right, tones = [], []
    for _ in range(60):
        sprite = collage._pose(rng, collage.LAW, drawing, 128)
        ink = sprite[..., 3] > 0.9
        right.append(np.nonzero(ink)[1].mean() > sprite.shape[1] / 2)
        tones.append(sprite[..., :3][ink].mean(0))
    assert 0.3 < np.mean(right) < 0.7
    tones = np.array(tones)
    assert 70 < tones.min() < 90 and 115 < tones.max() < 130  # 100 x (0.75 to 1.29)
    assert np.ptp(tones / tones.mean(1, keepdims=True)) > 0.1  # colour, not brightness alone


@pytest.mark.parametrize(
    ("preset", "split", "rate"),
    [(None, "test", 0.6), ("cooccur", "train", 0.9), ("cooccur", "test", 0.5)],
)
def test_home_rates_of_plans(preset, split, rate):
    law = collage.law_of(preset, split)
    home = 0
    settled = 0
    for index in range(4000):
        rng = collage.scene_generator(split, 11, index)
        grounds, places = collage._plan(rng, law)
        assert 1 <= len(grounds) <= 2 and law.objects[0] <= len(places) <= law.objects[1]
        for noun, ground in places:
            assert ground in (None, *grounds)
            if noun.ground is None:
                assert ground is None
            else:
                assert ground is not None  # at home or away, never anywhere
                settled += 1
                home += ground == noun.ground
    assert abs(home / settled - rate) < 0.03, settled


def test_objects_lie_where_the_plan_says(drawings):
    """Measured on the maps: the middle of an object at home is on its ground, of one away off it."""
    law = collage.law_of("cooccur", "test")
    homes = {noun.name: noun.ground for noun in table()}
    kept = total = 0
    for index in range(150):
        rng = collage.scene_generator("test", 13, index)
        _, places = collage._plan(collage.scene_generator("test", 13, index), law)
        scene = collage.compose(rng, law, drawings, CODE, 64)
        if len(scene.objects) != len(places) or len(scene.grounds) == 1:
            continue
        for number, (noun, ground) in enumerate(places):
            rows, columns = np.nonzero(scene.object_map == number)
            middle = scene.ground_map[int(rows.mean()), int(columns.mean())]
            total += 1
            kept += (scene.grounds[middle] == homes[noun.name]) == (ground == noun.ground)
    assert total > 100 and kept / total > 0.9


def test_the_presets():
    train, test = (collage.law_of("cooccur", split) for split in ("train", "test"))
    assert train.nouns == tuple(COOCCUR_NOUNS) and train.objects == (1, 3)
    assert (train.home_rate, test.home_rate) == (0.9, 0.5)
    assert collage.law_of(None, "train") == collage.LAW
    assert collage.law_of("single", "val") == collage.SINGLE


def test_single_shows_one_large_object_whole(drawings):
    for index in range(30):
        scene = scene_of(drawings, index, law=collage.SINGLE)
        assert len(scene.objects) == 1
        seen = scene.object_map == 0
        assert not (seen[0].any() or seen[-1].any()) or not (seen[:, 0].any() and seen[:, -1].any())
        rows, columns = np.nonzero(seen)
        assert max(np.ptp(rows), np.ptp(columns)) + 1 >= 0.3 * 64


def test_same_arguments_same_scene(drawings):
    first, again, other = (scene_of(drawings, index) for index in (2, 2, 4))
    assert np.array_equal(first.pixels, again.pixels)
    assert np.array_equal(first.object_map, again.object_map)
    assert first.objects == again.objects
    assert not np.array_equal(first.pixels, other.pixels)


def test_splits_and_seeds_differ(drawings):
    scenes = [scene_of(drawings, 0, split=split) for split in collage.SPLIT_CODES]
    assert len({scene.pixels.tobytes() for scene in scenes}) == 4
    assert len({(scene.objects, scene.grounds) for scene in scenes}) == 4
    rng = collage.scene_generator("test", 8, 0)
    assert collage.compose(rng, collage.LAW, drawings, CODE, 64).objects != scenes[2].objects


def test_what_is_planned_does_not_depend_on_the_size(drawings):
    for index in range(15):
        grounds, places = collage._plan(collage.scene_generator("test", 7, index), collage.LAW)
        for size in (48, 96):
            scene = scene_of(drawings, index, size)
            assert scene.grounds == tuple(grounds)
            planned = iter(noun.name for noun, _ in places)
            assert all(name in planned for name in scene.objects)  # some may find no room


def test_an_augmentation_is_given_every_drawing(drawings):
    def whiten(rng, drawing):
        given.append(drawing)
        white = Image.new("RGBA", drawing.size, (255, 255, 255, 255))
        white.putalpha(drawing.getchannel("A"))
        return white

    given = []
    scene = collage.compose(
        collage.scene_generator("train", 7, 1), collage.LAW, drawings, 1, 64, whiten
    )
    assert len(given) >= len(scene.objects) >= 1
    inside = scene.pixels[scene.object_map >= 0].astype(int)
    assert np.median(inside.min(1)) > 180
