"""The engine keeps what is done, and says what went wrong."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ovtool.errors import InputError, MismatchError
from ovtool.formats import parts
from ovtool.formats.parts import Part, PartStore
from ovtool.runtime import engine


class Work:
    """Counts what is asked of it; image 5 fails."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.done: list[int] = []
        self.stop_at = stop_at

    def __call__(self, part: Part) -> engine.PartOutput:
        return engine.PartOutput(self.records(part), {"t": torch.tensor(part.index)})

    def records(self, part: Part) -> Iterator[dict[str, Any]]:
        for index in range(part.start, part.stop):
            if index == self.stop_at:
                raise KeyboardInterrupt
            self.done.append(index)
            if index == 5:
                yield parts.failure_record("5.jpg", "is truncated")
            else:
                yield parts.image_record(f"{index}.jpg", 4, 4, [])


def store(folder: Path, digest: str = "d") -> PartStore:
    return PartStore(folder / "x.parts", digest, {})


CUTS = parts.cut(10, 4)


def test_all_parts_in_order_with_progress(tmp_path: Path) -> None:
    seen: list[int] = []
    kept = store(tmp_path)
    engine.run_parts(CUTS, kept, Work(), advance=seen.append)
    assert seen == [1] * 10
    records = [record for part in CUTS for record in kept.read(part)]
    assert records[5] == {"failure": {"file_name": "5.jpg", "reason": "is truncated"}}
    assert len(records) == 10 and kept.tensors(CUTS[2])["t"] == 2


def test_an_interrupted_run_is_resumed(tmp_path: Path) -> None:
    kept, first, second = store(tmp_path), Work(stop_at=9), Work()
    with pytest.raises(KeyboardInterrupt):
        engine.run_parts(CUTS, kept, first)
    assert [kept.exists(part) for part in CUTS] == [True, True, False]
    seen: list[int] = []
    engine.run_parts(CUTS, kept, second, resume=True, advance=seen.append)
    assert second.done == [8, 9] and seen == [4, 4, 1, 1]
    third = Work()
    engine.run_parts(CUTS, kept, third, resume=True)
    assert third.done == []


def test_without_resume_all_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine.run_parts(CUTS, store(tmp_path, "old"), Work())
    work = Work(stop_at=4)
    with pytest.raises(KeyboardInterrupt), caplog.at_level(logging.WARNING, "ovtool"):
        engine.run_parts(CUTS, store(tmp_path), work)
    assert "removed 3 parts" in caplog.text and "--resume" in caplog.text
    # nothing of the old run is left to disagree with the new one
    engine.run_parts(CUTS, store(tmp_path), Work(), resume=True)
    assert all(store(tmp_path).exists(part) for part in CUTS)


def test_a_run_of_some_parts_leaves_the_others(tmp_path: Path) -> None:
    engine.run_parts(CUTS[::2], store(tmp_path), Work())
    engine.run_parts(CUTS[1::2], store(tmp_path), Work())
    assert all(store(tmp_path).exists(part) for part in CUTS)


def test_other_settings_are_told_before_any_work(tmp_path: Path) -> None:
    engine.run_parts(CUTS[2:], store(tmp_path, "old"), Work())
    work = Work()
    with pytest.raises(MismatchError):
        engine.run_parts(CUTS, store(tmp_path), work, resume=True)
    assert work.done == []


def test_strict_stops_at_the_first_failure(tmp_path: Path) -> None:
    kept, work = store(tmp_path), Work()
    with pytest.raises(InputError, match=r"^5\.jpg: is truncated$"):
        engine.run_parts(CUTS, kept, work, strict=True)
    assert work.done == [0, 1, 2, 3, 4, 5]
    assert [kept.exists(part) for part in CUTS] == [True, False, False]


def test_what_a_killed_run_left_is_cleaned_at_the_next_start(tmp_path: Path) -> None:
    kept = store(tmp_path)
    kept.folder.mkdir()
    for name in (".part-00000.jsonl.ab12.tmp", ".part-00001.safetensors.cd34.tmp"):
        (kept.folder / name).write_text("half")
    (kept.folder / "part-00002.safetensors").write_text("of a part that was never finished")

    def work(part: Part) -> engine.PartOutput:
        assert not list(kept.folder.glob(f".part-{part.index:05d}*"))
        return Work()(part)

    engine.run_parts(CUTS, kept, work, resume=True)
    assert len(list(kept.folder.iterdir())) == 6 and kept.tensors(CUTS[2])["t"] == 2


def test_a_record_for_each_item(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="1 records of 4 items"):
        engine.run_parts(
            CUTS, store(tmp_path), lambda part: engine.PartOutput([parts.failure_record("a", "b")])
        )
    assert not store(tmp_path).exists(CUTS[0])


def test_a_damaged_mask_is_made_again_on_resume(tmp_path: Path) -> None:
    """pycocotools ends the process with SIGFPE where a mask has no rows."""
    kept = store(tmp_path)
    engine.run_parts(CUTS, kept, Work())
    path = kept.folder / "part-00001.jsonl"
    whole, mask = path.read_bytes(), {"size": [0, 128], "counts": "0"}
    entry = {"category_id": 1, "segmentation": mask}
    damaged = parts._line(parts.image_record("4.jpg", 4, 4, [entry]))
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], damaged, *lines[2:]]))
    again = Work()
    engine.run_parts(CUTS, kept, again, resume=True)
    assert again.done == [4, 5, 6, 7] and path.read_bytes() == whole
    tensors = kept.folder / "part-00002.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-3])
    engine.run_parts(CUTS, kept, again, resume=True)
    assert again.done[4:] == [8, 9] and kept.tensors(CUTS[2])["t"] == 2
