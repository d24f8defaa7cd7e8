"""Proposers by name: the function from an image to class-agnostic masks.

regions                  merged superpixels; nothing to load
merging                  superpixels merged and ranked by what the bundled model photo sees
maskformer[:ID]          any MaskFormer of the hub, or a folder that `save_pretrained` made
sam[:ID]                 Segment Anything, a grid of points
FILE.safetensors         what `ovtool train-proposer` wrote
tiny                     the bundled proposer, where it is installed, with superpixels for its outlines
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ovtool.methods import mask_nms, regions
from ovtool.methods.regions import Regions
from ovtool.models import hub, objectness, resolve
from ovtool.proposers import names
from ovtool.proposers.proposals import Proposals, bounded, completed, min_area
from ovtool.settings.layers import known
from ovtool.settings.propose import Propose

if TYPE_CHECKING:  # heavy, and `regions` needs none of it
    from ovtool.models.clip import Clip

Rgb = NDArray[np.uint8]

WORKING_SIDE = 512  # longer side at which `regions` looks; larger images are reduced
MERGING_SIDE = 640  # that of `merging`
MASKFORMER = "facebook/maskformer-swin-base-coco"
SAM = "facebook/sam-vit-base"

_logger = logging.getLogger("ovtool")


@dataclass(frozen=True)
class Proposer:
    """A proposer that is ready: call it with an image, uint8 (H, W, 3).

    Attributes:
        name: what an output says made it; no path.
        find: the function from an image to its proposals, best first.
        weights: the digest of its network, or None.
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


def default_name(model: str | None = None, *, covers: bool = False) -> str:
    """The proposer for a CLIP where none is named.

    On `tiny` it is the bundled proposer where that is installed; on any other `maskformer` where its weights
    are cached; else `merging` on `photo`, and `regions` on others. One warning says so where `regions` is taken for a CLIP that was named.

    Args:
        model: the CLIP's name, None for the one that would be used.
        covers: all of an image is to be named; on `photo`, `regions` then take the place of `merging`, which finds
            more objects and leaves out more of what is around them.
    """
    named = model or os.environ.get(resolve.ENVIRONMENT, "").strip() or None
    has_tiny, has_maskformer = names.tiny_weights().is_file(), hub.is_cached(MASKFORMER)
    has_merging = objectness.bundled().is_file()
    if named is None and not (has_tiny or has_maskformer or has_merging):
        return "regions"  # for every CLIP, so that the hub need not be asked which it is
    clip = named or resolve.choose(None)
    if clip == "tiny":
        return "tiny" if has_tiny else "regions"
    if has_maskformer:
        return "maskformer"
    if clip == "photo" and has_merging:
        return "regions" if covers else "merging"
    _warn_of_regions(named or resolve.PREFERRED)
    return "regions"


@functools.cache
def _warn_of_regions(model: str) -> None:
    _logger.warning(
        "proposals for %s come from merged superpixels (--proposer regions): no MaskFormer is cached; "
        "fetch one with `hf download %s`",
        model,
        MASKFORMER,
    )


def is_trained(name: str) -> bool:
    """Whether a proposer of this name belongs to a CLIP, and has embeddings."""
    return name == "tiny" or Path(name).suffix == ".safetensors"


def load(
    settings: Propose, *, clip: Clip | None = None, device: torch.device | None = None
) -> Proposer:
    """Loads the proposer that settings name.

    Args:
        settings: its name, which is given here, and the bounds of its masks.
        clip: the CLIP that its embeddings must belong to, None for whichever it names.
        device: where it computes; None for the CPU.

    Raises:
        UsageError: the name is unknown.
        ModelError: weights are not at hand.
        InputError: a file is broken.
        MismatchError: the proposer belongs to another CLIP than `clip`.
    """
    name = known(settings.proposer)
    names.check_name(name)
    kind, _, network = name.partition(":")
    place = device or torch.device("cpu")
    if name == "regions":
        return Proposer("regions", lambda rgb: Proposals.of(_regions(rgb, settings)))
    if name == "merging":
        return _merging(settings, place)
    if kind == "maskformer":
        return _hub_maskformer(network or MASKFORMER, settings, place)
    if kind == "sam":
        return _sam(network or SAM, settings, place)
    return _trained(name, settings, clip, place)


def _at_side(rgb: Rgb, side: int, find: Callable[[Rgb], Regions]) -> Regions:
    """What is found in an image at a longer side of at most `side`, enlarged to the image's size."""
    height, width = rgb.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return find(rgb)
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    proposals = find(np.asarray(Image.fromarray(rgb).resize(small, Image.Resampling.BOX)))
    labels = Image.fromarray(proposals.superpixels).resize(
        (width, height), Image.Resampling.NEAREST
    )
    return replace(proposals, superpixels=np.asarray(labels))


def _regions(rgb: Rgb, settings: Propose) -> Regions:
    """The regions of an image, merged at a longer side of `WORKING_SIDE`."""
    merged = _at_side(
        rgb,
        WORKING_SIDE,
        lambda small: regions.propose_regions(small, settings.max_proposals, min_area(settings)),
    )
    if settings.nms is None:
        return merged
    return merged.kept(
        mask_nms.suppress(merged.masks(), merged.quality, settings.nms, settings.max_proposals)
    )


def _merging(settings: Propose, device: torch.device) -> Proposer:
    """Superpixels merged and ranked by what `photo` sees of them."""
    from ovtool.proposers import merging

    sight, network, weights = objectness.load(objectness.bundled(), device)

    def find(rgb: Rgb) -> Proposals:
        def of_small(small: Rgb) -> Regions:
            return merging.propose(sight, network, small, settings)

        return Proposals.of(_at_side(rgb, MERGING_SIDE, of_small))

    return Proposer("merging", find, weights)


def _trained(name: str, settings: Propose, clip: Clip | None, device: torch.device) -> Proposer:
    """What `train-proposer` wrote. The bundled network is small and was trained on small images, so that
    superpixels give its outlines."""
    from ovtool.models import maskformer

    is_tiny = name == "tiny"
    loaded = maskformer.load(names.tiny_weights() if is_tiny else Path(name), clip, device)

    def find(rgb: Rgb) -> Proposals:
        soft, quality, embeddings = maskformer.propose(loaded, rgb)
        if not is_tiny:
            return bounded(soft, quality, settings, embeddings)
        merged = _regions(rgb, replace(settings, nms=None))
        return completed(merged, soft, quality, embeddings, settings)

    model, no_object = (
        (loaded.model, loaded.fingerprint),
        maskformer.no_object_vector(loaded.network),
    )
    return Proposer(Path(name).name, find, loaded.weights, model, no_object)


def _hub_maskformer(name: str, settings: Propose, device: torch.device) -> Proposer:
    """Any MaskFormer of the hub, its classes put aside."""
    from ovtool.models import hub_maskformer

    loaded = hub_maskformer.load(name, device)

    def find(rgb: Rgb) -> Proposals:
        return bounded(*hub_maskformer.propose(loaded, rgb), settings)

    return Proposer(f"maskformer:{_public(name)}", find, loaded.weights)


def _sam(name: str, settings: Propose, device: torch.device) -> Proposer:
    """Segment Anything on a grid of points."""
    from ovtool.models import sam

    loaded = sam.load(name, device)

    def find(rgb: Rgb) -> Proposals:
        masks, quality = sam.propose(loaded, rgb)
        proposals = bounded(masks.astype(np.float32), quality, settings)
        return replace(proposals, soft=None)  # its masks are hard

    return Proposer(f"sam:{_public(name)}", find, loaded.weights)


def _public(name: str) -> str:
    """A name for outputs: that of a hub as it is, of a folder the last part alone."""
    return Path(name).resolve().name if Path(name).exists() else name
