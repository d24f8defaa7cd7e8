"""`propose`: images to class-agnostic masks, each with a quality; embeddings beside them by choice."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovtool.errors import InputError, UsageError
from ovtool.formats import atomic, coco, merge, parts, rle, tensors
from ovtool.formats.images import ImageItem
from ovtool.formats.json_sections import Entries
from ovtool.inputs import asked as requests
from ovtool.inputs import images as image_inputs
from ovtool.models import resolve
from ovtool.models.maskformer import TEMPERATURE
from ovtool.proposers import by_name
from ovtool.proposers.by_name import Proposer
from ovtool.proposers.proposals import Proposals, max_iou, min_area
from ovtool.runtime import device as devices
from ovtool.runtime import engine, runs
from ovtool.runtime.outcome import Outcome
from ovtool.runtime.progress import Progress, no_progress
from ovtool.settings import layers
from ovtool.settings.propose import Propose
from ovtool.settings.shared import Compute, Run, Source

if TYPE_CHECKING:  # loaded where it is used: bad arguments need not wait for it
    from ovtool.models.clip import Clip

CATEGORIES = (coco.Category(1, "object"),)


def run(
    inputs: str | Path | Sequence[str | Path] = (),
    masks: Propose = Propose(),
    *,
    out: str | Path | None = None,
    format: Literal["coco", "results"] = "coco",
    save_embeddings: str | Path | None = None,
    source: Source = Source(),
    run: Run = Run(),
    compute: Compute = Compute(),
    progress: Progress = no_progress,
) -> Outcome:
    """Writes the masks of every image as COCO JSON, class-agnostic: one category, `object`.

    Args:
        inputs: image files and folders, `-`, or a data set; see `inputs.images.find`.
        masks: the proposer, and the bounds of its masks.
        out: where to write; `-` is stdout, None is a name made from the input in the current folder.
        format: `results` writes COCO's bare list of results in place of a data set.
        save_embeddings: a safetensors file for the embeddings of the masks, a row an annotation, and the
            vector of "no object"; only a trained proposer has them.
        source: the images of a COCO JSON in place of `inputs`, and their greatest number.
        run: how the run goes.
        compute: the device, and the CLIP that a trained proposer must belong to.
        progress: opens a bar.

    Returns:
        The data set, and the images that could not be read: they are no error but failures, listed in
        the output too, unless `run.strict`.

    Raises:
        UsageError, InputError, OutputExistsError, ModelError.
        MismatchError: the proposer belongs to another CLIP.
    """
    compute = resolve.for_data(compute, inputs)
    devices.set_threads(compute.threads)
    place = devices.choose(compute.device)
    name = masks.proposer or by_name.default_name(compute.model)
    items = image_inputs.find(inputs, source.coco, source.images, source.limit, source.exif)
    target = str(out or image_inputs.default_output(inputs, items, source.coco, "proposals"))
    embeddings = None if save_embeddings is None else Path(save_embeddings)
    _check_places(target, embeddings, run)
    named = (*image_inputs.data_set_of(inputs), source.coco)
    asked = requests.of("propose", masks, name, compute, run, format, sources=named, items=items)
    run = requests.begin(asked, target, run, (embeddings,), is_list=format == "results")
    clip = _clip(compute.model, place) if by_name.is_trained(name) else None
    settings = dataclasses.replace(masks, proposer=name)
    propose = by_name.load(settings, clip=clip, device=place)
    if embeddings is not None and propose.model is None:
        raise UsageError(
            f"--proposer {name} has no embeddings; leave out --save-embeddings, or name a proposer that "
            "`ovtool train-proposer` made"
        )
    if run.dry_run:
        return runs.planned(items, CATEGORIES, target, run, place)

    facts: dict[str, Any] = {}
    if embeddings is not None and propose.model is not None:
        facts = dict(zip(("model", "fingerprint"), propose.model, strict=True))
    written = {} if embeddings is None else {"embeddings": str(embeddings)}
    outcome = runs.map_images(
        items,
        lambda part: part_output(part, propose, embeddings is not None),
        runs.Job(
            info=runs.provenance("propose", _provenance(settings, propose), None),
            categories=CATEGORIES,
            out=target,
            device=place if propose.weights is not None else torch.device("cpu"),
            description="proposing",
            output=merge.Output(format, asked.digest, facts),
            beside=runs.places_from(target, written),
            begin=lambda: _check_places(target, embeddings, run),
            finish=partial(finish, places=written, facts=facts),
        ),
        run,
        progress,
    )
    return dataclasses.replace(outcome, files=written)


def _check_places(target: str, embeddings: Path | None, run: Run) -> None:
    """Refuses places that must not be written to, before any work is done."""
    runs.check_place(target, run)
    if embeddings is None:
        return
    if str(embeddings) == "-":
        raise UsageError("--save-embeddings writes a safetensors file; name one in place of -")
    atomic.check_output(embeddings, run.replaces or runs.goes_on(target, run))


def part_output(items: Sequence[ImageItem], propose: Proposer, embed: bool) -> engine.PartOutput:
    """The records of a part; with `embed` also its embeddings, float16, a row a mask, and "no object"."""
    rows: list[NDArray[np.float32]] = []
    kept: dict[str, tensors.Array] = {}

    def work(item: ImageItem, rgb: NDArray[np.uint8]) -> parts.Record:
        proposals = propose(rgb)
        if embed and proposals.embeddings is not None:
            rows.append(proposals.embeddings)
        return record(item, proposals)

    def records() -> Iterator[parts.Record]:
        yield from runs.image_records(items, work)
        if embed and propose.no_object is not None:
            empty = np.zeros((0, len(propose.no_object)), np.float32)
            kept["embeddings"] = np.concatenate([empty, *rows]).astype(np.float16)
            kept["no_object"] = propose.no_object

    return engine.PartOutput(records(), tensors=kept)


def record(item: ImageItem, proposals: Proposals) -> parts.Record:
    """The masks of an image, best first, all of the one category `object`."""
    entries = [
        {
            "category_id": 1,
            "segmentation": rle.encode(
                member[proposals.superpixels]
            ),  # each alone, as some are large
            "score": round(float(quality), 6),
        }
        for member, quality in zip(proposals.members, proposals.quality, strict=True)
    ]
    height, width = proposals.superpixels.shape
    return parts.image_record(item.name, height, width, entries)


def finish(
    dataset: coco.Dataset,
    embedded: Sequence[Mapping[str, Tensor]],
    places: Mapping[str, str],
    facts: Mapping[str, Any],
) -> None:
    """Writes the embeddings of a data set's masks, if they have a place: rows in the order of the
    annotations' ids.

    Args:
        dataset: the merged data set.
        embedded: the tensors of the parts.
        places: what is written, kind to place.
        facts: `model` and `fingerprint` of the CLIP that the proposer belongs to.

    Raises:
        InputError: the embeddings of a part are missing, or are of other masks.
    """
    if "embeddings" not in places:
        return
    settings = {
        "annotations": len(dataset.annotations),
        "proposals": coco.digest(dataset),
        "temperature": TEMPERATURE,
    }
    header = {"kind": "proposals", **facts, "settings": settings}
    if any(part.keys() != {"embeddings", "no_object"} for part in embedded):
        raise InputError("the parts have no embeddings; run the command again without --resume")
    shapes = [(*part["embeddings"].shape, *part["no_object"].shape) for part in embedded]
    if {shape[1:] for shape in shapes} != {2 * shapes[0][-1:]} or (
        sum(shape[0] for shape in shapes) != len(dataset.annotations)
    ):
        raise InputError(
            "the embeddings of the parts are not those of their masks; run the command again without --resume"
        )
    rows = Entries(lambda: (part["embeddings"] for part in embedded))
    tensors.save(
        Path(places["embeddings"]),
        {"embeddings": rows, "no_object": embedded[0]["no_object"]},
        header,
    )


def _clip(model: str | None, device: torch.device) -> Clip | None:
    """The CLIP that a trained proposer must belong to; None where none is named."""
    if model is None:
        return None
    from ovtool.models import clip as clips

    return clips.load(model, device, torch.float32)


def _provenance(settings: Propose, propose: Proposer) -> dict[str, Any]:
    """What the output says of the settings: no path, and the network's digest if there is one."""
    said = layers.provenance(settings, {"proposer": propose.name})
    said["min_area"] = min_area(settings)
    if propose.weights is not None:
        said["weights"], said["nms"] = propose.weights, max_iou(settings)
    elif settings.nms is None:
        del said["nms"]
    return said
