"""`propose`: images to class-agnostic masks, each with a quality; embeddings beside them by choice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovtool.errors import UsageError
from ovtool.formats import atomic, coco, parts, rle, tensors
from ovtool.formats.images import ImageItem
from ovtool.inputs import images as sources
from ovtool.proposers import named as named_proposers
from ovtool.proposers import region_sources
from ovtool.proposers.named import Proposals, ProposalSettings, Proposer, proposer_of
from ovtool.runtime import device as devices
from ovtool.runtime import engine, runs
from ovtool.runtime.runs import Outcome, Run

if TYPE_CHECKING:  # it imports open_clip, which few proposers need
    from ovtool.models.clip import Clip


def record(item: ImageItem, rgb: NDArray[np.uint8], propose: Proposer) -> parts.Record:
    """The masks of a picture, best first, all of the one category `object`."""
    return _record(item, propose(rgb))


def _record(item: ImageItem, found: Proposals) -> parts.Record:
    entries = [
        {
            "category_id": 1,
            "segmentation": rle.encode(member[found.superpixels]),  # one by one: they may be large
            "score": round(float(quality), 6),
        }
        for member, quality in zip(found.members, found.quality, strict=True)
    ]
    return parts.image_record(item.name, *found.superpixels.shape, entries)


def part_output(items: Sequence[ImageItem], propose: Proposer, embed: bool) -> engine.PartOutput:
    """The records of a part; with `embed` also its embeddings, float16, a row a mask."""
    rows: list[NDArray[np.float32]] = []
    kept: dict[str, tensors.Array] = {}

    def one(item: ImageItem, rgb: NDArray[np.uint8]) -> parts.Record:
        found = propose(rgb)
        if embed and found.embeddings is not None:
            rows.append(found.embeddings)
        return _record(item, found)

    def records() -> Iterator[parts.Record]:
        yield from runs.picture_records(items, one)
        if embed and propose.no_object is not None:
            empty = np.zeros((0, len(propose.no_object)), np.float32)
            kept["embeddings"] = np.concatenate([empty, *rows]).astype(np.float16)

    return engine.PartOutput(records(), tensors=kept)


def run(
    inputs: Sequence[str],
    *,
    proposer: str | None = None,
    model: str | None = None,
    device: str | None = None,
    max_proposals: int = 100,
    min_area: float = 0.001,
    nms: float | None = None,
    embeddings: Path | None = None,
    coco_file: Path | None = None,
    images: Path | None = None,
    limit: int | None = None,
    out: str | None = None,
    how: Run | None = None,
) -> Outcome:
    """Writes the masks of every image as COCO JSON, class-agnostic: one category, `object`.

    inputs: see `inputs.images.find`.
    proposer: see `proposers.named`; None is the default of `model`.
    model: the CLIP that a trained proposer must belong to; None is whichever it names.
    embeddings: a file for the embeddings of the masks, a row an annotation, and the vector of "no
        object"; only a trained proposer has them.
    out: where to write; `-` is stdout, None is a name made from the input in the current folder.

    Raises UsageError, InputError, OutputExistsError, ModelError, MismatchError (a proposer of another
    CLIP); an image that cannot be read is no error but a failure, listed in the outcome and in the
    output, unless `how.strict`.
    """
    how = how or Run()
    place = devices.choose(device)
    name = proposer or named_proposers.default_name(model)
    settings = ProposalSettings(name, max_proposals, min_area, nms)
    items = sources.find(inputs, coco_file, images, limit)
    target = out or sources.default_output(inputs, items, coco_file, "proposals")
    categories = (coco.Category(1, "object"),)
    runs.check_place(target, how)
    if embeddings is not None:
        if str(embeddings) == "-":
            raise UsageError("--embeddings writes a safetensors file: name one")
        begun = how.resume and runs.is_begun(target)
        atomic.check_output(embeddings, how.overwrite or begun)
    clip = _clip(model, place) if _is_trained(name) and model is not None else None
    propose = proposer_of(settings, clip=clip, device=place)
    if embeddings is not None and propose.model is None:
        raise UsageError(
            f"--proposer {name} has no embeddings: leave out --embeddings, or name a proposer that "
            "`ovtool train-proposer` made"
        )
    if how.dry_run:
        return runs.planned(items, categories, target)

    def keep(dataset: coco.Dataset, found: Sequence[Mapping[str, Tensor]]) -> None:
        if embeddings is not None:
            write_embeddings(embeddings, dataset, found, propose)

    outcome = runs.map_images(
        items,
        lambda chunk: part_output(chunk, propose, embeddings is not None),
        runs.Job(
            info=runs.provenance("propose", _shown(settings, propose), None),
            categories=categories,
            out=target,
            device=place if propose.weights is not None else torch.device("cpu"),
            description="proposing",
            beside={} if embeddings is None else {"embeddings": "safetensors"},
            finish=keep,
        ),
        how,
        how.progress,
    )
    written = {} if embeddings is None else {"embeddings": str(embeddings)}
    return Outcome(outcome.dataset, outcome.out, outcome.failures, pictures=written)


def write_embeddings(
    path: Path,
    dataset: coco.Dataset,
    found: Sequence[Mapping[str, Tensor]],
    propose: Proposer,
) -> None:
    """Writes the embeddings of a data set's masks, rows in the order of the annotations' ids."""
    assert propose.model is not None and propose.no_object is not None
    rows = torch.cat([part["embeddings"] for part in found])
    settings = {
        "annotations": len(dataset.annotations),
        "proposals": coco.digest(dataset),
        "temperature": region_sources.TEMPERATURE,
    }
    model, fingerprint = propose.model
    header = {"kind": "proposals", "model": model, "fingerprint": fingerprint, "settings": settings}
    tensors.save(path, {"embeddings": rows, "no_object": propose.no_object}, header)


def _is_trained(name: str) -> bool:
    """Whether a proposer belongs to a CLIP."""
    return name == "tiny" or name.endswith(".safetensors")


def _clip(model: str, device: torch.device) -> Clip:
    from ovtool.models import clip as door

    return door.load(model, device, torch.float32)


def _shown(settings: ProposalSettings, propose: Proposer) -> dict[str, Any]:
    """What the output says of the settings: no path, and the network's digest if there is one."""
    shown: dict[str, Any] = asdict(settings) | {"proposer": propose.name}
    if propose.weights is not None:
        shown["weights"] = propose.weights
        shown["nms"] = named_proposers.MAX_IOU if settings.nms is None else settings.nms
    elif settings.nms is None:
        del shown["nms"]
    return shown
