"""GradCAMs per second: all classes of a picture in one backward pass against one pass a class.

Run it as `python scripts/benchmark_cam.py`; the bundled CLIP, one picture of 256 pixels, with 1 to 5 classes.
"""

import argparse
import time
from collections.abc import Callable

import torch
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


def seconds(run: Callable[[], object], repeats: int) -> float:
    """The least time of a call, after one that is not counted."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=10)
    given = parser.parse_args()
    clip = door.load(given.model, "cpu")
    torch.manual_seed(0)
    pixels = torch.randn(1, 3, given.size, given.size)
    text = normalize(torch.randn(32, clip.embed_dim), dim=-1)
    print("classes  together/s  one by one/s  ratio  greatest difference")
    for classes in (1, 2, 3, 5):
        fast = seconds(lambda n=classes: gradcam.maps(clip, pixels, text, n), given.repeats)
        slow = seconds(lambda n=classes: one_by_one(clip, pixels, text, n), given.repeats)
        differ = gradcam.maps(clip, pixels, text, classes) - one_by_one(clip, pixels, text, classes)
        print(
            f"{classes:7}  {classes / fast:10.1f}  {classes / slow:12.1f}  {slow / fast:5.2f}  "
            f"{float(differ.abs().max()):.1e}"
        )


if __name__ == "__main__":
    main()
