"""The training of a mask generator by segment-label matching (`methods.label_matching`).

The CLIP is frozen; gradients go through its image tower to the masks. What the generator reads of the
images is kept in memory where it never changes: its backbone is frozen and the images are whole.
Mirrored images are then kept beside the others, so this augmentation costs nothing; random crops
(`crop_scale` below 1) cannot be kept.

The published generator does not begin at random weights: it is WeakTr's, trained on the labels alone. Here
a head on the CLIP's own patches begins with the texts of the classes (`models.mask_generator`); for one that
begins at random the first `label_steps` steps are WeakTr's loss, the multi-label soft-margin of the maps'
means, which need no image tower and are quick.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import interpolate, multilabel_soft_margin_loss, normalize
from torch.utils.checkpoint import checkpoint

from ovtool.batches.labels import LabelBatch, LabelBatches
from ovtool.batches.loader import Loader
from ovtool.formats.image_labels import Labelled
from ovtool.methods import activation_maps, label_matching
from ovtool.models import recommendations
from ovtool.settings.cam import LabelMatching
from ovtool.settings.layers import known
from ovtool.training import distributed, run
from ovtool.training.distributed import Ranks
from ovtool.training.loop import Plan, Record, Task

if TYPE_CHECKING:  # loaded where it is used: bad arguments need not wait for it
    from ovtool.models.clip import Clip
    from ovtool.models.mask_generator import Generator

PUBLISHED = {"background_weight": label_matching.BACKGROUND_WEIGHT}  # SemPLeS, section 3.2
LABEL_STEPS = 200  # of a generator that begins at random
CACHE_BYTES = 2 << 30  # of features
LOOKED_AT = 64  # images whose similarity to their labels is measured
SAVE_EVERY = 50  # steps
PIXELS_AT_ONCE = 16 * 224**2  # with gradients through the image tower: 4 masked images of 448 x 448

# unit features v_f (P, D) of X_f and the class of each (P,) to a further loss
Refine = Callable[[Tensor, Tensor], Tensor]
_logger = logging.getLogger("ovtool")


@dataclass(eq=False)
class Matching:
    """One training: a generator, the labelled images and the classes' text embeddings (C, D).

    refine, refine_weight: a further loss on the foreground (`Refine`) and its weight. label_steps: None for
    those of the settings; 0 where the head comes from elsewhere. ranks: this process among those that share
    each batch.

    Once made, `background_weight`, `label_steps` and `similarity` are what is taken.
    """

    clip: Clip
    generator: Generator
    labels: Labelled
    text: Tensor
    settings: LabelMatching
    refine: Refine | None = None
    refine_weight: float = 0.0
    label_steps: int | None = None
    ranks: Ranks = field(default_factory=distributed.alone)
    background_weight: float = field(init=False)
    _features: dict[tuple[int, bool], Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        side, patch = self.generator.side, self.generator.divisor
        self.batches = LabelBatches(
            self.labels,
            max(1, side // patch) * patch,
            known(self.settings.batch_size),
            self.settings.seed,
            self.settings.least_share,
        )
        self._rows = distributed.own_rows(self.batches.size, self.ranks)
        if self.label_steps is None:
            self.label_steps = self.settings.label_steps
        if self.label_steps is None:
            self.label_steps = LABEL_STEPS if self.generator.settings.start == "random" else 0
        self.settings, self.origins = recommendations.settled(self.clip, self.settings, PUBLISHED)
        self.background_weight = known(self.settings.background_weight)
        self.similarity = self.settings.similarity or self.measured_similarity()
        total = (self.label_steps or 0) + self.steps
        self.loader = Loader(self.batches, total, self.settings.loader_workers)
        self.keeps = self.generator.is_frozen and self.settings.least_share >= 1 and self._fits()

    @property
    def steps(self) -> int:
        """The number of steps of the matching, after those on labels alone."""
        if self.settings.steps is not None:
            return self.settings.steps
        epochs = self.settings.epochs
        return max(1, round(epochs * self.batches.per_epoch)) if epochs else 0

    def task(self) -> Task:
        """The training of the generator, on the labels alone first and then by matching."""
        settings, generator = self.settings, self.generator
        generator.train(True)
        optimizer = torch.optim.AdamW(
            generator.trained(),
            lr=known(settings.lr),
            weight_decay=known(settings.weight_decay),
            betas=(0.9, 0.999),
        )
        return Task(
            name="matching masks and labels",
            modules={"generator": generator},
            optimizer=optimizer,
            plan=Plan(
                (self.label_steps or 0) + self.steps,
                warmup=settings.warmup or 0,
                save_every=settings.save_every or SAVE_EVERY,
                first=self.label_steps or 0,
            ),
            step=self._step,
        )

    def train(self, begun: run.Begun) -> list[Record]:
        """Trains the generator in place and returns the curve, which is empty without any step. Raises as
        `training.run.train`."""
        curve: list[Record] = []
        if (self.label_steps or 0) + self.steps:
            curve = run.train(self.task(), begun)
        self.generator.eval()
        return curve

    def _step(self, step: int) -> dict[str, float]:
        rows = slice(self._rows.start, self._rows.stop)
        batch = LabelBatch(*(part[rows] for part in vars(self.loader(step)).values()))
        torch.manual_seed(self.settings.seed * 1_000_003 + step)  # for networks that drop something
        on_labels = step < (self.label_steps or 0)
        losses = self.label_losses(batch) if on_labels else self.losses(batch)
        (losses["loss"] * self.ranks.world).backward()
        return {name: float(value.detach()) for name, value in losses.items()}

    def label_losses(self, batch: LabelBatch) -> dict[str, Tensor]:
        """The multi-label soft-margin loss of the means of the maps, before their ReLU."""
        own = self.generator.logits(self.features_of(batch)).mean(dim=(2, 3))
        logits = self._gathered(own)
        truth = self._gathered(batch.labels.to(own.device)).float()
        return {"loss": multilabel_soft_margin_loss(logits, truth)}

    def losses(self, batch: LabelBatch) -> dict[str, Tensor]:
        """L_match and by choice the weighted `refine` loss, and their sum as `loss`."""
        raw = self.generator.maps(self.features_of(batch))
        rows, classes = batch.labels.to(raw.device).nonzero(as_tuple=True)  # (P,) pairs
        pair = self._pair(batch.rgb, raw[rows, classes], rows)
        foreground, background = (self._gathered(features) for features in pair)
        classes = self._gathered(classes)
        text = self.text[classes]
        match = label_matching.match_loss(
            label_matching.similarity(foreground, text, self.similarity),
            label_matching.similarity(background, text, self.similarity),
            self.background_weight,
        )
        if self.refine is None:
            return {"loss": match}
        refined = self.refine(foreground, classes)
        return {"loss": match + self.refine_weight * refined, "match": match, "refine": refined}

    def _gathered(self, rows: Tensor) -> Tensor:
        return distributed.gather_inside(rows, self.ranks)

    def _pair(self, rgb: Tensor, raw: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The unit embeddings of X_f and X_b, each (P, D), of raw maps (P, h, w)."""
        pixels = self._clip_pixels(rgb)
        size = list(pixels.shape[2:])
        grown = interpolate(raw[:, None], size=size, mode="bilinear", align_corners=True)[:, 0]
        mask = activation_maps.min_max(grown, label_matching.TRAIN_EPS)
        both = torch.cat(label_matching.masked_pair(pixels[rows], mask))
        foreground, background = self._embed(both).chunk(2)
        return foreground, background

    def _embed(self, pixels: Tensor) -> Tensor:
        """Unit embeddings (n, D) of normalised images, with gradients to them.

        What the tower computes on the way is made again in the backward pass where the images are several chunks, so
        that memory holds the graph of one chunk: a 448-pixel image through the stem of `photo` is 760 MB.
        """
        from ovtool.models import towers

        visual = self.clip.model.visual
        chunks = pixels.split(max(1, PIXELS_AT_ONCE // pixels[0, 0].numel()))
        if len(chunks) == 1:
            return normalize(towers.image_features(visual, pixels).float(), dim=-1)
        features = [
            checkpoint(towers.image_features, visual, chunk, use_reentrant=False)
            for chunk in chunks
        ]
        return normalize(torch.cat(features).float(), dim=-1)

    def _clip_pixels(self, rgb: Tensor) -> Tensor:
        """uint8 (B, S, S, 3) as the CLIP sees masked images: normalised, of its own size."""
        from ovtool.models import clip as clips

        size = (self.clip.image_size, self.clip.image_size)
        if tuple(rgb.shape[1:3]) != size:
            small = interpolate(rgb.permute(0, 3, 1, 2), size=size, mode="bilinear", antialias=True)
            rgb = small.permute(0, 2, 3, 1)
        return clips.normalise(self.clip, rgb)

    # --- features that are kept ---------------------------------------------------------------------
    def features_of(self, batch: LabelBatch) -> Tensor:
        if not self.keeps:
            return self.generator.features(self.generator.normalise(batch.rgb))
        keys = list(zip(batch.rows.tolist(), batch.mirrored.tolist(), strict=True))
        new = [place for place, key in enumerate(keys) if key not in self._features]
        if new:
            encoded = self.generator.features(self.generator.normalise(batch.rgb[new])).half()
            for place, features in zip(new, encoded, strict=True):
                self._features[keys[place]] = features
        return torch.stack([self._features[key] for key in keys]).float()

    def _fits(self) -> bool:
        """Whether the features of all images, mirrored too, are few enough to be kept."""
        blank = torch.zeros(1, self.batches.side, self.batches.side, 3, dtype=torch.uint8)
        size = self.generator.features(self.generator.normalise(blank)).numel() * 2
        return 2 * size * len(self.labels.images) <= CACHE_BYTES

    # --- what needs no pixel truth -------------------------------------------------------------------
    @torch.no_grad()
    def measured_similarity(self) -> str:
        """`raw`, the paper's, unless the clamp takes the gradient of too many images; then one line
        says so."""
        count = len(self.labels.images)
        batch = self.batches.of_rows(range(0, count, max(1, count // LOOKED_AT))[:LOOKED_AT])
        features = self._embed(self._clip_pixels(batch.rgb))
        rows, classes = batch.labels.nonzero(as_tuple=True)
        cosines = (features[rows.to(features.device)] * self.text[classes.to(features.device)]).sum(
            1
        )
        share = label_matching.clamped_share(cosines)
        if share <= label_matching.MAX_CLAMPED:
            return "raw"
        _logger.warning(
            "%.0f %% of the images have a cosine below 0 with a label of theirs, where the raw similarity "
            "learns nothing: taking --similarity shifted",
            100 * share,
        )
        return "shifted"
