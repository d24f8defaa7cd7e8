"""Regions from a proposer or from files, and files that were made for other images."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ovtool.errors import InputError, MismatchError, UsageError
from ovtool.formats import coco, image_search, rle
from ovtool.formats import images as image_files
from ovtool.formats.images import ImageItem
from ovtool.methods import regions
from ovtool.proposers import by_name, proposal_sources
from ovtool.settings.propose import Propose
from ovtool.settings.shared import Run
from ovtool.stages import propose

HEIGHT, WIDTH = 40, 64


@pytest.fixture
def items(photos):
    return image_search.find_images([str(photos)])


@pytest.fixture
def made(photos, tmp_path):
    """The proposals of all images, as `propose` writes them."""
    propose.run([str(photos)], Propose(max_proposals=12), out=tmp_path / "p.json")
    return tmp_path / "p.json"


def test_a_file_gives_back_its_masks_best_first(made, items):
    source = proposal_sources.from_file(made, items)
    assert source.proposer is None and len(source.digest) == 16
    dataset = coco.read(made)
    for image, item in zip(dataset.images, items, strict=True):
        masks = [a for a in dataset.annotations if a.image_id == image.id]
        found = source.find(item, image_files.read_rgb(item.path))
        assert len(masks) > 3 and found.quality.tolist() == pytest.approx([a.score for a in masks])
        for mask, entry in zip(found.masks(), masks, strict=True):
            assert np.array_equal(mask, rle.decode(entry.segmentation, *mask.shape))


def test_masks_without_order_or_score(items, tmp_path):
    masks = np.zeros((4, HEIGHT, WIDTH), bool)
    masks[0, :5], masks[1, 5:9], masks[2, 7:], masks[3, :, 3] = True, True, True, True
    scores = (0.5, 0.9, None, 7.0)
    entries = [
        coco.annotation(n, 1, 1, rle.encode(mask), score)
        for n, (mask, score) in enumerate(zip(masks, scores, strict=True), start=1)
    ]
    image = coco.Image(1, "a.png", WIDTH, HEIGHT)
    dataset = coco.Dataset({"ovtool": "odd"}, [image], entries, [coco.Category(1, "any")])
    coco.write(dataset, tmp_path / "m.json")
    found = proposal_sources.from_file(tmp_path / "m.json", items[:1]).find(
        items[0], image_files.read_rgb(items[0].path)
    )
    assert found.quality.tolist() == pytest.approx([1.0, 1.0, 0.9, 0.5])
    assert np.array_equal(found.masks(), masks[[2, 3, 1, 0]])


def test_an_image_without_masks_is_one_region_less(made, items):
    dataset = coco.read(made)
    coco.write(replace(dataset, annotations=[]), made)
    found = proposal_sources.from_file(made, items).find(
        items[0], image_files.read_rgb(items[0].path)
    )
    assert found.members.shape == (0, 1) and found.superpixels.shape == (HEIGHT, WIDTH)


def test_a_file_of_other_images_is_refused(made, items, photos, tmp_path):
    other = [*items, ImageItem(photos / "new.png", "new.png"), ImageItem(photos / "z", "z")]
    with pytest.raises(MismatchError, match="p.json has no proposals for new.png and 1 more; make"):
        proposal_sources.from_file(made, other)


def test_an_image_of_another_size_is_refused(made, items):
    rgb = np.zeros((HEIGHT, WIDTH + 1, 3), np.uint8)
    message = "p.json: a.png is 64 x 40 there and 65 x 40 here; make the proposals for these images"
    with pytest.raises(MismatchError, match=message):
        proposal_sources.from_file(made, items).find(items[0], rgb)


def test_an_image_that_failed_before_may_fail_again(items, photos, tmp_path):
    whole = items[0].path.read_bytes()
    items[0].path.write_bytes(whole[:60])
    out = tmp_path / "q.json"
    propose.run([str(photos)], out=str(out))
    source = proposal_sources.from_file(out, items)
    items[0].path.write_bytes(whole)  # mended since
    with pytest.raises(MismatchError, match="a.png is a failure there and 64 x 40 here"):
        source.find(items[0], image_files.read_rgb(items[0].path))


def test_the_digest_is_of_images_and_masks_alone(made, items, tmp_path):
    digest = proposal_sources.from_file(made, items).digest
    dataset = coco.read(made)
    coco.write(replace(dataset, info={"note": "moved"}), tmp_path / "moved.json")
    assert proposal_sources.from_file(tmp_path / "moved.json", items).digest == digest
    made.write_text(json.dumps(json.loads(made.read_text()), indent=2))
    assert proposal_sources.from_file(made, items).digest == digest
    coco.write(replace(dataset, annotations=dataset.annotations[:-1]), made)
    assert proposal_sources.from_file(made, items).digest != digest


def test_a_proposer_by_name(items):
    source = proposal_sources.from_proposer("regions")
    assert (source.proposer, source.digest) == ("regions", None)
    rgb = image_files.read_rgb(items[0].path)
    expected = regions.propose_regions(rgb)
    assert np.array_equal(source.find(items[0], rgb).masks(), expected.masks())
    with pytest.raises(UsageError, match="unknown proposer 'magic'; choose from regions"):
        proposal_sources.from_proposer("magic")


def test_no_such_file(tmp_path, items):
    with pytest.raises(InputError, match="no such file: .*gone.json"):
        proposal_sources.from_file(tmp_path / "gone.json", items)


def test_large_images_are_looked_at_in_small(monkeypatch):
    seen = []

    def watched(rgb, *limits):
        seen.append((rgb.shape, *limits))
        return regions_of(rgb, *limits)

    regions_of = regions.propose_regions
    monkeypatch.setattr(regions, "propose_regions", watched)
    rgb = np.zeros((150, 1200, 3), np.uint8)
    rgb[:, 400:] = (200, 30, 30)
    found = by_name.load(Propose(proposer="regions", max_proposals=7, min_area=0.01))(rgb)
    assert seen == [((64, 512, 3), 7, 0.01)]
    assert found.superpixels.shape == (150, 1200) and found.superpixels.dtype == np.int32
    truth = np.arange(1200) >= 400
    assert max((mask[75] == truth).mean() for mask in found.masks()) > 0.99


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 2), (2, 3000), (700, 1)])
def test_images_of_any_size_have_regions(size):
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    found = by_name.load(Propose(proposer="regions"))(rgb)
    assert found.superpixels.shape == size
    assert set(np.unique(found.superpixels)) == set(range(found.members.shape[1]))
    record = propose.record(ImageItem(None, "x"), found)
    assert all(entry["segmentation"]["size"] == list(size) for entry in record["annotations"])


def test_a_dry_run_proposes_nothing(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(regions, "propose_regions", None)
    outcome = propose.run([str(photos)], out=str(tmp_path / "x.json"), run=Run(dry_run=True))
    assert outcome.planned == 3 and [path.name for path in tmp_path.iterdir()] == ["photos"]
