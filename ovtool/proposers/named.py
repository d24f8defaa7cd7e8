"""Proposers by name: the function from an image to class-agnostic masks.

    regions                  merged superpixels; nothing to load
    maskformer[:ID]          any MaskFormer of the hub, or a folder that `save_pretrained` made
    sam[:ID]                 Segment Anything, a grid of points
    FILE.safetensors         what `ovtool train-proposer` wrote
    tiny                     the bundled one, where it is installed, with superpixels for its outlines

Where masks come from a network, they are bounded here: a least area, non-maximum suppression, a
greatest number.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache as remembered
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ovtool.errors import UsageError
from ovtool.methods import mask_nms, regions
from ovtool.methods.regions import Regions
from ovtool.models import hub, resolve, sources

if TYPE_CHECKING:  # heavy, and `regions` needs none of it
    from ovtool.models.clip import Clip

Rgb = NDArray[np.uint8]

WORKING_SIDE = 512  # longer side at which `regions` looks; larger images are reduced
MAX_IOU = 0.85  # of two masks of a network that are both kept
MASKFORMER = "facebook/maskformer-swin-base-coco"
SAM = "facebook/sam-vit-base"

_logger = logging.getLogger("ovtool")


@dataclass(frozen=True)
class ProposalSettings:
    """max_proposals: the most masks of an image, after non-maximum suppression.
    min_area: the least share of the image that a mask has.
    nms: the greatest IoU of two masks that are both kept; None is 0.85, which for `regions` counts on
    superpixels."""

    proposer: str = "regions"
    max_proposals: int = 100
    min_area: float = 0.001
    nms: float | None = None


@dataclass(frozen=True)
class Proposals(Regions):
    """Regions of one image with what the proposer's network says beside them, rows alike.

    soft: float32 (N, H, W), the probability of each pixel to be in the mask, or None.
    embeddings: float32 (N, D), unit vectors in the space of a CLIP's texts, or None.
    """

    soft: NDArray[np.float32] | None = None
    embeddings: NDArray[np.float32] | None = None

    @classmethod
    def of(
        cls,
        found: Regions,
        soft: NDArray[np.float32] | None = None,
        embeddings: NDArray[np.float32] | None = None,
    ) -> Proposals:
        """Regions with what belongs to their rows."""
        return cls(found.superpixels, found.members, found.quality, soft, embeddings)


@dataclass(frozen=True)
class Proposer:
    """A proposer that is ready: call it with an image, uint8 (H, W, 3).

    name: what an output says made it; no path. weights: the digest of its network, or None.
    model: name and fingerprint of the CLIP in whose space its embeddings lie, or None.
    no_object: float32 (D,), the unit vector of "no object", where there are embeddings.
    """

    name: str
    find: Callable[[Rgb], Proposals]
    weights: str | None = None
    model: tuple[str, str] | None = None
    no_object: NDArray[np.float32] | None = None

    def __call__(self, rgb: Rgb) -> Proposals:
        return self.find(rgb)


def choices() -> tuple[str, ...]:
    """The names that a proposer can have here."""
    tiny = ("tiny",) if tiny_weights().is_file() else ()
    return ("regions", *tiny, "maskformer[:ID]", "sam[:ID]", "FILE.safetensors")


def tiny_weights() -> Path:
    """Where the bundled proposer lies, if it does."""
    return sources.bundled_folder() / "tiny_proposer.safetensors"


def default_name(model: str | None = None) -> str:
    """The proposer for a CLIP where none is named: on `tiny` the bundled one where it is installed; on
    any other `maskformer` where its weights are cached; else `regions`.

    model: the CLIP's name, None for the one that would be used. Falling back to `regions` on a real
    CLIP that was named is said in one warning.
    """
    named = model or os.environ.get(resolve.ENVIRONMENT, "").strip() or None
    has_tiny, has_maskformer = tiny_weights().is_file(), hub.is_cached(MASKFORMER)
    if named is None and not (has_tiny or has_maskformer):
        return "regions"  # whichever CLIP it is, and there is no need to ask the hub which
    if (named or resolve.choose(None)) == resolve.BUNDLED:
        return "tiny" if has_tiny else "regions"
    if has_maskformer:
        return "maskformer"
    _warn_of_regions(named or resolve.PREFERRED)
    return "regions"


@remembered
def _warn_of_regions(model: str) -> None:
    _logger.warning(
        "proposals for %s come from merged superpixels (--proposer regions): no MaskFormer is cached; "
        "fetch one with `hf download %s`",
        model,
        MASKFORMER,
    )


def check_name(name: str) -> None:
    """Raises UsageError for a name that means no proposer here; nothing is loaded."""
    known = name in ("regions", "maskformer", "sam") or name.startswith(("maskformer:", "sam:"))
    is_tiny = name == "tiny" and tiny_weights().is_file()
    if not (known or is_tiny or Path(name).suffix == ".safetensors"):
        raise UsageError(f"unknown proposer '{name}'; choose from {', '.join(choices())}")


def proposer_of(
    settings: ProposalSettings, *, clip: Clip | None = None, device: torch.device | None = None
) -> Proposer:
    """The proposer of a name, loaded.

    clip: the CLIP that its embeddings must belong to, None for whichever it says.

    Raises UsageError for an unknown name, ModelError where weights are not at hand, InputError for a
    broken file, MismatchError for a proposer of another CLIP than `clip`.
    """
    check_name(settings.proposer)
    kind, _, name = settings.proposer.partition(":")
    place = device or torch.device("cpu")
    if settings.proposer == "regions":
        return Proposer("regions", lambda rgb: _by_merging(rgb, settings))
    if kind == "maskformer":
        return _hub_maskformer(name or MASKFORMER, settings, place)
    if kind == "sam":
        return _sam(name or SAM, settings, place)
    if settings.proposer == "tiny":
        return _tiny(settings, clip, place)
    path = Path(settings.proposer)
    return _trained(path, path.name, settings, clip, place)


def _by_merging(rgb: Rgb, settings: ProposalSettings) -> Proposals:
    """The regions of an image, found at a longer side of `WORKING_SIDE` and as large as it is."""
    height, width = rgb.shape[:2]
    scale = WORKING_SIDE / max(height, width)
    if scale >= 1:
        found = regions.propose_regions(rgb, settings.max_proposals, settings.min_area)
    else:
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        reduced = np.asarray(Image.fromarray(rgb).resize(small, Image.Resampling.BOX))
        found = regions.propose_regions(reduced, settings.max_proposals, settings.min_area)
        labels = Image.fromarray(found.superpixels)
        labels = labels.resize((width, height), Image.Resampling.NEAREST)
        found = Regions(np.asarray(labels), found.members, found.quality)
    if settings.nms is not None:
        kept = mask_nms.suppress(found.masks(), found.quality, settings.nms, settings.max_proposals)
        found = Regions(found.superpixels, found.members[kept], found.quality[kept])
    return Proposals.of(found)


def bounded(
    soft: NDArray[np.float32],
    quality: NDArray[np.float32],
    settings: ProposalSettings,
    embeddings: NDArray[np.float32] | None = None,
    threshold: float = 0.5,
) -> Proposals:
    """A network's masks, float32 (N, H, W) in [0, 1], with all bounds of the settings, best first."""
    masks = soft > threshold
    areas = masks.sum((1, 2))
    pixels = masks.shape[1] * masks.shape[2]
    large = np.flatnonzero((areas > 0) & (areas >= settings.min_area * pixels))
    max_iou = MAX_IOU if settings.nms is None else settings.nms
    kept = large[mask_nms.suppress(masks[large], quality[large], max_iou, settings.max_proposals)]
    found = regions.from_masks(masks[kept], quality[kept].clip(0, 1))
    return Proposals.of(found, soft[kept], None if embeddings is None else embeddings[kept])


def _trained(
    path: Path, name: str, settings: ProposalSettings, clip: Clip | None, device: torch.device
) -> Proposer:
    """What `train-proposer` wrote."""
    from ovtool.models import maskformer

    loaded = maskformer.load(path, clip, device)

    def find(rgb: Rgb) -> Proposals:
        soft, quality, embeddings = maskformer.propose(loaded, rgb)
        return bounded(soft, quality, settings, embeddings)

    no_object = maskformer.no_object_vector(loaded.network)
    return Proposer(name, find, loaded.weights, (loaded.model, loaded.fingerprint), no_object)


def completed(
    merged: Regions,
    soft: NDArray[np.float32],
    quality: NDArray[np.float32],
    embeddings: NDArray[np.float32],
    settings: ProposalSettings,
) -> Proposals:
    """A network's masks, float32 (N, H, W) in [0, 1], cut along superpixels, and merged superpixels beside
    them for what it misses; all bounds of the settings, best first.

    A mask takes the superpixels whose mean in it is above a half. A merged region has the embedding,
    float32 (N, D), of the mask with which its IoU is greatest.
    """
    areas = np.bincount(merged.superpixels.ravel(), minlength=merged.members.shape[1])
    inside = [np.bincount(merged.superpixels.ravel(), one.ravel(), len(areas)) for one in soft]
    drawn = np.array(inside).reshape(len(soft), len(areas)) / areas > 0.5
    both = [(one * areas).astype(np.float64) for one in (merged.members, drawn)]
    common = both[0] @ drawn.T  # (R, N)
    united = both[0].sum(1)[:, None] + both[1].sum(1)[None] - common
    nearest = (common / np.maximum(united, 1)).argmax(1)
    found = Regions(
        merged.superpixels,
        np.concatenate([drawn, merged.members]),
        np.concatenate([quality, merged.quality]).clip(0, 1),
    )
    vectors = np.concatenate([embeddings, embeddings[nearest]])
    share = found.members @ areas / merged.superpixels.size
    large = np.flatnonzero((share > 0) & (share >= settings.min_area))
    masks, most = found.members[large][:, merged.superpixels], settings.max_proposals
    max_iou = MAX_IOU if settings.nms is None else settings.nms
    kept = large[mask_nms.suppress(masks, found.quality[large], max_iou, most)]
    bound = Regions(found.superpixels, found.members[kept], found.quality[kept])
    return Proposals.of(bound, embeddings=vectors[kept])


def _tiny(settings: ProposalSettings, clip: Clip | None, device: torch.device) -> Proposer:
    """The bundled network, small and trained on small images, with superpixels for its outlines."""
    from ovtool.models import maskformer

    loaded = maskformer.load(tiny_weights(), clip, device)

    def find(rgb: Rgb) -> Proposals:
        soft, quality, embeddings = maskformer.propose(loaded, rgb)
        merged = _by_merging(rgb, replace(settings, nms=None))
        return completed(merged, soft, quality, embeddings, settings)

    no_object = maskformer.no_object_vector(loaded.network)
    return Proposer("tiny", find, loaded.weights, (loaded.model, loaded.fingerprint), no_object)


def _hub_maskformer(name: str, settings: ProposalSettings, device: torch.device) -> Proposer:
    """Any MaskFormer of the hub, its classes put aside."""
    from ovtool.models import hub_maskformer

    loaded = hub_maskformer.load(name, device)

    def find(rgb: Rgb) -> Proposals:
        soft, quality = hub_maskformer.propose(loaded, rgb)
        return bounded(soft, quality, settings)

    return Proposer(f"maskformer:{_shown(name)}", find, loaded.weights)


def _sam(name: str, settings: ProposalSettings, device: torch.device) -> Proposer:
    """Segment Anything on a grid of points."""
    from ovtool.models import sam

    loaded = sam.load(name, device)

    def find(rgb: Rgb) -> Proposals:
        masks, quality = sam.propose(loaded, rgb)
        found = bounded(masks.astype(np.float32), quality, settings)
        return Proposals.of(found)  # its masks are hard

    return Proposer(f"sam:{_shown(name)}", find, loaded.weights)


def _shown(name: str) -> str:
    """A hub's name as it is, of a folder the last part alone."""
    return Path(name).resolve().name if Path(name).exists() else name
