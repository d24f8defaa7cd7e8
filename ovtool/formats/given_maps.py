"""Anybody's class activation maps, a file an image: `.safetensors`, plain `.npy` or `.npz`.

A file holds either one array (K, h, w), of which K is the number of the image's own labels, ascending, or
of all classes; or an array (h, w) for each class, under its name or its number, counted from 0 as the
published codes do. Values are those of any CAM: what leaves [0, 1] is brought to it, class by class.
"""

import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovtool.errors import InputError
from ovtool.formats import coco, file_matching
from ovtool.formats.file_matching import Names

SUFFIXES = (".safetensors", ".npz", ".npy")
MAX_BYTES = 1 << 30  # of the maps of an image
_LARGEST = 1e30  # of a value, so that differences are finite too


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
    if not (np.abs(maps) <= _LARGEST).all():
        raise InputError(
            f"{path} holds numbers that are not finite (NaN) or beyond {_LARGEST:g}; make it again"
        )
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
        return stack[[place[category_id] for category_id in category_ids]]
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
    maps = []
    for category_id in category_ids:
        number, category = by_id[category_id]
        array = arrays.get(category.name, arrays.get(str(number)))
        if array is None or array.ndim != 2:
            raise InputError(
                f"{path} has no map (h, w) named '{category.name}' or {number} for a label of its image; "
                f"it has {', '.join(f'{k} {list(v.shape)}' for k, v in list(arrays.items())[:4])}"
            )
        maps.append(array)
    if len({array.shape for array in maps}) > 1:
        raise InputError(f"{path} has maps of several sizes; bring them to one")
    return np.stack(maps)


def _arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    """The arrays of a file by name; that of a `.npy` has none."""
    arrays: dict[str, NDArray[np.generic]] = {}
    try:
        if path.suffix == ".safetensors":
            stored = safetensors.torch.load_file(path)
            arrays = {name: value.float().numpy() for name, value in stored.items()}
        elif path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    with archive.open(name) as member:
                        room = MAX_BYTES - sum(array.nbytes for array in arrays.values())
                        arrays[name.removesuffix(".npy")] = _array(member, path, room)
        else:
            with open(path, "rb") as handle:
                arrays[""] = _array(handle, path, MAX_BYTES)
    except InputError:
        raise
    except Exception as error:  # zip, zlib, numpy and safetensors each have their own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} is broken or cannot be read ({reason}); make it again") from None
    is_filled = all(array.size for array in arrays.values())
    if not arrays or not is_filled or any(a.dtype.kind not in "iuf" for a in arrays.values()):
        raise InputError(f"{path} holds no maps of numbers; make it again")
    return arrays


def _array(handle: IO[bytes], path: Path, room: int) -> NDArray[np.generic]:
    """The array of an open `.npy`, if its header says that it takes no more than `room` bytes."""
    version = np.lib.format.read_magic(handle)
    headers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, _, dtype = headers[version](handle)
    if dtype.hasobject:
        raise InputError(
            f"{path} is pickled, and nothing is unpickled here; if you trust it, convert it with: "
            f"{_conversion(path)}"
        )
    if math.prod(shape) * dtype.itemsize > room:
        raise InputError(f"{path} unpacks to more than {MAX_BYTES:,} bytes; scale its maps down")
    handle.seek(0)
    array: NDArray[np.generic] = np.lib.format.read_array(handle, allow_pickle=False)
    return array


def _conversion(path: Path) -> str:
    """The line that turns a pickled dictionary of maps into a plain `.npz`."""
    target = path.with_suffix(".npz")
    return (
        'python -c "import numpy; '
        f"d = numpy.load('{path}', allow_pickle=True).item(); "
        f"numpy.savez('{target}', **{{str(k): v for k, v in d.items()}})\""
    )
