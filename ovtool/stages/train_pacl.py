"""`train-pacl`: captioned images to a head that aligns a CLIP's patches with its texts.

Patch aligned contrastive learning (Mukhoti et al., CVPR 2023) with both encoders frozen: only a small
vision embedder is trained, from captions alone.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ovtool.batches import captions as caption_batches
from ovtool.batches.captions import Listed, Sharded
from ovtool.batches.readable import Check
from ovtool.errors import UsageError
from ovtool.formats import shards
from ovtool.formats.shards import Left
from ovtool.inputs import asked as requests
from ovtool.inputs import captions as caption_inputs
from ovtool.methods import dense_clip
from ovtool.models import resolve
from ovtool.runtime.progress import Progress, no_progress
from ovtool.settings import layers
from ovtool.settings.pacl import Pacl
from ovtool.settings.shared import Compute, Run
from ovtool.trainers import pacl as trainer
from ovtool.trainers import patch_validation
from ovtool.trainers.pacl import PaclTraining
from ovtool.training import distributed
from ovtool.training import run as frames
from ovtool.training.distributed import Ranks
from ovtool.training.run import Failure, Outputs, Trained

if TYPE_CHECKING:  # loaded where it is used: bad arguments need not wait for it
    from ovtool.models.clip import Clip


def run(
    captions: str | Path,
    pacl: Pacl = Pacl(),
    *,
    images: str | Path | None = None,
    out: str | Path | None = None,
    compute: Compute = Compute(),
    run: Run = Run(),
    progress: Progress = no_progress,
) -> Trained:
    """Trains a head and writes it (kind `pacl`), with the loss curve as PNG beside it. Alone or under
    torchrun, whose first process writes.

    Args:
        captions: A data set `NAME[:SPLIT]`, a captions JSON with the folder `images`, or shards.
        pacl: What shapes the training.
        images: The folder that the file names of a captions JSON start from.
        out: Where to write. Default: a name made from the captions', in the current folder.
        compute: Which CLIP, and where and how its work is computed.
        run: Whether to resume, to overwrite, to stop at an image that cannot be read, or only to plan.
        progress: Opens a bar.

    Returns:
        What the training left. `counts`: images, held_out, batch_size. `notes`: left and cut, samples and
        shards that were left out; too_long, captions that lost their end; tokens_kept; after the training
        logit_scale, and images_per_second of all processes together.

    Raises:
        UsageError: Values that do not go together, or a batch that processes cannot share.
        InputError: Captions that are broken, no image that is there and can be read.
        OutputExistsError: An output, or the checkpoint of a training that was cut off, is there.
        MismatchError: A checkpoint of another training.
        TrainingError: A loss that is not finite, or another process that ended; the checkpoint stays.
    """
    captions = str(captions)
    compute = resolve.for_data(compute, captions)
    target = out or caption_inputs.default_output(captions, "pacl.safetensors")
    place = frames.opened(target, compute, run, progress)
    dense_clip.last_blocks(pacl.last_block)  # an unknown name is refused before any work
    given = None if images is None else Path(images)
    read, folder = _read(captions, given)
    place = requests.begin_training(place, "train-pacl", pacl, compute, sources=read, folder=folder)
    run = place.run
    check = Check(run.strict, pacl.loader_workers, progress)
    source = _source(captions, given, pacl, check)
    failures = source.failures if isinstance(source, Listed) else ()
    with distributed.joined(place.device) as ranks:
        from ovtool.models import clip as clips

        if isinstance(source, Sharded):
            caption_batches.require_shards(len(source.urls), ranks.world)
        clip = clips.load(compute.model, ranks.device, place.dtype)
        pacl, origins = trainer.settled(pacl, clip, source.count, ranks)
        tokens_kept = _keeps(pacl, source, clip, ranks)
        shapes = {
            **layers.as_data(pacl),
            "captions": source.digest,
            "crops": not tokens_kept,
            "model": clip.fingerprint,
        }
        frame = place.frame(shapes, "train-pacl", ranks, failures)
        with frames.plain_errors(frame, "preparing the training", trainer.MEMORY):
            training = trainer.begun(clip, pacl, place.dtype, ranks)
            plan = _plan(place.outputs, training, source, tokens_kept, failures)
            if run.dry_run:
                return plan
            begun = frames.begin(frame)
            if isinstance(source, Listed):
                training.features.encode_captions(source.texts)
                if tokens_kept:
                    training.features.encode_images(
                        source, progress if ranks.is_first else no_progress
                    )
            validate = _validation(captions, source, training, check)
            before = validate() if pacl.validate_every else {}
        left = Left() if isinstance(source, Sharded) else source.left
        batches = trainer.loader(source, pacl, ranks, tokens_kept, run.strict)
        began = time.monotonic()
        curve = frames.train(trainer.task(training, batches, validate, left), begun)
        seconds = max(1e-9, time.monotonic() - began)
        speed = (len(curve) - begun.steps) * layers.known(pacl.batch_size) / seconds
        trained = dataclasses.replace(
            plan,
            last=frames.measures(curve),
            before=before,
            notes={
                **plan.notes,
                "left": dict(left.samples),
                "cut": tuple(left.cut),
                "logit_scale": training.head().logit_scale,
                "images_per_second": round(speed, 1),
            },
            is_plan=False,
        )
        measures = {"before": before, "after": trained.after}
        more = {"images": source.count, **measures, "origins": origins}
        frames.finish(frame, curve, _saver(clip, training), begun, more=more)
        return trained


def _is_listed(captions: str) -> bool:
    """Whether the images are listed in a file, and in no shards."""
    return caption_inputs.is_data_set(captions) or not shards.is_shards(captions)


def _read(captions: str, images: Path | None) -> tuple[list[str | Path], Path | None]:
    """What is read, and the folder of images; local shards are read one by one, others are known by
    their names."""
    if _is_listed(captions):
        source, folder = caption_inputs.locate(captions, images)
        return [source], folder
    return (list(shards.expand(captions)) if "{" in captions else [captions]), images


def _source(captions: str, images: Path | None, pacl: Pacl, check: Check) -> Listed | Sharded:
    """The images of a list, those that can be read, or the shards."""
    if _is_listed(captions):
        source, folder = caption_inputs.locate(captions, images)
        return caption_batches.listed(captions, source, folder, pacl.seed, pacl.held_out, check)
    if images is not None:
        raise UsageError("--images is the folder of a captions JSON, and shards hold their images")
    return caption_batches.sharded(captions)


def _keeps(pacl: Pacl, source: Listed | Sharded, clip: Clip, ranks: Ranks) -> bool:
    """Whether the tokens of all images are kept."""
    if isinstance(source, Sharded):
        if pacl.cache == "on":
            raise UsageError("--cache on keeps the tokens of listed images, not of shards")
        return False
    if pacl.cache == "auto":
        return trainer.keeps_tokens(clip, pacl, source.count, ranks)
    return pacl.cache == "on"


def _plan(
    outputs: Outputs,
    training: PaclTraining,
    source: Listed | Sharded,
    tokens_kept: bool,
    failures: Sequence[Failure],
) -> Trained:
    """What would be trained."""
    from ovtool.models import text

    too_long, held_out, left = None, 0, {}
    if isinstance(source, Listed):
        too_long = int(text.too_long(training.features.clip, source.texts).sum())
        held_out, left = len(source.held_out), dict(source.left.samples)
    return Trained(
        outputs,
        {"head": sum(parameter.numel() for parameter in training.embedder.parameters())},
        {"images": source.count, "held_out": held_out, "batch_size": training.settings.batch_size},
        layers.known(training.settings.steps),
        notes={"left": left, "cut": (), "too_long": too_long, "tokens_kept": tokens_kept},
        failures=failures,
        is_plan=True,
        is_first=training.ranks.is_first,
    )


def _validation(
    captions: str, source: Listed | Sharded, training: PaclTraining, check: Check
) -> Callable[[], dict[str, float]]:
    """Measures the head on the images held out; nothing without masks, and in all but one process."""
    clip, known = training.features.clip, None
    if isinstance(source, Listed) and training.ranks.is_first:
        known = patch_validation.load(captions, source.held_out, clip, check=check)

    def measured() -> dict[str, float]:
        return {} if known is None else known.measure(clip, training.head())

    return measured


def _saver(clip: Clip, training: PaclTraining) -> frames.Save:
    """Writes the head's file."""
    from ovtool.models import pacl as heads

    return lambda path, settings: heads.save(
        path, clip, dataclasses.replace(training.head(), settings=settings)
    )
