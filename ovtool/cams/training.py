"""The trainings that `cam` begins with, and what they leave to it: a source of maps, a checkpoint and a curve.

The checkpoint stays until the maps are written, so that a run that is cut off while it makes maps does
not train again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ovtool.cams import sources
from ovtool.cams.sources import Network, NetworkMaps, Source
from ovtool.errors import UsageError
from ovtool.formats import tensors
from ovtool.formats.image_labels import Labelled
from ovtool.inputs import category_texts
from ovtool.models.classifier import Classifier
from ovtool.settings.cam import ClassifierMaps, LabelMatching
from ovtool.settings.layers import as_data
from ovtool.trainers import classifier as classifier_trainer
from ovtool.trainers.mask_generator import Matching
from ovtool.training import loop, run
from ovtool.training.loop import Record

if TYPE_CHECKING:  # loaded where they are used: bad arguments need not wait for them
    from ovtool.models.clip import Clip
    from ovtool.models.mask_generator import Generator
    from ovtool.models.mask_generator import Settings as GeneratorSettings


@dataclass(frozen=True, eq=False)
class Maker:
    """What makes the maps of a run, and what its training left, where there was one.

    Attributes:
        source: of the maps.
        settings: what shaped the maps, and of a network `weights`, its digest.
        begun: holds the checkpoint; None without a training.
        curve: of the losses; None without a training.
    """

    source: Source
    settings: Mapping[str, Any] = field(default_factory=dict)
    begun: run.Begun | None = None
    curve: list[Record] | None = None


def generator(method: LabelMatching, labels: Labelled, clip: Clip, frame: run.Frame) -> Maker:
    """The maps of a mask generator, trained by matching, or from its file; it is written where that is asked for.

    Raises:
        MismatchError: a generator of a file has other classes, or a checkpoint is of another training.
        TrainingError: a loss that is not finite.
    """
    from ovtool.models import mask_generator, timm_backbone

    if method.generator_file is not None:
        network = mask_generator.load(method.generator_file, clip)
        mask_generator.require_categories(network, labels.categories, labels.source)
        weights = tensors.fingerprint(network.state_dict())
        return Maker(_maps(sources.generator(network), method, labels), {"weights": weights})
    backbone = method.generator or "clip"
    built = mask_generator.Settings(
        backbone,
        method.fine_tune,
        method.hidden,
        method.short_side,
        method.begin or ("rivals" if backbone == "clip" else "random"),
    )
    network = new_generator(built, labels, clip, method.background, method.seed)
    if network.backbone is not None:
        timm_backbone.say_start(network.backbone)
    text = category_texts.embed(clip, labels.categories)
    matching = Matching(clip, network, labels, text, method, ranks=frame.ranks)
    shapes = {
        **as_data(matching.settings, {"generator": backbone}),
        "origins": dict(matching.origins),
        "steps": matching.steps,
        "similarity": matching.similarity,
        "label_steps": matching.label_steps,
        "generator": asdict(built) | {"side": network.side},
        "texts": _digest(network),
    }
    begun = run.begin(replace(frame, shapes={**frame.shapes, **shapes}))
    curve = matching.train(begun)
    settings = shapes | {"curve": loop.thinned(curve)}
    if method.save_generator is not None and frame.ranks.is_first:
        mask_generator.save(method.save_generator, network, {**settings, "labels": labels.digest})
    settings |= {"weights": tensors.fingerprint(network.state_dict())}
    return Maker(_maps(sources.generator(network), method, labels), settings, begun, curve)


def new_generator(
    settings: GeneratorSettings, labels: Labelled, clip: Clip, background: str | None, seed: int
) -> Generator:
    """A generator before its training.

    Args:
        settings: of the generator.
        labels: the classes.
        clip: the model that it stands on.
        background: the words that its beginning sets against the classes; None for the model's own stuff
            words or CLIP-ES's.
        seed: of its random weights.

    Raises:
        UsageError: words of the background for a generator that begins at random.
    """
    from ovtool.models import mask_generator

    texts = None
    if settings.start != "random":
        words = category_texts.background_words(clip, labels, background, alone=True)
        own = category_texts.embed(clip, labels.categories, category_texts.PLAIN)
        others = category_texts.embed_words(clip, words, category_texts.PLAIN) if words else own[:0]
        texts = mask_generator.Texts(own, others)
    elif background is not None:
        raise UsageError(
            "--background is of no use to a generator with --begin random; leave it out"
        )
    return mask_generator.Generator(settings, labels.categories, clip, seed, texts=texts)


def _digest(network: Generator) -> str | None:
    """Of the texts that a generator begins with."""
    if network.classes is None or network.background is None:
        return None
    return tensors.fingerprint({"classes": network.classes, "background": network.background})


def classifier(method: ClassifierMaps, labels: Labelled, frame: run.Frame) -> Maker:
    """The maps of a classifier, trained on the labels. Raises as `training.run.begin` and `train`."""
    from ovtool.models import timm_backbone

    side = method.short_side or classifier_trainer.SIDE
    network = Classifier(method.arch, len(labels.categories), side, method.seed)
    network = network.to(frame.ranks.device)
    timm_backbone.say_start(network.backbone)
    shapes = as_data(method) | {"side": side, "pretrained": network.backbone.is_pretrained}
    begun = run.begin(replace(frame, shapes={**frame.shapes, **shapes}))
    curve = run.train(classifier_trainer.task(network, labels, method), begun)
    network.eval()
    weights = tensors.fingerprint(network.state_dict())
    settings = shapes | {"curve": loop.thinned(curve), "weights": weights}
    return Maker(_maps(sources.classifier(network), method, labels), settings, begun, curve)


def _maps(
    network: Network, method: ClassifierMaps | LabelMatching, labels: Labelled
) -> NetworkMaps:
    """The maps of a network, over the views of an image that are asked for."""
    return NetworkMaps(network, labels.categories, method.scales, method.flip)
