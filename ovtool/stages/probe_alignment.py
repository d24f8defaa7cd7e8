"""`probe alignment`: which patches of a CLIP say what they show.

Each patch takes the class of most of its pixels, and the word whose text embedding is nearest; the
probe says how often the two agree (PACL, Mukhoti et al., CVPR 2023, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import ovtool
from ovtool.errors import InputError
from ovtool.formats import atomic, plots
from ovtool.inputs import labelled_patches, truths
from ovtool.inputs.truths import Probed
from ovtool.methods import class_maps
from ovtool.methods.patch_labels import IGNORED, MIXED
from ovtool.models import dense_scores
from ovtool.models.dense_scores import DenseSettings
from ovtool.runtime import device as devices
from ovtool.runtime.device import Halving
from ovtool.runtime.progress import Progress, no_progress
from ovtool.segmenters.dense import BATCH_SIZE

if TYPE_CHECKING:  # they import open_clip, for which bad arguments need not wait
    from ovtool.models.clip import Clip
    from ovtool.models.pacl import Head


@dataclass
class Reading:
    """One way to read patches, and what was counted of it.

    head: its fingerprint, None without one. right, patches: by class of the truth, int64 (K,).
    """

    name: str
    last_block: str
    encode: Halving[Tensor, Tensor]
    head: str | None = None
    right: Tensor = field(default_factory=lambda: torch.zeros(0))


def run(
    data_set: str | None = None,
    *,
    coco_file: Path | None = None,
    images: Path | None = None,
    classes_per_image: Path | None = None,
    model: str | None = None,
    device: str | None = None,
    precision: str = "auto",
    batch_size: int | None = None,
    templates: str = "one",
    pacl: str | None = None,
    last_block: str | None = None,
    short_side: int | None = None,
    window: int | None = None,
    stride: int | None = None,
    count_mixed: bool = False,
    limit: int | None = None,
    picture: Path | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Measures the patches of a data set `NAME[:SPLIT]` with masks, or of `coco_file` with the folder
    `images`. Pictures are shown as `segment --method patch` shows them; the patches of every window count.

    The ways to read them: the tower as it is (`clip`), `last_block` (None: the one that the model
    recommends), and the PACL head.

    pacl: a file, `none`, or None for the head that comes with a bundled model.
    count_mixed: whether patches without a majority count, by their most frequent class.
    picture: a PNG of the shares, drawn anew with `overwrite`.

    Returns what JSON holds: `rows`, each with `name`, `last_block`, `pacl` and `accuracy`, by group (see
    `inputs.truths.open_probed`) the share of patches named right, in [0, 1]; `patches` by group, and how
    many were left out as `mixed` or `ignored`.

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
    settings = DenseSettings(last_block, short_side, window, stride).settled(clip)
    readings = _readings(clip, settings, heads.choose(pacl, clip), batch_size or BATCH_SIZE)
    words = probed.words
    text.warn_unlearned(clip, words.all_names)
    embedded = text.embed_words(clip, words.all_names, templates)
    classes = len(words.truth.classes)
    counted, left_out = torch.zeros(classes, dtype=torch.int64), {MIXED: 0, IGNORED: 0}
    for reading in readings:
        reading.right = torch.zeros(classes, dtype=torch.int64)
    with progress(len(probed.items), "probing") as advance:
        for item in probed.items:
            seen = labelled_patches.shown(clip, *probed.read(item), settings)
            true = seen.labels.counted(count_mixed).flatten()[seen.places]  # (n, h, w)
            for kind in left_out:
                left_out[kind] += int((true == kind).sum())
            counted += torch.bincount(true[true >= 0], minlength=classes)
            places, owner = words.rows(item.name)
            chosen = torch.tensor(words.chosen(item.name))
            for reading in readings:
                found = chosen[_named(reading.encode, seen.crops, embedded[places], owner)]
                hit = true[(found == true) & (true >= 0)]
                reading.right += torch.bincount(hit, minlength=classes)
            advance()
    if not counted.sum():
        raise InputError(f"{probed.source}: no patch shows a class that is among its words")
    found = _table(probed, readings, counted)
    if picture is not None:
        draw(picture, found["rows"])
    return {
        "metric": "alignment",
        "images": len(probed.items),
        "words_an_image": words.mean_count,
        **found,
        "mixed": left_out[MIXED],
        "ignored": left_out[IGNORED],
        "ovtool": {
            "version": ovtool.__version__,
            "command": "probe alignment",
            "model": {"name": clip.name, "fingerprint": clip.fingerprint},
            "settings": {
                "templates": templates,
                "count_mixed": count_mixed,
                "short_side": settings.short_side,
                "window": settings.window,
                "stride": settings.stride,
            },
        },
    }


def draw(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The shares of the rows of `run` as bars, by group."""
    groups = {
        group: {
            row["name"]: 100 * row["accuracy"][group]
            for row in rows
            if row["accuracy"][group] is not None
        }
        for group in rows[0]["accuracy"]
    }
    plots.bars(path, groups, title="Patches named right", y_label="%")


def _readings(
    clip: Clip, settings: DenseSettings, head: Head | None, batch_size: int
) -> list[Reading]:
    """The ways to read patches, each once."""
    blocks = dict.fromkeys(("clip", str(settings.last_block)))
    found = [
        Reading(f"last block {name}", name, dense_scores.encoder(clip, name, batch_size))
        for name in blocks
    ]
    if head is not None:
        encode = dense_scores.encoder(clip, None, batch_size, head)
        found.append(Reading("PACL head", head.last_block, encode, head.fingerprint))
    return found


def _named(
    encode: Halving[Tensor, Tensor], crops: Tensor, text: Tensor, owner: Sequence[int]
) -> Tensor:
    """The place of the best class of each patch among those that compete: int64 (n, h, w)."""
    features = torch.cat(list(encode(crops)))
    scores = torch.einsum("bhwd,nd->bnhw", features, text)
    best: Tensor = class_maps.class_scores(scores, owner, dim=1).argmax(1).cpu()
    return best


def _table(probed: Probed, readings: Sequence[Reading], counted: Tensor) -> dict[str, Any]:
    """`rows` and `patches` of `run`."""
    members = {name: torch.tensor(sorted(chosen)) for name, chosen in probed.groups.items()}
    total = {name: int(counted[chosen].sum()) for name, chosen in members.items()}
    rows = [
        {
            "name": reading.name,
            "last_block": reading.last_block,
            "pacl": reading.head,
            "accuracy": {
                name: int(reading.right[chosen].sum()) / total[name] if total[name] else None
                for name, chosen in members.items()
            },
        }
        for reading in readings
    ]
    return {"rows": rows, "patches": total}
