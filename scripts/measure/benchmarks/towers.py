"""Rows on regions through a ViT-B/16 at random weights, float32."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from reference import crops as plain_crops
from torch import Tensor

from benchmarks import images
from benchmarks.measuring import Setup
from benchmarks.table import Row

TOKENS, WIDTH, BLOCKS = 196, 768, 12
PATCHES = 441  # of the image that `--region-features tokens` reads


def operations(tokens: float, queries: float, keys: float) -> float:
    """What a block computes: projections and MLP of `tokens`, the keys and values of those that are not
    queries left out; and attention of `queries` to `keys`."""
    linear = 2 * WIDTH * WIDTH * (queries * 10 + tokens * 2)
    return linear + 4 * WIDTH * queries * keys


def of_crops(regions: float) -> float:
    """What so many full crops cost: the last block for the class token alone, patches included."""
    seen = TOKENS + 1
    blocks = (BLOCKS - 1) * operations(seen, seen, seen) + operations(seen, 1, seen)
    return regions * (blocks + 2 * TOKENS * WIDTH * WIDTH)


def of_prompts(regions: float, depth: int, blank: float) -> float:
    """The same with prompts in the first blocks, which spare the blank share of the patches until the last prompts."""
    seen = TOKENS + 1
    spared = operations(seen, seen, seen)
    spared -= operations(seen - blank * TOKENS, seen - blank * TOKENS, seen)
    return of_crops(regions) - regions * (depth - 1) * spared


def of_region_tokens(regions: float) -> float:
    """What one pass over an image costs, and a token for each region in each block."""
    seen = PATCHES + 1
    own = operations(1, 1, seen)
    return BLOCKS * (operations(seen, seen, seen) + regions * own) + 2 * PATCHES * WIDTH * WIDTH


def vit() -> Any:
    """The CLIP of the rows."""
    import open_clip

    from ovtool.models import clip as clips

    torch.manual_seed(0)
    return clips.from_model(open_clip.create_model("ViT-B-16"), "ViT-B-16 at random weights")


def ways_of(clip: Any, rgb: NDArray[np.uint8], masks: NDArray[np.bool_]) -> dict[str, Any]:
    """The ways to embed regions, each a work."""
    from ovtool.methods import mask_prompts
    from ovtool.models import masked_tower, region_clip

    generator = torch.Generator().manual_seed(0)
    starts = {
        depth: mask_prompts.initial(depth, (14, 14), WIDTH, generator) for depth in (3, BLOCKS)
    }
    cut = region_clip.crops(clip, rgb, torch.from_numpy(masks), clip.image_size)

    @torch.no_grad()
    def full() -> Tensor:
        return masked_tower.embed_plain(
            clip.model.visual, cut.pixels, cut.foreground, starts[BLOCKS]
        )

    def with_prompts(depth: int) -> Callable[[], Tensor]:
        return lambda: region_clip.encode_regions(clip, rgb, masks, prompts=starts[depth])

    look = (clip.image_size, clip.mean, clip.std)
    return {
        "plain": lambda: plain_crops.embedded(clip.model, rgb, masks, *look),
        "none": lambda: region_clip.encode_regions(clip, rgb, masks),
        "three": with_prompts(3),
        "every": with_prompts(BLOCKS),
        "full": full,
        "tokens": lambda: region_clip.encode_region_tokens(clip, rgb, masks),
    }


def regions(setup: Setup) -> list[Row]:
    """Regions of an image through the tower."""
    from ovtool.models import region_clip

    clip, count = vit(), 4 if setup.quick else 32
    rgb = next(images.photographs(512, 512))
    masks = images.tilted_masks(count, 512, 512)
    ways = ways_of(clip, rgb, masks)
    if setup.quick:
        del ways["tokens"]
    else:
        ways["hundred"] = ways_of(clip, rgb, images.tilted_masks(100, 512, 512))["tokens"]
    few = ways_of(clip, rgb, masks[:2])
    for name in few.keys() & ways.keys():
        few[name]()
    cost = setup.medians(ways, 3, warm=False)
    foreground = region_clip.crops(clip, rgb, torch.from_numpy(masks), clip.image_size).foreground
    blank = 1 - foreground.float().mean().item()
    what, slow = f"{count} masked crops, ViT-B/16", "Pillow in a loop, one batch of full crops"
    share = setup.limits.arithmetic
    rows = [
        Row("crops", f"{what}, no prompts", cost["none"], slow, cost["plain"], 2.2,
            share(of_crops(count), cost["none"], cost["plain"])),
        Row("crops-3", f"{what}, prompts of depth 3", cost["three"], slow, cost["plain"], 2.6,
            share(of_prompts(count, 3, blank), cost["three"], cost["plain"])),
        Row("crops-12", f"{what}, prompts at every block, {100 * blank:.0f} % of the patches blank",
            cost["every"], "all tokens, as the formulas say", cost["full"], 0.95 / (1 - blank),
            f"{(1 - blank) * cost['full'] / cost['every']:.2f} of 1 / (1 - f)"),
    ]  # fmt: skip
    if setup.quick:
        return rows
    hundred = cost["plain"] * 100 / count
    return [
        *rows,
        Row("tokens", f"{count} regions by `--region-features tokens`", cost["tokens"], slow,
            cost["plain"], 25, share(of_region_tokens(count), cost["tokens"], cost["plain"])),
        Row("tokens-100", "100 regions by `--region-features tokens`", cost["hundred"],
            f"{slow}, for {count} regions times {100 / count:.3g}", hundred, 70,
            share(of_region_tokens(100), cost["hundred"], hundred)),
    ]  # fmt: skip
