"""`train-proposer`: pictures with masks and names to a MaskFormer whose proposals are compared with words.

The recipe is OVSeg's (CVPR 2023, sections 3.1 and 4.1; MaskFormer's losses on every decoder layer, see
`models.mask_losses`). The CLIP embeds the category names once; its image tower is not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ovtool.batches import masks as mask_batches
from ovtool.datasets import registry
from ovtool.errors import InputError, UsageError
from ovtool.formats import atomic, coco, parts, plots
from ovtool.models import maskformer, resolve
from ovtool.models.maskformer import MaskFormer
from ovtool.runtime import device as devices
from ovtool.runtime.progress import Progress, no_progress
from ovtool.trainers import proposer as proposer_trainer
from ovtool.trainers.proposer import Settings
from ovtool.training import checkpoints, distributed, loop
from ovtool.training.distributed import Ranks

if TYPE_CHECKING:  # it imports open_clip, for which bad arguments need not wait
    from ovtool.models.clip import Clip


def run(
    truth: str,
    *,
    out: Path,
    images: Path | None = None,
    model: str | None = None,
    device: str | None = None,
    architecture: str = "resnet50",
    targets: str = "categories",
    queries: int = 100,
    steps: int = 120_000,
    batch_size: int = 32,
    rate: float | None = None,
    side: int | None = None,
    warmup: int | None = None,
    templates: str = "vild",
    precision: str = "auto",
    class_weight: float = 1.0,
    held_out_share: float = 0.05,
    validate_every: int = 5000,
    save_every: int = 500,
    seed: int = 0,
    workers: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Trains a proposer and writes it, with the picture of its losses beside it (`.png`).

    truth: a COCO JSON whose file names start from `images`, or a data set's name.
    rate, side, warmup: None is the architecture's (`RECIPES`).
    class_weight: what the loss of the words is multiplied with, beside those of the masks.

    Alone or under torchrun, whose first process writes. Returns what was learned: parameters, images,
    the last losses and the last validation, where it was written, and where the backbone began.

    Raises UsageError, InputError (a truth without masks, a broken file or picture),
    OutputExistsError, ModelError, MismatchError (a checkpoint of other settings), TrainingError (a
    loss that is not finite; the checkpoint of the last good step stays).
    """
    settings = Settings(
        architecture, targets, queries, steps, batch_size, rate, side, warmup, templates, seed,
        precision, held_out_share, validate_every, class_weight=class_weight,
    )  # fmt: skip
    picture = out.with_suffix(".png")
    atomic.check_outputs((out, picture), overwrite)
    if model is not None:
        resolve.spec(resolve.choose(model))  # a name that means nothing is told before any work
    dataset, folder = _read(truth, images, targets)
    data = mask_batches.truth_of(dataset, folder, targets, held_out_share, seed=seed)
    with distributed.joined(devices.choose(device)) as ranks:
        clip, words = embedded(model, data.names, templates)
        network, backbone = start(settings, clip, ranks)
        recipe = settings.recipe
        shown = asdict(settings) | {"truth": coco.digest(dataset), "backbone": backbone}
        digest = parts.settings_digest(shown | {"clip": clip.fingerprint})
        checkpoint = checkpoints.beside(out, digest)
        begun = checkpoints.begin_together(checkpoint, ranks, resume, overwrite)
        words = words.to(ranks.device)
        curve = proposer_trainer.fit(
            network,
            words,
            mask_batches.examples_of(data, seed, batch_size, recipe.side),
            settings,
            checkpoint,
            frozen_norms=backbone is not None,
            begun=begun,
            validate=(lambda: proposer_trainer.validation(network, words, data, recipe.side))
            if data.held_out
            else None,
            ranks=ranks,
            save_every=save_every,
            workers=workers,
            progress=progress if ranks.is_first else no_progress,
        )
        if ranks.is_first:
            thin = loop.thinned(curve)
            shown |= asdict(recipe) | {"names": list(data.names), "short_side": recipe.side}
            shown |= {"images": len(data.training), "curve": thin}
            maskformer.save(out, network, words, clip, shown)
            plots.losses(picture, thin, "train-proposer")
            checkpoint.remove()
    return {
        "output": str(out),
        "curve": str(picture),
        "parameters": sum(one.numel() for one in network.parameters()),
        "backbone": backbone,
        "images": len(data.training),
        "held_out": len(data.held_out),
        "names": len(data.names),
        "last": curve[-1],
        "is_first": ranks.is_first,
    }


def embedded(model: str | None, names: Sequence[str], templates: str) -> tuple[Clip, Tensor]:
    """The CLIP, and unit text embeddings (K, C) of the names, on the CPU, in float32."""
    from ovtool.models import clip as door
    from ovtool.models import text

    clip = door.load(model, torch.device("cpu"), torch.float32)
    text.warn_unlearned(clip, names)
    return clip, text.embed_words(clip, names, templates).float()


def start(settings: Settings, clip: Clip, ranks: Ranks) -> tuple[MaskFormer, str | None]:
    """A network at its first step, the same in every process, and the name of its backbone's weights,
    None where they are random."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        configuration = maskformer.configuration(settings.architecture, settings.queries)
        network = MaskFormer(configuration, clip.embed_dim)
        if settings.architecture == "tiny":
            maskformer.start_queries(network)
    backbone = maskformer.start_backbone(network, settings.architecture)
    network = network.to(ranks.device, memory_format=torch.channels_last)
    distributed.share(network, ranks)
    return network, backbone


def _read(truth: str, images: Path | None, targets: str) -> tuple[coco.Dataset, Path]:
    """The truth and the folder of its pictures. Raises UsageError, InputError."""
    if registry.is_name(truth) and not Path(truth).exists():
        if images is not None:
            raise UsageError(f"--images is the folder of a COCO JSON, and {truth} has its own")
        files = registry.locate(truth)
        source = files.semantic if targets == "categories" else files.instances
        source = source or files.instances
        if source is None:
            raise InputError(f"{truth} has no masks to learn from: name another data set")
        return coco.read(source, root=files.images), files.images
    if images is None:
        raise UsageError(
            "a COCO JSON needs --images DIR, the folder that its file names start from"
        )
    return coco.read(truth, root=images), images
