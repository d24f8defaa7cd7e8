"""What a stage works on: images from files, folders, stdin, a data set's name, or a COCO JSON."""

from collections.abc import Sequence
from pathlib import Path

from ovtool.datasets import registry
from ovtool.errors import InputError, UsageError
from ovtool.formats import coco
from ovtool.formats import images as pictures
from ovtool.formats.images import ImageItem

Inputs = str | Path | Sequence[str | Path]


def listed(inputs: Inputs) -> list[str]:
    """What a run is given as a list of texts: a text or a path alone is one input."""
    return [str(inputs)] if isinstance(inputs, str | Path) else [str(given) for given in inputs]


def find(
    inputs: Inputs,
    coco_file: Path | None = None,
    images: Path | None = None,
    limit: int | None = None,
) -> list[ImageItem]:
    """The images to work on, in the order in which their results are written.

    Args:
        inputs: an image file, a folder, or several of them; `-` (a list on stdin); or one data set
            `NAME[:SPLIT]`, where no file of that name exists.
        coco_file: a COCO JSON whose images are taken instead of `inputs`.
        images: the folder that its file names start from.
        limit: the greatest number of images.

    Raises:
        UsageError: inputs and a COCO JSON are both given, or neither.
        InputError: something is not there.
    """
    inputs = listed(inputs)
    if coco_file is not None:
        if inputs:
            raise UsageError("give images, or --coco FILE --images DIR, not both")
        found = _from_coco(coco_file, images)
    elif images is not None:
        raise UsageError("--images is the folder of --coco FILE; give images as arguments")
    elif not inputs:
        raise UsageError("no images: give files, folders, a data set such as collage:demo, or -")
    elif is_data_set(inputs):
        found = of_data_set(registry.locate(inputs[0]))
    else:
        found = pictures.find_images(inputs)
    return found[:limit]


def of_data_set(files: registry.DataSet) -> list[ImageItem]:
    """The images of a data set, in the order of its list if it has one, else of their names."""
    if files.file_names is None:
        return pictures.find_images([str(files.images)])
    return [ImageItem(files.images / name, name) for name in files.file_names]


def is_data_set(inputs: Inputs) -> bool:
    """Whether the inputs are one data set's name, and no file of that name is there."""
    inputs = listed(inputs)
    return len(inputs) == 1 and registry.is_name(inputs[0]) and not Path(inputs[0]).exists()


def _from_coco(source: Path, folder: Path | None) -> list[ImageItem]:
    if folder is None:
        raise UsageError("--coco needs --images DIR, the folder that its file names start from")
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder}; --images is where the names of {source} start")
    listed = coco.read(source, need_masks=False, root=folder).images
    if not listed:
        raise InputError(f"{source} lists no images")
    return [ImageItem(folder / image.file_name, image.file_name) for image in listed]


def default_output(
    inputs: Inputs, items: Sequence[ImageItem], coco_file: Path | None, kind: str
) -> str:
    """The file that a command writes in the current folder when no -o names one:
    `photo.segments.json` for photo.jpg, `collage.segments.json` for collage:test, ..."""
    inputs = listed(inputs)
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
