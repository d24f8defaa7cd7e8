"""The step `prompts` of `refine`: a mask generator learns what background prompts know, and makes new maps.

SemPLeS, section 3.3: the generator is trained with L_match + lambda_r L_refine against frozen background
prompts. A generator is first fitted to maps that no generator made, so that any maps can be refined.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu, mse_loss

from ovtool.cams import training as cam_training
from ovtool.errors import MismatchError, UsageError
from ovtool.formats import tensors
from ovtool.formats.cams import Cams
from ovtool.formats.file_matching import path_of
from ovtool.formats.image_labels import Labelled, LabelledImage
from ovtool.formats.images import ImageItem
from ovtool.inputs import category_texts
from ovtool.methods import activation_maps, background_prompts, label_matching
from ovtool.models import recommendations
from ovtool.settings.layers import as_data, known
from ovtool.settings.refine import PromptStep
from ovtool.trainers import mask_generator as generator_trainer
from ovtool.trainers.mask_generator import Matching
from ovtool.training import run
from ovtool.training.loop import Plan, Record, Task

if TYPE_CHECKING:  # loaded where they are used: bad arguments need not wait for them
    from ovtool.models.clip import Clip
    from ovtool.models.mask_generator import Generator

FIT_RATE, LEAK = 2e-3, 0.1
PUBLISHED = {"refine_weight": background_prompts.REFINE_WEIGHT}  # SemPLeS, section 3.3
HOSTS = ("matching",)  # methods of `cam` whose maps a generator made


@dataclass(eq=False)
class Refinement:
    """The training of the step, with all that it reads.

    Attributes:
        cams: the maps that are refined.
        matching: the training by matching, with the loss of the prompts.
        step: the settings, with nothing left open.
        fits: whether the generator is fitted to the maps first.
        shapes: all that shapes the result, for the header and the digest.
    """

    cams: Cams
    matching: Matching
    step: PromptStep
    fits: bool
    shapes: Mapping[str, Any]

    @classmethod
    def of(cls, clip: Clip, cams: Cams, folder: Path, source: str, step: PromptStep) -> Refinement:
        """Reads generator and prompts, for maps whose images, which can be read, lie below a folder.

        Raises:
            UsageError: no prompts are given, and their loss is not turned off.
            InputError: a file is broken.
            MismatchError: a generator or prompts of another model or of other classes.
        """
        from ovtool.models import background_prompts as prompts_file
        from ovtool.models import mask_generator

        require_prompts(step)
        step, origins = recommendations.settled(clip, step, PUBLISHED)
        fits = step.fit == "yes"
        if step.fit == "auto":
            fits = cams.settings.get("method") not in HOSTS
        labels = _labels_of(cams, folder, source)
        if step.generator is None:
            settings = mask_generator.Settings(start="random" if fits else "rivals")
            generator = cam_training.new_generator(settings, labels, clip, None, step.seed)
        else:
            generator = mask_generator.load(step.generator, clip)
            mask_generator.require_categories(generator, cams.categories, source)
            generator.restart(step.seed)
        prompts, digest = None, None
        if step.background_prompts is not None:
            prompts, _ = prompts_file.load(step.background_prompts, clip, cams.categories)
            digest = tensors.fingerprint({"embeddings": prompts})
        text = category_texts.embed(clip, cams.categories)
        matching = Matching(
            clip,
            generator,
            labels,
            text,
            step.matching(),
            label_steps=0 if fits else None,  # a head that was fitted has begun already
        )
        weight = known(step.refine_weight)
        if prompts is not None and weight > 0:
            matching.refine = _refine(prompts, matching.similarity)
            matching.refine_weight = weight
        shapes = {
            **as_data(step, {"background_prompts": digest or "", "generator": ""}),
            "origins": {**matching.origins, **origins},
            "background_weight": matching.background_weight,
            "label_steps": matching.label_steps,
            "similarity": matching.similarity,
            "fit_epochs": step.fit_epochs if fits else None,
            "generator": asdict(generator.settings) | {"side": generator.side},
            "start": tensors.fingerprint(generator.state_dict()),
            "cams": cams.digest,
            "model": clip.fingerprint,
        }
        return cls(cams, matching, step, fits, shapes)

    def trained(self, frame: run.Frame) -> Generator:
        """The trained generator. It is written to the frame's file with its settings and loss curve; with
        `resume` one that is there is taken, and a training that was cut off goes on.

        Raises:
            MismatchError: what is there was made with other data or settings.
            TrainingError: a loss that is not finite.
        """
        from ovtool.models import mask_generator

        frame = replace(frame, shapes=self.shapes)
        generator, kept = self.matching.generator, frame.outputs.file
        if frame.run.resume and kept.exists():
            settings = tensors.read_header(kept)["settings"]
            if settings.get("digest") == frame.digest:
                for phase in ("fit", ""):  # of a run that was killed before it had removed them
                    frame.checkpoint(phase).remove()
                return mask_generator.load(kept, generator.clip)
            if not frame.run.overwrite:
                raise MismatchError(
                    f"{kept} holds a generator of other data or settings; give the same ones, name another "
                    "file with --save-generator, or replace it with --overwrite"
                )
        fitting, learning = run.begin(frame, "fit"), run.begin(frame)
        fitted: list[Record] = run.train(self._fit(), fitting) if self.fits else []
        learned = self.matching.train(learning) if self.matching.steps > 0 else []
        run.finish(
            frame,
            run.joined_curves(fitted, learned),
            lambda path, settings: mask_generator.save(path, generator.eval(), settings),
            fitting,
            learning,
            more={"digest": frame.digest},
        )
        return mask_generator.load(kept, generator.clip)

    def _fit(self) -> Task:
        """Fits the head to the maps: the mean squared difference, on the generator's grid. What lies below
        0 leaks, so that a map that is nowhere above it still learns."""
        matching = self.matching
        generator = matching.generator.train(True)
        optimizer = torch.optim.AdamW(
            generator.trained(), lr=FIT_RATE, weight_decay=known(self.step.weight_decay)
        )
        steps = max(1, round(self.step.fit_epochs * matching.batches.per_epoch))
        by_name = {image.file_name: image.id for image in self.cams.images}

        def step(number: int) -> dict[str, float]:
            batch = matching.batches[number]
            raw = leaky_relu(generator.logits(matching.features_of(batch)), LEAK)
            rows, classes = batch.labels.to(raw.device).nonzero(as_tuple=True)
            ours = activation_maps.min_max(raw[rows, classes], label_matching.TRAIN_EPS)
            wanted = []
            for row, is_mirrored in zip(batch.rows.tolist(), batch.mirrored.tolist(), strict=True):
                maps = self.cams.of(by_name[matching.labels.images[row].item.name])
                maps = activation_maps.resized(maps, (ours.shape[1], ours.shape[2]))
                wanted.append(maps.flip(-1) if is_mirrored else maps)
            loss = mse_loss(ours, torch.cat(wanted).to(ours.device))
            loss.backward()
            return {"loss": float(loss.detach())}

        return Task(
            name="fitting the generator to the maps",
            modules={"generator": generator},
            optimizer=optimizer,
            plan=Plan(steps, save_every=self.step.save_every or generator_trainer.SAVE_EVERY),
            step=step,
        )


def require_prompts(step: PromptStep) -> None:
    """Raises UsageError where the step has no prompts to learn from, and is not asked to do without them."""
    if step.background_prompts is None and step.refine_weight != 0:
        raise UsageError(
            "the step prompts needs --background-prompts FILE, which `ovtool tune-prompts --kind "
            "background` makes, or --refine-weight 0 to learn without them"
        )


def _labels_of(cams: Cams, folder: Path, source: str) -> Labelled:
    """The images that have maps, with their labels."""
    return Labelled(
        source,
        tuple(
            LabelledImage(
                ImageItem(path_of(folder, image.file_name), image.file_name), image.category_ids
            )
            for image in cams.images
            if image.category_ids
        ),
        cams.categories,
    )


def _refine(prompts: Tensor, similarity: str) -> generator_trainer.Refine:
    """L_refine against the frozen prompts (C, D)."""
    return lambda foreground, classes: background_prompts.push_foreground(
        foreground, prompts[classes], similarity
    )
