"""`two-stage`: proposals named by what a CLIP sees of them, as OVSeg does.

The image tower receives each mask as a masked crop, with mask prompts where there are some, or gives it a
class token of its own in one pass over the image. The probabilities of its words are fused with those
of the proposal's own embedding, and pixels take the word of the greatest sum over soft masks.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovtool.errors import InputError, UsageError
from ovtool.formats.images import ImageItem
from ovtool.inputs import embedded_words
from ovtool.inputs.embedded_words import EmbeddedWords
from ovtool.inputs.words import WordSet
from ovtool.methods import class_maps, ensemble
from ovtool.methods.class_maps import Rows
from ovtool.models import dense_scores, recommendations
from ovtool.models.maskformer import TEMPERATURE
from ovtool.proposers import by_name, names, proposal_sources
from ovtool.proposers.proposal_sources import ProposalSource
from ovtool.runtime import device as devices
from ovtool.runtime.device import Halving
from ovtool.segmenters import provenance
from ovtool.segmenters.protocol import Segmented, Segmenter
from ovtool.settings.layers import Origin, known
from ovtool.settings.segment import TwoStage
from ovtool.settings.shared import Compute

if TYPE_CHECKING:  # loaded where they are used: bad arguments need not wait for them
    from ovtool.methods.mask_prompts import MaskPrompts
    from ovtool.models.clip import Clip

PUBLISHED = {
    "ensemble": 0.7,
    "region_features": "crops",
    "background_tokens": "keep",
    "max_proposals": 100,
}
BATCH_SIZE = 32  # crops at once
MAX_MASK_PIXELS = 1 << 27  # of the masks that are held at once
_logger = logging.getLogger("ovtool")


@dataclass(frozen=True)
class Named:
    """The N masks of an image that are not empty, with probabilities of its C classes.

    Attributes:
        seen: By the CLIP, float64 (N, C).
        own: By the proposals' own embeddings, float64 (N, C), or None.
        members: The superpixels of each mask, bool (N, S).
        superpixels: The number of each pixel's superpixel, int64 (H, W).
        soft: The soft masks, float32 (N, H, W), or None.
        classes: C.
    """

    seen: Tensor
    own: Tensor | None
    members: Tensor
    superpixels: Tensor
    soft: NDArray[np.float32] | None
    classes: int

    def rows(self, weight: float) -> tuple[Rows, int]:
        """The logits of the image's classes for any rows of its pixels, one more for pixels that no
        mask covers, and the number of all these; weight: lambda, the CLIP's share in [0, 1]."""
        scores = self.seen if self.own is None else ensemble.ensemble(self.own, self.seen, weight)
        scores, soft, covered = scores.float(), self.soft, self.members.any(0)
        if soft is None:
            rows = ensemble.rows_of_superpixels(scores, self.members, self.superpixels)
        else:
            rows = ensemble.rows_of_soft_masks(
                scores,
                lambda start, stop: torch.from_numpy(soft[:, start:stop]),
                lambda start, stop: covered[self.superpixels[start:stop]],
            )
        return rows, self.classes + 1


@dataclass(frozen=True, eq=False)
class TwoStageSegmenter:
    """A CLIP with its prompts, the words of a run and a source of regions.

    Attributes:
        clip: The CLIP, with the tuned tower where the prompts' file has one.
        embedded: The words in its space.
        method: What was asked for, with the published settings in place of None; the ensemble is 1
            where proposals have no embeddings.
        origins: Where the value of each of its fields comes from.
        regions: Where regions come from.
        batch_size: Crops at once.
        prompts: The mask prompts, None without any.
        untuned: The CLIP as it was, which gives class tokens; None where crops alone are named.
        digests: Of the files that take part, by field.
    """

    clip: Clip
    embedded: EmbeddedWords
    method: TwoStage
    origins: Mapping[str, Origin]
    regions: ProposalSource
    batch_size: int = BATCH_SIZE
    prompts: MaskPrompts | None = None
    untuned: Clip | None = None
    digests: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def words(self) -> WordSet:
        """The words of the run."""
        return self.embedded.words

    @property
    def device(self) -> torch.device:
        """Where the CLIP is."""
        return self.clip.device

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied by."""
        own = self.method.logit_scale
        return self.clip.logit_scale if own is None else own

    def encoder(self) -> Halving[Any, Tensor]:
        """Crops to embeddings in batches."""
        from ovtool.models import region_clip

        drop = self.method.background_tokens == "drop"
        return region_clip.encoder(
            self.clip, None if drop else self.prompts, self.batch_size, drop_blank=drop
        )

    def segment(
        self, item: ImageItem, rgb: NDArray[np.uint8], encode: Halving[Any, Tensor]
    ) -> Segmented:
        """The class map of one image, uint8 (H, W, 3), over its own words."""
        rows, classes = self.named(item, rgb, encode).rows(known(self.method.ensemble))
        kept = len(self.words.of_image(item.name))
        size = (rgb.shape[0], rgb.shape[1])
        least, most = self.method.min_score, self.method.max_entropy
        class_map = class_maps.label_blocks(rows, size, classes, kept, least, most)
        return Segmented(class_map, rows, classes)

    def info(self) -> dict[str, Any]:
        """The `info` of the output."""
        settled: dict[str, Any] = {
            "prompts": None,
            "embeddings": None,
            **self.digests,
            "logit_scale": round(self.logit_scale, 6),
            "proposer": self.regions.proposer,
            "proposals": self.regions.digest,
        }
        if self.method.region_features != "crops":
            side = self.method.short_side or dense_scores.default_short_side(self.clip)
            settled["short_side"] = side
        return provenance.of_clip_run(
            self.method, self.origins, settled, self.words, self.clip, self.batch_size
        )

    def named(self, item: ImageItem, rgb: NDArray[np.uint8], encode: Halving[Any, Tensor]) -> Named:
        """The masks of an image, uint8 (H, W, 3), with the probabilities of its classes."""
        text, owner = self.embedded.of_image(item.name)
        proposals = self.regions.find(item, rgb)
        valid = np.flatnonzero(proposals.members[:, np.unique(proposals.superpixels)].any(1))
        members = torch.from_numpy(proposals.members[valid])
        superpixels = torch.from_numpy(proposals.superpixels.astype(np.int64))
        embedded = self._embedded(rgb, members, superpixels, encode)

        def cosines(vectors: Tensor) -> Tensor:
            scores = class_maps.class_scores(vectors @ text.to(vectors).T, owner, dim=1)
            return scores.cpu().double()

        own = None
        if proposals.embeddings is not None and self.regions.no_object is not None:
            vectors = torch.from_numpy(proposals.embeddings[valid])
            nothing = vectors.double() @ torch.from_numpy(self.regions.no_object).double()
            own = ensemble.proposal_probabilities(cosines(vectors), nothing, TEMPERATURE)
        seen = (cosines(embedded) * self.logit_scale).softmax(1)
        soft = None if proposals.soft is None else proposals.soft[valid]
        return Named(seen, own, members, superpixels, soft, max(owner) + 1)

    def _embedded(
        self,
        rgb: NDArray[np.uint8],
        members: Tensor,
        superpixels: Tensor,
        encode: Halving[Any, Tensor],
    ) -> Tensor:
        """The embeddings of masks that are not empty, float32 (N, D), a few masks at a time."""
        from ovtool.models import region_clip

        if not len(members):
            return torch.empty(0, self.clip.embed_dim, device=self.clip.device)
        pixels = torch.from_numpy(rgb)
        step = max(1, MAX_MASK_PIXELS // superpixels.numel())
        embedded = []
        for start in range(0, len(members), step):
            masks, ways = members[start : start + step][:, superpixels], []
            if self.untuned is not None:
                side = self.method.short_side
                ways.append(
                    region_clip.encode_region_tokens(self.untuned, pixels, masks, short_side=side)
                )
            if self.method.region_features != "tokens":
                size = self.method.crop_size
                ways.append(
                    region_clip.encode_regions(
                        self.clip, pixels, masks, crop_size=size, encode=encode
                    )
                )
            embedded.append(torch.stack(ways).mean(0))
        return torch.cat(embedded)


def prepared(
    method: TwoStage,
    words: WordSet,
    items: Sequence[ImageItem],
    compute: Compute,
    batch_size: int | None,
) -> Callable[[], Segmenter]:
    """What loads the segmenter; the files that it reads are there.

    Raises:
        UsageError: The proposer is unknown, or a bound of its masks is given for those of a file.
        InputError: A file is not there or is broken.
        MismatchError: The proposals are those of other images.
    """
    if isinstance(method.prompts, Path) and not method.prompts.is_file():
        raise InputError(
            f"no such file: {method.prompts}; --prompts is a file of tune-prompts, or none"
        )
    device, proposer, file = devices.choose(compute.device), method.proposer, method.proposals
    if file is None and proposer is not None:
        names.check_name(proposer)
    if file is not None and method.max_proposals is not None and method.recipe is None:
        raise UsageError(
            "--max-proposals bounds the masks that a proposer makes; leave it out with --proposals"
        )
    embeddings = None if file is None else method.embeddings
    if embeddings is not None and not embeddings.is_file():
        raise InputError(f"no such file: {embeddings}")
    masks = None if file is None else proposal_sources.read_masks(file, items)

    def source(clip: Clip, most: int) -> ProposalSource:
        if masks is not None and file is not None:
            return proposal_sources.of_masks(masks, file, embeddings=embeddings, clip=clip)
        name = proposer or by_name.default_name(clip.name, covers=True)
        return proposal_sources.from_proposer(name, most=most, clip=clip, device=device)

    return functools.partial(load, method, words, source, compute, batch_size)


def load(
    method: TwoStage,
    words: WordSet,
    source: Callable[[Clip, int], ProposalSource],
    compute: Compute,
    batch_size: int | None = None,
) -> TwoStageSegmenter:
    """Loads the CLIP with its prompts, and the source of regions in its space, and embeds every word.

    The source gets the greatest number of masks of an image, which bounds those that a proposer makes.
    Where the regions have no embeddings, the words come from the CLIP alone, which one warning says.

    Raises:
        ModelError: The model cannot be had.
        UsageError: The model cannot do what was asked.
        InputError: A file is broken.
        MismatchError: It belongs to another CLIP.
    """
    from ovtool.models import clip as clips

    place = devices.choose(compute.device)
    clip = clips.load(compute.model, place, devices.precision(compute.precision, place))
    replaced = () if method.proposals is None else ("max_proposals",)
    asked, origins = recommendations.settled(clip, method, PUBLISHED, replaced)
    regions = source(clip, asked.max_proposals or 0)  # a file has the masks that it has
    if regions.no_object is None:
        if known(asked.ensemble) < 1:
            _say_clip_alone()
        asked = replace(asked, ensemble=1.0)
    digests: dict[str, str | None] = {}
    if method.embeddings is not None:
        digests["embeddings"] = digest_of(method.embeddings)
    tuned, prompts = _with_prompts(clip, asked, digests)
    untuned = None if asked.region_features == "crops" else clip
    embedded = embedded_words.embed(clip, words, method.templates, method.max_entropy)
    return TwoStageSegmenter(
        clip=tuned,
        embedded=embedded,
        method=asked,
        origins=origins,
        regions=regions,
        batch_size=batch_size or BATCH_SIZE,
        prompts=prompts,
        untuned=untuned,
        digests=digests,
    )


def _with_prompts(
    clip: Clip, method: TwoStage, digests: dict[str, str | None]
) -> tuple[Clip, MaskPrompts | None]:
    """The CLIP that sees the crops, and its prompts; their digest is added to `digests`."""
    from ovtool.models import region_clip

    if method.region_features != "crops":
        region_clip.require_region_tokens(clip)
    if method.region_features == "tokens":
        return clip, None
    region_clip.grid_of(clip, method.crop_size)
    path = prompts_file(clip, method.prompts)
    if path is None:
        return clip, None
    tuned, prompts = region_clip.with_prompts(clip, path, method.crop_size)
    if method.background_tokens == "drop" and prompts is not None and method.prompts is not None:
        raise UsageError(
            f"the prompts of {path} stand for tokens that --background-tokens drop leaves out; give one "
            "of the two"
        )
    digests["prompts"] = digest_of(path)
    return tuned, prompts


def prompts_file(clip: Clip, prompts: Path | str | None) -> Path | None:
    """The file of prompts that is meant: None for `none`, and where none come with the model."""
    from ovtool.models import region_clip

    if prompts == "none":
        return None
    return Path(prompts) if prompts is not None else region_clip.bundled_prompts(clip)


def digest_of(path: Path) -> str:
    """16 hexadecimal digits of a file's content. Raises InputError."""
    try:
        with open(path, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()[:16]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None


@functools.cache
def _say_clip_alone() -> None:
    _logger.warning(
        "these proposals have no embeddings: words come from the CLIP alone, as with --ensemble 1"
    )
