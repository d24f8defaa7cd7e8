"""Annotations that lie in a temporary file are those that were given, wherever they are read."""

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from srsly import cloudpickle

from ovtool.errors import InputError
from ovtool.formats import coco, mask_store, rle
from ovtool.formats.mask_store import Masks, by_image, masks_of


def annotations(count):
    random = np.random.default_rng(count)
    return [
        coco.annotation(
            number + 1,
            int(random.integers(1, 4)),
            7,
            rle.encode(random.random((9, 11)) > 0.6),
            None if number % 2 else float(random.random()),
            iscrowd=1,
            note={"wörd": [1, None]},
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("held", [0, 1500, 2**24])
def test_all_come_back_in_their_order(monkeypatch, held):
    monkeypatch.setattr(mask_store, "HELD", held)
    given, masks = annotations(9), Masks()
    for number, entry in enumerate(given):
        masks.append(entry)
        assert masks[number] == masks[-1] == entry  # read while more are written
    assert masks == given and len(masks) == 9 and masks[2:5] == given[2:5]
    with pytest.raises(IndexError):
        masks[9]
    images = [coco.Image(id, f"{id}.jpg", 11, 9) for id in (3, 1, 2, 8)]
    dataset = coco.Dataset({}, images, masks, [])
    own = {id: [entry for entry in given if entry.image_id == id] for id in (3, 1, 2, 8)}
    assert [(image.id, of) for image, of in by_image(dataset)] == [*own.items()]
    assert masks_of(coco.Dataset({}, images, given, []))(2) == own[2]


def test_another_process_reads_the_same_file_which_goes_with_its_owner(monkeypatch):
    monkeypatch.setattr(mask_store, "HELD", 0)
    masks = Masks(annotations(5))
    path = Path(masks._path)
    program = (
        "import sys; from srsly import cloudpickle; masks = cloudpickle.load(sys.stdin.buffer); "
        "print([mask.id for mask in masks], [mask.id for mask in masks.of_image(2)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=cloudpickle.dumps(masks), capture_output=True
    )
    assert done.stdout.decode().strip() == f"[1, 2, 3, 4, 5] {[m.id for m in masks.of_image(2)]}"
    assert path.exists()
    del masks
    assert not path.exists()


def test_a_full_disk_is_one_line(monkeypatch):
    monkeypatch.setattr(mask_store, "HELD", 0)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mask_store.tempfile, "mkstemp", full)
    with pytest.raises(InputError, match="No space left on device; set TMPDIR to a folder"):
        Masks(annotations(1))
