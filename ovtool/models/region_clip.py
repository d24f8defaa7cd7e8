"""Regions through a CLIP: masked crops with or without mask prompts, or one class token each.

>>> clip, prompts = with_prompts(clip, Path("prompts.safetensors"))
>>> embeddings = encode_regions(clip, rgb, masks, prompts=prompts)
"""

import copy
import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from ovtool.errors import InputError, UsageError
from ovtool.methods import mask_prompts, masked_crops, region_tokens
from ovtool.methods.mask_prompts import MaskPrompts
from ovtool.models import artefacts, dense_scores, masked_tower, ragged_tower, sources, towers
from ovtool.models import clip as clips
from ovtool.models.clip import Clip
from ovtool.models.tower_types import ImageTower, NativeTower
from ovtool.runtime import device as devices
from ovtool.runtime.device import Halving

KIND = "mask-prompts"
BATCH_SIZE = 32  # crops at once
_ON_CPU = 8 * 224**2  # pixels at once on a CPU: what is computed between uses the same memory again
_TOWER = "tower."
_logger = logging.getLogger("ovtool")


@dataclass(frozen=True, eq=False)
class Crops:
    """Crops as the tower takes them, (N, 3, S, S), and which of their patches show something of the
    mask, bool (N, h*w); slices of it are batches."""

    pixels: Tensor
    foreground: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: slice | Tensor) -> "Crops":
        return Crops(self.pixels[index], self.foreground[index])


def require_mask_prompts(clip: Clip) -> NativeTower:
    """The image tower, if it can take mask prompts: open_clip's own vision transformer with a class token.

    Raises UsageError for another.
    """
    visual = clip.model.visual
    if clip.pooling != "token" or not masked_tower.is_supported(visual):
        raise UsageError(
            f"mask prompts need a vision transformer (ViT) of open_clip with a class token, and "
            f"{clip.name} pools by {clip.pooling} or has other blocks; use one such as ViT-B-16/openai"
        )
    return visual


def grid_of(clip: Clip, crop_size: int | None = None) -> tuple[int, int]:
    """The grid of patches of a crop. Raises UsageError where patches do not cover it."""
    size = crop_size or clip.image_size
    if size % clip.patch_size:
        raise UsageError(
            f"--crop-size {size}: {clip.name} has patches of {clip.patch_size} pixels, so give a multiple "
            "of that"
        )
    return size // clip.patch_size, size // clip.patch_size


def crops(
    clip: Clip, rgb: Tensor | NDArray[np.uint8], masks: Tensor, size: int, *, fill: bool = True
) -> Crops:
    """The masked crops of an image, uint8 (H, W, 3), on the model's device; masks bool (N, H, W), none
    of them empty."""
    exact = torch.promote_types(
        clip.dtype, torch.float32
    )  # resizing in half precision loses colours
    pixels = clips.normalise(replace(clip, dtype=exact), torch.as_tensor(rgb)[None])[0]
    cut, squeezed = masked_crops.masked_crops(pixels, masks, size, fill=fill)
    foreground = mask_prompts.patch_masks(squeezed, clip.patch_size)
    return Crops(cut.to(clip.dtype), foreground)


def encoder(
    clip: Clip, prompts: MaskPrompts | None, batch_size: int, *, drop_blank: bool = False
) -> Halving[Crops, Tensor]:
    """Crops to unit embeddings, float32 (b, D), batch by batch; the batches halve when memory runs out.

    drop_blank: leave out the tokens of patches outside the mask, which prompts would replace.
    """
    if prompts is not None or drop_blank:
        require_mask_prompts(clip)
    if prompts is not None:
        prompts = replace(prompts, values=prompts.values.to(clip.device, clip.dtype))

    is_cpu = clip.device.type == "cpu"

    @torch.no_grad()
    def encode(batch: Crops) -> Tensor:
        step = max(1, _ON_CPU // batch.pixels[0, 0].numel()) if is_cpu else len(batch)
        starts = range(0, len(batch), step)
        return torch.cat([encode_some(batch[start : start + step]) for start in starts])

    def encode_some(batch: Crops) -> Tensor:
        visual = clip.model.visual
        if not masked_tower.is_supported(visual):
            features = towers.image_features(visual, batch.pixels)
        elif drop_blank:
            features = masked_tower.embed_shown(visual, batch.pixels, batch.foreground)
        elif is_cpu and prompts is not None:
            features = ragged_tower.embed(visual, batch.pixels, batch.foreground, prompts)
        else:
            features = masked_tower.embed(visual, batch.pixels, batch.foreground, prompts)
        return normalize(features.float(), dim=-1)

    return devices.Halving(encode, batch_size)


def encode_regions(
    clip: Clip,
    rgb: Tensor | NDArray[np.uint8],
    masks: Tensor | NDArray[np.bool_],
    *,
    prompts: MaskPrompts | None = None,
    fill: bool = True,
    batch_size: int = BATCH_SIZE,
    crop_size: int | None = None,
    encode: Halving[Crops, Tensor] | None = None,
) -> Tensor:
    """Embed masked crops: (N, D) float32 of length 1, on the model's device, in the masks' order.

    rgb: uint8 (H, W, 3). masks: bool (N, H, W), none of them empty, N from 0 on.
    prompts: replace the tokens of patches outside the mask; resized where the crops' grid is another.
    fill: whether pixels outside a mask become the model's mean.
    crop_size: side of the crops in pixels, None for the model's.
    encode: what `encoder` gave, to be shared by several images; it has prompts and batch size.

    With masks that leave nothing out this is `clip.encode_images` of the crops. Raises ValueError for
    an empty mask, UsageError for prompts on a tower that takes none.
    """
    height, width = grid_of(clip, crop_size)
    if prompts is not None:
        prompts = mask_prompts.resized(prompts, (height, width))
    run = encode or encoder(clip, prompts, batch_size)
    cut = crops(clip, rgb, torch.as_tensor(masks), crop_size or clip.image_size, fill=fill)
    if not len(cut):
        return torch.empty(0, clip.embed_dim, device=clip.device)
    # alike in their number of blank patches, so that few are computed for a batch's sake
    order = cut.foreground.sum(1).argsort(descending=True, stable=True)
    embedded = torch.cat(list(run(cut[order])))
    return embedded[order.argsort()]


@torch.no_grad()
def encode_region_tokens(
    clip: Clip,
    rgb: Tensor | NDArray[np.uint8],
    masks: Tensor | NDArray[np.bool_],
    *,
    short_side: int | None = None,
) -> Tensor:
    """Embed regions by class tokens of their own, in one pass: (N, D) float32 of length 1.

    short_side: the image's shorter side when the tower sees it, None for the default of dense scores.
    Otherwise as `encode_regions`; see `methods.region_tokens` for what a token attends to. Raises
    UsageError for a tower without a class token, ValueError for an empty mask.
    """
    visual = require_region_tokens(clip)
    pixels = dense_scores.prepare(clip, torch.as_tensor(rgb), short_side)
    grid = towers.grid_size(pixels, clip.patch_size)
    patches = region_tokens.grid_masks(torch.as_tensor(masks), grid)
    if not patches.any(1).all():
        raise ValueError("an empty mask has no patch")
    patches = patches.to(clip.device)
    features = masked_tower.embed_regions(visual, pixels, patches)
    return normalize(features.float(), dim=-1)


def require_region_tokens(clip: Clip) -> NativeTower:
    """The image tower, if regions can have class tokens of their own. Raises UsageError for another."""
    clips.require_class_token(clip, "--region-features tokens")
    visual = clip.model.visual
    if not masked_tower.is_supported(visual):
        raise UsageError(
            f"--region-features tokens needs open_clip's own vision transformer, and {clip.name} has "
            "another tower; give --region-features crops"
        )
    return visual


def save_prompts(
    path: Path,
    clip: Clip,
    prompts: MaskPrompts | None,
    tower: ImageTower | None,
    settings: Mapping[str, Any],
) -> None:
    """Write prompts, a tuned image tower, or both; the tower in float16. Raises InputError."""
    content: dict[str, Tensor] = {}
    if prompts is not None:
        content["prompts"] = prompts.values.float()
        settings = {**settings, "grid": list(prompts.grid)}
    if tower is not None:
        state = tower.state_dict()
        content |= {_TOWER + name: value.half() for name, value in state.items()}
    artefacts.save(path, KIND, clip, content, settings)


def with_prompts(
    clip: Clip, path: Path, crop_size: int | None = None
) -> tuple[Clip, MaskPrompts | None]:
    """The CLIP with a file's tuned image tower, if it has one, and its prompts, if it has some.

    Prompts made for another grid than that of the crops are resized, which one warning says. Raises
    InputError for a broken file, MismatchError for one of another CLIP, UsageError for a tower that
    takes no prompts.
    """
    visual = require_mask_prompts(clip)
    header, content = artefacts.load(path, KIND, clip, "tune the prompts again")
    values = content.pop("prompts", None)
    if content:
        clip = _with_tower(clip, {k.removeprefix(_TOWER): v for k, v in content.items()}, path)
    if values is None:
        return clip, None
    grid = header.get("settings", {}).get("grid")
    blocks, width = visual.transformer.resblocks, visual.class_embedding.shape[0]
    is_grid = isinstance(grid, list) and len(grid) == 2 and all(type(n) is int for n in grid)
    fits = is_grid and values.ndim == 3 and values.shape[1:] == (grid[0] * grid[1], width)
    if not fits or not 1 <= len(values) <= len(blocks):
        raise InputError(f"{path}: its prompts do not fit {clip.name}; tune them again")
    prompts = MaskPrompts(values.to(clip.device, clip.dtype), (grid[0], grid[1]))
    wanted = grid_of(clip, crop_size)
    if prompts.grid != wanted:
        _say_resized(str(path), prompts.grid, wanted)
    return clip, mask_prompts.resized(prompts, wanted)


def bundled_prompts(clip: Clip) -> Path | None:
    """The prompts that come with a bundled model, where they do."""
    path = sources.bundled_folder() / f"{clip.name}_prompts.safetensors"
    return path if clip.name.isidentifier() and path.is_file() else None


def _with_tower(clip: Clip, state: Mapping[str, Tensor], path: Path) -> Clip:
    """The same CLIP with other weights in its image tower; the one given is left as it was."""
    visual = copy.deepcopy(clip.model.visual)
    wanted = {name: value.shape for name, value in visual.state_dict().items()}
    if wanted != {name: value.shape for name, value in state.items()}:
        raise InputError(f"{path}: its tower does not fit {clip.name}; tune it again")
    visual.load_state_dict(dict(state))
    return with_visual(clip, visual)


def with_visual(clip: Clip, visual: ImageTower) -> Clip:
    """The same CLIP with another image tower, the rest shared."""
    model = copy.copy(clip.model)
    model._modules = {**model._modules, "visual": visual}
    return replace(clip, model=model)


@functools.cache
def _say_resized(path: str, from_grid: tuple[int, int], to_grid: tuple[int, int]) -> None:
    _logger.warning(
        "the prompts of %s were tuned on a grid of %d x %d patches and are resized to %d x %d",
        path,
        *from_grid,
        *to_grid,
    )
