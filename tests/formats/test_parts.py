"""Parts are whole or not there, belong to one run, and merge into the same bytes."""

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ovtool.errors import InputError, MismatchError, UsageError
from ovtool.formats import coco, merge, parts, rle
from ovtool.formats.parts import Part, PartStore
from ovtool.runtime import engine

SETTINGS = {"command": "segment", "scale": 0.5}
DIGEST = parts.settings_digest(SETTINGS)
CATEGORIES = [coco.Category(1, "teapot", "", ("pot",)), coco.Category(2, "apple")]


def record(index: int) -> dict[str, Any]:
    if index % 5 == 3:
        return parts.failure_record(f"{index:03d}.jpg", f"truncated\n  at {index}")
    mask = np.zeros((6, 8), bool)
    mask[index % 5 :, index % 7 :] = True
    entry = {"category_id": 1 + index % 2, "segmentation": rle.encode(mask), "score": index / 7}
    return parts.image_record(f"{index:03d}.jpg", 6, 8, [entry] * (index % 3))


def store(folder: Path, digest: str = DIGEST) -> PartStore:
    return PartStore(folder / "x.parts", digest, SETTINGS, merge.preface({"a": 1}, CATEGORIES))


def fill(folder: Path, n: int = 10, size: int = 4) -> tuple[PartStore, list[Part]]:
    kept, cuts = store(folder), parts.cut(n, size)
    for part in cuts:
        kept.write(part, map(record, range(part.start, part.stop)))
    return kept, cuts


def records_of(kept: PartStore, cuts: list[Part]) -> Iterator[dict[str, Any]]:
    return (record for part in cuts for record in kept.read(part))


def test_cut() -> None:
    assert [(p.index, p.start, p.stop, p.items) for p in parts.cut(10, 4)] == [
        (0, 0, 4, 10), (1, 4, 8, 10), (2, 8, 10, 10)
    ]  # fmt: skip
    assert parts.cut(0, 4) == [] and len(parts.cut(8, 4)) == 2
    with pytest.raises(UsageError, match="--part-size 0"):
        parts.cut(5, 0)


def test_digest_is_of_the_settings_alone() -> None:
    assert parts.settings_digest({"scale": 0.5, "command": "segment"}) == DIGEST
    assert parts.settings_digest({**SETTINGS, "scale": 0.25}) != DIGEST


def test_a_part_is_read_as_written(tmp_path: Path) -> None:
    kept, cuts = fill(tmp_path)
    assert all(kept.exists(part) for part in cuts)
    assert not kept.exists(Part(3, 10, 12))
    assert list(kept.read(cuts[1])) == [record(i) for i in range(4, 8)]
    assert list(records_of(kept, cuts)) == [record(i) for i in range(10)]
    assert record(3)["failure"]["reason"] == "truncated at 3"
    assert sorted(os.listdir(kept.folder)) == [f"part-0000{i}.jsonl" for i in range(3)]
    lines = (kept.folder / "part-00001.jsonl").read_text().splitlines()
    header = json.loads(lines[0])["ovtool"]
    assert (header["part"], header["start"], header["stop"], header["items"]) == (1, 4, 8, 10)
    assert header["digest"] == DIGEST and header["settings"] == SETTINGS
    end = json.loads(lines[-1])
    assert end["end"] == 4 and len(end["sum"]) == 16 and len(lines) == 6


def test_tensors_and_note_may_be_filled_by_the_records(tmp_path: Path) -> None:
    kept, part = store(tmp_path), Part(0, 0, 2, 2)
    tensors: dict[str, torch.Tensor] = {}
    note: dict[str, int] = {}

    def records() -> Any:
        for index in range(2):
            tensors[f"cam/{index}"] = torch.full((2, 3), float(index))
            yield record(index)
        note["batch_size"] = 4

    kept.write(part, records(), tensors, note)
    last = (kept.folder / "part-00000.jsonl").read_text().splitlines()[-1]
    assert kept.exists(part) and json.loads(last)["note"] == {"batch_size": 4}
    assert torch.equal(kept.tensors(part)["cam/1"], torch.ones(2, 3))
    (kept.folder / "part-00000.safetensors").unlink()
    assert not kept.exists(part)
    with pytest.raises(InputError, match="no such file"):
        kept.tensors(part)
    kept.write(part, [])
    assert kept.tensors(part) == {}
    with pytest.raises(InputError, match="not there"):
        kept.tensors(Part(1, 2, 3))


def test_parts_of_other_settings_are_refused(tmp_path: Path) -> None:
    _, cuts = fill(tmp_path)
    for function in (PartStore.exists, lambda s, p: list(s.read(p))):
        with pytest.raises(MismatchError, match="other settings.*without --resume, or remove") as e:
            function(store(tmp_path, "0" * 16), cuts[0])
        assert e.value.exit_code == 2 and "\n" not in str(e.value)
    with pytest.raises(MismatchError, match="holds images 0 to 4, not 0 to 5"):
        store(tmp_path).exists(parts.cut(10, 5)[0])


def test_damaged_parts_do_not_exist_and_are_not_read(tmp_path: Path) -> None:
    kept, cuts = fill(tmp_path)
    path = kept.folder / "part-00000.jsonl"
    data = path.read_bytes()
    for length in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        assert not kept.exists(cuts[0])
        with pytest.raises(InputError, match="part-00000.jsonl is damaged"):
            list(kept.read(cuts[0]))
        with pytest.raises(InputError, match="part-00000.jsonl is damaged"):
            parts.read_folder(kept.folder)
    lines = data.splitlines(keepends=True)
    for broken in (lines[:2] + lines[3:], lines[:2] + [b"{}\n"] + lines[3:]):
        path.write_bytes(b"".join(broken))
        with pytest.raises(InputError, match="is damaged"):
            list(kept.read(cuts[0]))


def damages() -> list[tuple[list[Any], Any]]:
    """What is put in place of a field of the record of 001.jpg, by the path to it."""
    mask = ["annotations", 0, "segmentation"]
    return [
        ([*mask, "size"], [0, 128]), ([*mask, "size"], [-6, -8]), ([*mask, "size"], [2**31, 2**31]),
        ([*mask, "size"], [8, 6]), ([*mask, "size"], [6.0, 8.0]), ([*mask, "size"], "68"), ([*mask, "size"], [6]),
        ([*mask, "counts"], "11"), ([*mask, "counts"], ""), ([*mask, "counts"], "ooooooooo"),
        ([*mask, "counts"], [-48, 96]), ([*mask, "counts"], None), (mask, None), (mask, [[1, 2, 3, 4, 5, 6]]),
        (["annotations", 0, "category_id"], None), (["annotations", 0, "score"], "x"),
        (["annotations", 0, "bbox"], [1, 2]), (["annotations"], None), (["image", "height"], 0),
        (["image", "width"], -8), (["image", "file_name"], None), (["image"], 3),
    ]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), damages())
def test_a_part_with_a_damaged_record_does_not_exist_and_is_not_merged(
    tmp_path: Path, path: list[Any], value: Any
) -> None:
    kept, (part, *_) = fill(tmp_path, 4)
    damaged: Any = json.loads(json.dumps(record(1)))
    place = damaged
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(InputError, match="a part is damaged .* again with --resume") as caught:
        merge.merge_records([record(0), damaged], {}, CATEGORIES)
    assert "\n" not in str(caught.value)
    file = kept.folder / "part-00000.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    lines[-1] = json.dumps({"end": json.loads(lines[-1])["end"]}) + "\n"  # without a digest
    file.write_text("".join(lines))
    assert kept.exists(part)
    lines[2] = json.dumps(damaged) + "\n"
    file.write_text("".join(lines))
    assert not kept.exists(part)


def test_a_part_that_was_changed_is_damaged(tmp_path: Path) -> None:
    """Though each line, and the tensors of another part, could be those of a whole one."""
    kept, cuts = fill(tmp_path, 8)
    for part in cuts:
        kept.write(part, [record(part.index)], {"a": torch.full((2,), float(part.index))})
        assert kept.exists(part)
    one, two = (kept.folder / f"part-0000{k}.safetensors" for k in (0, 1))
    one.write_bytes(two.read_bytes())
    assert not kept.exists(cuts[0])
    with pytest.raises(InputError, match=r"part-00000\.safetensors is damaged .* --resume"):
        kept.tensors(cuts[0])
    file = kept.folder / "part-00001.jsonl"
    file.write_bytes(file.read_bytes().replace(b"file_name", b"file_nama", 1))
    assert not kept.exists(cuts[1])
    file.write_bytes(file.read_bytes().replace(b"file_nama", b"file_name", 1))
    assert kept.exists(cuts[1])
    text = file.read_text()
    assert '"height":' in text
    file.write_text(text.replace('"height":', '"height":1'))
    assert not kept.exists(cuts[1])
    with pytest.raises(InputError, match=r"part-00001\.jsonl is damaged .* --resume"):
        list(kept.read(cuts[1]))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
@pytest.mark.parametrize("ending", ["jsonl", "safetensors"])
def test_a_part_that_is_a_pipe_is_not_waited_for(tmp_path: Path, ending: str) -> None:
    kept = store(tmp_path)
    kept.write(Part(0, 0, 1), [record(0)], {"a": torch.zeros(2)})
    file = kept.folder / f"part-00000.{ending}"
    file.unlink()
    os.mkfifo(file)
    for read in (kept.exists, kept.tensors, lambda part: list(kept.read(part))):
        with pytest.raises(InputError, match="is a pipe or a device, and no file"):
            read(Part(0, 0, 1))


@pytest.mark.parametrize("end", ['{"end": "4"}', '{"end": null}', '{"end": 9}', '{"end": 3}'])
def test_a_part_with_a_damaged_end_does_not_exist(tmp_path: Path, end: str) -> None:
    kept, (part, *_) = fill(tmp_path, 4)
    file = kept.folder / "part-00000.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]) + end + "\n")
    assert not kept.exists(part)


def test_an_interrupted_part_is_not_there(tmp_path: Path) -> None:
    kept = store(tmp_path)

    def records() -> Any:
        yield record(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept.write(Part(0, 0, 2), records(), {"a": torch.zeros(2)})
    assert os.listdir(kept.folder) == []


def test_full_disk(small_disk: Path) -> None:
    kept, part = store(small_disk), Part(0, 0, 1, 1)
    kept.write(part, [record(0)])
    with pytest.raises(InputError, match="part-00001.safetensors: the disk is full"):
        kept.write(Part(1, 1, 2), [record(1)], {"a": torch.rand(500_000)})
    with pytest.raises(InputError, match="part-00001.jsonl: the disk is full"):
        kept.write(Part(1, 1, 2), (record(i) for i in range(100_000)))
    assert os.listdir(kept.folder) == ["part-00000.jsonl"] and kept.exists(part)


def test_remove_spares_what_is_not_ours(tmp_path: Path) -> None:
    kept, cuts = fill(tmp_path)
    kept.write(cuts[0], [record(0)], {"a": torch.zeros(1)})
    (kept.folder / ".part-00001.jsonl.0a1b2c.tmp").touch()
    kept.remove()
    assert not kept.folder.exists()
    kept.remove()
    fill(tmp_path)
    (kept.folder / "notes.txt").touch()
    kept.remove()
    assert os.listdir(kept.folder) == ["notes.txt"]


def test_merge_gives_ids_in_order_and_lists_failures(tmp_path: Path) -> None:
    info = {"ovtool": {"command": "segment"}}
    found = merge.merge_records(map(record, range(10)), info, CATEGORIES)
    assert info == {"ovtool": {"command": "segment"}}
    assert [image.id for image in found.images] == list(range(1, 9))
    assert [image.file_name for image in found.images][2:4] == ["002.jpg", "004.jpg"]
    assert [entry.id for entry in found.annotations] == list(range(1, len(found.annotations) + 1))
    assert [entry.image_id for entry in found.annotations][:4] == [2, 3, 3, 4]
    assert found.annotations[0].area == rle.area(found.annotations[0].segmentation)
    assert found.info["ovtool"]["command"] == "segment"
    assert found.info["ovtool"]["failures"] == [
        {"file_name": "003.jpg", "reason": "truncated at 3"},
        {"file_name": "008.jpg", "reason": "truncated at 8"},
    ]
    coco.write(found, tmp_path / "x.json")
    assert coco.read(tmp_path / "x.json").info == found.info
    assert merge.merge_records([], {}, []).info == {"ovtool": {"failures": []}}


def test_a_folder_of_parts_is_read_as_the_merged_file(tmp_path: Path) -> None:
    kept, cuts = fill(tmp_path)
    coco.write(
        merge.merge_records(records_of(kept, cuts), {"a": 1}, CATEGORIES), tmp_path / "a.json"
    )
    coco.write(coco.read(kept.folder), tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert parts.is_parts_folder(kept.folder) and not parts.is_parts_folder(tmp_path)


def test_masks_in_a_folder_of_parts_are_checked(tmp_path: Path) -> None:
    kept = store(tmp_path)
    bad = record(1)
    bad["annotations"][0]["segmentation"] = {"size": [6, 8], "counts": "11"}
    kept.write(Part(0, 0, 1, 1), [bad])
    with pytest.raises(InputError, match="annotations id 1: RLE counts are corrupt"):
        coco.read(kept.folder)


def test_folders_that_are_not_whole(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        parts.read_folder(tmp_path / "none")
    with pytest.raises(InputError, match="holds no parts"):
        coco.read(tmp_path)
    kept, cuts = fill(tmp_path)
    (kept.folder / "part-00002.jsonl").rename(tmp_path / "last")
    with pytest.raises(InputError, match="the parts end at image 8 of 10: .*--resume"):
        parts.read_folder(kept.folder)
    (tmp_path / "last").rename(kept.folder / "part-00002.jsonl")
    (kept.folder / "part-00001.jsonl").rename(tmp_path / "middle")
    with pytest.raises(InputError, match="part-00001.jsonl is missing"):
        parts.read_folder(kept.folder)
    store(tmp_path, "0" * 16).write(cuts[1], [])
    with pytest.raises(MismatchError, match="other settings"):
        parts.read_folder(kept.folder)
    kept.write(Part(1, 5, 8, 10), [])
    with pytest.raises(MismatchError, match="another cut"):
        parts.read_folder(kept.folder)
    PartStore(tmp_path / "y", DIGEST, SETTINGS).write(Part(0, 0, 0), [])
    with pytest.raises(InputError, match="do not say their categories"):
        coco.read(tmp_path / "y")


def test_more_parts_than_five_digits(tmp_path: Path) -> None:
    kept = store(tmp_path)
    kept.write(Part(100_000, 0, 1), [record(0)])
    assert kept.exists(Part(100_000, 0, 1))
    kept.remove()
    assert not kept.folder.exists()


def run(folder: Path) -> None:
    """A stage in small: sixty images in parts with tensors, merged into one file."""
    cuts, kept = parts.cut(60, 4), store(folder)

    def work(part: Part) -> engine.PartOutput:
        tensors: dict[str, torch.Tensor] = {}

        def records() -> Any:
            for index in range(part.start, part.stop):
                tensors[f"cam/{index}"] = torch.full((64, 64), float(index))
                time.sleep(0.001)
                yield record(index)

        return engine.PartOutput(records(), tensors)

    engine.run_parts(cuts, kept, work, resume=True)
    coco.write(merge.merge_records(records_of(kept, cuts), {"a": 1}, CATEGORIES), folder / "x.json")


def run_and_kill(folder: Path, delay: float | None) -> bool:
    """Runs in a process of its own, killed after ``delay`` seconds; whether it ended by itself."""
    process = multiprocessing.get_context("fork").Process(target=run, args=(folder,))
    process.start()
    process.join(delay)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="starts its processes by fork")
def test_killed_at_random_moments_and_resumed(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    start = time.perf_counter()
    assert run_and_kill(whole, None)
    length = time.perf_counter() - start
    rng = random.Random(0)
    kills, left_over = 0, 0
    while kills < 40 and not run_and_kill(killed, rng.uniform(0.0, length / 5)):
        kills += 1
        left_over += len(list((killed / "x.parts").glob(".*.tmp")))
        for path in (killed / "x.parts").glob("part-*.jsonl"):  # whole, whenever it was stopped
            assert json.loads(path.read_bytes().splitlines()[-1])["end"] == 4
            assert path.with_suffix(".safetensors").exists()
    assert kills >= 3 and left_over  # it was stopped in the middle of writing
    assert (killed / "x.json").exists() or run_and_kill(killed, None)
    assert (killed / "x.json").read_bytes() == (whole / "x.json").read_bytes()
    names = sorted(os.listdir(whole / "x.parts"))
    assert len(names) == 30 and sorted(os.listdir(killed / "x.parts")) == names
    for name in names:
        assert (killed / "x.parts" / name).read_bytes() == (whole / "x.parts" / name).read_bytes()
    assert not list(killed.glob(".*.tmp"))


def numbered(folder: Path, ids: dict[str, int], name: str = "x") -> coco.Dataset:
    """The ten records of a source that has these ids, merged, after a check that their folder of parts
    reads as the same."""
    kept = PartStore(folder / f"{name}.parts", DIGEST, SETTINGS, merge.preface({}, CATEGORIES))
    cuts = parts.cut(10, 4)
    for part in cuts:
        made = map(record, range(part.start, part.stop))
        kept.write(part, parts.with_source_ids(made, ids))
    assert all(kept.exists(part) for part in cuts)
    merged = merge.merge_records(records_of(kept, cuts), {}, CATEGORIES)
    coco.write(merged, folder / f"{name}.json")
    read = coco.read(kept.folder)
    assert read.images == merged.images
    assert [(one.id, one.image_id) for one in read.annotations] == [
        (one.id, one.image_id) for one in merged.annotations
    ]
    return merged


def test_images_keep_the_ids_of_their_source(tmp_path: Path) -> None:
    ids = {f"{index:03d}.jpg": 1000 - 7 * index for index in range(10)}
    merged = numbered(tmp_path, ids)
    # records 3 and 8 are failures; record k has k % 3 masks
    there = [k for k in range(10) if k % 5 != 3]
    assert [image.id for image in merged.images] == [1000 - 7 * k for k in there]
    assert [one.image_id for one in merged.annotations] == [
        1000 - 7 * k for k in there for _ in range(k % 3)
    ]
    assert [one.id for one in merged.annotations] == list(range(1, 8))
    assert "id" not in merged.images[0].extra


@pytest.mark.parametrize("fault", ["one without", "two alike", "none"])
def test_images_count_from_one_where_an_id_is_missing_or_doubled(
    tmp_path: Path, fault: str
) -> None:
    ids = {f"{index:03d}.jpg": 50 + index for index in range(10)}
    if fault == "one without":
        del ids["004.jpg"]
    elif fault == "two alike":
        ids["004.jpg"] = ids["005.jpg"]
    else:
        ids = {}
    merged = numbered(tmp_path, ids)
    assert [image.id for image in merged.images] == list(range(1, 9))


def test_an_id_of_zero_is_kept(tmp_path: Path) -> None:
    merged = numbered(tmp_path, {f"{index:03d}.jpg": index for index in range(10)})
    assert [image.id for image in merged.images] == [0, 1, 2, 4, 5, 6, 7, 9]


def test_an_id_that_is_none_damages_a_record() -> None:
    with pytest.raises(InputError, match="not an integer"):
        parts.check_record(parts.image_record("a.jpg", 6, 8, [], id="7"))
