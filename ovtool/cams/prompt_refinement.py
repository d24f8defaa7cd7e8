"""The step `prompts` of `refine`: a mask generator that learns what background prompts have found.

Prompt-guided semantic refinement of SemPLeS (section 3.3): the generator starts anew and learns with
L_match + lambda_r L_refine; the prompts and the CLIP stay as they are. Maps that came from no generator have
no parameters that could learn: a generator's head is fitted to them first, and goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, leaky_relu, mse_loss

from ovtool.cams import training as cam_training
from ovtool.errors import MismatchError, UsageError
from ovtool.formats import parts, plots, tensors
from ovtool.formats.cams import Cams
from ovtool.formats.image_labels import Labelled, LabelledImage
from ovtool.formats.images import ImageItem
from ovtool.inputs import category_texts
from ovtool.methods import background_prompts, label_matching
from ovtool.runtime.progress import Progress
from ovtool.trainers import mask_generator as generator_trainer
from ovtool.trainers.mask_generator import Matching
from ovtool.training import checkpoints, loop
from ovtool.training.checkpoints import Checkpoint
from ovtool.training.loop import Plan, Record, Task

if TYPE_CHECKING:  # they import open_clip, for which bad arguments need not wait
    from ovtool.models.clip import Clip
    from ovtool.models.mask_generator import Generator

FIT_EPOCHS, FIT_RATE, LEAK = 5.0, 2e-3, 0.1
SMALL_REFINE_WEIGHT = 2.0  # lambda_r for a small model
HOSTS = ("matching",)  # methods of `cam` whose maps a generator made


@dataclass(frozen=True)
class Request:
    """What is asked of the step.

    prompts: the file of background prompts; None for L_match alone. generator: a file whose generator is
    taken, restarted; None builds one on the CLIP's patches, with the start `rivals` unless it is fitted.
    refine_weight: lambda_r; None is the published 0.05, and 2 for a small model. fit: whether the head is first
    fitted to the maps; None where no generator made them. fit_epochs: of that. matching: the rest of the
    training.
    """

    prompts: Path | None = None
    generator: Path | None = None
    refine_weight: float | None = None
    fit: bool | None = None
    fit_epochs: float = FIT_EPOCHS
    matching: generator_trainer.Settings = generator_trainer.Settings()

    def __post_init__(self) -> None:
        if self.prompts is None and self.refine_weight != 0:
            raise UsageError(
                "the step prompts needs --background-prompts FILE, which `ovtool tune-prompts --kind "
                "background` makes, or --refine-weight 0 to learn without them"
            )


@dataclass(eq=False)
class Refinement:
    """The training of the step, with all that it reads.

    fits: whether the head is fitted to the maps first. shown: what shapes the result, for headers.
    """

    cams: Cams
    matching: Matching
    fits: bool
    fit_epochs: float
    shown: Mapping[str, Any]

    @classmethod
    def of(
        cls, clip: Clip, cams: Cams, items: list[ImageItem], source: str, request: Request,
        progress: Progress,
    ) -> Refinement:  # fmt: skip
        """Reads generator and prompts. Raises InputError and MismatchError for those of another model or of
        other classes."""
        from ovtool.models import background_prompts as prompts_file
        from ovtool.models import mask_generator

        fits = cams.settings.get("method") not in HOSTS if request.fit is None else request.fit
        seed = request.matching.seed
        labels = Labelled(
            source,
            tuple(
                LabelledImage(item, image.category_ids)
                for item, image in zip(items, cams.images, strict=True)
                if image.category_ids
            ),
            cams.categories,
        )
        if request.generator is None:
            settings = mask_generator.Settings(start="random" if fits else "rivals")
            generator = cam_training.new_generator(settings, labels, clip, None, seed)
        else:
            generator = mask_generator.load(request.generator, clip)
            mask_generator.require_categories(generator, cams.categories, source)
            generator.restart(seed)
        prompts, digest = None, None
        if request.prompts is not None:
            prompts, _ = prompts_file.load(request.prompts, clip, cams.categories)
            digest = tensors.fingerprint({"embeddings": prompts})
        text = category_texts.embed(clip, cams.categories)
        matching = Matching(
            clip, generator, labels, text, request.matching, progress=progress,
            label_steps=0 if fits else None,  # a head that was fitted has begun already
        )  # fmt: skip
        weight = request.refine_weight
        if weight is None:
            is_small = generator_trainer.is_small(clip)
            weight = SMALL_REFINE_WEIGHT if is_small else background_prompts.REFINE_WEIGHT
        if prompts is not None and weight > 0:
            matching.refine = _refine(prompts, matching.similarity)
            matching.refine_weight = weight
        shown = {
            **asdict(request.matching),
            "background_weight": matching.background_weight,
            "label_steps": matching.label_steps,
            "similarity": matching.similarity,
            "background_prompts": digest,
            "refine_weight": weight,
            "fit_epochs": request.fit_epochs if fits else None,
            "generator": asdict(generator.settings) | {"side": generator.side},
        }
        return cls(cams, matching, fits, request.fit_epochs, shown)

    def trained(self, kept: Path, resume: bool, overwrite: bool) -> Generator:
        """The trained generator. It is written to `kept` with its settings and loss curve, the curve as PNG
        beside it; with `resume` one that is there is taken, and a training that was cut off goes on.

        Raises MismatchError where what is there was made with other data or settings, TrainingError.
        """
        from ovtool.models import mask_generator

        generator = self.matching.generator
        digest = self.digest
        if resume and kept.exists():
            settings = tensors.read_header(kept)["settings"]
            if settings.get("digest") == digest:
                return mask_generator.load(kept, generator.clip)
            if not overwrite:
                raise MismatchError(
                    f"{kept} holds a generator of other data or settings; give the same ones, name another "
                    "file with --save-generator, or replace it with --overwrite"
                )
        fitting = checkpoints.beside(Path(f"{kept}.fit"), digest)
        learning = checkpoints.beside(kept, digest)
        begun = [one.begin(resume, overwrite) for one in (fitting, learning)]
        curve: list[Record] = []
        if self.fits:
            curve = self._fit(fitting, begun[0])
        if self.matching.steps > 0:
            learned = self.matching.train(learning, begun[1])
            curve = [*curve, *({**one, "step": one["step"] + len(curve)} for one in learned)]
        thinned = loop.thinned(curve)
        mask_generator.save(
            kept, generator.eval(), {**self.shown, "digest": digest, "curve": thinned}
        )
        plots.losses(kept.with_suffix(".png"), thinned, "refine --steps prompts")
        for one in (fitting, learning):
            one.remove()
        return mask_generator.load(kept, generator.clip)

    @property
    def digest(self) -> str:
        """Of all that shapes the generator."""
        clip = self.matching.clip
        settings = {"cams": self.cams.digest, "model": clip.fingerprint, "device": clip.device.type}
        return parts.settings_digest({**self.shown, **settings, "threads": torch.get_num_threads()})

    def _fit(self, checkpoint: Checkpoint, begun: Mapping[str, Any] | None) -> list[Record]:
        """Fits the head to the maps: the mean squared difference, on the generator's grid. What lies below
        0 leaks, so that a map that is nowhere above it still learns."""
        matching = self.matching
        generator = matching.generator.train(True)
        optimizer = torch.optim.AdamW(
            generator.trained(), lr=FIT_RATE, weight_decay=generator_trainer.DECAY
        )
        steps = max(1, round(self.fit_epochs * matching.batches.per_epoch))
        by_name = {image.file_name: image.id for image in self.cams.images}

        def gradients(step: int) -> dict[str, float]:
            batch = matching.batches[step]
            raw = leaky_relu(generator.logits(matching.features_of(batch)), LEAK)
            rows, classes = batch.labels.to(raw.device).nonzero(as_tuple=True)
            ours = label_matching.normalise_maps(raw[rows, classes], label_matching.TRAIN_EPS)
            wanted = []
            for row, is_mirrored in zip(batch.rows.tolist(), batch.mirrored.tolist(), strict=True):
                found = self.cams.of(by_name[matching.labels.images[row].item.name])
                found = interpolate(found[None], ours.shape[1:], mode="bilinear")[0]
                wanted.append(found.flip(-1) if is_mirrored else found)
            loss = mse_loss(ours, torch.cat(wanted).to(ours.device))
            loss.backward()
            return {"loss": float(loss.detach())}

        return loop.train(
            Task(
                name="fitting the generator to the maps",
                modules={"generator": generator},
                optimizer=optimizer,
                plan=Plan(steps, save_every=50),
                step=gradients,
            ),
            checkpoint,
            begun=begun,
            progress=matching.progress,
        )


def _refine(prompts: Tensor, similarity: str) -> generator_trainer.Refine:
    """L_refine against the frozen prompts (C, D)."""
    return lambda foreground, classes: background_prompts.refine_loss(
        foreground, prompts[classes], similarity
    )
