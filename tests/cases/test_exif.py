"""Labels of turned photographs: upright as Pillow turns them, or of the pixels as they are stored."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from ovtool.batches import label_maps, masks
from ovtool.batches.readable import Check
from ovtool.formats import coco, rle
from ovtool.inputs import truths
from ovtool.settings.segment import Patch
from ovtool.settings.shared import Compute, Source
from ovtool.stages import segment

SIZE = (40, 64)  # height, width of the stored pixels


@pytest.fixture
def turned(tmp_path):
    """Images with the EXIF orientations 1, 3 and 6, and masks that were drawn on the stored pixels."""
    random = np.random.default_rng(0)
    images, annotations = [], []
    (tmp_path / "images").mkdir()
    for number, orientation in enumerate((1, 3, 6), start=1):
        pixels = np.kron(random.integers(0, 256, (5, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        image = Image.fromarray(pixels)
        image.getexif()[0x0112] = orientation
        image.save(tmp_path / "images" / f"{number}.png", exif=image.getexif())
        mask = np.zeros(SIZE, bool)
        mask[:10, :20] = True
        images.append(coco.Image(number, f"{number}.png", SIZE[1], SIZE[0]))
        for category, area in ((1, mask), (2, ~mask)):
            encoded = rle.encode(area)
            annotations.append(
                coco.annotation(len(annotations) + 1, number, category, encoded, None)
            )
    categories = [coco.Category(1, "cow"), coco.Category(2, "grass")]
    dataset = coco.Dataset({}, images, annotations, categories)
    coco.write(dataset, tmp_path / "labels.json")
    return tmp_path


def stored(folder, number):
    """The pixels as they are stored."""
    return np.array(Image.open(folder / "images" / f"{number}.png"))


def test_every_reader_of_labels_takes_stored_pixels(turned):
    images, file = turned / "images", str(turned / "labels.json")
    check = Check(exif="stored")
    labels = label_maps.read(file, images, check=check)
    truth = masks.truth_of(coco.read(file), images, held_out=0.0, check=check)
    probed = truths.open_probed(None, Source(coco=file, images=images, exif="stored"))
    for row in range(3):
        pixels = stored(turned, row + 1)
        assert np.array_equal(labels.example(row)[0], pixels)
        assert np.array_equal(truth.rgb(row), pixels)
        assert np.array_equal(probed.read(probed.items[row])[0], pixels)


def test_a_turned_image_of_a_labelled_set_is_said_once(turned, caplog):
    labels = label_maps.read(str(turned / "labels.json"), turned / "images")
    upright = ImageOps.exif_transpose(Image.open(turned / "images" / "2.png"))
    assert np.array_equal(labels.example(1)[0], np.array(upright))
    assert [failure["file_name"] for failure in labels.failures] == ["3.png"]  # 40 x 64 upright
    assert caplog.text.count("2 of the 3 images are turned by their EXIF orientation") == 1
    caplog.clear()
    label_maps.read(str(turned / "labels.json"), turned / "images", check=Check(exif="stored"))
    assert "EXIF" not in caplog.text


def test_segment_takes_stored_pixels(turned, monkeypatch):
    monkeypatch.chdir(turned)
    plain = turned / "plain"
    plain.mkdir()
    for number in (1, 2, 3):
        Image.fromarray(stored(turned, number)).save(plain / f"{number}.png")
    tiny = Compute(model="tiny")
    first = segment.run(
        "images", "cow,grass", Patch(), out="a.json", source=Source(exif="stored"), compute=tiny
    )
    second = segment.run("plain", "cow,grass", Patch(), out="b.json", compute=tiny)
    assert first.dataset.annotations == second.dataset.annotations
    assert first.dataset.images == second.dataset.images
    assert [image.height for image in first.dataset.images] == [SIZE[0]] * 3
