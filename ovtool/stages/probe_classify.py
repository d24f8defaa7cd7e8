"""`probe classify`: whole images named without training, by the class token and by a PACL head.

The score of an image and a word is the cosine of the class token with the word's text embedding, or
the compatibility that PACL is trained with (Mukhoti et al., CVPR 2023, sections 4 and 5.3). An image
has several labels, the classes of its masks: its best word is a hit where it is any of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import ovtool
from ovtool.errors import InputError
from ovtool.formats import atomic, plots
from ovtool.inputs import truths
from ovtool.inputs.truths import Probed
from ovtool.methods import class_maps, roc
from ovtool.models import dense_scores
from ovtool.runtime import device as devices
from ovtool.runtime.progress import Progress, no_progress

if TYPE_CHECKING:  # they import open_clip, for which bad arguments need not wait
    from ovtool.models.clip import Clip
    from ovtool.models.pacl import Head

TOKEN, HEAD = "class token", "PACL head"
POOLED = {"token": TOKEN, "attention": "attention pooling", "average": "mean of patches"}


def run(
    data_set: str | None = None,
    *,
    coco_file: Path | None = None,
    images: Path | None = None,
    classes_per_image: Path | None = None,
    model: str | None = None,
    device: str | None = None,
    precision: str = "auto",
    templates: str = "one",
    pacl: str | None = None,
    limit: int | None = None,
    picture: Path | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Names the images of a data set `NAME[:SPLIT]` with masks, or of `coco_file` with the folder
    `images`. Both ways see the same pixels: the whole picture, its shorter side that which the model was
    trained on.

    classes_per_image: the words that compete in each image, JSON; a data set may bring its own; without
        any, all categories of the truth do.
    pacl: a file, `none`, or None for the head that comes with a bundled model.
    picture: a PNG of the measures, drawn anew with `overwrite`.

    Returns what JSON holds: `rows`, each with `name`, `pacl`, and by group (`inputs.truths.open_probed`)
    `top1`, the share of images whose best word of the group is one of their labels, among images with a
    label of the group, and `map`, the mean over classes of the average precision among the images that
    have the class in their list; both in [0, 1], None where there is nothing to measure.

    Raises UsageError, InputError, ModelError, MismatchError, OutputExistsError.
    """
    if picture is not None:
        atomic.check_output(picture, overwrite)
    place = devices.choose(device)
    probed = truths.open_probed(data_set, coco_file, images, classes_per_image, limit)
    from ovtool.models import clip as door
    from ovtool.models import pacl as heads
    from ovtool.models import text

    clip = door.load(model, place, devices.precision(precision, place))
    head, words = heads.choose(pacl, clip), probed.words
    text.warn_unlearned(clip, words.all_names)
    embedded = text.embed_words(clip, words.all_names, templates)
    names = [POOLED[clip.pooling], *([] if head is None else [HEAD])]
    shape = (len(probed.items), len(words.classes))
    scores = {
        name: torch.full(shape, -torch.inf) for name in names
    }  # -inf: not in the image's list
    labels = torch.zeros(shape, dtype=torch.bool)
    with progress(len(probed.items), "probing") as advance:
        for number, item in enumerate(probed.items):
            rgb, true = probed.read(item)
            labels[number, true[true >= 0]] = True
            places, owner = words.rows(item.name)
            pixels = dense_scores.prepare(clip, torch.from_numpy(rgb), clip.image_size)
            found = _scores(clip, head, pixels, embedded[places])
            for name, each in zip(names, found, strict=True):
                best = class_maps.class_scores(each.cpu(), owner)
                scores[name][number, words.chosen(item.name)] = best
            advance()
    if not labels.any():
        raise InputError(f"{probed.source}: no image has a label that is among its words")
    rows = [
        {
            "name": name,
            "pacl": head.fingerprint if head is not None and name == HEAD else None,
            **_measured(scores[name], labels, probed),
        }
        for name in names
    ]
    if picture is not None:
        draw(picture, rows)
    return {
        "metric": "classify",
        "images": len(probed.items),
        "labels_an_image": float(labels.sum()) / len(probed.items),
        "words_an_image": words.mean_count,
        "rows": rows,
        "ovtool": {
            "version": ovtool.__version__,
            "command": "probe classify",
            "model": {"name": clip.name, "fingerprint": clip.fingerprint},
            "settings": {"templates": templates, "short_side": clip.image_size},
        },
    }


def _scores(clip: Clip, head: Head | None, pixels: Tensor, text: Tensor) -> list[Tensor]:
    """The scores of a picture (1, 3, H, W) with texts (N, D) by each way: (N,) each, in -1..1."""
    from ovtool.methods import patch_alignment
    from ovtool.models import clip as door
    from ovtool.models import pacl

    found = [(door.encode_images(clip, pixels) @ text.T)[0]]
    if head is not None:
        with torch.no_grad():
            patches = head.embedder(pacl.tokens(clip, pixels, head.last_block).float())
            found.append(
                patch_alignment.compatibility(patches.flatten(1, 2), text, head.pooling)[0]
            )
    return found


def _measured(scores: Tensor, labels: Tensor, probed: Probed) -> dict[str, dict[str, Any]]:
    """`top1` and `map` by group, from scores and labels (images, classes)."""
    top1: dict[str, float | None] = {}
    precision: dict[str, float | None] = {}
    for group, members in probed.groups.items():
        # words that are no class of the truth compete in `all`
        chosen = torch.arange(labels.shape[1]) if group == "all" else torch.tensor(sorted(members))
        true = labels[:, chosen]
        has = true.any(1)
        best = scores[:, chosen].argmax(1, keepdim=True)
        hit = true.gather(1, best)[has, 0]
        top1[group] = float(hit.double().mean()) if len(hit) else None
        each = []
        for k in members:
            listed = scores[:, k] > -torch.inf
            if labels[listed, k].any():
                each.append(roc.average_precision(scores[listed, k], labels[listed, k]))
        precision[group] = sum(each) / len(each) if each else None
    return {"top1": top1, "map": precision}


def draw(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The measures of the rows of `run` as bars, by measure and group."""
    names = {"top1": "top-1", "map": "mAP"}
    groups = {
        f"{names[measure]}\n{group}": {
            row["name"]: 100 * row[measure][group]
            for row in rows
            if row[measure][group] is not None
        }
        for measure in names
        for group in rows[0][measure]
    }
    plots.bars(path, groups, title="Images named right", y_label="%")
