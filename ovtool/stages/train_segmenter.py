"""`train-segmenter`: images with labels, pseudo masks or true ones, to a segmenter of their classes.

This is the last stage of masks from image-level labels (SemPLeS, WACV 2025): a network learns the pseudo
masks of the training images, and then needs no labels of an image to segment it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ovtool.batches import epochs
from ovtool.batches import label_maps as label_map_batches
from ovtool.batches.label_maps import ExampleOf, Labels
from ovtool.batches.readable import Check
from ovtool.errors import UsageError
from ovtool.formats import images as image_files
from ovtool.inputs import asked as requests
from ovtool.models import resolve, segmenter
from ovtool.models.segmenter import Network
from ovtool.runtime.progress import Progress, no_progress
from ovtool.settings import layers
from ovtool.settings.layers import known
from ovtool.settings.segmenter import SegmenterTraining
from ovtool.settings.shared import Compute, Run
from ovtool.trainers import segmenter as trainer
from ovtool.training import distributed
from ovtool.training import run as frames
from ovtool.training.run import Trained


def run(
    labels: str | Path,
    training: SegmenterTraining = SegmenterTraining(),
    *,
    images: str | Path | None = None,
    validation: str | Path | None = None,
    validation_images: str | Path | None = None,
    out: str | Path,
    compute: Compute = Compute(),
    run: Run = Run(),
    progress: Progress = no_progress,
) -> Trained:
    """Trains a segmenter and writes it, with its losses drawn beside it (`.png`).

    Alone or under torchrun, whose first process writes.

    Args:
        labels: A COCO JSON or a folder of label maps, of images in `images`, or a data set's name.
        training: What shapes the segmenter; what is None is decided by the architecture.
        images: The folder of the images; None for a data set, which has its own.
        validation: Labels to measure on in place of those held out; the header says which.
        validation_images: The folder of their images; None for `images`.
        out: Where the segmenter goes.
        compute: The CLIP under the architecture `clip`, and the device.
        run: Whether to go on, to replace an output, to stop at an image that cannot be read, or only to plan.
        progress: Opens a progress bar.

    Returns:
        What was trained on what, the last loss and measure, and as the note `backbone` what the backbone
        began with, None for random weights.

    Raises:
        UsageError: Settings that do not fit each other, the data or the number of processes.
        InputError: Labels that are missing, broken or all ignored, no image that can be read.
        OutputExistsError: An output or a checkpoint is there.
        ModelError: The CLIP is not at hand.
        MismatchError: The checkpoint is of other settings or data, or the validation of other classes.
        TrainingError: A loss is not finite; the checkpoint of the last good step stays.
    """
    architecture = training.architecture
    if architecture == "clip":
        compute = resolve.for_data(compute, labels)
    place = frames.opened(out, compute, run, progress)
    if compute.model is not None and architecture != "clip":
        raise UsageError(f"--model is the CLIP under --arch clip, and {architecture} has none")
    folder = None if images is None else Path(images)
    read = (labels, validation, validation_images)
    place = requests.begin_training(
        place, "train-segmenter", training, compute, sources=read, folder=folder
    )
    run = place.run
    check = Check(run.strict, training.loader_workers, progress, training.exif)
    data = label_map_batches.read(str(labels), folder, training.with_background, check)
    if validation is not None:
        training = replace(training, held_out=0.0)
    rows, held_out = epochs.split(len(data.images), training.held_out, training.seed)
    measured_on, measured_rows = data, held_out
    if validation is not None:
        folder = folder if validation_images is None else Path(validation_images)
        measured_on = label_map_batches.read_truth(str(validation), folder, data.names, check)
        measured_rows = list(range(len(measured_on.images)))
    failures = data.failures if measured_on is data else (*data.failures, *measured_on.failures)
    sides = (max(image_files.read_size(data.images[row].path)) for row in rows)
    training, origins = trainer.settled(training, len(rows), sides)
    with distributed.joined(place.device) as ranks:
        network, backbone, clip = trainer.start(training, len(data.names), compute.model, ranks)
        task = trainer.task(
            network,
            _examples(data, rows, training),
            training,
            ranks,
            dtype=place.dtype,
            frozen_norms=backbone is not None,
            validate=_validation(network, measured_on, measured_rows, known(training.short_side)),
        )
        plan = Trained(
            place.outputs,
            parameters={"network": sum(weights.numel() for weights in network.parameters())},
            counts={
                "images": len(rows),
                "held_out": len(held_out),
                "left_out": data.left_out,
                "names": len(data.names),
            },
            steps=known(training.steps),
            notes={"backbone": backbone or (clip and clip.name)},
            failures=failures,
            is_plan=True,
            is_first=ranks.is_first,
        )
        if run.dry_run:
            return plan
        shapes = layers.as_data(training) | {
            "labels": data.digest,
            "validation": "held-out labels" if validation is None else measured_on.digest,
            "model": None if clip is None else clip.fingerprint,
            "backbone": backbone,
            "names": list(data.names),
        }
        frame = place.frame(shapes, "train-segmenter", ranks, failures)

        def save(path: Path, header: Mapping[str, Any]) -> None:
            segmenter.save(path, network, header, clip)

        more = {"images": len(rows), "origins": origins}
        curve = frames.complete(frame, task, save, more)
    return replace(plan, last=curve[-1], is_plan=False)


def _examples(data: Labels, rows: Sequence[int], training: SegmenterTraining) -> ExampleOf:
    """The augmented crops of a training."""
    return label_map_batches.examples_of(
        data,
        rows,
        training.seed,
        known(training.batch_size),
        known(training.crop_size),
        trainer.RECIPES[training.architecture].scales,
    )


def _validation(
    network: Network, labels: Labels, rows: Sequence[int], short_side: int
) -> Callable[[], Mapping[str, float]] | None:
    if not rows:
        return None
    return lambda: trainer.validation(network, labels, rows, short_side)
