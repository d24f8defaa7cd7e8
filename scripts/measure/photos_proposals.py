"""The rows of `photos.py` on class-agnostic masks, as `ovtool propose` makes them and `ovtool evaluate` measures them."""

import tempfile
from pathlib import Path

import ovtool
from ovtool.methods.bootstrap import Interval


def figures(folder: Path, split: str, model: str, limit: int | None) -> dict[str, Interval]:
    """The average recall of instances at 100 masks (IoU .5 to .95), by the proposer that is the default of a model, and
    how much higher it is than that of `regions`.

    Args:
        folder: it has `coco/images/SPLIT` and `coco/annotations/instances_SPLIT.json`.
        split: which photographs.
        model: the CLIP.
        limit: of the photographs, None for all.
    """
    source, compute = ovtool.Source(limit=limit), ovtool.Compute(model=model)
    images = folder / "coco" / "images" / split
    truth = folder / "coco" / "annotations" / f"instances_{split}.json"
    with tempfile.TemporaryDirectory() as made:
        own, regions = Path(made) / "own.json", Path(made) / "regions.json"
        ovtool.propose(images, out=own, source=source, compute=compute)
        plain = ovtool.Propose(proposer="regions")
        ovtool.propose(images, plain, out=regions, source=source, compute=compute)
        missing = ovtool.Recall(missing="refuse" if limit is None else "skip")
        measured = ovtool.evaluate(regions, truth, missing, other=own)
    name = "average_recall"
    bounds, more = measured["other"]["intervals"][name], measured["difference"][name]
    return {
        "proposals_recall": Interval(measured["other"][name], bounds["low"], bounds["high"]),
        "proposals_minus_regions": Interval(more["value"], more["low"], more["high"]),
    }
