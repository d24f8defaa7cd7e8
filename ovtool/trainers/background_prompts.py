"""`tune-prompts --kind background`: class activation maps to background prompts.

Contrastive prompt learning of SemPLeS: every class has a sentence of learned vectors, pulled to the pictures
in which the class is blanked out and pushed from the class (`methods.background_prompts`). Only the vectors
learn; both towers of the CLIP stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader

from ovtool.batches import maps as map_batches
from ovtool.batches.maps import CamBatches, CropBatch
from ovtool.datasets import vocabularies
from ovtool.errors import InputError, OvtoolError, UsageError
from ovtool.formats import atomic, labelled, parts, plots
from ovtool.formats import cams as maps_file
from ovtool.formats.cams import Cams
from ovtool.inputs import category_texts, nearest_words
from ovtool.methods import background_prompts as losses
from ovtool.methods import label_matching
from ovtool.runtime import device as devices
from ovtool.runtime.progress import Progress, no_progress
from ovtool.training import checkpoints, distributed, loop
from ovtool.training.checkpoints import Checkpoint
from ovtool.training.loop import Plan, Record, Task

if TYPE_CHECKING:  # they import open_clip, for which bad arguments need not wait
    from ovtool.models.clip import Clip
    from ovtool.models.learned_text import LearnedText
    from ovtool.models.mask_generator import Generator

PUSHES = ("text", "foreground", "none")
BATCH_SIZE, EPOCHS, RATE, DECAY = 128, 60.0, 0.025, 0.03  # the published ones, for VOC
SAVE_EVERY = 50  # steps
NEAREST = 5  # words of a prompt that are kept
PICTURES_AT_ONCE = 256  # through the image tower


@dataclass(frozen=True)
class Settings:
    """What shapes a training beside model and maps.

    push: from what a prompt is pushed, one of `PUSHES`. push_weight: lambda_T. length: K, None for 30 or as
    many as fit. init: see `learned_text.initial`. similarity: see `label_matching.similarity`; None is
    measured. batch_size: images of a step. steps: None for `epochs`. crop_scale: the least share of a picture
    in a crop; with 1 pictures are whole, and their embeddings are kept, so that they are made once.

    Raises UsageError for what cannot be meant.
    """

    push: str = "text"
    push_weight: float = losses.PUSH_WEIGHT
    length: int | None = None
    init: str = "uniform"
    similarity: str | None = None
    batch_size: int = BATCH_SIZE
    epochs: float = EPOCHS
    steps: int | None = None
    rate: float = RATE
    seed: int = 0
    crop_scale: float = map_batches.SCALE[0]

    def __post_init__(self) -> None:
        similarities = (None, *label_matching.SIMILARITIES)
        for name, value, known in (
            ("push", self.push, PUSHES),
            ("similarity", self.similarity, similarities),
        ):
            if value not in known:
                choices = ", ".join(one for one in known if one)
                raise UsageError(f"unknown --{name} '{value}'; choose from {choices}")


class Seen(NamedTuple):
    """Pairs of a picture and a class of it: the class's index (P,), and the unit embeddings of X_b and X_f
    (P, D); the latter empty where it is not needed."""

    classes: Tensor
    background: Tensor
    foreground: Tensor


@dataclass(frozen=True)
class TunedBackground:
    """What a training left. nearest: the words nearest to the prompt of each class that some image shows,
    best first, with their cosines. parameters: the number that was trained, by what they are.
    """

    out: str
    curve_file: str
    parameters: Mapping[str, int]
    images: int
    classes: int
    length: int
    steps: int
    similarity: str | None = None
    loss: float | None = None
    nearest: Mapping[str, Sequence[tuple[str, float]]] | None = None
    is_plan: bool = False


def run(
    cams: Path,
    *,
    images: Path | None = None,
    generator: Path | None = None,
    words: Path | None = None,
    model: str | None = None,
    device: str | None = None,
    push: str = "text",
    push_weight: float = losses.PUSH_WEIGHT,
    length: int | None = None,
    init: str = "uniform",
    similarity: str | None = None,
    batch_size: int = BATCH_SIZE,
    epochs: float = EPOCHS,
    steps: int | None = None,
    rate: float = RATE,
    seed: int = 0,
    crop_scale: float = map_batches.SCALE[0],
    workers: int = 0,
    out: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> TunedBackground:
    """Trains on the maps of `ovtool cam` and writes a file of kind `background-prompts`, with the loss
    curve as PNG beside it.

    images: the folder of the images, by default the one that the maps are in.
    generator: masks come from this mask generator, for each crop anew; None takes those of `cams`.
    words: the vocabulary for the nearest words, a word a line; None is what the model is known to have
        learned, else the collage's nouns and the default background words.

    Raises UsageError, ModelError, InputError, OutputExistsError, MismatchError (a generator or images that
    do not belong to the maps; a checkpoint of another training), TrainingError.
    """
    settings = Settings(
        push,
        push_weight,
        length,
        init,
        similarity,
        batch_size,
        epochs,
        steps,
        rate,
        seed,
        crop_scale,
    )
    if distributed.is_many():
        raise UsageError("tune-prompts is one process: start it without torchrun")
    place = devices.choose(device)
    target = Path(out or f"{Path(cams).stem.removesuffix('.cams')}.background.safetensors")
    picture = target.with_suffix(".png")
    atomic.check_outputs((target, picture), overwrite)
    found = maps_file.read(cams)
    folder = images or Path(cams).resolve().parent
    map_batches.items_of(found, folder, str(cams))
    from ovtool.models import background_prompts, mask_generator
    from ovtool.models import clip as door
    from ovtool.models.learned_text import LearnedText

    clip = door.load(model, place, torch.float32, found.model)
    reader = LearnedText.of(clip, length)
    made = None if generator is None else mask_generator.load(generator, clip)
    tuner = Tuner.of(clip, found, folder, reader, made, settings, workers, progress, str(cams))
    settings, count = tuner.settings, len(found.categories) * reader.length * reader.width
    plan = TunedBackground(
        str(target), str(picture), {"vectors": count}, len(tuner.batches.images),
        len(found.categories), reader.length, settings.steps or 0, is_plan=True,
    )  # fmt: skip
    if dry_run:
        return plan
    shown = {**asdict(settings), "kind": "background", "cams": found.digest}
    if generator is not None:
        shown["generator"] = _digest_of(generator)
    digest = parts.settings_digest(
        {
            **shown,
            "model": clip.fingerprint,
            "device": place.type,
            "threads": torch.get_num_threads(),
        }
    )
    checkpoint = checkpoints.beside(target, digest)
    begun = checkpoint.begin(resume, overwrite)
    vectors, curve, kind = tuner.tune(checkpoint, begun)
    with torch.no_grad():
        embedded = reader(vectors)
    near = nearest_words.of(clip, embedded, nearest_words.vocabulary(clip, words), NEAREST)
    seen = {one for image in found.images for one in image.category_ids}
    nearest = {
        each.name: words_of
        for each, words_of in zip(found.categories, near, strict=True)
        if each.id in seen
    }
    thinned = loop.thinned(curve)
    background_prompts.save(
        target, clip, found.categories, vectors, embedded,
        {**shown, "similarity": kind, "nearest": nearest, "curve": thinned},
    )  # fmt: skip
    plots.losses(picture, thinned, "tune-prompts --kind background")
    checkpoint.remove()
    return replace(plan, similarity=kind, loss=curve[-1]["loss"], nearest=nearest, is_plan=False)


@dataclass(eq=False)
class Tuner:
    """The training on one set of maps."""

    clip: Clip
    reader: LearnedText
    generator: Generator | None
    batches: CamBatches
    texts: Tensor  # of the classes, (C, D)
    settings: Settings
    workers: int
    progress: Progress
    _kept: dict[int, Seen] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        clip: Clip,
        found: Cams,
        folder: Path,
        reader: LearnedText,
        generator: Generator | None,
        settings: Settings,
        workers: int,
        progress: Progress,
        source: str,
    ) -> Tuner:
        """The training, with nothing of its settings left open but the similarity."""
        images = sum(bool(image.category_ids) for image in found.images)
        if not images:
            raise InputError(f"{source} has no maps: no image in it has a class")
        if generator is None and map_batches.constant_maps(found) == sum(
            map(len, found.maps.values())
        ):
            raise InputError(
                f"{source}: every map has one value everywhere, so none says where its class is: make "
                "the maps again"
            )
        if generator is not None:
            require_classes(generator, found, source)
        batch = min(settings.batch_size, images)
        steps = settings.steps or max(1, round(settings.epochs * (images // batch)))
        settings = replace(settings, length=reader.length, batch_size=batch, steps=steps)
        side = clip.image_size
        batches = CamBatches(found, folder, batch, side, settings.seed, settings.crop_scale)
        texts = category_texts.embed(clip, found.categories)
        return cls(clip, reader, generator, batches, texts, settings, workers, progress)

    def tune(
        self, checkpoint: Checkpoint, begun: Mapping[str, Any] | None
    ) -> tuple[Tensor, list[Record], str]:
        """The learned vectors (C, K, width), the curve, and the similarity that was taken."""
        from ovtool.models import learned_text

        settings = self.settings
        words = self.clip.stuff or vocabularies.DEFAULT_BACKGROUND
        start = learned_text.initial(
            settings.init, self.reader, len(self.texts), settings.seed, words
        )
        vectors = nn.Parameter(start.to(self.clip.device))
        kind = settings.similarity or self.measured()
        optimizer = torch.optim.AdamW([vectors], lr=settings.rate, weight_decay=DECAY)
        assert settings.steps is not None
        plan = Plan(settings.steps, save_every=SAVE_EVERY)
        loaded = self._loaded(0 if begun is None else len(begun["curve"]))

        def gradients(step: int) -> dict[str, float]:
            seen = self._whole(step) if settings.crop_scale >= 1 else self.seen(next(loaded))
            loss, parts_of = self.loss(seen, vectors, kind)
            loss.backward()
            return {"loss": float(loss.detach()), **parts_of}

        try:
            curve = loop.train(
                Task(
                    name="tuning background prompts",
                    modules={"vectors": nn.ParameterList([vectors])},
                    optimizer=optimizer,
                    plan=plan,
                    step=gradients,
                ),
                checkpoint,
                begun=begun,
                progress=self.progress,
            )
        except Exception as error:
            if not devices.is_out_of_memory(error):
                raise
            raise OvtoolError(
                f"out of memory for a batch of {settings.batch_size}: give a smaller --batch-size"
            ) from error
        return vectors.detach(), curve, kind

    def loss(self, seen: Seen, vectors: Tensor, kind: str) -> tuple[Tensor, dict[str, float]]:
        """L_prompt of a batch, and its two terms by name."""
        classes, background, foreground = seen
        prompts = self.reader(vectors)[classes]
        pulled = losses.pull(background, prompts, kind)
        if self.settings.push == "none":
            return pulled, {"pull": float(pulled.detach())}
        if self.settings.push == "text":
            pushed = losses.push_text(self.texts[classes], prompts, kind)
        else:
            pushed = losses.push_foreground(foreground, prompts, kind)
        terms = {"pull": float(pulled.detach()), "push": float(pushed.detach())}
        return pulled + self.settings.push_weight * pushed, terms

    def _whole(self, step: int) -> Seen:
        """The images of a step as they are kept."""
        chosen = self.batches.chosen(step)
        for number in chosen:
            if number not in self._kept:
                batch = self.batches.of([number], np.random.default_rng(0))
                self._kept[number] = self.seen(batch)
        found = [self._kept[number] for number in chosen]
        return Seen(*(torch.cat(several) for several in zip(*found, strict=True)))

    @torch.no_grad()
    def seen(self, batch: CropBatch) -> Seen:
        """The pairs of a batch."""
        from ovtool.models import clip as door

        pixels = door.normalise(self.clip, batch.pixels)
        owners, classes = batch.owners.to(pixels.device), batch.classes.to(pixels.device)
        maps = batch.maps.to(pixels.device)
        if self.generator is not None:
            maps = _generated(self.generator, batch.pixels, owners, classes, maps.shape[1:])
        both: list[tuple[Tensor, Tensor]] = []
        for some, mask in zip(
            owners.split(PICTURES_AT_ONCE), maps.split(PICTURES_AT_ONCE), strict=True
        ):
            shown, hidden = label_matching.masked_pair(pixels[some], mask)
            needed = shown if self.settings.push == "foreground" else shown[:0]
            embedded = door.encode_images(self.clip, torch.cat([hidden, needed]))
            both.append((embedded[: len(some)], embedded[len(some) :]))
        background, foreground = (torch.cat(each) for each in zip(*both, strict=True))
        return Seen(classes, background, foreground)

    @torch.no_grad()
    def measured(self) -> str:
        """The similarity for this model: `raw`, as published, unless the clamp would leave more than a few
        of the cosines among which prompts move without a gradient: of pictures and texts of the classes, and
        of texts with each other, whether or not they belong together."""
        background = self.seen(self.batches[0]).background
        apart = ~torch.eye(len(self.texts), dtype=torch.bool, device=self.texts.device)
        among = (self.texts @ self.texts.T)[apart]
        cosines = torch.cat([(background @ self.texts.T).flatten(), among])
        share = label_matching.clamped_share(cosines)
        return "raw" if share <= label_matching.MAX_CLAMPED else "shifted"

    def _loaded(self, first: int) -> Iterator[CropBatch]:
        """The batches from a step on, cut ahead by other processes where there are several."""
        if self.settings.crop_scale >= 1:
            return iter(())
        steps = range(first, self.settings.steps or 0)
        if self.workers == 0:
            return (self.batches[step] for step in steps)
        loader = DataLoader(
            self.batches, batch_size=None, sampler=list(steps), num_workers=self.workers
        )
        return iter(loader)


def require_classes(generator: Generator, found: Cams, source: str) -> None:
    """Raises MismatchError where a generator makes maps of other classes than those of a file of maps."""
    from ovtool.errors import MismatchError

    theirs = [each.name for each in generator.categories]
    ours = [each.name for each in found.categories]
    if theirs != ours:
        differing = sorted(set(theirs) ^ set(ours)) or ours
        raise MismatchError(
            f"the generator has {len(theirs)} classes and {source} {len(ours)}; they differ in "
            f"{labelled.shortened(differing)}: give the generator that `ovtool cam` saved with these maps"
        )


def _generated(
    generator: Generator, rgb: Tensor, owners: Tensor, classes: Tensor, size: Sequence[int]
) -> Tensor:
    """The masks (P, S, S) that a generator makes of crops, in [0, 1], for pairs of crop and class."""
    raw = generator.maps(generator.features(generator.normalise(rgb)))[owners, classes]
    grown = interpolate(raw[:, None], tuple(size), mode="bilinear", align_corners=True)[:, 0]
    return label_matching.normalise_maps(grown)


def _digest_of(path: Path) -> str:
    from ovtool.formats import tensors

    return tensors.fingerprint(tensors.load(path)[1])
