"""The bound of PACL's loss, log k - L, on captions that a head has not learned from."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ovtool.batches import captions
from ovtool.batches.captions import ListedBatches
from ovtool.datasets import registry
from ovtool.methods import bootstrap
from ovtool.models import clip as clips
from ovtool.models import pacl as heads
from ovtool.settings.layers import known
from ovtool.settings.pacl import Pacl
from ovtool.trainers import pacl
from ovtool.training import distributed


def on_batches(head: Path | None, settings: Pacl, data: registry.DataSet) -> list[float]:
    """log k - L in nats on each batch of captioned images, every image in one of them.

    Args:
        head: a file of `train-pacl`; None is the head as a training begins it.
        settings: of the training; they have the size of a batch, and the last block that the head reads.
        data: the images and their captions.
    """
    clip, ranks = clips.load("tiny"), distributed.alone()
    listed = captions.listed(str(data.captions), data.captions, data.images, 0, 0.0)
    settled, _ = pacl.settled(settings, clip, listed.count, ranks)
    training = pacl.begun(clip, settled, torch.float32, ranks)
    if head is not None:
        training.embedder.load_state_dict(heads.load(head, clip).embedder.state_dict())
    training.features.encode_captions(listed.texts)
    training.features.encode_images(listed)
    size = known(settled.batch_size)
    batches = ListedBatches(
        listed, known(settled.crop_size), size, range(size), seed=0, crops=False, has_pixels=False
    )
    return [training.step(batches[step])["bound"] for step in range(listed.count // size)]


def cells(before: Sequence[float], after: Sequence[float]) -> str:
    """Both means, and their difference with the 95 % interval of the paired bootstrap over batches."""
    ones = np.ones(len(before))
    first, second = (bootstrap.ratio("bound", np.array(some), ones) for some in (before, after))
    found = bootstrap.intervals(bootstrap.difference(first, second), len(before))["bound"]
    interval = f"{found.value:+.2f} [{found.low:.2f}, {found.high:.2f}]"
    return f"{np.mean(before):.2f} | {np.mean(after):.2f} | {interval}"
