"""The images of a stage, from files, folders, stdin, a data set's name, or a COCO JSON; and the pixels
of what Python holds as an image."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovtool.datasets import registry
from ovtool.errors import InputError, UsageError
from ovtool.formats import coco, file_matching, image_search
from ovtool.formats import images as image_files
from ovtool.formats.images import Exif, ImageItem

Inputs = str | Path | Sequence[str | Path]
AnyImage = NDArray[np.uint8] | Image.Image | str | Path


def names_of(inputs: Inputs) -> list[str]:
    """What images are named by, as a list of texts; a single text or path is one name.

    Raises:
        UsageError: It is no name, and no list of names.
    """
    listed = [inputs] if isinstance(inputs, str | Path) else inputs
    if isinstance(listed, Sequence) and all(isinstance(name, str | Path) for name in listed):
        return [str(name) for name in listed]
    raise UsageError(
        f"the images are {type(inputs).__name__}; give a path, a list of paths, or a data set such as "
        "'collage:demo'"
    )


def find(
    inputs: Inputs,
    coco_file: Path | None = None,
    images: Path | None = None,
    limit: int | None = None,
    exif: Exif = "upright",
) -> list[ImageItem]:
    """The images to work on, in the order in which their results are written.

    Args:
        inputs: Image files, folders, `-` (a list on stdin), or a single data set `NAME[:SPLIT]`, where no
            file of that name exists. A single text or path is a list of one.
        coco_file: A COCO JSON whose images are taken instead.
        images: The folder that its file names start from.
        limit: The number of images after which the list ends.
        exif: Whether images are turned as their EXIF orientation says, or stay as they are stored.

    Raises:
        UsageError: Both or neither are given.
        InputError: An image or a file is not there.
    """
    inputs = names_of(inputs)
    if coco_file is not None:
        if inputs:
            raise UsageError("give images, or --coco FILE --images DIR, not both")
        items = _from_coco(coco_file, images)
    elif images is not None:
        raise UsageError("--images is the folder of --coco FILE; give images as arguments")
    elif not inputs:
        raise UsageError("no images; give files, folders, a data set such as collage:demo, or -")
    elif is_data_set(inputs):
        items = of_data_set(registry.locate(inputs[0]))
    else:
        items = image_search.find_images(inputs)
    return [replace(item, exif=exif) for item in items[:limit]]


def of_data_set(files: registry.DataSet) -> list[ImageItem]:
    """The images of a data set, in the order of its list of names, or of their names where it has none."""
    if files.listed is not None:
        return sorted(_from_coco(files.listed, files.images), key=lambda item: item.name)
    if files.file_names is None:
        items = image_search.find_images([str(files.images)])
        items = [item for item in items if item.name.endswith(files.ending)]
    else:
        items = [ImageItem(files.images / name, name) for name in files.file_names]
    return [replace(item, id=registry.image_id(files, item.name)) for item in items]


def is_data_set(inputs: Inputs) -> bool:
    """Whether the inputs are one data set's name, and no file of that name is there."""
    inputs = names_of(inputs)
    return len(inputs) == 1 and registry.is_name(inputs[0]) and not Path(inputs[0]).exists()


def data_set_of(inputs: Inputs) -> tuple[str, ...]:
    """The name of the data set that the inputs are; nothing where they are none."""
    return tuple(names_of(inputs)) if is_data_set(inputs) else ()


def _from_coco(source: Path, images: Path | None) -> list[ImageItem]:
    folder = file_matching.folder_of(images, source)
    listed = coco.read_images(source, folder)
    if not listed:
        raise InputError(f"{source} lists no images")
    return [
        ImageItem(
            file_matching.path_of(folder, image.file_name),
            image.file_name,
            image.id,
        )
        for image in listed
    ]


def default_output(
    inputs: Inputs, items: Sequence[ImageItem], coco_file: Path | None, kind: str
) -> str:
    """The file that a command writes in the current folder when no -o names another:
    `photo.segments.json` for photo.jpg, `collage.segments.json` for collage:test, ..."""
    inputs = names_of(inputs)
    if coco_file is not None:
        stem = "images" if str(coco_file) == "-" else coco_file.stem
    elif len(inputs) != 1 or inputs[0] == "-":
        stem = items[0].path.stem if len(items) == 1 else "images"
    elif is_data_set(inputs):
        stem = registry.split_name(inputs[0])[0]
    else:
        path = Path(inputs[0])
        stem = path.resolve().name if path.is_dir() else path.stem
    return f"{stem or 'images'}.{kind}.json"


def pixels_of(image: AnyImage) -> NDArray[np.uint8]:
    """The pixels of an image, uint8 (H, W, 3).

    Raises:
        UsageError: It is an array of another shape or type.
        TypeError: It is no image.
        InputError: The file is not there or cannot be read.
    """
    if isinstance(image, str | Path):
        return image_files.read_rgb(Path(image))
    if isinstance(image, Image.Image):
        return image_files.of_pillow(image)
    if not isinstance(image, np.ndarray):
        kind = f"{type(image).__module__}.{type(image).__qualname__}".removeprefix("builtins.")
        wanted = "an array (H, W, 3) uint8, a PIL image or a path"
        if kind in ("list", "tuple", "generator"):
            wanted += ", and several images to Segmenter.map"
        raise TypeError(f"the image is {kind}; give {wanted}")
    is_rgb = image.ndim == 3 and image.shape[2] == 3 and image.size > 0
    if not is_rgb or image.dtype != np.uint8:
        raise UsageError(
            f"the array is {image.dtype} of shape {image.shape}; give uint8 (H, W, 3) with values of 0 to "
            "255, such as np.asarray(PIL.Image.open(path).convert('RGB'))"
        )
    return np.ascontiguousarray(image)
