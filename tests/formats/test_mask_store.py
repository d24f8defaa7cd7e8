"""Annotations that lie in a temporary file are those that were given, wherever they are read."""

import errno
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from srsly import cloudpickle

from ovtool.errors import InputError
from ovtool.formats import coco, mask_store, rle
from ovtool.formats.mask_store import Masks, by_image, masks_of
from ovtool.runtime import processes


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


def ids(masks):
    return [mask.id for mask in masks], [mask.id for mask in masks.of_image(2)]


PRINTED = (
    "import sys; from srsly import cloudpickle; masks = cloudpickle.load(sys.stdin.buffer); "
    "print(([mask.id for mask in masks], [mask.id for mask in masks.of_image(2)]))"
)


@pytest.mark.parametrize("is_near", [True, False])
def test_another_process_reads_the_same_masks(monkeypatch, is_near):
    monkeypatch.setattr(mask_store, "HELD", 1500)  # two are held
    masks = Masks(annotations(5))
    state = masks.__getstate__() if is_near else masks.whole()
    assert isinstance(state["_file"], str) == (is_near and os.path.isdir("/proc/self/fd"))
    if not is_near:
        monkeypatch.setattr(Masks, "__getstate__", Masks.whole)
    done = subprocess.run(
        [sys.executable, "-c", PRINTED], input=cloudpickle.dumps(masks), capture_output=True
    )
    assert done.stdout.decode().strip() == str(ids(masks))
    again = cloudpickle.loads(cloudpickle.dumps(masks))
    del masks
    assert again == annotations(5)  # the file is open still


def test_work_for_another_machine_has_its_masks(monkeypatch):
    monkeypatch.setattr(mask_store, "HELD", 0)
    masks = Masks(annotations(5))
    work = processes.packed(lambda: ids(masks), is_near=False)
    expected = ids(masks)
    masks._file.close()  # as if it were elsewhere
    assert processes.unpacked(work)() == expected


def test_a_killed_process_leaves_no_file(tmp_path):
    program = (
        "import os, signal; from ovtool.formats import coco, mask_store\n"
        "mask_store.HELD = 0; masks = mask_store.Masks()\n"
        "mask = {'size': [2, 2], 'counts': '04'}\n"
        "for id in range(1, 9): masks.append(coco.annotation(id, 1, 1, mask, None))\n"
        "assert masks[7].id == 8\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not [*tmp_path.iterdir()]


def test_a_full_disk_is_one_line(monkeypatch):
    monkeypatch.setattr(mask_store, "HELD", 0)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mask_store.tempfile, "TemporaryFile", full)
    with pytest.raises(InputError, match="No space left on device; set TMPDIR to a folder"):
        Masks(annotations(1))
