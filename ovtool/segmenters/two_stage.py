"""`segment --method two-stage`: proposals named by what a CLIP sees of them, as OVSeg does.

Each mask is shown to the image tower as a masked crop, with mask prompts where there are some, or has a
class token of its own in one pass over the picture. The probabilities of its words are fused with those
of the proposal's own embedding, and pixels take the word of the greatest sum over soft masks.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovtool.errors import InputError, UsageError
from ovtool.formats.images import ImageItem
from ovtool.methods import class_maps, ensemble
from ovtool.methods.class_maps import Rows
from ovtool.models.dense_scores import DenseSettings
from ovtool.proposers import by_name, proposal_sources
from ovtool.proposers.proposal_sources import ProposalSource
from ovtool.runtime.device import Halving

if TYPE_CHECKING:  # they import open_clip, for which bad arguments need not wait
    from ovtool.methods.mask_prompts import MaskPrompts
    from ovtool.models.clip import Clip

ENSEMBLE = 0.7
BATCH_SIZE = 32  # crops at once
REGION_FEATURES = ("crops", "tokens", "both")
BACKGROUND_TOKENS = ("keep", "drop")
MAX_MASK_PIXELS = 1 << 27  # of the masks that are held at once
_logger = logging.getLogger("ovtool")


@dataclass(frozen=True)
class TwoStageSettings:
    """ensemble: lambda, the CLIP's share; 1 where proposals have no embeddings. region_features: one of
    `REGION_FEATURES`; both is the mean of the two unit vectors, so that the two have equal shares in
    every logit, and the tokens are those of the CLIP before any tuning. crop_size: side of the crops, None for the model's. prompts, embeddings: digests
    of the files, None without one. background_tokens: one of `BACKGROUND_TOKENS`; drop leaves out the
    patches of a crop that show nothing of the mask.

    Raises UsageError for what cannot be meant.
    """

    ensemble: float = ENSEMBLE
    region_features: str = "crops"
    crop_size: int | None = None
    prompts: str | None = None
    embeddings: str | None = None
    background_tokens: str = "keep"

    def __post_init__(self) -> None:
        if self.region_features not in REGION_FEATURES:
            raise UsageError(
                f"unknown region features '{self.region_features}'; choose from "
                f"{', '.join(REGION_FEATURES)}"
            )
        if self.background_tokens not in BACKGROUND_TOKENS:
            raise UsageError(
                f"unknown --background-tokens '{self.background_tokens}'; choose from "
                f"{', '.join(BACKGROUND_TOKENS)}"
            )
        if not 0 <= self.ensemble <= 1:
            raise UsageError(f"--ensemble {self.ensemble} is a share: give 0 to 1")
        if self.crop_size is not None and self.region_features == "tokens":
            raise UsageError("--crop-size belongs to --region-features crops")
        if self.background_tokens == "drop" and self.region_features == "tokens":
            raise UsageError("--background-tokens belongs to --region-features crops")


@dataclass(frozen=True)
class Request:
    """What the options of a two-stage run ask for; None leaves a choice to what is at hand.

    prompts: a file, or `none`; None takes those that come with a bundled model.
    """

    ensemble: float | None = None
    region_features: str | None = None
    crop_size: int | None = None
    prompts: str | None = None
    embeddings: Path | None = None
    background_tokens: str | None = None

    def check(self, method: str, proposals_file: Path | None, dense: DenseSettings) -> None:
        """Raises UsageError for options that belong to another method, or to each other, InputError for
        prompts that are not there."""
        given = {
            "--ensemble": self.ensemble,
            "--region-features": self.region_features,
            "--crop-size": self.crop_size,
            "--prompts": self.prompts,
            "--embeddings": self.embeddings,
            "--background-tokens": self.background_tokens,
        }
        named = [option for option, value in given.items() if value is not None]
        if method != "two-stage":
            if named:
                raise UsageError(f"{named[0]} belongs to --method two-stage: give that too")
            return
        if self.embeddings is not None and proposals_file is None:
            raise UsageError("--embeddings go with the masks of --proposals: give that file too")
        features = self.settings().region_features
        if features == "tokens" and self.prompts not in (None, "none"):
            raise UsageError(
                "--prompts stand for the blank patches of masked crops: give --region-features crops"
            )
        if self.prompts not in (None, "none") and not Path(self.prompts or "").is_file():
            raise InputError(
                f"no such file: {self.prompts}; --prompts is a file of tune-prompts, or none"
            )
        dense_options = {
            "--last-block": dense.last_block,
            "--window": dense.window,
            "--stride": dense.stride,
            "--short-side": dense.short_side if features == "crops" else None,
        }
        for option, value in dense_options.items():
            if value is not None:
                others = (
                    "patch and fused"
                    if option != "--short-side"
                    else "--region-features tokens and both"
                )
                raise UsageError(f"{option} is for {others}: leave it out with --method two-stage")

    def settings(self) -> TwoStageSettings:
        """The same with the defaults in place of None, and without files."""
        return TwoStageSettings(
            ENSEMBLE if self.ensemble is None else self.ensemble,
            self.region_features or "crops",
            self.crop_size,
            background_tokens=self.background_tokens or "keep",
        )


@dataclass(frozen=True)
class Named:
    """The N masks of a picture that are not empty, with probabilities of its C classes.

    seen: float64 (N, C), by the CLIP. own: float64 (N, C), by the proposals' own embeddings, or None.
    members: bool (N, S) over superpixels, which are int64 (H, W). soft: float32 (N, H, W) or None.
    """

    seen: Tensor
    own: Tensor | None
    members: Tensor
    superpixels: Tensor
    soft: NDArray[np.float32] | None
    classes: int

    def rows(self, weight: float) -> tuple[Rows, int]:
        """What `TwoStage.rows` returns, at a lambda: the CLIP's share in [0, 1]."""
        scores = self.seen if self.own is None else ensemble.ensemble(self.own, self.seen, weight)
        scores = scores.float()
        if self.soft is None:
            found = ensemble.rows_of_superpixels(scores, self.members, self.superpixels)
            return found, self.classes + 1
        soft, covered = self.soft, self.members.any(0)
        found = ensemble.rows_of_soft_masks(
            scores,
            lambda start, stop: torch.from_numpy(soft[:, start:stop]),
            lambda start, stop: covered[self.superpixels[start:stop]],
        )
        return found, self.classes + 1


@dataclass(frozen=True)
class TwoStage:
    """A CLIP with its prompts and a source of regions, ready for one picture after another.

    clip: with the tuned tower where the prompts' file has one. whole: the CLIP as it was, which gives
    class tokens; None where crops alone are named.
    """

    clip: Clip
    regions: ProposalSource
    settings: TwoStageSettings
    prompts: MaskPrompts | None = None
    short_side: int | None = None
    whole: Clip | None = None

    def encoder(self, batch_size: int) -> Halving[Any, Tensor]:
        """Crops to embeddings in batches, new for each part."""
        from ovtool.models import region_clip

        drop = self.settings.background_tokens == "drop"
        return region_clip.encoder(
            self.clip, None if drop else self.prompts, batch_size, drop_blank=drop
        )

    def named(
        self,
        item: ImageItem,
        rgb: NDArray[np.uint8],
        text: Tensor,
        owner: Sequence[int],
        scale: float,
        encode: Halving[Any, Tensor],
    ) -> Named:
        """The masks of a picture with the probabilities of its classes.

        text: float32 (N, D) of the names, whose classes are `owner`. scale: of the CLIP's cosines.
        """
        found = self.regions.find(item, rgb)
        there = np.unique(found.superpixels)
        valid = np.flatnonzero(found.members[:, there].any(1))
        members = torch.from_numpy(found.members[valid])
        superpixels = torch.from_numpy(found.superpixels.astype(np.int64))
        embedded = self._embedded(rgb, members, superpixels, encode)

        def cosines(vectors: Tensor) -> Tensor:
            return (
                class_maps.class_scores(vectors @ text.to(vectors).T, owner, dim=1).cpu().double()
            )

        own = None
        if found.embeddings is not None and self.regions.no_object is not None:
            vectors = torch.from_numpy(found.embeddings[valid])
            nothing = vectors.double() @ torch.from_numpy(self.regions.no_object).double()
            own = ensemble.proposal_probabilities(
                cosines(vectors), nothing, proposal_sources.TEMPERATURE
            )
        seen = (cosines(embedded) * scale).softmax(1)
        soft = None if found.soft is None else found.soft[valid]
        return Named(seen, own, members, superpixels, soft, max(owner) + 1)

    def rows(
        self,
        item: ImageItem,
        rgb: NDArray[np.uint8],
        text: Tensor,
        owner: Sequence[int],
        scale: float,
        encode: Halving[Any, Tensor],
    ) -> tuple[Rows, int]:
        """The logits of a picture's classes for any rows of its pixels, one more for pixels that no
        mask covers, and the number of all these; arguments as of `named`."""
        return self.named(item, rgb, text, owner, scale, encode).rows(self.settings.ensemble)

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
        picture = torch.from_numpy(rgb)
        step = max(1, MAX_MASK_PIXELS // superpixels.numel())
        embedded = []
        for chosen in members.split(step):
            masks = chosen[:, superpixels]
            parts = []
            if self.whole is not None:
                parts.append(
                    region_clip.encode_region_tokens(
                        self.whole, picture, masks, short_side=self.short_side
                    )
                )
            if self.settings.region_features != "tokens":
                parts.append(
                    region_clip.encode_regions(
                        self.clip, picture, masks, crop_size=self.settings.crop_size, encode=encode
                    )
                )
            embedded.append(torch.stack(parts).mean(0))
        return torch.cat(embedded)


def load(
    clip: Clip,
    request: Request,
    source: Callable[[Clip], ProposalSource],
    short_side: int | None,
) -> TwoStage:
    """The CLIP with its prompts, and the source of regions in its space. Where that gives no embeddings,
    the words come from the CLIP alone, which one warning says.

    Raises UsageError, InputError, MismatchError.
    """
    from ovtool.models import region_clip

    settings = request.settings()
    regions = source(clip)
    if regions.no_object is None:
        if settings.ensemble < 1:
            _say_clip_alone()
        settings = replace(settings, ensemble=1.0)
    if request.embeddings is not None:
        settings = replace(settings, embeddings=digest_of(request.embeddings))
    whole = None
    if settings.region_features != "crops":
        region_clip.require_region_tokens(clip)
        whole = clip
    if settings.region_features == "tokens":
        return TwoStage(clip, regions, settings, short_side=short_side, whole=whole)
    region_clip.grid_of(clip, settings.crop_size)
    path = prompts_file(clip, request.prompts)
    if path is None:
        return TwoStage(clip, regions, settings, short_side=short_side, whole=whole)
    tuned, prompts = region_clip.with_prompts(clip, path, settings.crop_size)
    if settings.background_tokens == "drop" and prompts is not None and request.prompts is not None:
        raise UsageError(
            f"the prompts of {path} stand for tokens that --background-tokens drop leaves out: give one "
            "of the two"
        )
    settings = replace(settings, prompts=digest_of(path))
    return TwoStage(tuned, regions, settings, prompts, short_side, whole)


def source_of(
    proposer: str | None,
    file: Path | None,
    embeddings: Path | None,
    items: Sequence[ImageItem],
    device: torch.device,
    dry_run: bool,
) -> Callable[[Clip], ProposalSource]:
    """Where regions come from once the CLIP is there; what can be checked before that is checked.

    Raises UsageError, InputError, MismatchError.
    """
    if file is None:
        if proposer is not None:
            by_name.check_name(proposer)
        return lambda clip: proposal_sources.from_proposer(
            proposer or by_name.default_name(clip.name), clip=clip, device=device
        )
    if embeddings is not None and not embeddings.is_file():
        raise InputError(f"no such file: {embeddings}")
    if embeddings is None or dry_run:
        found = proposal_sources.from_file(file, items)
        return lambda clip: found
    return lambda clip: proposal_sources.from_file(file, items, embeddings=embeddings, clip=clip)


def prompts_file(clip: Clip, prompts: str | None) -> Path | None:
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
