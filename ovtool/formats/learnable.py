"""Whether masks can teach anything: what a training refuses without a look at an image."""

from collections.abc import Iterable, Sequence

from ovtool.errors import InputError, UsageError
from ovtool.formats import rle
from ovtool.formats.coco import Dataset
from ovtool.formats.colours import is_background

BACKGROUND = "background"  # the class of what nothing covers


def background_of(names: Sequence[str]) -> int | None:
    """The index of the class `background`, None where there is none."""
    return next((index for index, name in enumerate(names) if is_background(name)), None)


def check_classes(names: Sequence[str], with_background: bool, source: str) -> None:
    """Raises UsageError where a segmenter would have a single class; `with_background` makes one of what
    nothing covers."""
    if len(names) + (with_background and background_of(names) is None) < 2:
        count = f"one class, {names[0]}," if names else "no class,"
        raise UsageError(
            f"{source} has {count} and a segmenter needs two or more; give --with-background, and what no "
            "mask covers is a class of its own"
        )


def check_nouns(nouns: Iterable[str], source: str) -> None:
    """Raises UsageError where the masks that prompts learn from are all of one noun."""
    used = set(nouns)
    if len(used) < 2:
        raise UsageError(
            f"every mask of {source} is named '{used.pop()}', so that there is nothing to learn; add masks "
            "of other names"
        )


def check_pairs(dataset: Dataset, source: str) -> None:
    """Raises where there is no mask that prompts can learn from (InputError), or of one noun alone (UsageError)."""
    names = {category.id: category.name for category in dataset.categories}
    used: set[str] = set()
    for entry in dataset.annotations:
        if len(used) < 2 and rle.area(entry.segmentation):
            used.add(names[entry.category_id])
    if not used:
        raise InputError(
            f"{source} has no pairs: no mask in it has a pixel, so nothing can be learned"
        )
    check_nouns(used, source)


def check_covered(is_covered: bool, source: str) -> None:
    """Raises InputError for labels of a segmenter where no image has a pixel that counts."""
    if not is_covered:
        raise InputError(
            f"{source}: every pixel is ignored, since no mask covers any; make the masks again, in doubt "
            "with a lower --confidence of refine, or give --with-background"
        )


def check_labels(dataset: Dataset, with_background: bool, source: str) -> None:
    """Raises for masks that teach a segmenter nothing, as `check_classes` and `check_covered` do."""
    check_classes([category.name for category in dataset.categories], with_background, source)
    is_covered = any(rle.area(entry.segmentation) for entry in dataset.annotations)
    check_covered(with_background or is_covered, source)


def check_truth(dataset: Dataset, targets: str) -> None:
    """Raises InputError where there is no mask that a proposer can learn from: those of crowds are none where
    `targets` is `instances`."""
    leaves_crowds = targets == "instances"
    if not any(
        rle.area(entry.segmentation) and not (leaves_crowds and entry.extra.get("iscrowd"))
        for entry in dataset.annotations
    ):
        raise InputError(
            "no image of the truth has a mask; give a file with masks, since a proposer learns from them"
        )
