"""`convert`: masks from one format to another, and the weights that OVSeg's authors published.

What is read becomes a COCO data set, and every format is written from that. A format that cannot hold all of it says
what it leaves out, in one line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ovtool
from ovtool.errors import InputError, UpToDate, UsageError
from ovtool.formats import atomic, coco, colour_maps, folders, lock, panoptic_files, rle
from ovtool.formats.mask_store import Masks, by_image, masks_of
from ovtool.inputs import any_masks
from ovtool.inputs import asked as requests
from ovtool.methods import instances
from ovtool.outputs import mask_formats
from ovtool.outputs.mask_formats import Request
from ovtool.runtime.progress import Progress, no_progress
from ovtool.settings.convert import Conversion, Format
from ovtool.settings.shared import Run

CHECKPOINTS = (".pth", ".pt")


@dataclass(frozen=True)
class Converted:
    """What a conversion wrote, or with `--dry-run` would write.

    Attributes:
        out: The file or folder.
        files: What else was written, kind to place.
        images: The number of images.
        masks: The number of masks, after they were divided into instances.
        classes: The number of classes.
        lost: What the format could not hold, a phrase for each kind; of weights, what they lack.
        licence: Of weights.
    """

    out: str
    files: Mapping[str, str]
    images: int
    masks: int
    classes: int
    lost: Sequence[str]
    licence: str | None = None


def run(
    file: str | Path,
    to: Format | None = None,
    how: Conversion = Conversion(),
    *,
    images: Path | None = None,
    ground_truth: str | Path | None = None,
    out: str | Path | None = None,
    run: Run = Run(),
    progress: Progress = no_progress,
) -> Converted:
    """Writes masks in another format, or the parts of a checkpoint of OVSeg.

    Args:
        file: What `inputs.any_masks` reads; or a checkpoint of OVSeg (`.pth`, `.pt`), of which a folder is made with
            `model.safetensors`, `prompts.safetensors` and `proposer.safetensors`.
        to: The format; None for a checkpoint.
        how: The table of colours, and what is an instance.
        images: The folder of the images. `webdataset` needs it, `yolo-seg` copies the images where it is given, and
            images that label maps have no endings for are named by it.
        ground_truth: The images and classes of a list of results.
        out: The file or folder; None is a name made from the input, `-` stdout for a single file.
        run: `overwrite` replaces what is there, `update` only where it is out of date; `dry_run` reads everything
            and writes nothing.
        progress: Opens a bar.

    Raises:
        UsageError: Options that do not go together, or no format.
        InputError: What is read is broken, or the place cannot be written.
        OutputExistsError: The output is there.
        UpToDate: With `run.update` there is nothing to do.
    """
    source, truth = str(file), None if ground_truth is None else str(ground_truth)
    if to is None:
        _check_checkpoint(source, how, images, truth)
        return _checkpoint(Path(source), Path(out or Path(source).stem), run)
    target = _default_name(source, to) if out is None else str(out)
    beside = panoptic_files.images_folder(Path(target)) if to == "coco-panoptic" else None
    is_file = to in mask_formats.FILES
    _check_colours(source, to, how)
    _check_apart(Path(target) if beside is None else beside, (source, truth, images, *_files(how)))
    _check_places(target, beside, is_file, run)
    asked = requests.of(
        "convert", how, to, sources=(source, truth), folder=images, outputs=(target,)
    )
    made = Path(target) if is_file else Path(target) / folders.MANIFEST
    try:
        requests.begin(asked, made, run, (beside,), is_list=to == "coco-results")
    except UpToDate:
        raise UpToDate(target) from None
    with lock.held(*(() if run.dry_run else (target, beside))):
        dataset = any_masks.read(source, images, truth, how.colours)
        if how.instances is not None:
            dataset = _divided(dataset, _division(how.instances))
        if run.dry_run:
            lost = mask_formats.not_held(dataset, to)
        else:
            home = images or any_masks.images_folder(source)
            _check_places(target, beside, is_file, run)  # another run may have written it meanwhile
            with progress(len(dataset.images), f"writing {to}") as advance:
                request = Request(
                    to=to,
                    target=target,
                    made_by=_made_by(how, to, asked.digest),
                    images=home,
                    colours=_table(source, how),
                    advance=advance,
                )
                lost = mask_formats.write(dataset, request)
    return Converted(
        target,
        {} if beside is None else {"segments": str(beside)},
        len(dataset.images),
        len(dataset.annotations),
        len(dataset.categories),
        lost,
    )


def _check_colours(source: str, to: Format, how: Conversion) -> None:
    """Refuses a table of colours that neither what is read nor what is written needs."""
    if how.colours is not None and to != "label-maps" and not any_masks.is_coloured(source):
        raise UsageError(
            "--colours is of label maps in RGB, and none are read or written; leave it out"
        )


def _table(source: str, how: Conversion) -> colour_maps.ColourTable | None:
    """The colours of the label maps to write; None where they were for those that are read."""
    if how.colours is None or any_masks.is_coloured(source):
        return None
    return colour_maps.read_table(how.colours)


def _made_by(how: Conversion, to: Format, digest: str) -> dict[str, Any]:
    """The provenance of what is written, without a path."""
    kind = how.instances if how.instances in (None, "parts") else "proposals"
    return {
        "version": ovtool.__version__,
        "command": "convert",
        "settings": {"to": to, "instances": kind},
        "asked": digest,
    }


def _files(how: Conversion) -> list[Path]:
    return [path for path in (how.colours, how.instances) if isinstance(path, Path)]


def _check_apart(target: Path, read: Sequence[object]) -> None:
    """Refuses a folder to write that holds something that is read, for it would be replaced as a whole."""
    for place in read:
        if place is not None and Path(os.path.realpath(str(place))).is_relative_to(
            os.path.realpath(target)
        ):
            raise UsageError(
                f"{place} is in {target}, which this run writes; write to another place"
            )


def _check_checkpoint(source: str, how: Conversion, *others: object) -> None:
    """Refuses what is no checkpoint, and options that one does not take."""
    if Path(source).suffix not in CHECKPOINTS:
        raise UsageError(f"the format to write {source} in is not given; name it with --to")
    if how != Conversion() or any(other is not None for other in others):
        raise UsageError(
            "a checkpoint has no masks; leave out --colours, --instances, --images, --ground-truth"
        )
    if not Path(source).is_file():
        raise InputError(f"no such file: {source}")


def _checkpoint(path: Path, folder: Path, run: Run) -> Converted:
    """The files of the parts of a checkpoint, in a folder."""
    folders.check(folder, run.replaces)
    asked = requests.of("convert", "checkpoint", sources=(path,), outputs=(folder,))
    try:
        requests.begin(asked, folder / folders.MANIFEST, run)
    except UpToDate:
        raise UpToDate(folder) from None
    from ovtool.models import ovseg_checkpoint

    licence = ovseg_checkpoint.LICENCE
    if run.dry_run:
        ovseg_checkpoint.read(path)
        return Converted(str(folder), {}, 0, 0, 0, (), licence)
    made_by = {"version": ovtool.__version__, "command": "convert"}
    with lock.held(folder):
        folders.check(folder, run.replaces)  # another run may have written it meanwhile
        with folders.writing(
            folder, made_by | {"asked": asked.digest, "licence": licence}
        ) as place:
            made = ovseg_checkpoint.convert(path, place, {"source": path.name})
    files = {kind: str(folder / name) for kind, name in made.files.items()}
    return Converted(str(folder), files, 0, 0, 0, made.notes, licence)


def _default_name(source: str, to: Format) -> str:
    stem = "stdin" if source == "-" else Path(source.replace(":", "_")).resolve().stem
    return f"{stem}{mask_formats.FILES.get(to, '.' + to)}"


def _check_places(target: str, beside: Path | None, is_file: bool, run: Run) -> None:
    """Refuses places that cannot or must not be written, before anything is read."""
    if target == "-" and (beside is not None or not is_file):
        raise UsageError(
            "a format of several files cannot go to stdout; name a folder or a file with -o"
        )
    if target == "-" and run.update:
        raise UsageError("--update compares the times of files; name a file in place of -")
    if beside is not None and beside == Path(target):
        raise UsageError(
            f"the PNGs of {target} would have its name; name a file that ends in .json"
        )
    if beside is not None:
        folders.check(beside, run.replaces)
    if is_file:
        atomic.check_output(Path(target), run.replaces)
    else:
        folders.check(Path(target), run.replaces)


Mask = NDArray[np.bool_]
Division = Callable[[coco.Image, Mask], list[Mask]]


def _division(how: Path | str) -> Division:
    """What divides the mask of an image: parts, or the proposals of a file."""
    if how == "parts":
        return lambda image, mask: instances.parts(mask)
    proposals = coco.read(Path(how))
    images = {image.file_name: image for image in proposals.images}
    masks_of_image = masks_of(proposals)

    def divided(image: coco.Image, mask: Mask) -> list[Mask]:
        other = images.get(image.file_name, image)
        if (other.height, other.width) != (image.height, image.width):
            raise UsageError(
                f"{image.file_name} has another size in {how}; give the proposals of these images"
            )
        own = masks_of_image(other.id) if image.file_name in images else []
        best = sorted(own, key=lambda entry: -(1.0 if entry.score is None else entry.score))
        proposed = [rle.decode(entry.segmentation, image.height, image.width) for entry in best]
        return instances.by_proposals(mask, proposed)

    return divided


def _divided(dataset: coco.Dataset, division: Division) -> coco.Dataset:
    """The data set with a mask for each instance; crowds stay as they are."""
    made = Masks()
    for image, masks in by_image(dataset):
        for mask in masks:
            pixels = rle.decode(mask.segmentation, image.height, image.width)
            is_crowd = bool(mask.extra.get("iscrowd"))
            for part in [pixels] if is_crowd else division(image, pixels):
                shape = rle.encode(part)
                made.append(
                    replace(
                        mask,
                        id=len(made) + 1,
                        segmentation=shape,
                        bbox=rle.bounding_box(shape),
                        area=float(rle.area(shape)),
                    )
                )
    return replace(dataset, annotations=made)
