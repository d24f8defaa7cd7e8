"""`mine-pairs`: captioned images to pairs of a noun and the mask that it means.

The nouns of an image's captions are found first, for all images. Then each image is read once: its
proposals' masked crops go through the unadapted CLIP, and each noun takes the mask that is closest to
it (OVSeg, section 3.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovtool.datasets.stop_words import STOP_WORDS
from ovtool.errors import InputError, UsageError
from ovtool.formats import coco, parts, rle
from ovtool.formats.images import ImageItem
from ovtool.inputs import captions as captions_of
from ovtool.inputs.captions import Mention
from ovtool.methods import noun_matching
from ovtool.models import nouns, resolve
from ovtool.models.nouns import Noun, Pipeline
from ovtool.outputs.crops import PairCrops
from ovtool.proposers import by_name, proposal_sources
from ovtool.proposers.proposal_sources import ProposalSource
from ovtool.runtime import device as devices
from ovtool.runtime import engine, runs
from ovtool.runtime.runs import Outcome, Run

if TYPE_CHECKING:  # it imports open_clip, for which bad arguments need not wait
    from ovtool.models.clip import Clip

MATCHINGS = ("cosine", "softmax")
BATCH_SIZE = 32  # crops at once


@dataclass(frozen=True)
class Settings:
    """What shapes the pairs beside captions, model and proposals.

    captions_per_image: 1, 5 or all. pos, chunks: as `nouns.find` takes them.
    matching: `cosine`, the paper's, or `softmax` over the nouns of the image.
    quality_weight: the power of a proposal's quality as a prior of masks, 0 for the paper's none.
    min_similarity: the least cosine of a pair, None for the paper's: every noun has one.
    """

    captions_per_image: str = "1"
    seed: int = 0
    pos: tuple[str, ...] = ("NOUN",)
    chunks: bool = False
    stop: frozenset[str] = STOP_WORDS
    templates: str = "one"
    matching: str = "cosine"
    quality_weight: float = 0.0
    min_similarity: float | None = None
    batch_size: int = BATCH_SIZE

    def __post_init__(self) -> None:
        if self.matching not in MATCHINGS:
            raise UsageError(
                f"unknown matching '{self.matching}'; choose from {', '.join(MATCHINGS)}"
            )
        if self.min_similarity is not None and not -1 <= self.min_similarity <= 1:
            raise UsageError(f"--min-similarity {self.min_similarity:g}: cosines are from -1 to 1")


@dataclass(frozen=True)
class Miner:
    """A loaded model with the nouns of a run, ready for one picture after another.

    mentions: of each image's name, in the order of its captions. category: of each lemma, from 1.
    text: float32 (N, D), the embeddings of the nouns as `spoken`, whose row numbers are in `embedded`.
    """

    clip: Clip
    settings: Settings
    regions: ProposalSource
    mentions: Mapping[str, Sequence[Mention]]
    category: Mapping[str, int]
    text: Tensor
    embedded: Mapping[str, int]

    def record(self, item: ImageItem, rgb: NDArray[np.uint8], encode: Any) -> parts.Record:
        """The pairs of a picture: a mask for each of its nouns, several nouns on one if so they fall.
        A picture with nouns and without proposals is a failure.

        encode: what `region_clip.encoder` gave.
        """
        height, width = rgb.shape[:2]
        said = self.mentions[item.name]
        if not said:
            return parts.image_record(item.name, height, width, [])
        proposed = self.regions.find(item, rgb)
        masks = proposed.masks()
        there = masks.any(axis=(1, 2))
        masks, quality = masks[there], torch.from_numpy(proposed.quality[there])
        if not len(masks):
            return parts.failure_record(
                item.name, f"{item.name} has no proposals: make some, or leave --proposals out"
            )
        cosines = self._cosines(said, rgb, masks, encode)
        best = noun_matching.best_proposals(self._scores(cosines, quality))
        similarity = cosines.gather(1, best[:, None])[:, 0]
        chosen = sorted(set(best.tolist()))
        encoded = dict(zip(chosen, rle.encode_many(masks[chosen]), strict=True))
        least = self.settings.min_similarity
        entries = [
            _entry(self.category[one.noun.lemma], one, encoded[index], value)
            for one, index, value in zip(said, best.tolist(), similarity.tolist(), strict=True)
            if least is None or value >= least
        ]
        return parts.image_record(item.name, height, width, entries)

    def _scores(self, cosines: Tensor, quality: Tensor) -> Tensor:
        """What the best proposal of each noun is chosen by, (nouns, proposals)."""
        scores = self.clip.logit_scale * cosines
        if self.settings.matching == "softmax" and len(cosines) > 1:
            scores = noun_matching.log_softmax_over_nouns(scores)
        return noun_matching.with_prior(scores, quality, self.settings.quality_weight)

    def _cosines(
        self, said: Sequence[Mention], rgb: NDArray[np.uint8], masks: NDArray[np.bool_], encode: Any
    ) -> Tensor:
        """float32 (nouns, proposals), on the CPU."""
        from ovtool.models import region_clip

        regions = region_clip.encode_regions(self.clip, rgb, masks, encode=encode)
        rows = torch.tensor([self.embedded[spoken(self.clip, one.noun)] for one in said])
        text = self.text[rows.to(self.text.device)]
        return noun_matching.similarities(regions, text).cpu()


def spoken(clip: Clip, noun: Noun) -> str:
    """What CLIP is told of a noun: as the caption says it, in lower case, since glasses are no glass;
    the lemma where that is the only form among the words that a small model learned."""
    surface, learned = noun.surface.lower(), clip.words or ()
    return noun.lemma if noun.lemma in learned and surface not in learned else surface


def _entry(category: int, one: Mention, mask: rle.Rle, similarity: float) -> dict[str, Any]:
    return {
        "category_id": category,
        "segmentation": mask,
        "score": round(similarity, 6),
        "caption_id": one.caption_id,
        "span": [one.noun.start, one.noun.stop],
        "surface": one.noun.surface,
    }


def part_output(items: Sequence[ImageItem], miner: Miner, crops: PairCrops) -> engine.PartOutput:
    """The records of a part, with a note of the batch size if memory forced it down."""
    from ovtool.models import region_clip

    encode = region_clip.encoder(miner.clip, None, miner.settings.batch_size)
    names = {number: lemma for lemma, number in miner.category.items()}
    note: dict[str, Any] = {}

    def one(item: ImageItem, rgb: NDArray[np.uint8]) -> parts.Record:
        made = miner.record(item, rgb, encode)
        if "image" in made:
            crops.write(miner.clip, rgb, made, names)
        if encode.was_halved:
            note["batch_size"] = encode.batch_size
        return made

    return engine.PartOutput(runs.picture_records(items, one), note=note)


def run(
    captions: str,
    *,
    images: Path | None = None,
    captions_per_image: str = "1",
    proposals_file: Path | None = None,
    proposer: str | None = None,
    pos: str = "NOUN",
    chunks: bool = False,
    stop: Path | None = None,
    no_stop: bool = False,
    spacy_model: str | None = None,
    templates: str = "one",
    matching: str = "cosine",
    quality_weight: float = 0.0,
    min_similarity: float | None = None,
    model: str | None = None,
    device: str | None = None,
    precision: str = "auto",
    batch_size: int | None = None,
    seed: int = 0,
    crops: Path | None = None,
    limit: int | None = None,
    out: str | None = None,
    how: Run | None = None,
) -> Outcome:
    """Writes the best mask of every noun of every caption as COCO JSON: the nouns are its categories.

    captions: a data set `NAME[:SPLIT]` (`coco` is coco:train2017 here), or a COCO captions JSON with
        the folder `images` of its file names.
    proposals_file: masks from a file; otherwise `proposer` makes them on the way, None the default.
    stop: a file of lemmas to leave out in place of the default list; no_stop leaves out none.
    crops: a folder, or a file `x.tar`, for the masked crops of the pairs.
    out: where to write; `-` is stdout, None is a name made from the captions in the current folder.

    Raises UsageError, InputError, OutputExistsError, ModelError, MismatchError. An image that cannot be
    read or has no proposals is a failure, listed in the outcome and in the output, unless `how.strict`.
    """
    how = how or Run()
    settings = Settings(
        captions_per_image=captions_per_image,
        seed=seed,
        pos=nouns.parse_pos(pos),
        chunks=chunks,
        stop=_stop_words(stop, no_stop),
        templates=templates,
        matching=matching,
        quality_weight=quality_weight,
        min_similarity=min_similarity,
        batch_size=batch_size or BATCH_SIZE,
    )
    place = devices.choose(device)
    items, captioned = captions_of.find(captions, images, limit)
    captioned = [captions_of.choose(one, captions_per_image, seed) for one in captioned]
    target = out or captions_of.default_output(captions, "pairs")
    runs.check_place(target, how)
    begun = runs.is_begun(target)
    kept = how.resume and begun
    written = PairCrops(crops)
    written.check(how.overwrite or kept, begun)
    if model is not None:
        resolve.spec(resolve.choose(model))  # a name that means nothing is told before any work
    pipeline = nouns.load(spacy_model, chunks=chunks)
    found = captions_of.mentions(
        captioned, pipeline, pos=settings.pos, chunks=chunks, stop=settings.stop
    )
    mentions = {item.name: said for item, said in zip(items, found, strict=True)}
    lemmas = sorted({one.noun.lemma for said in mentions.values() for one in said})
    if not lemmas:
        raise InputError(
            f"no noun in the captions of {captions}: look at --pos, --no-stop and --spacy-model"
        )
    categories = tuple(coco.Category(number, lemma) for number, lemma in enumerate(lemmas, 1))
    regions = _regions(proposals_file, proposer, model, items, place)
    if how.dry_run:
        return runs.planned(items, categories, target)
    miner = _load(model, place, precision, settings, regions, mentions, lemmas)
    written.prepare(kept)
    outcome = runs.map_images(
        items,
        lambda chunk: part_output(chunk, miner, written),
        runs.Job(
            info=_provenance(miner, pipeline),
            categories=categories,
            out=target,
            device=place,
            description="mining",
            beside=written.places_from(target),
        ),
        how,
        how.progress,
    )
    written.finish(outcome.dataset)
    return Outcome(outcome.dataset, outcome.out, outcome.failures, pictures=written.places)


def _stop_words(file: Path | None, no_stop: bool) -> frozenset[str]:
    if file is not None and no_stop:
        raise UsageError("--stop names words to leave out, and --no-stop leaves out none: give one")
    return (
        nouns.read_stop_words(file)
        if file is not None
        else STOP_WORDS
        if not no_stop
        else frozenset()
    )


def _regions(
    file: Path | None,
    proposer: str | None,
    model: str | None,
    items: Sequence[ImageItem],
    device: torch.device,
) -> ProposalSource:
    """Where the masks come from. Raises UsageError, InputError, MismatchError, ModelError."""
    if file is not None:
        if proposer is not None:
            raise UsageError(
                "--proposals are masks from a file, and --proposer makes them: give one"
            )
        return proposal_sources.from_file(file, items)
    return proposal_sources.from_proposer(proposer or by_name.default_name(model), device=device)


def _load(
    model: str | None,
    device: torch.device,
    precision: str,
    settings: Settings,
    regions: ProposalSource,
    mentions: Mapping[str, Sequence[Mention]],
    lemmas: Sequence[str],
) -> Miner:
    """Loads the CLIP and embeds every noun as the captions say it. Raises ModelError, UsageError."""
    from ovtool.models import clip as door
    from ovtool.models import text

    clip = door.load(model, device, devices.precision(precision, device))
    told = sorted({spoken(clip, one.noun) for said in mentions.values() for one in said})
    text.warn_unlearned(clip, told)
    return Miner(
        clip=clip,
        settings=settings,
        regions=regions,
        mentions=mentions,
        category={lemma: number for number, lemma in enumerate(lemmas, 1)},
        text=text.embed_words(clip, told, settings.templates),
        embedded={word: row for row, word in enumerate(told)},
    )


def _provenance(miner: Miner, pipeline: Pipeline) -> dict[str, Any]:
    """The `info` of the output: all that shapes the result, and no path."""
    settings, clip = miner.settings, miner.clip
    shown = {
        "captions_per_image": settings.captions_per_image,
        "seed": settings.seed,
        "pos": list(settings.pos),
        "chunks": settings.chunks,
        "stop": parts.settings_digest({"stop": sorted(settings.stop)}) if settings.stop else None,
        "tagger": {"name": pipeline.name, "fingerprint": pipeline.fingerprint},
        "nouns": parts.settings_digest(
            {
                name: [
                    [one.noun.lemma, one.noun.surface, one.caption_id, one.noun.start]
                    for one in said
                ]
                for name, said in miner.mentions.items()
            }
        ),
        "templates": settings.templates,
        "matching": settings.matching,
        "quality_weight": settings.quality_weight,
        "min_similarity": settings.min_similarity,
        "batch_size": settings.batch_size,
        "precision": str(clip.dtype).removeprefix("torch."),
        "proposer": miner.regions.proposer,
        "proposals": miner.regions.digest,
    }
    name = Path(clip.name).name if Path(clip.name).exists() else clip.name
    model = {"name": name, "fingerprint": clip.fingerprint}
    return runs.provenance("mine-pairs", shown, model)
