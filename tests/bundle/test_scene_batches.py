"""Training batches: a function of seed and step, however many workers make them."""

from itertools import islice

import numpy as np
import pytest
import scene_batches
import torch
from scene_batches import CLOSE, MIDDLE, SceneBatches
from torch.utils.data import DataLoader

from ovtool.datasets import art, collage
from ovtool.datasets.nouns import GROUNDS, table

NAMES = [noun.name for noun in table()]


@pytest.fixture(autouse=True)
def threads(train_art):
    """Iterating sets one thread for torch, which is for its workers."""
    count = torch.get_num_threads()
    yield
    torch.set_num_threads(count)


def stage(step):
    return (CLOSE, 48) if step < 2 else (MIDDLE, 64)


def batches(count, seed=0, start=0, size=6, workers=None):
    data = SceneBatches(seed, start, size, stage)
    loader = data if workers is None else DataLoader(data, batch_size=None, num_workers=workers)
    return list(islice(loader, count))


def same(one, other):
    return (
        torch.equal(one.pixels, other.pixels)
        and torch.equal(one.nouns, other.nouns)
        and torch.equal(one.grounds, other.grounds)
        and one.captions == other.captions
    )


def test_shapes_and_labels():
    for step, batch in enumerate(batches(3)):
        size = stage(step)[1]
        assert batch.pixels.shape == (6, size, size, 3) and batch.pixels.dtype == torch.uint8
        assert batch.nouns.shape == (6, len(NAMES)) and batch.nouns.dtype == torch.float32
        assert batch.grounds.shape == (6, len(GROUNDS)) and batch.grounds.dtype == torch.float32
        for labels in (batch.nouns, batch.grounds):
            assert torch.allclose(labels.sum(1), torch.ones(6))
        assert (batch.grounds > 0).sum(1).max() <= 2
        assert len(batch.captions) == 6 and all(batch.captions)


def test_labels_say_what_the_scene_shows(monkeypatch):
    scenes = []
    compose = collage.compose

    def watch(*arguments):
        scenes.append(compose(*arguments))
        return scenes[-1]

    monkeypatch.setattr(collage, "compose", watch)
    batch = batches(1, start=2)[0]
    for row, scene in enumerate(scenes[:6]):
        assert np.array_equal(batch.pixels[row].numpy(), scene.pixels)
        shown = {NAMES[index] for index in batch.nouns[row].nonzero().ravel()}
        assert shown == set(scene.objects)
        share = {GROUNDS[index]: float(v) for index, v in enumerate(batch.grounds[row]) if v > 0}
        sizes = np.bincount(scene.ground_map.ravel()) / scene.ground_map.size
        assert share == pytest.approx(dict(zip(scene.grounds, sizes, strict=True)), abs=1e-6)


def test_the_stage_decides_law_and_size():
    close, middle = batches(4)[0], batches(4)[3]
    assert close.pixels.shape[1] == 48 and middle.pixels.shape[1] == 64
    assert torch.equal((close.nouns > 0).sum(1), torch.ones(6, dtype=torch.int64))
    assert (middle.nouns > 0).sum(1).max() > 1


def test_a_function_of_seed_and_step():
    first, again, other = batches(2), batches(2), batches(2, seed=1)
    assert same(first[0], again[0]) and same(first[1], again[1])
    assert not same(first[0], first[1]) and not same(first[0], other[0])


def test_a_later_start_goes_on_where_the_earlier_would_be():
    assert [same(*pair) for pair in zip(batches(5)[3:], batches(2, start=3), strict=True)] == [
        True
    ] * 2


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(workers):
    direct = batches(4, size=3)
    shared = batches(4, size=3, workers=workers)
    assert [same(*pair) for pair in zip(direct, shared, strict=True)] == [True] * 4


def test_the_bank_holds_every_drawing_at_its_size():
    bank = scene_batches.drawing_bank(20, tuple(art.TRAIN_STYLES))
    assert list(bank) == NAMES
    assert [len(bank[noun.name]) for noun in table()] == [len(noun.code_points) for noun in table()]
    sizes = [max(drawing.size) for drawings in bank.values() for drawing in drawings]
    assert max(sizes) == 20
