"""`data make`: the collage world written to a folder, or a data set of Hugging Face's `datasets` unpacked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ovtool
from ovtool.datasets import collage_files, hugging_face, registry
from ovtool.datasets.collage_files import CollageSpec
from ovtool.errors import InputError, OutputExistsError, UpToDate, UsageError
from ovtool.formats import atomic, lock
from ovtool.runtime.progress import Progress, no_progress
from ovtool.settings.data import Scenes
from ovtool.settings.shared import Run


def run(
    name: str,
    folder: str | Path,
    scenes: Scenes = Scenes(),
    *,
    run: Run = Run(),
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Writes a data set below a folder: images, instances, semantic masks, captions, word lists.

    Where the run does not end well there are no annotations, and so no data set.

    Args:
        name: `collage`, the one that can be made; or a folder that `datasets` saved, of which `scenes.split` says the
            split, where it has several.
        folder: absent or empty, unless `run.overwrite`, which replaces the files of this split and
            touches no others.
        scenes: what is made; its bytes depend on all of these but the number of workers.
        run: `dry_run` checks everything and writes nothing.
        progress: opens a bar.

    Returns:
        `data_set` (`collage:test`), `folder`, `dry_run`, `settings` (what its bytes depend on) and
        `files`: the folders `images` and `label_maps`, and the files `instances`, `semantic`,
        `captions`, `classes_per_image`. Of a folder of `datasets` there are those of `images`, `label_maps` and
        `captions` that it has, and `settings` holds `split` and the number of `images`.

    Raises:
        UsageError: the data set or the split is unknown.
        OutputExistsError: the folder is not empty.
        UpToDate: with `run.update`, the folder holds this data set.
        InputError: the art is not at hand, or the folder cannot be written.
    """
    folder = Path(folder)
    if hugging_face.is_folder(Path(name)):
        return _unpacked(Path(name), folder, scenes, run, progress)
    if Path(name).is_dir():
        raise InputError(
            f"{name} is no folder that datasets saved; `datasets.load_dataset('{name}').save_to_disk('saved')` in Python "
            "makes one of a folder of parquet files"
        )
    spec = _spec(name, scenes)
    if run.update and _is_made(spec, folder):
        raise UpToDate(folder)
    _check_folder(folder, run.replaces)
    collage_files.drawings(spec.split)  # whether it has them, before anything is removed
    if not run.dry_run:
        with _held(folder, run.replaces):
            _make_whole(spec, folder, scenes.workers, progress)
    files = registry.collage_in(folder, spec.split)
    return {
        "data_set": files.name,
        "folder": str(folder),
        "dry_run": run.dry_run,
        "settings": asdict(spec),
        "files": {
            "images": str(files.images),
            "instances": str(files.instances),
            "semantic": str(files.semantic),
            "captions": str(files.captions),
            "classes_per_image": str(files.classes_per_image),
            "label_maps": str(folder / "label_maps" / spec.split),
        },
    }


def _unpacked(
    source: Path, folder: Path, scenes: Scenes, run: Run, progress: Progress
) -> dict[str, Any]:
    """A folder of `datasets`, written as images, label maps and captions."""
    if scenes != Scenes(split=scenes.split) or run.update:
        raise UsageError(
            f"{source} is unpacked as it is; give no option but --split and --overwrite"
        )
    place, split = hugging_face.split_of(source, scenes.split)
    _check_folder(folder, run.replaces)
    rows = len(hugging_face.opened(place))
    files: dict[str, Path] = {}
    if not run.dry_run:
        with (
            _held(folder, run.replaces),
            progress(rows, f"unpacking {source.name}:{split}") as advance,
        ):
            files = hugging_face.unpack(place, split, folder, advance)
    return {
        "data_set": f"{source.name}:{split}",
        "folder": str(folder),
        "dry_run": run.dry_run,
        "settings": {"split": split, "images": rows},
        "files": {what: str(path) for what, path in files.items()},
    }


def _spec(name: str, scenes: Scenes) -> CollageSpec:
    """The settings as a spec, or UsageError."""
    if ":" in name:
        short, _, given = name.partition(":")
        raise UsageError(
            f"'{name}' holds a split; give the split as an option: {short} --split {given}"
        )
    named = name if scenes.split is None else f"{name}:{scenes.split}"
    name, split = registry.split_name(named)
    if name != "collage":
        raise UsageError(f"{name} cannot be made, only found; `ovtool data list` says where")
    return CollageSpec(split, scenes.count, scenes.seed, scenes.size, scenes.preset)


def _is_made(spec: CollageSpec, folder: Path) -> bool:
    """Whether the folder holds the data set of a spec, whole, as this version makes it."""
    files = registry.collage_in(folder, spec.split)
    if files.instances is None or not registry.is_made(files):
        return False
    try:
        made = json.loads(files.instances.read_bytes())["info"]["ovtool"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(made.get("version") == ovtool.__version__ and made.get("settings") == asdict(spec))


def _check_folder(folder: Path, overwrite: bool) -> None:
    """Refuses a folder that holds something, or cannot be made or written."""
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise OutputExistsError(
            f"{folder} is not empty; name another folder, or replace the data set with --overwrite"
        )
    atomic.check_folder(folder, atomic.above(folder))


@contextmanager
def _held(folder: Path, overwrite: bool) -> Iterator[None]:
    """The right to write below a folder, which is checked again, as another run may have filled it by now."""
    atomic.make_folder(folder.absolute().parent)
    with lock.held(folder):
        _check_folder(folder, overwrite)
        yield


def _make_whole(spec: CollageSpec, folder: Path, workers: int, progress: Progress) -> None:
    """Makes the data set, or leaves none that could be taken for one."""
    try:
        _remove(_annotations(spec, folder))
        _remove(_images(spec, folder))
        with progress(spec.images, f"making collage:{spec.split}") as advance:
            collage_files.make(spec, folder, workers, advance)
    except BaseException as error:
        _remove(_annotations(spec, folder))
        if isinstance(error, OSError):
            raise InputError(
                f"cannot write the data set in {folder}: {error.strerror or error}"
            ) from error
        if isinstance(error, BrokenProcessPool):
            raise InputError(
                "a worker was killed, as happens when memory runs out; use fewer --workers"
            ) from error
        raise


def _annotations(spec: CollageSpec, folder: Path) -> list[Path]:
    """The annotation files of the split, the last to be written first."""
    kinds = ("classes", "captions", "semantic", "instances")
    return [folder / "annotations" / f"{kind}_{spec.split}.json" for kind in kinds]


def _images(spec: CollageSpec, folder: Path) -> Iterator[Path]:
    """The images and label maps that an earlier run left for the split."""
    for part in ("images", "label_maps"):
        place = folder / part / spec.split
        if place.is_dir():
            named = (path for path in place.iterdir() if re.fullmatch(r"\d{6,}", path.stem))
            yield from (path for path in named if path.suffix in (".jpg", ".png"))


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
