"""Anybody's class activation maps, a file an image: `.safetensors`, plain `.npy` or `.npz`.

A file holds either one array (K, h, w), of which K is the number of the image's own labels, ascending, or
of all classes; or an array (h, w) for each class, under its name or its number, counted from 0 as the
published codes do. Values are those of any CAM: what leaves [0, 1] is brought to it, class by class.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovtool.errors import InputError
from ovtool.formats import coco, file_matching
from ovtool.formats.file_matching import Names

SUFFIXES = (".safetensors", ".npz", ".npy")


def find(folder: Path, file_names: Sequence[str]) -> dict[str, Path]:
    """The file of each image, with one of `SUFFIXES`: that of its relative path, or one whose path ends it
    or is ended by it (`file_matching`).

    Raises InputError for a folder that is not there, images without a file, and files that could belong
    to two images, or images to two files.
    """
    if not folder.is_dir():
        raise InputError(f"no such folder of maps: {folder}")
    files = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix in SUFFIXES and path.is_file()
    )
    images = Names("the list of images", file_names)
    matches = file_matching.match(images, Names(str(folder), files), ("stem", "ending"))
    missing = [name for name in file_names if name not in matches]
    if missing:
        raise InputError(
            f"{folder} has no maps for {len(missing)} of the {len(file_names)} images, such as "
            f"{Path(missing[0]).stem}{SUFFIXES[0]} for {missing[0]} (nor {', '.join(SUFFIXES[1:])})"
        )
    return {name: folder / file for name, file in matches.items()}


def read(path: Path, category_ids: Sequence[int], categories: Sequence[coco.Category]) -> Tensor:
    """The maps of an image's categories, float32 (K, h, w) in [0, 1], in the order of `category_ids`.

    Raises InputError for a file that is broken, pickled, or lacks a class, and for numbers that are not
    finite.
    """
    arrays = _arrays(path)
    if len(arrays) == 1 and next(iter(arrays.values())).ndim == 3:
        maps = _of_stack(next(iter(arrays.values())), path, category_ids, categories)
    else:
        maps = _of_names(arrays, path, category_ids, categories)
    if not np.isfinite(maps).all():
        raise InputError(f"{path} holds numbers that are not finite (NaN); make it again")
    tensor = torch.from_numpy(np.ascontiguousarray(maps, dtype=np.float32))
    low, high = tensor.amin(dim=(1, 2), keepdim=True), tensor.amax(dim=(1, 2), keepdim=True)
    outside = (low < 0) | (high > 1)
    return torch.where(outside, (tensor - low) / (high - low).clamp(min=1e-12), tensor)


def _of_stack(
    stack: NDArray[np.generic],
    path: Path,
    category_ids: Sequence[int],
    categories: Sequence[coco.Category],
) -> NDArray[np.generic]:
    if len(stack) == len(category_ids):
        return stack
    if len(stack) == len(categories):
        place = {category.id: k for k, category in enumerate(categories)}
        return stack[[place[one] for one in category_ids]]
    raise InputError(
        f"{path} has {len(stack)} maps, but its image has {len(category_ids)} labels and there are "
        f"{len(categories)} classes; give one map for each of either"
    )


def _of_names(
    arrays: Mapping[str, NDArray[np.generic]],
    path: Path,
    category_ids: Sequence[int],
    categories: Sequence[coco.Category],
) -> NDArray[np.generic]:
    by_id = {category.id: (k, category) for k, category in enumerate(categories)}
    found = []
    for one in category_ids:
        number, category = by_id[one]
        array = arrays.get(category.name, arrays.get(str(number)))
        if array is None or array.ndim != 2:
            raise InputError(
                f"{path} has no map (h, w) named '{category.name}' or {number} for a label of its image; "
                f"it has {', '.join(f'{k} {list(v.shape)}' for k, v in list(arrays.items())[:4])}"
            )
        found.append(array)
    if len({array.shape for array in found}) > 1:
        raise InputError(f"{path} has maps of several sizes: bring them to one")
    return np.stack(found)


def _arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    """The arrays of a file by name; that of a `.npy` has none."""
    try:
        if path.suffix == ".safetensors":
            found = safetensors.torch.load_file(path)
            arrays = {name: value.float().numpy() for name, value in found.items()}
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        else:
            arrays = {"": np.load(path, allow_pickle=False)}
    except ValueError as error:
        if "pickle" not in str(error).lower():
            raise InputError(f"{path} is broken or holds no arrays; make it again") from None
        raise InputError(
            f"{path} is pickled, and nothing is unpickled here; if you trust it, convert it with: "
            f"{_conversion(path)}"
        ) from None
    except (OSError, EOFError, KeyError, safetensors.SafetensorError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"{path} is broken or cannot be read ({reason}); make it again") from None
    if not arrays or not all(np.issubdtype(one.dtype, np.number) for one in arrays.values()):
        raise InputError(f"{path} holds no maps of numbers; make it again")
    return arrays


def _conversion(path: Path) -> str:
    """The line that turns a pickled dictionary of maps into a plain `.npz`."""
    target = path.with_suffix(".npz")
    return (
        'python -c "import numpy; '
        f"d = numpy.load('{path}', allow_pickle=True).item(); "
        f"numpy.savez('{target}', **{{str(k): v for k, v in d.items()}})\""
    )
