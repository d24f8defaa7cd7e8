"""`segment`: images and words to one mask a word.

This is the story of the command: what it is given is checked, the model and the words are made ready
(`segmenters.dense`), and the pictures go through them in parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ovtool.errors import InputError, UsageError
from ovtool.formats import parts
from ovtool.formats.images import ImageItem
from ovtool.inputs import images as sources
from ovtool.inputs import words as word_inputs
from ovtool.models import resolve
from ovtool.models.dense_scores import DenseSettings
from ovtool.outputs.drawings import Drawings
from ovtool.proposers import proposal_sources
from ovtool.proposers.proposal_sources import ProposalSource
from ovtool.runtime import device as devices
from ovtool.runtime import runs
from ovtool.runtime.runs import Outcome, Run
from ovtool.segmenters import dense as dense_segmenter
from ovtool.segmenters import trained as trained_segmenter
from ovtool.segmenters import two_stage
from ovtool.segmenters.dense import BATCH_SIZE, DEFAULT_METHOD, Segmenter, Settings
from ovtool.segmenters.two_stage import Request
from ovtool.settings import views


def run(
    inputs: Sequence[str],
    *,
    classes: str | None = None,
    classes_file: Path | None = None,
    vocabulary: str | None = None,
    classes_per_image: Path | None = None,
    background: str | None = None,
    model: str | None = None,
    device: str | None = None,
    precision: str = "auto",
    batch_size: int | None = None,
    method: str = DEFAULT_METHOD,
    last_block: str | None = None,
    short_side: int | None = None,
    window: int | None = None,
    stride: int | None = None,
    logit_scale: float | None = None,
    pacl: str | None = None,
    patch_stride: int | None = None,
    scales: str | None = None,
    flip: bool = False,
    templates: str = "one",
    min_score: float = 0.0,
    max_entropy: float | None = None,
    proposer: str | None = None,
    proposals_file: Path | None = None,
    embeddings: Path | None = None,
    prompts: str | None = None,
    ensemble: float | None = None,
    region_features: str | None = None,
    background_tokens: str | None = None,
    crop_size: int | None = None,
    segmenter_file: Path | None = None,
    crf: str | None = None,
    label_maps: Path | None = None,
    overlays: Path | None = None,
    heatmaps: Path | None = None,
    coco_file: Path | None = None,
    images: Path | None = None,
    limit: int | None = None,
    out: str | None = None,
    how: Run | None = None,
) -> Outcome:
    """Segments images by words and writes one COCO JSON: a mask for each word and image.

    inputs: see `inputs.images.find`. The words: see `inputs.words.gather`.
    out: where to write; `-` is stdout, None is a name made from the input in the current folder,
        with an overlay beside it where there is one image.
    proposer: see `proposers.by_name`; None is `regions` for `fused`, the model's default for `two-stage`.
    embeddings, prompts, ensemble, region_features, background_tokens, crop_size: of `two-stage`, see
        `segmenters.two_stage.Request`.
    pacl: a file of `train-pacl`, `none`, or None for the head that comes with a bundled model, of
        `patch` alone; that one is left out with `last_block`. scales: as `settings.views.parse_scales`.
    segmenter_file: of `train-segmenter`, in place of a CLIP and its methods; crf: a preset for its masks
        (`segmenters.trained`).
    label_maps, overlays, heatmaps: folders for pictures of each image.

    Raises UsageError, InputError, OutputExistsError, ModelError, MismatchError. An image that cannot be read is a
    failure, listed in the outcome and in the output, unless `how.strict`.
    """
    how = how or Run()
    shown = views.parse_scales(scales)
    if segmenter_file is not None:
        trained_segmenter.refuse(
            {
                "--vocabulary": vocabulary,
                "--classes-per-image": classes_per_image,
                "--background": background,
                "--method": method != DEFAULT_METHOD,
                "--last-block": last_block,
                "--window": window is not None,
                "--stride": stride,
                "--logit-scale": logit_scale is not None,
                "--pacl": pacl,
                "--patch-stride": patch_stride,
                "--templates": templates != "one",
                "--max-entropy": max_entropy is not None,
                "--proposer": proposer,
                "--proposals": proposals_file,
                "--embeddings": embeddings,
                "--prompts": prompts,
                "--ensemble": ensemble is not None,
                "--region-features": region_features,
                "--background-tokens": background_tokens,
                "--crop-size": crop_size,
                "--batch-size": batch_size,
            }
        )
        return trained_segmenter.run(
            segmenter_file,
            inputs,
            settings=trained_segmenter.Settings(short_side, shown, flip, crf, min_score, precision),
            classes=classes,
            classes_file=classes_file,
            model=model,
            device=device,
            label_maps=label_maps,
            overlays=overlays,
            heatmaps=heatmaps,
            coco_file=coco_file,
            images=images,
            limit=limit,
            out=out,
            how=how,
        )
    if crf is not None:
        raise UsageError("--crf follows --segmenter FILE, and refine: leave it out here")
    dense = DenseSettings(last_block, short_side, window, stride, patch_stride, shown, flip)
    size = batch_size or (two_stage.BATCH_SIZE if method == "two-stage" else BATCH_SIZE)
    settings = Settings(
        method, dense, logit_scale, templates, min_score, size, max_entropy=max_entropy
    )
    _check_patches(method, dense, pacl)
    request = Request(ensemble, region_features, crop_size, prompts, embeddings, background_tokens)
    request.check(method, proposals_file, dense)
    place = devices.choose(device)
    items = sources.find(inputs, coco_file, images, limit)
    looked_for = word_inputs.gather(
        items,
        inputs,
        classes=classes,
        classes_file=classes_file,
        vocabulary=vocabulary,
        classes_per_image=classes_per_image,
        background=background,
    )
    target = out or sources.default_output(inputs, items, coco_file, "segments")
    alone = Path(target.removesuffix(".segments.json") + ".overlay.png")
    drawings = Drawings(
        names=[names[0] for names in looked_for.classes],
        label_maps=label_maps,
        overlays=overlays,
        heatmaps=heatmaps,
        overlay_file=alone if out is None and len(items) == 1 else None,
    )
    runs.check_place(target, how)
    drawings.check(items, how.overwrite or (how.resume and runs.is_begun(target)))
    regions, stages = None, None
    if method == "two-stage":
        source = two_stage.source_of(
            proposer, proposals_file, embeddings, items, place, how.dry_run
        )
        stages = partial(two_stage.load, request=request, source=source, short_side=short_side)
    else:
        regions = _regions(method, proposer, proposals_file, items, place)
    if model is not None:
        resolve.spec(resolve.choose(model))  # a name that means nothing is told before any work
    if how.dry_run:
        plan = runs.planned(items, looked_for.categories, target)
        return replace(plan, pictures=drawings.places)
    ready = dense_segmenter.load(
        model, place, precision, looked_for, settings, regions, stages, pacl
    )
    drawings.prepare()
    outcome = runs.map_images(
        items,
        lambda chunk: dense_segmenter.part_output(chunk, ready, drawings),
        runs.Job(
            info=_provenance(ready),
            categories=looked_for.categories,
            out=target,
            device=place,
            description="segmenting",
            beside=drawings.places_from(target),
        ),
        how,
        how.progress,
    )
    return replace(outcome, pictures=drawings.places)


def _check_patches(method: str, dense: DenseSettings, pacl: str | None) -> None:
    """Raises UsageError for options of patches that do not go together, InputError for a head that is not
    there."""
    given = {
        "--pacl": pacl,
        "--patch-stride": dense.patch_stride,
        "--scales": dense.scales != (1.0,),
        "--flip": dense.flip,
    }
    named = [option for option, value in given.items() if value]
    if method == "two-stage" and named:
        raise UsageError(f"{named[0]} is for patch and fused: leave it out with --method two-stage")
    if pacl in (None, "none"):
        return
    if dense.last_block is not None:
        raise UsageError(
            "--pacl reads the last block that it was trained on: leave out --last-block, or give --pacl none"
        )
    if not Path(pacl or "").is_file():
        raise InputError(f"no such file: {pacl}; --pacl is a file of train-pacl, or none")


def _regions(
    method: str,
    proposer: str | None,
    file: Path | None,
    items: Sequence[ImageItem],
    device: torch.device,
) -> ProposalSource | None:
    """Where a method that needs regions gets them. Raises UsageError, InputError, MismatchError."""
    if method == "patch":
        if file is not None:
            raise UsageError("--proposals are regions, and --method patch uses none: give fused")
        return None
    if file is not None:
        return proposal_sources.from_file(file, items)
    return proposal_sources.from_proposer(proposer or "regions", device=device)


def _provenance(ready: Segmenter) -> dict[str, Any]:
    """The `info` of the output: all that shapes the result, and no path."""
    clip, looked_for = ready.clip, ready.words
    shown = asdict(ready.settings)
    shown["logit_scale"] = round(shown["logit_scale"], 6)
    shown["precision"] = str(clip.dtype).removeprefix("torch.")
    shown["background"] = list(looked_for.background)
    shown["pacl"] = None if ready.head is None else ready.head.fingerprint
    two = ready.two_stage
    if two is None:
        del shown["two_stage"]
    elif two.settings.region_features == "crops":
        del shown["dense"]
    regions = ready.regions if two is None else two.regions
    if regions is not None:
        shown["proposer"] = regions.proposer
        shown["proposals"] = regions.digest
    if looked_for.per_image is not None:
        shown["classes_per_image"] = parts.settings_digest(
            {name: list(chosen) for name, chosen in looked_for.per_image.items()}
        )
    name = Path(clip.name).name if Path(clip.name).exists() else clip.name
    model = {"name": name, "fingerprint": clip.fingerprint}
    return runs.provenance("segment", shown, model)
