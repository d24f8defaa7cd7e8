"""The segmenter of a method, ready to be loaded; what can be checked before that is checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ovtool.errors import UsageError
from ovtool.formats.images import ImageItem
from ovtool.inputs import images as image_inputs
from ovtool.inputs import words as word_inputs
from ovtool.models import resolve
from ovtool.segmenters import dense, trained, two_stage
from ovtool.segmenters.protocol import Prepared
from ovtool.settings.option import fields, members, name_of
from ovtool.settings.segment import Method, Trained, TwoStage
from ovtool.settings.shared import Compute
from ovtool.settings.words import Words

_BY_NAME: dict[str, type] = {  # those that need no file
    name_of(kind): kind
    for kind in members(Method)
    if not any(field.is_required for field in fields(kind).values())
}


def as_method(method: Method | str) -> Method:
    """A method as settings: `"patch"`, `"fused"` and `"two-stage"` are those with their defaults.

    Raises:
        UsageError: It is no method.
    """
    if isinstance(method, Method):
        return method
    if isinstance(method, str) and method in _BY_NAME:
        named: Method = _BY_NAME[method]()
        return named
    names = ", ".join(f"'{name}'" for name in _BY_NAME)
    raise UsageError(
        f"unknown method {method!r}; give one of {names}, or settings such as ovtool.Patch() or "
        "ovtool.Trained(segmenter='file')"
    )


def prepared(
    method: Method,
    words: Words,
    items: Sequence[ImageItem],
    inputs: image_inputs.Inputs,
    compute: Compute,
    batch_size: int | None,
    coco_file: Path | None = None,
) -> Prepared:
    """The words of a run, and a segmenter that is still to be loaded.

    Args:
        method: How pixels are named.
        words: What is looked for.
        items: The images of the run.
        inputs: What they were named by, which may be a data set with words of its own.
        compute: The model, the device and the precision.
        batch_size: Windows or crops at once; None takes what the method does.
        coco_file: A COCO JSON that lists the images, whose categories are the words where no others are given.

    Raises:
        UsageError: The words, the proposer or the model are unknown, or do not go together.
        InputError: A file is not there or is broken.
        MismatchError: The proposals are those of other images, or a file is of another kind.
    """
    if isinstance(method, Trained):
        return trained.prepared(method, words, compute, batch_size)
    word_set = word_inputs.gather(items, inputs, words, coco_file)
    if isinstance(method, TwoStage):
        load = two_stage.prepared(method, word_set, items, compute, batch_size)
    else:
        load = dense.prepared(method, word_set, items, compute, batch_size)
    if compute.model is not None:
        resolve.spec(resolve.choose(compute.model))  # an unknown name is refused before any work
    return Prepared(word_set, load)
