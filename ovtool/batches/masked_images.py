"""Where images with masks come from: a data set's name, or files and the folder of their images."""

from pathlib import Path

from ovtool.datasets import registry
from ovtool.errors import UsageError


def data_set_files(
    source: str, images: Path | None, only_instances: bool = False
) -> tuple[Path, Path] | None:
    """The masks and the folder of images of a data set; None where the source is none.

    Args:
        source: A data set's name or folder, or the path of a file or folder.
        images: The folder that was given, which a data set does not take.
        only_instances: Whether masks of single objects are wanted; else those of whole classes come
            first.

    Raises:
        UsageError: A folder was given for a data set, or the data set is unknown.
        InputError: The data set has no masks, or its folder has several splits.
    """
    files = data_set(source, images)
    return None if files is None else (files.masks(only_instances), files.images)


def data_set(source: str, images: Path | None) -> registry.DataSet | None:
    """The data set that a source is; None where it is none. Raises as `data_set_files`, masks aside."""
    files = registry.of_source(source)
    if files is not None and images is not None:
        raise UsageError(f"--images is the folder of a COCO JSON, and {source} has its own")
    return files
