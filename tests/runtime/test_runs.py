"""The frame of stages that map images to one COCO JSON: parts, provenance, failures, resuming."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ovtool.errors import InputError, MismatchError, OutputExistsError, UsageError
from ovtool.formats import coco, image_search, merge, parts, rle
from ovtool.runtime import runs
from ovtool.runtime.engine import PartOutput
from ovtool.runtime.progress import no_progress
from ovtool.settings.shared import Run

CATEGORIES = (coco.Category(1, "thing", synonyms=("object",)),)


@pytest.fixture
def items(photos):
    return image_search.find_images([str(photos)])


class Stage:
    """Says the size of each image; stops as a kill would after `stop_after` of them."""

    def __init__(self, stop_after=None):
        self.seen = []
        self.stop_after = stop_after

    def __call__(self, items):
        return PartOutput(runs.image_records(items, self.one))

    def one(self, item, rgb):
        if len(self.seen) == self.stop_after:
            raise KeyboardInterrupt
        self.seen.append(item.name)
        return parts.image_record(item.name, rgb.shape[0], rgb.shape[1], [])


def run(
    items, out, work=None, settings=None, categories=CATEGORIES, beside=None, bar=no_progress, **how
):
    return runs.map_images(
        items,
        work or Stage(),
        runs.Job(
            info=runs.provenance("try", settings or {"a": 1}, {"name": "m", "fingerprint": "f"}),
            categories=categories,
            out=str(out),
            device=torch.device("cpu"),
            description="trying",
            beside=beside or {},
        ),
        Run(**{"part_size": 1, **how}),
        bar,
    )


def test_the_output_is_whole_and_says_what_made_it(items, tmp_path):
    outcome = run(items, tmp_path / "o.json")
    dataset = coco.read(tmp_path / "o.json")
    assert [i.file_name for i in dataset.images] == ["a.png", "b.jpg", "deep/c.png"]
    assert dataset.categories == list(CATEGORIES)
    made_by = dataset.info["ovtool"]
    assert made_by["command"] == "try" and made_by["settings"] == {"a": 1}
    assert made_by["model"] == {"name": "m", "fingerprint": "f"} and made_by["failures"] == []
    assert outcome.dataset.images == dataset.images and outcome.planned is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.json", "photos"]


class Masks(Stage):
    """Two masks in each image but the second, which has none."""

    def one(self, item, rgb):
        mask = np.zeros(rgb.shape[:2], bool)
        mask[: 3 + len(item.name)] = True
        entries = [
            {"category_id": 1, "segmentation": rle.encode(own), "score": 0.25}
            for own in (mask, ~mask)
        ]
        own = [] if item.name == "b.jpg" else entries
        return parts.image_record(item.name, *rgb.shape[:2], own)


def test_masks_of_several_parts_are_read_from_the_file_and_are_those_of_a_single_part(
    items, tmp_path
):
    alone = run(items, tmp_path / "1.json", Masks(), part_size=256)
    several = run(items, tmp_path / "2.json", Masks())
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()
    assert isinstance(alone.dataset.annotations, list)
    streamed = several.dataset.annotations
    assert isinstance(streamed, merge.Streamed) and len(streamed) == 4
    assert several.dataset == alone.dataset
    assert streamed == coco.read(tmp_path / "2.json").annotations
    assert list(streamed) == list(streamed) == alone.dataset.annotations
    assert streamed[-1] == alone.dataset.annotations[-1]
    held = several.held()
    (tmp_path / "2.json").unlink()
    assert held.dataset == alone.dataset


def test_masks_on_standard_output_are_held(items, capsys):
    outcome = run(items, "-", Masks())
    printed = json.loads(capsys.readouterr().out)
    assert [entry.id for entry in outcome.dataset.annotations] == [1, 2, 3, 4]
    assert len(printed["annotations"]) == 4


def test_part_size_and_place_do_not_change_the_bytes(items, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    outs = [tmp_path / "1.json", tmp_path / "elsewhere/2.json"]
    for out, size in zip(outs, (1, 256), strict=True):
        run(items, out, part_size=size)
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert str(tmp_path) not in outs[0].read_text()


def test_resuming_does_only_what_is_left(items, tmp_path):
    whole, out = tmp_path / "whole.json", tmp_path / "o.json"
    run(items, whole)
    with pytest.raises(KeyboardInterrupt):
        run(items, out, Stage(stop_after=2))
    assert not out.exists() and len(list((tmp_path / "o.json.parts").iterdir())) == 2
    rest = Stage()
    steps = []

    class Bar:
        def __enter__(self):
            return steps.append

        def __exit__(self, *_):
            return None

    run(items, out, rest, resume=True, bar=lambda total, text: Bar())
    assert rest.seen == ["deep/c.png"] and sum(steps) == 3
    assert out.read_bytes() == whole.read_bytes() and not (tmp_path / "o.json.parts").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"a": 2}},
        {"categories": (coco.Category(1, "thing"),)},
        {"categories": (coco.Category(1, "thought", synonyms=("object",)),)},
        {"beside": {"overlays": "seen"}},
        {"part_size": 2},
    ],
    ids=str,
)
def test_a_run_is_not_resumed_with_anything_else(items, tmp_path, change):
    with pytest.raises(KeyboardInterrupt):
        run(items, tmp_path / "o.json", Stage(stop_after=2))
    with pytest.raises(MismatchError, match="run without --resume, or remove .*o.json.parts"):
        run(items, tmp_path / "o.json", resume=True, **change)


def test_a_run_is_not_resumed_with_other_images_threads_or_libraries(items, tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        run(items, tmp_path / "o.json", Stage(stop_after=2))
    monkeypatch.setattr(runs, "_version", lambda name: "0")
    with pytest.raises(MismatchError, match="other settings, images or model"):
        run(items, tmp_path / "o.json", resume=True)
    monkeypatch.undo()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    with pytest.raises(MismatchError):
        run(items, tmp_path / "o.json", resume=True)
    monkeypatch.undo()
    with pytest.raises(MismatchError):
        run(items[::-1], tmp_path / "o.json", resume=True)


def test_failures_are_listed_by_name(items, tmp_path):
    items[1].path.write_bytes(b"no image")
    outcome = run(items, tmp_path / "o.json")
    (failure,) = json.loads((tmp_path / "o.json").read_text())["info"]["ovtool"]["failures"]
    assert failure == outcome.failures[0] and failure["file_name"] == "b.jpg"
    assert failure["reason"].startswith("b.jpg is not an image that can be read")
    assert [i.file_name for i in outcome.dataset.images] == ["a.png", "deep/c.png"]
    with pytest.raises(InputError, match="^b.jpg is not an image"):
        run(items, tmp_path / "p.json", strict=True)


def test_a_run_of_nothing_but_failures_is_an_error(items, tmp_path):
    for item in items:
        item.path.write_bytes(b"")
    with pytest.raises(InputError, match="none of the 3 images could be read; the first: a.png is"):
        run(items, tmp_path / "o.json")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_standard_output_gets_the_json_and_leaves_no_parts(items, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    run(items, "-")
    run(items, tmp_path / "o.json")
    assert capsys.readouterr().out == (tmp_path / "o.json").read_text()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_places_are_checked_before_any_work(tmp_path):
    out = tmp_path / "o.json"
    runs.check_place(str(out), Run(resume=True))
    runs.check_place("-", Run())
    runs.check_place("/dev/null", Run())
    out.touch()
    runs.check_place(str(out), Run(overwrite=True))
    with pytest.raises(OutputExistsError, match="--overwrite"):
        runs.check_place(str(out), Run(resume=True))
    with pytest.raises(InputError, match="is a folder"):
        runs.check_place(str(tmp_path), Run())
    for stream in ("-", "/dev/null"):
        with pytest.raises(UsageError, match="--resume needs a file as output"):
            runs.check_place(stream, Run(resume=True))


def test_a_device_as_output_has_no_folder_beside_it(items):
    outcome = run(items, "/dev/null")
    assert len(outcome.dataset.images) == len(items)
    assert not Path("/dev/null.parts").exists()
