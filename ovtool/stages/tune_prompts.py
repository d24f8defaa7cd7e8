"""`tune-prompts`: pairs of masks and nouns to mask prompts, to a tuned image tower, or to both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ovtool.batches import pairs as pair_batches
from ovtool.batches.pairs import HELD_OUT
from ovtool.errors import UsageError
from ovtool.formats import atomic, parts, plots
from ovtool.methods import mask_prompts
from ovtool.runtime import device as devices
from ovtool.runtime.progress import Progress, no_progress
from ovtool.trainers.mask_prompts import (
    BATCH_SIZE,
    EPOCHS,
    RATE,
    TOWER_RATE,
    WARMUP,
    Settings,
    Tuner,
)
from ovtool.training import checkpoints, distributed, loop

if TYPE_CHECKING:  # it imports open_clip, for which bad arguments need not wait
    from ovtool.models.clip import Clip


@dataclass(frozen=True)
class Tuned:
    """What a training left. parameters: the number that was trained, by what they are. accuracy: the
    share of held-out crops that get their noun among all nouns, before and after; None without any.
    """

    out: str
    curve_file: str
    parameters: Mapping[str, int]
    pairs: int
    held_out: int
    nouns: int
    steps: int
    loss: float | None = None
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    is_plan: bool = False


def run(
    pairs: str,
    *,
    kind: str = "mask",
    images: Path | None = None,
    model: str | None = None,
    device: str | None = None,
    precision: str = "auto",
    train: str = "prompts",
    depth: int | None = mask_prompts.DEPTH,
    loss: str = "shared",
    batch_size: int | None = None,
    epochs: float = EPOCHS,
    steps: int | None = None,
    rate: float = RATE,
    tower_rate: float = TOWER_RATE,
    warmup: int = WARMUP,
    crop_size: int | None = None,
    held_out: float = HELD_OUT,
    seed: int = 0,
    workers: int = 0,
    out: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> Tuned:
    """Trains on pairs (see `batches.pairs.read`) and writes a file of kind `mask-prompts`, with the loss
    curve as PNG beside it.

    workers: processes that cut crops ahead; 0 is this one itself.
    out: where to write; None is a name made from that of the pairs, in the current folder.

    Raises UsageError, ModelError, InputError, OutputExistsError, MismatchError (a checkpoint of another
    training), TrainingError (a loss that is not finite; the checkpoint stays).
    """
    settings = Settings(
        train, depth, loss, batch_size or BATCH_SIZE, epochs, steps, rate, tower_rate, warmup,
        crop_size, held_out, seed,
    )  # fmt: skip
    if kind != "mask":
        raise UsageError(f"unknown kind '{kind}'; choose mask")
    if distributed.is_many():
        raise UsageError("tune-prompts is one process: start it without torchrun")
    place = devices.choose(device)
    dtype = _training_dtype(precision, place)
    target = Path(out or _default_out(pairs))
    picture = target.with_suffix(".png")
    atomic.check_outputs((target, picture), overwrite)
    found = pair_batches.read(pairs, images, seed, held_out)
    from ovtool.models import clip as door
    from ovtool.models import region_clip

    clip = door.load(model, place, torch.float32)
    region_clip.require_mask_prompts(clip)
    settings = settings.settled(clip, found)
    parameters = _parameters(clip, settings)
    steps_of_all = (settings.steps or 0) * (2 if train == "tower-then-prompts" else 1)
    plan = Tuned(
        str(target), str(picture), parameters, len(found.train), len(found.held_out),
        len(found.nouns), steps_of_all, is_plan=True,
    )  # fmt: skip
    if dry_run:
        return plan
    shown = {**asdict(settings), "kind": kind, "pairs": found.digest, "precision": str(dtype)[6:]}
    digest = parts.settings_digest(
        {
            **shown,
            "model": clip.fingerprint,
            "device": place.type,
            "threads": torch.get_num_threads(),
        }
    )
    tuner = Tuner(clip, found, settings, dtype, workers, progress)
    # both are looked at before any work
    kept = [checkpoints.beside(target, digest), checkpoints.beside(Path(f"{target}.tower"), digest)]
    begun = [checkpoint.begin(resume, overwrite) for checkpoint in kept]
    before = tuner.accuracy(clip.model.visual, None)
    visual, prompts, curve = clip.model.visual, None, []
    if train != "prompts":
        visual, curve = tuner.tune_tower(kept[1], begun[1])
    if train != "tower":
        prompts, more = tuner.tune_prompts(visual, kept[0], begun[0])
        curve = [*curve, *({**record, "step": record["step"] + len(curve)} for record in more)]
    after = tuner.accuracy(visual, prompts)
    measured = {
        "held_out_pairs": len(found.held_out),
        "accuracy_before": before,
        "accuracy_after": after,
    }
    thinned = loop.thinned(curve)
    region_clip.save_prompts(
        target,
        clip,
        prompts,
        None if train == "prompts" else visual,
        {**shown, **measured, "curve": thinned},
    )
    plots.losses(picture, thinned, f"tune-prompts --train {train}")
    for checkpoint in kept:
        checkpoint.remove()
    return replace(
        plan, loss=curve[-1]["loss"], accuracy_before=before, accuracy_after=after, is_plan=False
    )


def _training_dtype(precision: str, device: torch.device) -> torch.dtype:
    """float32, or bfloat16 under autocast, which is the default on a GPU that computes it."""
    dtype = devices.precision(precision, device)
    if dtype != torch.float16:
        return dtype
    if precision == "float16":
        raise UsageError("--precision float16 is too coarse to train in: give bfloat16 or float32")
    return torch.float32


def _parameters(clip: Clip, settings: Settings) -> dict[str, int]:
    """How many parameters are trained."""
    from ovtool.models import region_clip

    visual = clip.model.visual
    height, width = region_clip.grid_of(clip, settings.crop_size)
    count = (settings.depth or 0) * height * width * visual.class_embedding.shape[0]
    tower = sum(one.numel() for one in visual.parameters())
    return {
        "prompts": {"prompts": count},
        "tower": {"tower": tower},
        "tower-then-prompts": {"tower": tower, "prompts": count},
    }[settings.train]


def _default_out(pairs: str) -> str:
    stem = pairs.replace(":", "-") if not Path(pairs).exists() else Path(pairs).resolve().stem
    return f"{stem.removesuffix('.pairs') if pairs != '-' else 'pairs'}.prompts.safetensors"
