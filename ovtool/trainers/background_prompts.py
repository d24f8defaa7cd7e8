"""The training of background prompts from class activation maps (SemPLeS, Lin et al., WACV 2025).

Contrastive prompt learning: every class has a sentence of learned vectors, pulled to the images in which
the class is blanked out and pushed from the class (`methods.background_prompts`). Only the vectors learn;
both towers of the CLIP stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ovtool.batches import maps as map_batches
from ovtool.batches.loader import Loader
from ovtool.batches.maps import CamBatches, CropBatch
from ovtool.datasets import vocabularies
from ovtool.errors import InputError, UsageError
from ovtool.formats.cams import Cams
from ovtool.inputs import category_texts
from ovtool.methods import activation_maps, label_matching
from ovtool.methods import background_prompts as losses
from ovtool.runtime import device as devices
from ovtool.settings.layers import known
from ovtool.settings.prompts import BackgroundPrompts
from ovtool.training import distributed, loop
from ovtool.training.distributed import Ranks
from ovtool.training.loop import Task

if TYPE_CHECKING:  # loaded where they are used: bad arguments need not wait for them
    from ovtool.models.clip import Clip
    from ovtool.models.learned_text import LearnedText
    from ovtool.models.mask_generator import Generator

SAVE_EVERY = 50  # steps
PIXELS_AT_ONCE = 256 * 128**2  # through the image tower: 20 masked images of 448 x 448


class Seen(NamedTuple):
    """Pairs of an image and a class of it: the class's index (P,), and the unit embeddings of X_b and X_f
    (P, D); the latter empty where it is not needed."""

    classes: Tensor
    background: Tensor
    foreground: Tensor


def settled(
    settings: BackgroundPrompts, cams: Cams, reader: LearnedText, source: str
) -> BackgroundPrompts:
    """The settings with nothing left to the maps and the model, but for the similarity, which is measured.

    Raises:
        InputError: No image of the maps has a class, and none is left to train on.
        UsageError: All maps are of one class.
    """
    held_out = map_batches.held_out(cams, settings.seed, settings.held_out)
    images = sum(bool(image.category_ids) for image in cams.images) - len(held_out)
    if not images:
        raise InputError(f"{source} has no maps: no image in it has a class")
    used = {category_id for image in cams.images for category_id in image.category_ids}
    if len(used) == 1:
        name = next(category.name for category in cams.categories if category.id in used)
        raise UsageError(
            f"every map of {source} is of '{name}', so that there is nothing to learn; add maps of other "
            "classes"
        )
    batch = min(known(settings.batch_size), images)
    return loop.settled(settings, images, batch, SAVE_EVERY, {"length": reader.length})[0]


def require_maps(cams: Cams, source: str) -> None:
    """Raises InputError where no map says where its class is."""
    if map_batches.constant_maps(cams) == sum(len(image.category_ids) for image in cams.images):
        raise InputError(
            f"{source}: every map has one value everywhere, so none says where its class is; make the "
            "maps again"
        )


@dataclass(frozen=True, eq=False)
class MaskedImages:
    """Images with their classes blanked out, as a CLIP sees them: what prompts learn from.

    Attributes:
        clip: the model.
        reader: reads sentences of learned vectors.
        generator: makes the masks of crops; None takes the maps.
        settings: settled.
        dtype: in which both towers compute.
        batches: crops, by step.
        held_out: images that are not trained on, whole.
        texts: of the classes, (C, D).
        ranks: this process among those that share each batch.
    """

    clip: Clip
    reader: LearnedText
    generator: Generator | None
    settings: BackgroundPrompts
    dtype: torch.dtype
    batches: CamBatches
    held_out: CamBatches
    texts: Tensor
    ranks: Ranks
    _kept: dict[int, Seen] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        cams: Cams,
        folder: Path,
        reader: LearnedText,
        generator: Generator | None,
        settings: BackgroundPrompts,
        dtype: torch.dtype,
        ranks: Ranks,
    ) -> MaskedImages:
        """Those of a file of maps, whose images lie below a folder; settings must be settled."""
        clip, side, seed = reader.clip, reader.clip.image_size, settings.seed
        held = map_batches.held_out(cams, seed, settings.held_out)
        batch = known(settings.batch_size)
        batches = CamBatches(cams, folder, batch, side, seed, settings.crop_scale, left_out=held)
        others = frozenset(image.id for image in cams.images) - held
        held_out = CamBatches(cams, folder, batch, side, seed, 1.0, left_out=others)
        texts = category_texts.embed(clip, cams.categories)
        return cls(clip, reader, generator, settings, dtype, batches, held_out, texts, ranks)

    def initial(self) -> nn.Parameter:
        """Vectors (C, K, width) that learn, at their start."""
        from ovtool.models import learned_text

        words = self.clip.stuff or vocabularies.DEFAULT_BACKGROUND
        start = learned_text.initial(
            self.settings.init, self.reader, len(self.texts), self.settings.seed, words
        )
        return nn.Parameter(start.to(self.clip.device))

    def sentences(self, vectors: Tensor) -> Tensor:
        """The embeddings (C, D) of vectors, of length 1."""
        with devices.autocast(self.clip.device, self.dtype):
            embedded = self.reader(vectors)
        return embedded

    @torch.no_grad()
    def seen(self, batch: CropBatch) -> Seen:
        """The pairs of a batch."""
        from ovtool.models import clip as clips

        pixels = clips.normalise(self.clip, batch.pixels)
        owners, classes = batch.owners.to(pixels.device), batch.classes.to(pixels.device)
        maps = batch.maps.to(pixels.device)
        if self.generator is not None:
            maps = _generated(self.generator, batch.pixels, owners, classes, maps.shape[1:])
        at_once = max(1, PIXELS_AT_ONCE // pixels[0, 0].numel())
        both: list[tuple[Tensor, Tensor]] = []
        for some, mask in zip(owners.split(at_once), maps.split(at_once), strict=True):
            foreground, background = label_matching.masked_pair(pixels[some], mask)
            needed = foreground if self.settings.push == "foreground" else foreground[:0]
            with devices.autocast(self.clip.device, self.dtype):
                embedded = clips.encode_images(self.clip, torch.cat([background, needed]))
            both.append((embedded[: len(some)], embedded[len(some) :]))
        background, foreground = (torch.cat(parts) for parts in zip(*both, strict=True))
        return Seen(classes, background, foreground)

    def whole(self, batches: CamBatches, numbers: Sequence[int]) -> Seen:
        """Some images, whole, each encoded once and kept."""
        for number in numbers:
            image_id = batches.images[number].id
            if image_id not in self._kept:
                self._kept[image_id] = self.seen(batches.of([number], np.random.default_rng(0)))
        several = [self._kept[batches.images[number].id] for number in numbers]
        return Seen(*(torch.cat(parts) for parts in zip(*several, strict=True)))

    def loss(self, seen: Seen, vectors: Tensor, similarity: str) -> tuple[Tensor, dict[str, float]]:
        """L_prompt of a batch, and its two terms by name."""
        classes, background, foreground = seen
        prompts = self.sentences(vectors)[classes]
        pulled = losses.pull(background, prompts, similarity)
        if self.settings.push == "none":
            return pulled, {"pull": float(pulled.detach())}
        if self.settings.push == "text":
            pushed = losses.push_text(self.texts[classes], prompts, similarity)
        else:
            pushed = losses.push_foreground(foreground, prompts, similarity)
        terms = {"pull": float(pulled.detach()), "push": float(pushed.detach())}
        return pulled + self.settings.push_weight * pushed, terms

    @torch.no_grad()
    def measured_similarity(self) -> str:
        """The similarity for this model: `raw`, as published, unless the clamp would leave more than a few
        of the cosines among which prompts move without a gradient: of images and texts of the classes, and
        of texts with each other, whether or not they belong together."""
        background = self.seen(self.batches[0]).background
        apart = ~torch.eye(len(self.texts), dtype=torch.bool, device=self.texts.device)
        among = (self.texts @ self.texts.T)[apart]
        cosines = torch.cat([(background @ self.texts.T).flatten(), among])
        share = label_matching.clamped_share(cosines)
        return "raw" if share <= label_matching.MAX_CLAMPED else "shifted"

    @torch.no_grad()
    def validated(self, vectors: Tensor, similarity: str) -> dict[str, float]:
        """`held_out_loss`, of the images that are not trained on; nothing without any."""
        count = len(self.held_out.images)
        if not count or not self.settings.validate_every:
            return {}
        loss, _ = self.loss(self.whole(self.held_out, range(count)), vectors, similarity)
        return {"held_out_loss": round(float(loss), 6)}


def task(images: MaskedImages, vectors: nn.Parameter, similarity: str) -> Task:
    """The training of vectors as the frame runs it."""
    settings = images.settings
    batches = Loader(images.batches, known(settings.steps), settings.loader_workers)
    rows = distributed.own_rows(known(settings.batch_size), images.ranks)

    def seen(number: int) -> Seen:
        if settings.crop_scale >= 1:
            drawn = images.batches.drawn(number)
            return images.whole(images.batches, drawn[rows.start : rows.stop])
        return images.seen(batches(number).of_rows(rows))

    def step(number: int) -> dict[str, float]:
        # the images are shared out; the vectors, which are few, learn from all of them in every process
        every = Seen(*(distributed.gather_inside(part, images.ranks) for part in seen(number)))
        loss, terms = images.loss(every, vectors, similarity)
        loss.backward()
        return {"loss": float(loss.detach()), **terms}

    return Task(
        name="tuning background prompts",
        modules={"vectors": nn.ParameterList([vectors])},
        optimizer=torch.optim.AdamW(
            [vectors], lr=known(settings.lr), weight_decay=known(settings.weight_decay)
        ),
        plan=loop.plan_of(settings),
        step=step,
        validate=lambda: images.validated(vectors, similarity),
    )


def _generated(
    generator: Generator, rgb: Tensor, owners: Tensor, classes: Tensor, size: Sequence[int]
) -> Tensor:
    """The masks (P, S, S) that a generator makes of crops, in [0, 1], for pairs of crop and class."""
    raw = generator.maps(generator.features(generator.normalise(rgb)))[owners, classes]
    grown = interpolate(raw[:, None], tuple(size), mode="bilinear", align_corners=True)[:, 0]
    return activation_maps.min_max(grown, label_matching.EPS)
