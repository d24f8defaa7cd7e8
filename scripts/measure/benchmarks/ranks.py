"""A step of `train-pacl` on several ranks of one thread each: `main` is run by torchrun, and prints the seconds of the slowest."""

import statistics
import time

import torch
from torch import distributed
from torch.nn.functional import normalize

from benchmarks.alignment import two_passes
from ovtool.methods.patch_alignment import VisionEmbedder
from ovtool.models import clip as clips
from ovtool.models import pacl

BATCH = 64  # images of all ranks together


def main(exchanges: bool) -> None:
    """Three steps, after one that warms up.

    Args:
        exchanges: whether the ranks exchange embeddings and gradients; without, each does its share alone.
    """
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    ranks = distributed.get_world_size()
    clip, embedder = clips.load("tiny"), VisionEmbedder(192, 192)
    own = BATCH // ranks
    pixels = torch.randn(own, 3, 128, 128)
    texts = normalize(torch.randn(own, 192), dim=-1)
    times = []
    for _ in range(4):
        distributed.barrier()
        began = time.perf_counter()
        tokens = pacl.tokens(clip, pixels).flatten(1, 2)
        everyone = [texts.clone() for _ in range(ranks)]
        if exchanges:
            distributed.all_gather(everyone, texts)
        two_passes(embedder, tokens, torch.cat(everyone)[:own], 30.0)
        for weight in embedder.parameters() if exchanges else ():
            distributed.all_reduce(weight.grad)
        distributed.barrier()
        times.append(time.perf_counter() - began)
    if distributed.get_rank() == 0:
        print(statistics.median(times[1:]))
    distributed.destroy_process_group()
