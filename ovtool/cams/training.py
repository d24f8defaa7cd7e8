"""The trainings that `cam` begins with, and what they leave to it: a network, a checkpoint and a curve.

The checkpoint stays until the maps are written, so that a run that is cut off while it makes maps does
not train again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

from ovtool.cams import options as cam_options
from ovtool.cams.options import Options
from ovtool.errors import UsageError
from ovtool.formats import parts, tensors
from ovtool.formats.image_labels import Labelled
from ovtool.inputs import category_texts
from ovtool.models.classifier import Classifier
from ovtool.runtime.runs import Run
from ovtool.trainers import classifier as classifier_trainer
from ovtool.trainers.mask_generator import Matching
from ovtool.training import checkpoints, loop
from ovtool.training.checkpoints import Checkpoint
from ovtool.training.loop import Record

if TYPE_CHECKING:  # it imports open_clip, for which bad arguments need not wait
    from ovtool.models.clip import Clip
    from ovtool.models.mask_generator import Generator
    from ovtool.models.mask_generator import Settings as GeneratorSettings

Network = TypeVar("Network")


@dataclass(frozen=True, eq=False)
class Trained(Generic[Network]):
    """settings: what shaped the training, and `weights`, the network's digest. checkpoint, curve: None
    where a network was trained before."""

    network: Network
    settings: Mapping[str, Any]
    checkpoint: Checkpoint | None = None
    curve: list[Record] | None = None


def generator(
    options: Options, labels: Labelled, clip: Clip, seed: int, target: str, how: Run
) -> Trained[Generator]:
    """A mask generator, trained by matching, or from its file; written where that is asked for.

    Raises UsageError where a generator of a file has other classes, and as `Matching.train`.
    """
    from ovtool.models import mask_generator, timm_backbone

    if options.is_file:
        found = mask_generator.load(Path(str(options.generator)), clip)
        mask_generator.require_categories(found, labels.categories, labels.source)
        return Trained(found, {"weights": tensors.fingerprint(found.state_dict())})
    settings = cam_options.matching(options, seed)
    backbone = options.generator or "clip"
    built = mask_generator.Settings(
        backbone,
        bool(options.fine_tune),
        mask_generator.HIDDEN if options.hidden is None else options.hidden,
        options.short_side,
        options.start or ("rivals" if backbone == "clip" else "random"),
    )
    network = new_generator(built, labels, clip, options.background, seed)
    if network.backbone is not None:
        timm_backbone.say_start(network.backbone)
    text = category_texts.embed(clip, labels.categories)
    matching = Matching(clip, network, labels, text, settings, progress=how.progress)
    shown = asdict(settings) | {"steps": matching.steps, "similarity": matching.similarity}
    shown |= {"background_weight": matching.background_weight, "label_steps": matching.label_steps}
    shown |= {"generator": asdict(built) | {"side": network.side}, "start": _digest(network)}
    checkpoint = _checkpoint(target, shown, labels, clip.fingerprint, clip.device)
    curve = matching.train(checkpoint, checkpoint.begin(how.resume, how.overwrite))
    shown["curve"] = loop.thinned(curve)
    if options.save_generator is not None:
        mask_generator.save(options.save_generator, network, {**shown, "labels": labels.digest})
    weights = tensors.fingerprint(network.state_dict())
    return Trained(network, shown | {"weights": weights}, checkpoint, curve)


def new_generator(
    settings: GeneratorSettings, labels: Labelled, clip: Clip, background: str | None, seed: int
) -> Generator:
    """A generator before its training. background: the words that its start sets against the classes, None
    for the model's own stuff words or CLIP-ES's. Raises UsageError where they are given to another start."""
    from ovtool.models import mask_generator

    texts = None
    if settings.start != "random":
        words = category_texts.background_words(clip, labels, background, alone=True)
        own = category_texts.embed(clip, labels.categories, category_texts.PLAIN)
        others = category_texts.embed_words(clip, words, category_texts.PLAIN) if words else own[:0]
        texts = mask_generator.Texts(own, others)
    elif background is not None:
        raise UsageError("--background is of no use to a generator with --start random")
    return mask_generator.Generator(settings, labels.categories, clip, seed, texts=texts)


def _digest(network: Generator) -> str | None:
    """Of the texts that a generator begins with."""
    if network.classes is None or network.background is None:
        return None
    return tensors.fingerprint({"classes": network.classes, "background": network.background})


def classifier(
    options: Options, labels: Labelled, seed: int, place: torch.device, target: str, how: Run
) -> Trained[Classifier]:
    """A classifier, trained on the labels. Raises as `trainers.classifier.train`."""
    from ovtool.models import timm_backbone

    settings = cam_options.classifying(options, seed)
    network = Classifier(settings.arch, len(labels.categories), settings.side, seed).to(place)
    timm_backbone.say_start(network.backbone)
    shown = asdict(settings) | {"pretrained": network.backbone.is_pretrained}
    checkpoint = _checkpoint(target, shown, labels, "", place)
    begun = checkpoint.begin(how.resume, how.overwrite)
    curve = classifier_trainer.train(network, labels, settings, checkpoint, begun, how.progress)
    shown |= {"curve": loop.thinned(curve), "weights": tensors.fingerprint(network.state_dict())}
    return Trained(network, shown, checkpoint, curve)


def _checkpoint(
    target: str, shown: Mapping[str, Any], labels: Labelled, fingerprint: str, place: torch.device
) -> Checkpoint:
    digest = parts.settings_digest(
        {
            **shown,
            "labels": labels.digest,
            "model": fingerprint,
            "device": place.type,
            "threads": torch.get_num_threads(),
        }
    )
    return checkpoints.beside(Path(target), digest)
