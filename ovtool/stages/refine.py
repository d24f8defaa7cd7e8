"""`refine`: class activation maps to better ones, or to pseudo masks, step by step.

This is the story of the command: the maps and their images are read, the step `prompts` trains a generator
whose maps take the place of those that were read (`cams.prompt_refinement`), the other steps go over the
images one by one (`cams.refine_steps`), and what they leave is written as maps or as pseudo masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ovtool.batches import maps as map_batches
from ovtool.batches.readable import Check
from ovtool.cams import prompt_refinement
from ovtool.cams.refine_steps import Context
from ovtool.cams.refined import MapsOf, Masking, Refiner, Work, with_background
from ovtool.errors import InputError, UsageError
from ovtool.formats import atomic, coco, merge, tensors
from ovtool.formats import cams as maps_file
from ovtool.formats.cams import CamImage, Cams
from ovtool.inputs import asked as requests
from ovtool.methods.pseudo_masks import Background
from ovtool.outputs.drawn_files import DrawnFiles, doubled_stems
from ovtool.proposers import proposal_sources
from ovtool.proposers.proposal_sources import ProposalSource
from ovtool.runtime import device as devices
from ovtool.runtime import runs
from ovtool.runtime.outcome import Outcome
from ovtool.runtime.progress import Progress, no_progress
from ovtool.settings.layers import as_data
from ovtool.settings.refine import Apply, PromptStep, PseudoMasks, RefineFormat, background_rule
from ovtool.settings.segment import Drawn
from ovtool.settings.shared import Compute, Run
from ovtool.training import distributed
from ovtool.training import run as frames

if TYPE_CHECKING:  # loaded where it is used: bad arguments need not wait for it
    from ovtool.models.clip import Clip


def run(
    cams: Path | str,
    apply: Apply = Apply(),
    prompts: PromptStep = PromptStep(),
    masks: PseudoMasks = PseudoMasks(),
    *,
    images: Path | str | None = None,
    out: str | None = None,
    format: RefineFormat = None,
    compute: Compute = Compute(),
    run: Run = Run(),
    progress: Progress = no_progress,
) -> Outcome:
    """Refines maps and writes maps (`out` ends in .safetensors) or pseudo masks (.json): a COCO JSON with a
    mask for each class and image, `background` among them; what no mask covers is in doubt.

    Args:
        cams: the maps that `ovtool cam`, or `refine`, wrote.
        apply: the steps, in their order, and what shapes them.
        prompts: what shapes the step `prompts`, and its training.
        masks: how maps become pseudo masks, and folders for the images that are drawn of them.
        images: the folder of the images, by default the one that the maps are in.
        out: where to write; `-` is stdout, None is a name made from that of the maps.
        format: what is written, where the ending of `out` does not say it.
        compute: the CLIP of `prompts`, `affinity` and `walk`, by default the one that made the maps; the
            device.
        run: how the run goes. An image that cannot be read is a failure, unless `run.strict`.
        progress: opens a progress bar.

    Returns:
        What was written: the data set, its place, and the images that failed.

    Raises:
        UsageError: arguments do not go together.
        InputError: an input is not there or is broken.
        OutputExistsError: an output exists, without `run.overwrite`.
        ModelError: the model cannot be had.
        MismatchError: images, prompts, generator or proposals do not belong to the maps.
        TrainingError: a loss that is not finite.
    """
    devices.set_threads(compute.threads)
    place = devices.choose(compute.device)
    source = Path(cams)
    ending = "refined.safetensors" if format == "safetensors" else "pseudo.json"
    target = str(out or f"{source.stem.removesuffix('.cams')}.{ending}")
    is_maps = _is_maps(target, format)
    _check_request(apply, prompts, masks, target, is_maps)
    runs.check_place(target, run)
    kept = _checked_generator(apply, prompts, target, run)
    given = maps_file.read(source)
    folder = source.resolve().parent if images is None else Path(images)
    items = map_batches.items_of(given, folder, str(cams))
    shaping = (apply, prompts, masks, compute)
    asked = requests.of("refine", *shaping, sources=(source, apply.proposals), items=items)
    beside = (masks.label_maps, masks.overlays, prompts.save_generator)
    if kept is not None:
        requests.refuse_inputs([kept.with_suffix(".png")], asked.files)
    run = requests.begin(asked, target, run, beside)
    _check_maps(given, str(cams))
    categories = given.categories if is_maps else with_background(given.categories)
    drawings = DrawnFiles(
        [category.name for category in categories],
        Drawn(label_maps=masks.label_maps, overlays=masks.overlays),
        doubled=doubled_stems(items),
    )
    drawings.check(items, run.overwrite or runs.goes_on(target, run))
    clip = None
    if "prompts" in apply.apply or apply.reads_attention:
        from ovtool.models import clip as clips

        clip = clips.load(compute.model, place, torch.float32, given.model)
    regions = (
        None if apply.proposals is None else proposal_sources.from_file(apply.proposals, items)
    )
    training = None
    if kept is not None:
        assert clip is not None
        check = Check(run.strict, prompts.loader_workers, progress)
        usable, _ = map_batches.readable_maps(given, folder, str(cams), check)
        training = prompt_refinement.Refinement.of(clip, usable, folder, str(cams), prompts)
    masking = None if is_maps else Masking.of(masks, apply)
    settings = _provenance(given, apply, training, masking, regions)
    if run.dry_run:
        return runs.planned(items, categories, target, run, place)
    maps_of = _maps_of_file(given)
    if training is not None and kept is not None:
        frame = _frame(kept, run, place, progress)
        maps_of = _maps_of_generator(training.trained(frame))
    context = Context(clip, None, apply, _against(masks.background_score))
    work = Work(given, Refiner(maps_of, context, regions), masking, drawings)
    made_with = None if clip is None else {"name": clip.name, "fingerprint": clip.fingerprint}

    facts = _facts(given, settings, clip) if is_maps else {}

    def begin() -> None:
        drawings.check(items, run.overwrite or runs.goes_on(target, run))
        drawings.prepare()

    job = runs.Job(
        info=runs.provenance("refine", settings, made_with),
        categories=categories,
        out=target,
        device=place,
        description="refining",
        beside=runs.places_from(target, drawings.places),
        begin=begin,
        output=merge.Output("cams" if is_maps else "coco", asked.digest, facts),
        finish=partial(finish, places=drawings.places, facts=facts),
    )
    outcome = runs.map_images(items, work.part_output, job, run, progress)
    places = {**drawings.places, **_generator_places(kept, prompts)}
    return replace(outcome, files=places)


def finish(
    dataset: coco.Dataset,
    maps: Sequence[Mapping[str, Tensor]],
    places: Mapping[str, str],
    facts: Mapping[str, Any],
) -> None:
    """Refuses pseudo masks that would all be empty. Raises InputError."""
    masking = dataset.info["ovtool"]["settings"].get("masking")
    if masking is not None and not dataset.annotations:
        raise InputError(
            f"no pixel of any image is certain to {masking['confidence']:g}, so all would be ignored; give a "
            "lower --confidence"
        )


def _provenance(
    given: Cams,
    apply: Apply,
    training: prompt_refinement.Refinement | None,
    masking: Masking | None,
    regions: ProposalSource | None,
) -> dict[str, Any]:
    """All that shapes the result, as plain data."""
    settings: dict[str, Any] = {"cams": given.digest, **as_data(apply)}
    if training is not None:
        settings["prompts"] = dict(training.shapes)
    if masking is not None:
        settings["masking"] = asdict(masking)
    if regions is not None:
        settings["proposals"] = regions.digest
    return settings


def _generator_places(kept: Path | None, prompts: PromptStep) -> dict[str, str]:
    """Where the generator and its curve stay; those that nobody asked for are removed."""
    if kept is None:
        return {}
    curve = kept.with_suffix(".png")
    if prompts.save_generator is not None:
        return {"generator": str(kept), "curve": str(curve)}
    kept.unlink(missing_ok=True)
    curve.unlink(missing_ok=True)
    return {}


def _against(rule: str | None) -> Background:
    """What the CRF and `sam` set against the maps: never the rest, which only probabilities leave."""
    background = Background() if rule is None else Background(*background_rule(rule))
    return Background() if background.kind == "rest" else background


def _is_maps(target: str, format: RefineFormat) -> bool:
    """Whether maps are written, and no pseudo masks.

    Raises:
        UsageError: the ending says neither, or another thing than the format.
    """
    by_ending = {".json": "coco", ".safetensors": "safetensors"}.get(Path(target).suffix)
    if format is not None and by_ending not in (None, format):
        raise UsageError(
            f"-o {target} ends as {by_ending} does, not {format}; leave out --format, or change the name"
        )
    kind = format or by_ending
    if kind is None and target != "-":
        raise UsageError(
            f"-o {target} has no known ending; end it in .json for pseudo masks, or in .safetensors for "
            "maps, or give --format"
        )
    return kind == "safetensors"


def _check_request(
    apply: Apply, prompts: PromptStep, masks: PseudoMasks, target: str, is_maps: bool
) -> None:
    """Raises UsageError for what does not go together, before anything is read."""
    if is_maps and target == "-":
        tensors.check_stdout()
    if is_maps and not apply.apply:
        raise UsageError(
            f"without --apply the maps stay as they are, and -o {target} would be a copy; name a step"
        )
    if is_maps and (masks.label_maps or masks.overlays):
        raise UsageError(f"images are drawn of pseudo masks; give -o x.json in place of {target}")
    if "prompts" in apply.apply:
        prompt_refinement.require_prompts(prompts)
        if target == "-" and prompts.save_generator is None:
            raise UsageError(
                "the step prompts keeps its generator beside the output; name it with --save-generator, or "
                "name a file in place of -"
            )
    elif prompts.background_prompts or prompts.generator or prompts.save_generator:
        raise UsageError(
            "--background-prompts, --generator and --save-generator belong to the step prompts; add it to "
            "--apply, or leave them out"
        )


def _checked_generator(apply: Apply, prompts: PromptStep, target: str, run: Run) -> Path | None:
    """Where the generator of the step `prompts` is kept, None without that step. That it and its curve may be
    written there is checked before any work; a run that goes on may find its own generator there, which
    `Refinement.trained` looks into.

    Raises UsageError, OutputExistsError, InputError.
    """
    if "prompts" not in apply.apply:
        return None
    if run.shard is not None:
        raise UsageError(
            "--shard does not go with the step prompts, which would be trained in every shard; refine with "
            "--apply prompts into maps first, then refine those in shards"
        )
    kept = prompts.save_generator or Path(f"{target}.generator.safetensors")
    curve = kept.with_suffix(".png")
    atomic.check_distinct((Path(target), kept, curve))
    goes_on = run.resume and kept.exists()
    for path in (kept, curve):
        atomic.check_output(path, run.replaces or goes_on)
    return kept


def _check_maps(cams: Cams, source: str) -> None:
    """Refuses maps that say nothing. Raises InputError."""
    count = sum(len(image.category_ids) for image in cams.images)
    if not count:
        raise InputError(f"{source} has no maps: no image in it has a class")
    if map_batches.constant_maps(cams) == count:
        raise InputError(
            f"{source}: every map has one value everywhere, so none says where its class is; make the maps "
            "again"
        )


def _frame(kept: Path, run: Run, device: torch.device, progress: Progress) -> frames.Frame:
    """What surrounds the training of the step `prompts`, whose generator is kept there."""
    return frames.Frame(
        outputs=frames.Outputs.of(kept),
        shapes={},
        title="refine --apply prompts",
        run=run,
        ranks=distributed.alone(device),
        progress=progress,
    )


def _maps_of_file(cams: Cams) -> MapsOf:
    """The maps that were read."""
    return lambda image, rgb: cams.of(image.id)


def _maps_of_generator(generator: Any) -> MapsOf:
    """The maps of a trained generator, over the image and its mirror image."""
    from ovtool.cams import sources as cam_sources

    place = {category.id: k for k, category in enumerate(generator.categories)}
    network = cam_sources.generator(generator)

    def maps_of(image: CamImage, rgb: Tensor) -> Tensor:
        indices = [place[category_id] for category_id in image.category_ids]
        return cam_sources.maps_of(network, rgb, indices, flip=True).cpu()

    return maps_of


def _facts(given: Cams, settings: Mapping[str, Any], clip: Clip | None) -> dict[str, Any]:
    """What a file of refined maps says beside them."""
    made_by = given if clip is None else clip
    return {
        "settings": {**given.settings, "refined": dict(settings)},
        "model": given.model if clip is None else clip.name,
        "fingerprint": made_by.fingerprint,
        "failures": [dict(failure) for failure in given.failures],
    }
