"""The rows of `scripts/measure/benchmark.py` on GradCAM: all classes of a picture in one backward pass against one
pass a class."""

from functools import partial

import torch
from benchmark_refine import RowTuple, timed
from torch.nn.functional import normalize

from ovtool.methods import activation_maps
from ovtool.models import clip as door
from ovtool.models import gradcam


def one_by_one(
    clip: door.Clip, pixels: torch.Tensor, text: torch.Tensor, classes: int
) -> torch.Tensor:
    """The same maps with a forward pass of the tower and a backward pass for each class."""
    grid = pixels.shape[2] // clip.patch_size, pixels.shape[3] // clip.patch_size
    found = []
    for k in range(classes):
        tokens = gradcam.last_block_input(clip, pixels)
        activations, gradients = gradcam.class_gradients(clip, tokens, text, [k])
        maps = activation_maps.gradcam(activations, gradients).unflatten(1, grid)
        found.append(activation_maps.min_max(maps)[0])
    return torch.stack(found)


def speed(repeats: int = 10) -> list[RowTuple]:
    """A picture of 256 pixels with 1, 2 and 5 classes, the bundled CLIP; on a GPU, where one is at hand,
    again."""
    rows: list[RowTuple] = []
    for device in ["cpu"] + (["cuda"] if torch.cuda.is_available() else []):
        clip = door.load("tiny", device)
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randn(1, 3, 256, 256, generator=generator).to(device)
        text = normalize(torch.randn(32, clip.embed_dim, generator=generator), dim=-1).to(device)
        for classes in (1, 2, 5):
            arguments = (clip, pixels, text, classes)
            torch.testing.assert_close(
                gradcam.maps(*arguments), one_by_one(*arguments), rtol=1e-3, atol=1e-3
            )
            together, apart = timed(
                partial(gradcam.maps, *arguments), partial(one_by_one, *arguments), repeats=repeats
            )
            rows.append(
                (
                    f"gradcam, 256 px, {classes} classes, {device}".replace("1 classes", "1 class"),
                    f"{classes / together:.0f} maps/s",
                    f"a pass for each class: {classes / apart:.0f} maps/s",
                    together / apart,
                    "reported",
                )
            )
    return rows
