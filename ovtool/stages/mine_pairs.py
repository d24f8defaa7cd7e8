"""`mine-pairs`: captioned images to pairs of a noun and the mask that it means.

The nouns of an image's captions are found first, for all images. Then each image is read once: its
proposals' masked crops go through the unadapted CLIP, and each noun takes the mask that is closest to
it (OVSeg, section 3.2).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ovtool.datasets.stop_words import STOP_WORDS
from ovtool.errors import InputError
from ovtool.formats import coco, merge, parts, rle
from ovtool.formats.captions import CaptionedImage
from ovtool.formats.images import ImageItem
from ovtool.inputs import asked as requests
from ovtool.inputs import captions as caption_inputs
from ovtool.inputs.captions import Mention
from ovtool.models import noun_masks, recommendations, resolve
from ovtool.models import nouns as tagging
from ovtool.models.noun_masks import NounMasks
from ovtool.models.nouns import Pipeline
from ovtool.outputs.crops import PairCrops
from ovtool.proposers import by_name, proposal_sources
from ovtool.proposers.proposal_sources import ProposalSource
from ovtool.runtime import device as devices
from ovtool.runtime import engine, runs
from ovtool.runtime.outcome import Outcome
from ovtool.runtime.progress import Progress, no_progress
from ovtool.settings import layers
from ovtool.settings.pairs import Matching, Nouns
from ovtool.settings.shared import Compute, Run

BATCH_SIZE = 32  # crops at once
PUBLISHED = {  # OVSeg, section 3.2
    "templates": "one",
    "matching": "cosine",
    "quality_weight": 0.0,
    "region_features": "crops",
}

Mentions = Mapping[
    str, Sequence[Mention]
]  # file name -> the nouns of the image's captions, in order


@dataclass(frozen=True, eq=False)
class Miner:
    """All that gives an image its pairs.

    Attributes:
        regions: where the proposals come from.
        mentions: the nouns of each image.
        category: of each lemma, from 1.
        words: the CLIP with all nouns.
        least: the least cosine of a pair; None for no bound.
        origins: where the values of the matching come from.
    """

    regions: ProposalSource
    mentions: Mentions
    category: Mapping[str, int]
    words: NounMasks
    least: float | None
    origins: Mapping[str, layers.Origin] = field(default_factory=dict)

    def record(self, item: ImageItem, rgb: NDArray[np.uint8], encode: Any) -> parts.Record:
        """The pairs of an image: a mask for each of its nouns; several nouns may have the same.

        An image with nouns and without proposals is a failure.

        Args:
            item: the image.
            rgb: its pixels, uint8 (H, W, 3).
            encode: what `region_clip.encoder` gave.
        """
        height, width = rgb.shape[:2]
        mentions = self.mentions[item.name]
        if not mentions:
            return parts.image_record(item.name, height, width, [])
        proposed = self.regions.find(item, rgb)
        masks = proposed.masks()
        is_there = masks.any(axis=(1, 2))
        masks, quality = masks[is_there], torch.from_numpy(proposed.quality[is_there])
        if not len(masks):
            return parts.failure_record(
                item.name, f"{item.name} has no proposals; make some, or leave --proposals out"
            )
        nouns = [mention.noun for mention in mentions]
        best, similarity = self.words.best(nouns, rgb, masks, quality, encode)
        taken = sorted(set(best))
        encoded = dict(zip(taken, rle.encode_many(masks[taken]), strict=True))
        entries = [
            _entry(self.category[mention.noun.lemma], mention, encoded[index], cosine)
            for mention, index, cosine in zip(mentions, best, similarity, strict=True)
            if self.least is None or cosine >= self.least
        ]
        return parts.image_record(item.name, height, width, entries)


def run(
    captions: str | Path,
    images: str | Path | None = None,
    nouns: Nouns = Nouns(),
    matching: Matching = Matching(),
    *,
    crops: str | Path | None = None,
    limit: int | None = None,
    out: str | Path | None = None,
    run: Run = Run(),
    compute: Compute = Compute(),
    progress: Progress = no_progress,
) -> Outcome:
    """Writes the best mask of every noun of every caption as COCO JSON: the nouns are its categories.

    Args:
        captions: a data set `NAME[:SPLIT]` (`coco` is coco:train2017 here), a COCO captions JSON, or a table of captions.
            Of a data set without captions the classes of each image are its nouns.
        images: the folder that the file names of a captions JSON start from.
        nouns: which words of the captions count.
        matching: where the masks come from, and how a noun takes its own.
        crops: a folder, or a file `x.tar`, for the masked crops of the pairs.
        limit: the greatest number of images.
        out: where to write; `-` is stdout, None is a name made from the captions in the current folder.
        run: how the run goes; `batch_size` counts crops.
        compute: the CLIP, and where and how it computes.
        progress: opens a bar.

    Returns:
        The data set, and the images that could not be read or have no proposals: they are no error but
        failures, listed in the output too, unless `run.strict`.

    Raises:
        UsageError, InputError, OutputExistsError, ModelError, MismatchError.
    """
    spec, folder = str(captions), None if images is None else Path(images)
    compute = resolve.for_data(compute, captions)
    devices.set_threads(compute.threads)
    place = devices.choose(compute.device)
    items, captioned = caption_inputs.find(spec, folder, limit)
    target = str(out or caption_inputs.default_output(spec, "pairs.json"))
    written = PairCrops(None if crops is None else Path(crops))
    is_named = caption_inputs.has_names_alone(spec)
    captions_file = spec if is_named else caption_inputs.locate(spec, folder)[0]
    shaping = (nouns, nouns.spacy_model, matching, compute, run)
    asked = requests.of("mine-pairs", *shaping, sources=(captions_file,), items=items)
    run = requests.begin(asked, target, run, (written.target,))
    _check_places(target, written, run)
    if compute.model is not None:
        resolve.spec(resolve.choose(compute.model))  # an unknown name is refused before any work
    pipeline = tagging.load(nouns.spacy_model, chunks=nouns.chunks)
    mentions = _mentions(captioned, nouns, pipeline, is_named)
    if not any(mentions.values()):
        raise InputError(
            f"no noun in the captions of {spec}; look at --pos, --no-stop and --spacy-model"
        )
    regions = _regions(matching, compute.model, items, place)
    if run.dry_run:
        return runs.planned(items, _categories(_numbered(mentions)), target, run, place)
    miner = _miner(matching, compute, place, regions, mentions)
    batch_size = run.batch_size or BATCH_SIZE
    outcome = runs.map_images(
        items,
        lambda part: part_output(part, miner, written, batch_size),
        runs.Job(
            info=_provenance(nouns, pipeline, miner, batch_size),
            categories=_categories(miner.category),
            out=target,
            device=place,
            description="mining",
            output=merge.Output(asked=asked.digest),
            beside=runs.places_from(target, written.places),
            begin=lambda: written.prepare(_check_places(target, written, run)),
            finish=lambda dataset, _: written.finish(dataset),
        ),
        run,
        progress,
    )
    if outcome.shard is None:
        written.clean()
    return dataclasses.replace(outcome, files=written.places)


def _check_places(target: str, written: PairCrops, run: Run) -> bool:
    """Refuses places that must not be written to; whether crops of an earlier run are kept."""
    runs.check_place(target, run)
    keeps = runs.goes_on(target, run)
    written.check(run.overwrite or keeps, runs.is_begun(target))
    return keeps or run.shard is not None  # another shard may have begun meanwhile


def _mentions(
    captioned: Sequence[CaptionedImage], nouns: Nouns, pipeline: Pipeline, is_named: bool
) -> Mentions:
    """The nouns of each image's captions, or its classes where their names are all that there is."""
    drawn = [
        caption_inputs.choose(image, nouns.captions_per_image, nouns.seed) for image in captioned
    ]
    mentioned = (
        caption_inputs.named(captioned)
        if is_named
        else caption_inputs.mentions(
            drawn, pipeline, pos=nouns.pos, chunks=nouns.chunks, stop=_stop_words(nouns)
        )
    )
    return {image.file_name: own for image, own in zip(captioned, mentioned, strict=True)}


def _stop_words(nouns: Nouns) -> frozenset[str]:
    """The lemmas that are left out."""
    if nouns.stop is not None:
        return tagging.read_stop_words(nouns.stop)
    return frozenset() if nouns.no_stop else STOP_WORDS


def _regions(
    matching: Matching, model: str | None, items: Sequence[ImageItem], device: torch.device
) -> ProposalSource:
    """Where the masks come from."""
    if matching.proposals is not None:
        return proposal_sources.from_file(matching.proposals, items)
    name = matching.proposer or by_name.default_name(model)
    return proposal_sources.from_proposer(name, device=device)


def _miner(
    matching: Matching,
    compute: Compute,
    device: torch.device,
    regions: ProposalSource,
    mentions: Mentions,
) -> Miner:
    """Loads the CLIP and embeds every noun as the captions say it. A noun that a small model learned in that form
    alone, such as grapes, has it in place of its lemma."""
    from ovtool.models import clip as clips

    clip = clips.load(compute.model, device, devices.precision(compute.precision, device))
    mentions = {
        name: [
            dataclasses.replace(mention, noun=noun_masks.named(clip, mention.noun))
            for mention in several
        ]
        for name, several in mentions.items()
    }
    nouns = (mention.noun for several in mentions.values() for mention in several)
    settled, origins = recommendations.settled(clip, matching, PUBLISHED)
    return Miner(
        regions=regions,
        mentions=mentions,
        category=_numbered(mentions),
        words=noun_masks.of(clip, nouns, settled),
        least=matching.min_similarity,
        origins=origins,
    )


def _numbered(mentions: Mentions) -> dict[str, int]:
    """The category of each lemma, from 1."""
    lemmas = {mention.noun.lemma for several in mentions.values() for mention in several}
    return {lemma: number for number, lemma in enumerate(sorted(lemmas), 1)}


def _categories(numbers: Mapping[str, int]) -> tuple[coco.Category, ...]:
    return tuple(coco.Category(number, lemma) for lemma, number in numbers.items())


def part_output(
    items: Sequence[ImageItem], miner: Miner, crops: PairCrops, batch_size: int
) -> engine.PartOutput:
    """The records of a part, with a note of the batch size if memory forced it down."""
    from ovtool.models import region_clip

    clip = miner.words.clip
    encode = region_clip.encoder(clip, None, batch_size)
    names = {number: lemma for lemma, number in miner.category.items()}
    note: dict[str, Any] = {}

    def work(item: ImageItem, rgb: NDArray[np.uint8]) -> parts.Record:
        record = miner.record(item, rgb, encode)
        if "image" in record:
            crops.write(clip, rgb, record, names)
        if encode.was_halved:
            note["batch_size"] = encode.batch_size
        return record

    return engine.PartOutput(runs.image_records(items, work), note=note)


def _entry(category: int, mention: Mention, mask: rle.Rle, similarity: float) -> dict[str, Any]:
    return {
        "category_id": category,
        "segmentation": mask,
        "score": round(similarity, 6),
        "caption_id": mention.caption_id,
        "span": [mention.noun.start, mention.noun.stop],
        "surface": mention.noun.surface,
    }


def _provenance(nouns: Nouns, pipeline: Pipeline, miner: Miner, batch_size: int) -> dict[str, Any]:
    """The `info` of the output: all that shapes the result, and no path."""
    clip, stop = miner.words.clip, sorted(_stop_words(nouns))
    regions = {"proposer": miner.regions.proposer, "proposals": miner.regions.digest}
    settings = {
        **layers.provenance(nouns, {"stop": parts.settings_digest({"stop": stop})} if stop else {}),
        **layers.provenance(
            miner.words.matching,
            {key: value for key, value in regions.items() if value is not None},
        ),
        "origins": {name: origin for name, origin in miner.origins.items() if origin != "default"},
        "tagger": {"name": pipeline.name, "fingerprint": pipeline.fingerprint},
        "nouns": parts.settings_digest(
            {
                name: [
                    [
                        mention.noun.lemma,
                        mention.noun.surface,
                        mention.caption_id,
                        mention.noun.start,
                    ]
                    for mention in several
                ]
                for name, several in miner.mentions.items()
            }
        ),
        "batch_size": batch_size,
        "precision": str(clip.dtype).removeprefix("torch."),
    }
    model = {"name": clip.name, "fingerprint": clip.fingerprint}
    return runs.provenance("mine-pairs", settings, model)
