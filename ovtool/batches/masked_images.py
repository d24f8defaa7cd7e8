"""Where images with masks come from: a data set's name, or files and the folder of their images."""

from pathlib import Path

from ovtool.datasets import registry
from ovtool.errors import InputError, UsageError


def data_set_files(
    source: str, images: Path | None, only_instances: bool = False
) -> tuple[Path, Path] | None:
    """The masks and the folder of images of a data set; None where the source is none's name.

    Args:
        source: A data set's name, or the path of a file or folder.
        images: The folder that was given, which a data set does not take.
        only_instances: Whether masks of single objects are wanted; else those of whole classes come
            first.

    Raises:
        UsageError: A folder was given for a data set, or the data set is unknown.
        InputError: The data set has no masks.
    """
    if not registry.is_name(source) or Path(source).exists():
        return None
    if images is not None:
        raise UsageError(f"--images is the folder of a COCO JSON, and {source} has its own")
    files = registry.locate(source)
    masks = files.instances if only_instances else files.semantic or files.instances
    if masks is None:
        raise InputError(f"{source} has no masks to learn from; name another data set")
    return masks, files.images
