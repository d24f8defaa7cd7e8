"""`train-proposer`: images with masks and names to a MaskFormer whose proposals are compared with words.

The recipe is OVSeg's (CVPR 2023, sections 3.1 and 4.1; MaskFormer's losses on every decoder layer, see
`models.mask_losses`). The CLIP embeds the category names once; its image tower is not used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ovtool.batches import masks as mask_batches
from ovtool.batches.readable import Check
from ovtool.formats import coco
from ovtool.inputs import asked as requests
from ovtool.models import maskformer, resolve
from ovtool.runtime.progress import Progress, no_progress
from ovtool.settings import layers
from ovtool.settings.layers import known
from ovtool.settings.proposer import ProposerTraining
from ovtool.settings.shared import Compute, Run
from ovtool.trainers import proposer as trainer
from ovtool.training import distributed
from ovtool.training import run as frames
from ovtool.training.run import Trained


def run(
    truth: str | Path,
    training: ProposerTraining = ProposerTraining(),
    *,
    images: str | Path | None = None,
    out: str | Path,
    compute: Compute = Compute(),
    run: Run = Run(),
    progress: Progress = no_progress,
) -> Trained:
    """Trains a proposer and writes it, with its losses drawn beside it (`.png`).

    Alone or under torchrun, whose first process writes.

    Args:
        truth: A COCO JSON whose file names start from `images`, or a data set's name.
        training: What shapes the proposer; what is None is decided by the architecture.
        images: The folder of the images; None for a data set, which has its own.
        out: Where the proposer goes.
        compute: The CLIP whose texts the proposals are compared with, and the device.
        run: Whether to go on, to replace an output, to stop at an image that cannot be read, or only to plan.
        progress: Opens a progress bar.

    Returns:
        What was trained on what, the last losses and measures, and as the note `backbone` what the
        backbone began with, None for random weights.

    Raises:
        UsageError: Settings that do not fit each other, the data or the number of processes.
        InputError: A truth without masks, a broken file, no image that can be read.
        OutputExistsError: An output or a checkpoint is there.
        ModelError: The CLIP is not at hand.
        MismatchError: The checkpoint is of other settings or data.
        TrainingError: A loss is not finite; the checkpoint of the last good step stays.
    """
    compute = resolve.for_data(compute, truth)
    place = frames.opened(out, compute, run, progress)
    folder = None if images is None else Path(images)
    place = requests.begin_training(
        place, "train-proposer", training, compute, sources=(truth,), folder=folder
    )
    run = place.run
    dataset, folder = mask_batches.read(str(truth), folder, training.targets)
    check = Check(run.strict, training.loader_workers, progress, training.exif)
    data = mask_batches.truth_of(
        dataset, folder, training.targets, training.held_out, seed=training.seed, check=check
    )
    sides = (max(data.images[row].height, data.images[row].width) for row in data.training)
    training, origins = trainer.settled(training, len(data.training), sides)
    crop_size = known(training.crop_size)
    with distributed.joined(place.device) as ranks:
        clip, words = trainer.embedded(compute.model, data.names, training.templates)
        network, backbone = trainer.start(training, clip.embed_dim, ranks)
        words = words.to(ranks.device)

        def validate() -> dict[str, float]:
            return trainer.validation(network, words, data, crop_size)

        task = trainer.task(
            network,
            words,
            mask_batches.examples_of(data, training.seed, known(training.batch_size), crop_size),
            training,
            ranks,
            dtype=place.dtype,
            frozen_norms=backbone is not None,
            validate=validate if data.held_out else None,
        )
        plan = Trained(
            place.outputs,
            parameters={"network": sum(weights.numel() for weights in network.parameters())},
            counts={
                "images": len(data.training),
                "held_out": len(data.held_out),
                "names": len(data.names),
            },
            steps=known(training.steps),
            notes={"backbone": backbone},
            failures=data.failures,
            is_plan=True,
            is_first=ranks.is_first,
        )
        if run.dry_run:
            return plan
        shapes = layers.as_data(training) | {
            "truth": coco.digest(dataset),
            "model": clip.fingerprint,
            "backbone": backbone,
            "names": list(data.names),
            "short_side": crop_size,
        }
        frame = place.frame(shapes, "train-proposer", ranks, data.failures)

        def save(path: Path, header: Mapping[str, Any]) -> None:
            maskformer.save(path, network, words, clip, header)

        more = {"images": len(data.training), "origins": origins}
        curve = frames.complete(frame, task, save, more)
    return replace(plan, last=curve[-1], is_plan=False)
