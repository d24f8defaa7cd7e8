"""`train-pacl`: captioned pictures to a head that aligns a CLIP's patches with its texts.

Patch aligned contrastive learning (Mukhoti et al., CVPR 2023) with both encoders frozen: only a small
vision embedder is trained, from captions alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ovtool.batches import captions as caption_batches
from ovtool.batches.captions import Batch, Listed, ListedBatches, ShardBatches
from ovtool.datasets import registry
from ovtool.errors import InputError, OvtoolError, UsageError
from ovtool.formats import atomic, parts, plots, shards
from ovtool.formats.shards import Left
from ovtool.inputs import captions as caption_inputs
from ovtool.models import resolve
from ovtool.runtime import device as devices
from ovtool.runtime.progress import Progress, no_progress
from ovtool.trainers import pacl as trainer
from ovtool.trainers import pacl_settings, patch_validation
from ovtool.trainers.pacl import Aligner
from ovtool.trainers.pacl_settings import Settings
from ovtool.training import checkpoints, distributed, loop
from ovtool.training.distributed import Ranks
from ovtool.training.loop import Plan, Record, Task, TrainingError

SAVE_EVERY, VALIDATIONS = 100, 5
CACHES = ("auto", "on", "off")
CACHE_BYTES = 4 << 30  # of tokens that `auto` keeps


@dataclass(frozen=True)
class Trained:
    """What a training left.

    left: samples left out, by reason. cut: shards that ended in the middle. too_long: captions that lost
    their end, None where they were not counted. bound: log k - L, nats. before, after: measures of the
    pictures held out; empty without masks. images_per_second: of this run, all processes together.
    """

    out: str
    curve_file: str
    parameters: int
    images: int | None
    held_out: int
    steps: int
    batch_size: int
    left: Mapping[str, int]
    cut: tuple[str, ...]
    too_long: int | None
    tokens_kept: bool
    loss: float | None = None
    bound: float | None = None
    logit_scale: float | None = None
    before: Mapping[str, float] | None = None
    after: Mapping[str, float] | None = None
    images_per_second: float | None = None
    is_plan: bool = False
    is_first: bool = True


def run(
    captions: str,
    *,
    images: Path | None = None,
    model: str | None = None,
    device: str | None = None,
    precision: str = "auto",
    batch_size: int = pacl_settings.BATCH_SIZE,
    micro_batch: int | None = None,
    epochs: float = pacl_settings.EPOCHS,
    steps: int | None = None,
    rate: float = pacl_settings.RATE,
    decay: float = pacl_settings.DECAY,
    warmup: int = 0,
    patch_scale: float = Settings.patch_scale,
    pooling: str = "softmax",
    logit_scale: float | None = None,
    learn_scale: bool = False,
    pairs: str = "all",
    nouns: bool = False,
    noun_weight: float = 1.0,
    naming: float = 0.0,
    templates: str = "pacl",
    start: str = "projection",
    last_block: str = "clip",
    crop_size: int | None = None,
    window: int | None = None,
    held_out: float = 0.05,
    cache: str = "auto",
    seed: int = 0,
    workers: int = 0,
    out: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> Trained:
    """Trains a head and writes it (kind `pacl`), with the loss curve as PNG beside it. Alone or under
    torchrun, whose first process writes.

    captions: a data set `NAME[:SPLIT]`, a captions JSON with the folder `images`, or shards.
    cache: whether the tokens of listed pictures are kept, which leaves random crops out: `on`, `off`, or
        `auto`, which keeps them where one process trains for more than one epoch and they have at most
        `CACHE_BYTES`. The others are in `pacl_settings.Settings`.

    Raises UsageError, ModelError, InputError, OutputExistsError, MismatchError (a checkpoint of another
    training), TrainingError (a loss that is not finite, another process that ended; the checkpoint stays).
    """
    settings = Settings(
        batch_size, micro_batch, epochs, steps, rate, decay, warmup, patch_scale, pooling, logit_scale,
        learn_scale, pairs, nouns, noun_weight, naming, templates, start, last_block, crop_size, window, held_out, seed,
    )  # fmt: skip
    if cache not in CACHES:
        raise UsageError(f"unknown --cache '{cache}'; choose from {', '.join(CACHES)}")
    place = devices.choose(device)
    dtype = _training_dtype(precision, place)
    target = Path(out or _default_out(captions))
    atomic.check_outputs((target, target.with_suffix(".png")), overwrite)
    if model is not None:
        resolve.spec(resolve.choose(model))  # a name that means nothing is told before any work
    source = _source(captions, images, settings)
    request = Request(captions, source, target, model, dtype, cache, workers, resume, overwrite)
    with distributed.joined(place) as ranks:
        try:
            aligner, plan = _prepared(request, settings, ranks)
            return plan if dry_run else _trained(request, aligner, plan, progress)
        except RuntimeError as error:
            raise _plain(error, ranks, settings, target) from error


@dataclass(frozen=True)
class Request:
    """What a run is asked for, beside the settings of its training. source: the pictures of a list, or
    the shards."""

    captions: str
    source: Listed | list[str]
    target: Path
    model: str | None
    dtype: torch.dtype
    cache: str
    workers: int
    resume: bool
    overwrite: bool

    @property
    def listed(self) -> Listed | None:
        """The source where it is a list."""
        return self.source if isinstance(self.source, Listed) else None

    @property
    def digest(self) -> str:
        """Of the captions and the names of pictures or shards."""
        if isinstance(self.source, Listed):
            return self.source.digest
        return parts.settings_digest({"shards": [Path(url).name for url in self.source]})


def _prepared(request: Request, settings: Settings, ranks: Ranks) -> tuple[Aligner, Trained]:
    """The head at its start, and what would be done."""
    from ovtool.models import clip as door
    from ovtool.models import nouns, text

    listed = request.listed
    if isinstance(request.source, Listed):
        count: int | None = len(request.source.items)
    else:
        caption_batches.require_shards(len(request.source), ranks.world)
        count = _counted(request.source)
    clip = door.load(request.model, ranks.device, request.dtype)
    settings = settings.settled(clip, count, ranks.world)
    pipeline = nouns.load() if settings.nouns else None
    aligner = Aligner(clip, settings, request.dtype, ranks, pipeline)
    if request.cache == "on" and listed is None:
        raise UsageError("--cache on keeps the tokens of listed pictures, not of shards")
    plan = Trained(
        out=str(request.target),
        curve_file=str(request.target.with_suffix(".png")),
        parameters=sum(one.numel() for one in aligner.embedder.parameters()),
        images=count,
        held_out=len(listed.held_out) if listed else 0,
        steps=settings.steps or 0,
        batch_size=settings.batch_size,
        left=dict(listed.left.samples) if listed else {},
        cut=(),
        too_long=int(text.too_long(clip, listed.texts).sum()) if listed else None,
        tokens_kept=listed is not None and _keeps(request.cache, listed, aligner),
        is_plan=True,
        is_first=ranks.is_first,
    )
    return aligner, plan


def _trained(request: Request, aligner: Aligner, plan: Trained, progress: Progress) -> Trained:
    """Trains and writes."""
    from ovtool.models import pacl

    clip, settings, ranks, listed = aligner.clip, aligner.settings, aligner.ranks, request.listed
    shown = {
        **pacl_settings.shown(settings),
        "captions": request.digest,
        "crops": not plan.tokens_kept,
    }
    shown["precision"] = str(request.dtype).removeprefix("torch.")
    place = {"device": ranks.device.type, "world": ranks.world}
    place |= {"model": clip.fingerprint, "threads": torch.get_num_threads()}
    checkpoint = checkpoints.beside(request.target, parts.settings_digest({**shown, **place}))
    begun = checkpoints.begin_together(checkpoint, ranks, request.resume, request.overwrite)
    validation = None
    if listed is not None:
        aligner.keep_texts(trainer.all_texts(aligner, listed.texts))
        if plan.tokens_kept:
            aligner.kept_tokens = _tokens(listed, aligner, progress)
        if ranks.is_first:
            validation = patch_validation.load(request.captions, listed.held_out, clip)

    def validate() -> dict[str, float]:
        return {} if validation is None else validation.measure(clip, aligner.head())

    before = validate()
    began, first = time.monotonic(), 0 if begun is None else len(begun["curve"])
    left = Left() if listed is None else listed.left
    batches = _batches(request, aligner, first, plan.tokens_kept)
    curve = _fit(aligner, batches, left, checkpoint, begun, validate, progress)
    speed = (len(curve) - first) * settings.batch_size / max(1e-9, time.monotonic() - began)
    after = {name: curve[-1][name] for name in before}  # the last step is validated
    if ranks.is_first:
        header = shown | {"images": plan.images, "before": before, "after": after}
        header["curve"] = loop.thinned(curve)
        pacl.save(request.target, clip, replace(aligner.head(), settings=header))
        plots.losses(Path(plan.curve_file), header["curve"], "train-pacl")
        checkpoint.remove()
    return replace(
        plan,
        left=dict(left.samples),
        cut=tuple(left.cut),
        loss=curve[-1]["loss"],
        bound=curve[-1]["bound"],
        logit_scale=aligner.head().logit_scale,
        before=before,
        after=after,
        images_per_second=round(speed, 1),
        is_plan=False,
    )


def _fit(
    aligner: Aligner,
    batches: Iterator[Batch],
    left: Left,
    checkpoint: checkpoints.Checkpoint,
    begun: Mapping[str, Any] | None,
    validate: Callable[[], dict[str, float]],
    progress: Progress,
) -> list[Record]:
    settings = aligner.settings
    assert settings.steps is not None

    def gradients(_: int) -> dict[str, float]:
        batch = next(batches)
        if batch.left is not None:
            left.samples, left.cut = batch.left.samples, batch.left.cut
        return aligner.step(batch)

    every = max(1, settings.steps // VALIDATIONS)
    plan = Plan(settings.steps, settings.warmup, save_every=SAVE_EVERY, validate_every=every)
    return loop.train(
        Task(
            name="training the head",
            modules=aligner.modules,
            optimizer=aligner.optimizer(),
            plan=plan,
            step=gradients,
            validate=validate,
            after_step=aligner.bound_scale,
        ),
        checkpoint,
        begun=begun,
        ranks=aligner.ranks,
        progress=progress if aligner.ranks.is_first else no_progress,
    )


def _source(captions: str, images: Path | None, settings: Settings) -> Listed | list[str]:
    """The pictures of a list, or the shards."""
    if caption_inputs.is_data_set(captions) or not shards.is_shards(captions):
        source, folder = caption_inputs.locate(captions, images)
        return caption_batches.listed(captions, source, folder, settings.seed, settings.held_out)
    if images is not None:
        raise UsageError("--images is the folder of a captions JSON, and shards hold their images")
    return shards.expand(captions)


def _counted(urls: list[str]) -> int | None:
    """The samples of local shards, None where a shard lies elsewhere."""
    if not all(shards.is_local(url) for url in urls):
        return None
    found = shards.count(urls)
    if not found:
        raise InputError(f"{urls[0]} and the shards beside it hold no captioned image")
    return found


def _keeps(cache: str, listed: Listed, aligner: Aligner) -> bool:
    """Whether the tokens of all pictures are kept."""
    if cache != "auto":
        return cache == "on"
    settings = aligner.settings
    seen = (settings.steps or 0) * settings.batch_size
    width = aligner.embedder.skip.in_features
    size = aligner.tokens_a_picture() * width * _kept_type(aligner).itemsize
    alone = aligner.ranks.world == 1
    return alone and seen > len(listed.items) and size * len(listed.items) <= CACHE_BYTES


def _kept_type(aligner: Aligner) -> torch.dtype:
    """float16 in place of float32, to hold twice as many."""
    return torch.float16 if aligner.clip.dtype == torch.float32 else aligner.clip.dtype


def _tokens(listed: Listed, aligner: Aligner, progress: Progress) -> Tensor:
    """The tokens of all pictures, (N, T, width), on the CPU."""
    side = aligner.settings.crop_size or 0
    pictures = ListedBatches(listed, side, 1, range(1), aligner.settings.seed)
    found = []
    with progress(len(listed.items), "encoding") as advance:
        for start in range(0, len(listed.items), trainer.MICRO_BATCH):
            chosen = range(start, min(start + trainer.MICRO_BATCH, len(listed.items)))
            pixels = torch.stack([pictures.picture(index) for index in chosen])
            found.append(aligner.tokens(pixels).to("cpu", _kept_type(aligner)))
            advance(len(chosen))
    return torch.cat(found)


def _batches(request: Request, aligner: Aligner, first: int, kept: bool) -> Iterator[Batch]:
    """The batches of this process from a step on, made ahead by other processes where there are
    several; shards are read by one of them."""
    settings, ranks, source = aligner.settings, aligner.ranks, request.source
    own, side = settings.batch_size // ranks.world, settings.crop_size or 0
    if not isinstance(source, Listed):
        stream = ShardBatches(source, side, own, first, ranks.rank, ranks.world, settings.seed)
        if request.workers == 0:
            return iter(stream)
        return iter(DataLoader(stream, batch_size=None, num_workers=1))
    rows = range(ranks.rank * own, (ranks.rank + 1) * own)
    listed = ListedBatches(
        source, side, settings.batch_size, rows, settings.seed, crops=not kept, has_pixels=not kept
    )
    steps = list(range(first, settings.steps or 0))
    if request.workers == 0 or kept:
        return (listed[step] for step in steps)
    return iter(DataLoader(listed, batch_size=None, sampler=steps, num_workers=request.workers))


def _plain(error: RuntimeError, ranks: Ranks, settings: Settings, target: Path) -> Exception:
    """The error in one line where it is one of memory or of a process that is gone."""
    if devices.is_out_of_memory(error):
        return OvtoolError(
            f"out of memory for a batch of {settings.batch_size}: give a smaller --micro-batch or "
            "--batch-size"
        )
    if ranks.world > 1 and _is_of_a_connection(error):
        return TrainingError(
            f"another process of the training ended, so process {ranks.rank} does too: start again with "
            f"--resume, which goes on from {target}.checkpoint where there is one"
        )
    return error


def _is_of_a_connection(error: RuntimeError) -> bool:
    words = str(error).lower()
    said = any(word in words for word in ("closed by peer", "reset by peer", "timed out", "gloo"))
    return said or isinstance(error, torch.distributed.DistError)


def _training_dtype(precision: str, device: torch.device) -> torch.dtype:
    """float32, or bfloat16, which is the default on a GPU that computes it."""
    dtype = devices.precision(precision, device)
    if dtype != torch.float16:
        return dtype
    if precision == "float16":
        raise UsageError("--precision float16 is too coarse to train in: give bfloat16 or float32")
    return torch.float32


def _default_out(captions: str) -> str:
    if caption_inputs.is_data_set(captions):
        return f"{registry.split_name(captions)[0]}.pacl.safetensors"
    if shards.is_shards(captions) or captions == "-":
        return "captions.pacl.safetensors"
    return f"{Path(captions).stem}.pacl.safetensors"
