"""`tune-prompts`: prompts of a CLIP for masked crops, from pairs; or for backgrounds, from activation maps."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from ovtool.batches import maps as map_batches
from ovtool.batches import pairs as pair_batches
from ovtool.batches.readable import Check
from ovtool.formats import cams as maps_file
from ovtool.formats import tensors
from ovtool.inputs import asked as requests
from ovtool.inputs import nearest_words
from ovtool.models import resolve
from ovtool.runtime.progress import Progress, no_progress
from ovtool.settings import layers
from ovtool.settings.layers import known
from ovtool.settings.prompts import BackgroundPrompts, MaskPrompts
from ovtool.settings.shared import Compute, Run
from ovtool.trainers import background_prompts, mask_prompts
from ovtool.trainers.background_prompts import MaskedImages
from ovtool.trainers.mask_prompts import NamedCrops
from ovtool.training import distributed
from ovtool.training import run as frames
from ovtool.training.distributed import Ranks
from ovtool.training.run import Place, Trained

NEAREST = 5  # words of a background prompt that are kept


def run(
    pairs: str | Path,
    kind: MaskPrompts | BackgroundPrompts = MaskPrompts(),
    *,
    images: str | Path | None = None,
    out: str | Path | None = None,
    compute: Compute = Compute(),
    run: Run = Run(),
    progress: Progress = no_progress,
) -> Trained:
    """Trains prompts and writes them, with the loss curve as PNG beside them.

    Alone or under torchrun, whose first process writes.

    Args:
        pairs: Masks with names: a COCO JSON, a folder of parts, or a data set `NAME[:SPLIT]`. For
            background prompts the maps that `cam` wrote.
        kind: What the prompts stand for, and what shapes them.
        images: The folder of the images. Default: that of the data set, or the one that the file is in.
        out: Where to write. Default: a name made from that of the pairs, in the current folder.
        compute: Which CLIP, and where and how its work is computed.
        run: Whether to resume, to overwrite, to stop at an image that cannot be read, or only to plan.
        progress: Opens a bar.

    Returns:
        What the training left. `before` and `after`: `accuracy`, the share of held-out crops that get their
        noun among all nouns. `notes` of background prompts: `length`, vectors of a prompt; `similarity`;
        `nearest`, class to the words nearest to its prompt, best first, each with its cosine.

    Raises:
        UsageError: Values that do not go together, pairs of one noun, or a model that takes no prompts.
        InputError: Pairs or maps that are broken, images that are not there, none that can be read.
        OutputExistsError: An output, or the checkpoint of a training that was cut off, is there.
        MismatchError: A generator that does not belong to the maps, a checkpoint of another training.
        TrainingError: A loss that is not finite; the checkpoint stays.
    """
    source, folder = str(pairs), None if images is None else Path(images)
    compute = resolve.for_data(compute, source)
    place = frames.opened(out or _default_out(source, kind), compute, run, progress)
    home = folder
    if folder is None and Path(source).is_file():
        home = Path(source).resolve().parent
    place = requests.begin_training(
        place, "tune-prompts", kind, compute, sources=(pairs,), folder=home
    )
    with distributed.joined(place.device) as ranks:
        if isinstance(kind, BackgroundPrompts):
            return _background_prompts(place, ranks, source, folder, compute.model, kind)
        return _mask_prompts(place, ranks, source, folder, compute.model, kind)


def _mask_prompts(
    place: Place,
    ranks: Ranks,
    source: str,
    images: Path | None,
    model: str | None,
    settings: MaskPrompts,
) -> Trained:
    """Trains a tower, prompts, or both in turn, on pairs of a mask and a noun."""
    from ovtool.models import clip as clips
    from ovtool.models import region_clip

    check = Check(place.run.strict, settings.loader_workers, place.progress)
    pairs = pair_batches.read(source, images, settings.seed, settings.held_out, check)
    clip = clips.load(model, ranks.device, torch.float32)
    visual = region_clip.require_mask_prompts(clip)
    settings = mask_prompts.settled(settings, clip, pairs)
    parameters = mask_prompts.parameters(clip, settings)
    counts = {
        "pairs": len(pairs.train),
        "held_out": len(pairs.held_out),
        "nouns": len(pairs.nouns),
    }
    steps = known(settings.steps) * len(parameters)
    plan = Trained(
        place.outputs,
        parameters,
        counts,
        steps,
        failures=pairs.failures,
        is_plan=True,
        is_first=ranks.is_first,
    )
    if place.run.dry_run:
        return plan
    own = {"kind": "mask", "pairs": pairs.digest, "model": clip.fingerprint}
    shapes, title = {**layers.as_data(settings), **own}, f"tune-prompts --train {settings.train}"
    frame = place.frame(shapes, title, ranks, pairs.failures)
    # both are looked at before any work
    of_tower, of_prompts = frames.begin(frame, "tower"), frames.begin(frame)
    with frames.plain_errors(frame, "naming the crops held out"):
        crops = NamedCrops.of(clip, pairs, settings, place.dtype, ranks)
        before = crops.accuracy(visual, None)
    learned, curves = None, []
    if "tower" in parameters:
        visual = mask_prompts.trainable_tower(clip)
        curves.append(frames.train(mask_prompts.tower_task(crops, visual), of_tower))
        mask_prompts.round_as_stored(visual)
    if "prompts" in parameters:
        learned = mask_prompts.initial_prompts(clip, settings)
        curves.append(frames.train(mask_prompts.prompts_task(crops, visual, learned), of_prompts))
    curve = frames.joined_curves(*curves)
    with frames.plain_errors(frame, "naming the crops held out"):
        after = crops.accuracy(visual, learned)
    more = {
        "held_out_pairs": len(pairs.held_out),
        "accuracy_before": before.get("accuracy"),
        "accuracy_after": after.get("accuracy"),
    }
    tower = visual if "tower" in parameters else None

    def save(path: Path, header: Any) -> None:
        region_clip.save_prompts(path, clip, learned, tower, header)

    frames.finish(frame, curve, save, of_tower, of_prompts, more=more)
    return dataclasses.replace(
        plan, last={**frames.measures(curve), **after}, before=before, is_plan=False
    )


def _background_prompts(
    place: Place,
    ranks: Ranks,
    source: str,
    images: Path | None,
    model: str | None,
    settings: BackgroundPrompts,
) -> Trained:
    """Trains a sentence for each class, on images in which the class is blanked out."""
    from ovtool.models import background_prompts as prompts_file
    from ovtool.models import clip as clips
    from ovtool.models import mask_generator
    from ovtool.models.learned_text import LearnedText

    cams = maps_file.read(Path(source))
    digest = cams.digest
    folder = images or Path(source).resolve().parent
    check = Check(place.run.strict, settings.loader_workers, place.progress)
    cams, failures = map_batches.readable_maps(cams, folder, source, check)
    clip = clips.load(model or cams.model, ranks.device, torch.float32)
    reader = LearnedText.of(clip, settings.length)
    settings = background_prompts.settled(settings, cams, reader, source)
    generator, contents = None, {}
    if settings.generator is None:
        background_prompts.require_maps(cams, source)
    else:
        generator = mask_generator.load(settings.generator, clip)
        mask_generator.require_categories(generator, cams.categories, source)
        contents["generator"] = tensors.fingerprint(tensors.load(settings.generator)[1])
    masked = MaskedImages.of(cams, folder, reader, generator, settings, place.dtype, ranks)
    counts = {
        "images": len(masked.batches.images),
        "held_out": len(masked.held_out.images),
        "classes": len(cams.categories),
    }
    parameters = {"vectors": len(cams.categories) * reader.length * reader.width}
    notes: dict[str, Any] = {"length": reader.length}
    steps = known(settings.steps)
    plan = Trained(
        place.outputs,
        parameters,
        counts,
        steps,
        notes=notes,
        failures=failures,
        is_plan=True,
        is_first=ranks.is_first,
    )
    if place.run.dry_run:
        return plan
    own = {"kind": "background", "cams": digest, "model": clip.fingerprint}
    shapes = {**layers.as_data(settings, contents), **own}
    frame = place.frame(shapes, "tune-prompts --kind background", ranks, failures)
    begun = frames.begin(frame)
    with frames.plain_errors(frame, "encoding images"):
        vectors = masked.initial()
        similarity = settings.similarity or masked.measured_similarity()
        before = masked.validated(vectors, similarity)
    curve = frames.train(background_prompts.task(masked, vectors, similarity), begun)
    learned = vectors.detach()
    with torch.no_grad():
        sentences = masked.sentences(learned)
    vocabulary = nearest_words.vocabulary(clip, settings.words)
    words = nearest_words.of(clip, sentences, vocabulary, NEAREST)
    with_image = {category_id for image in cams.images for category_id in image.category_ids}
    nearest = {
        category.name: own_words
        for category, own_words in zip(cams.categories, words, strict=True)
        if category.id in with_image
    }
    more = {"similarity": similarity, "nearest": nearest}

    def save(path: Path, header: Any) -> None:
        prompts_file.save(path, clip, cams.categories, learned, sentences, header)

    frames.finish(frame, curve, save, begun, more=more)
    return dataclasses.replace(
        plan, last=frames.measures(curve), before=before, notes={**notes, **more}, is_plan=False
    )


def _default_out(pairs: str, kind: MaskPrompts | BackgroundPrompts) -> str:
    if isinstance(kind, BackgroundPrompts):
        return f"{Path(pairs).stem.removesuffix('.cams')}.background.safetensors"
    stem = "pairs" if pairs == "-" else requests.stem_of(pairs).removesuffix(".pairs")
    return f"{stem}.prompts.safetensors"
