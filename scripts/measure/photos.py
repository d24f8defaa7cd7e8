#!/usr/bin/env python3
"""Measures a CLIP on photographs with masks of COCO's 133 panoptic names.

    scripts/measure/photos.py FOLDER [--model photo] [--ridge FILE] [--keep FILE] [--against FILE] [--final]

FOLDER has `coco/images/SPLIT` and `coco/annotations/{semantic,classes}_SPLIT.json`. Each patch has the word of the
highest cosine; scores are resized to the photograph. Prints one JSON document, every figure with its 95 % interval
of the bootstrap over photographs. `--split train`, the default, is what `photo` was trained on, and is for
comparisons on folds and for trying the script; `--final` reads `val`, on which nothing is chosen, and appends a
line to the log in `photos.md`. `--ridge` adds ridge regression (`ridge.py`) to the patches, as the trial did;
`--keep` writes the outcomes of the photographs to a file, and `--against` reads such a file and prints how much higher
the figures are than those. `--left-out` names words whose pixels are counted by themselves. `--competitors` compares lists
of words that compete with the words asked for, and prints a Markdown table.
"""

import argparse
import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import ridge
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from ovtool.formats import rle
from ovtool.methods import bootstrap
from ovtool.methods.bootstrap import ImageCounts, Interval, Measure
from ovtool.models import clip as clips
from ovtool.models import dense_scores, sources, text

LOG = Path(__file__).with_suffix(".md")
THINGS = 80  # the first of the names
VOID = 255
SAMPLES = 1000
COSINES = 0.5  # how much the model counts beside ridge regression
COMPETITORS = (
    "sky",
    "tree",
    "grass",
    "wall",
    "road",
    "person",
    "floor",
    "building",
    "water",
    "dirt",
    "table",
)

DRAWS = (
    5  # of a word that is there and one that is not, for each photograph, where lists are compared
)

COLUMNS = (
    "twenty_accuracy", "twenty_miou", "everything_accuracy", "everything_miou", "whole_top1", "whole_map",
    "absent_share", "precision", "recall",
)  # fmt: skip
Figures = Mapping[str, Interval]


@dataclass(frozen=True)
class Truth:
    """A photograph, uint8 (H, W, 3), its labels, uint8 (H, W), and the rows of its 20 words."""

    rgb: Tensor
    labels: Tensor
    words: Tensor


@dataclass(frozen=True)
class Outcome:
    """What is kept of one photograph.

    Attributes:
        twenty, everything: hits, truth and predicted pixels among 20 words and among all, int64 (3, 133).
        is_present: whether the thing of the highest cosine with the whole photograph is there; None without things.
        things: that cosine of each thing, float32 (80,), and whether it is there, bool (80,).
        absent: share of the pixels that a word which is not there takes from one that is, and built-in words.
        precision, recall: of the pixels of the word that is there, beside those; precision is NaN where it has none.
    """

    twenty: Tensor
    everything: Tensor
    is_present: bool | None
    things: tuple[Tensor, Tensor]
    absent: float
    precision: float
    recall: float


@dataclass(frozen=True)
class Measured:
    """What is measured: a CLIP, ridge regression that is added to its patches, and the shorter side of images."""

    clip: clips.Clip
    ridge: ridge.Ridge | None
    short_side: int | None


def truths(folder: Path, split: str) -> tuple[list[str], list[Truth]]:
    """The names of the classes, and the photographs in the order of their file names."""
    annotations = folder / "coco" / "annotations"
    semantic = json.loads((annotations / f"semantic_{split}.json").read_text(encoding="utf-8"))
    asked = json.loads((annotations / f"classes_{split}.json").read_text(encoding="utf-8"))
    names = [category["name"] for category in semantic["categories"]]
    row = {category["id"]: index for index, category in enumerate(semantic["categories"])}
    size = {image["id"]: (image["height"], image["width"]) for image in semantic["images"]}
    labels = {image_id: np.full(shape, VOID, np.uint8) for image_id, shape in size.items()}
    for annotation in semantic["annotations"]:
        image_id = annotation["image_id"]
        mask = rle.decode(annotation["segmentation"], *size[image_id])
        labels[image_id][mask] = row[annotation["category_id"]]
    read = []
    for image in sorted(semantic["images"], key=lambda image: str(image["file_name"])):
        with Image.open(folder / "coco" / "images" / split / image["file_name"]) as opened:
            rgb = torch.from_numpy(np.array(opened.convert("RGB")))
        words = torch.tensor([names.index(word) for word in asked[image["file_name"]]])
        read.append(Truth(rgb, torch.from_numpy(labels[image["id"]]), words))
    return names, read


def counts(scores: Tensor, rows: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Hits, truth and predicted pixels of each class, int64 (3, classes), from scores (len(rows), H, W)."""
    known = labels < classes
    truth, predicted = labels[known].long(), rows[scores.argmax(0)][known]
    hits = truth[truth == predicted]
    return torch.stack([part.bincount(minlength=classes) for part in (hits, truth, predicted)])


def outcome(
    model: Measured, words: Tensor, names: Sequence[str], truth: Truth, seed: int
) -> Outcome:
    """The figures of one photograph; words: float32 (133, D), of length 1."""
    clip = model.clip
    pixels = dense_scores.prepare(clip, truth.rgb, model.short_side)
    patches = clips.patch_features(clip, pixels)[0]
    whole = (words[:THINGS] @ clips.encode_images(clip, pixels)[0]).cpu()
    scores = patches @ words.T
    if model.ridge is not None:
        scores = ridge.scores(model.ridge, clip, pixels) + COSINES * scores
    maps = interpolate(scores.permute(2, 0, 1)[None], truth.labels.shape, mode="bilinear")[0]
    everything = torch.arange(len(names))
    there = truth.labels[truth.labels < len(names)].long().bincount(minlength=len(names)) > 0
    things = there[:THINGS]
    return Outcome(
        counts(maps[truth.words], truth.words, truth.labels, len(names)),
        counts(maps, everything, truth.labels, len(names)),
        bool(things[whole.argmax()]) if things.any() else None,
        (whole, things),
        *absent(maps, names, truth.labels, there, seed, COMPETITORS),
    )


def absent(
    maps: Tensor,
    names: Sequence[str],
    labels: Tensor,
    there: Tensor,
    seed: int,
    competitors: Sequence[str],
) -> tuple[float, float, float]:
    """The last three figures of an outcome: of a word that is there, one that is not, and words that compete."""
    rng = np.random.default_rng(seed)
    present, missing = (rng.choice(np.flatnonzero(side)) for side in (there, ~there))
    others = [names.index(name) for name in competitors]
    rows = [int(missing), int(present), *(row for row in others if row not in (missing, present))]
    named = maps[rows].argmax(0)
    truth, claimed = labels == int(present), (named == 1) & (labels < len(names))
    hits = float((truth & claimed).sum())
    precision = hits / float(claimed.sum()) if claimed.any() else float("nan")
    return float((named == 0).float().mean()), precision, hits / float(truth.sum())


def competitors(model: Measured, words: Tensor, names: list[str], read: Sequence[Truth]) -> str:
    """How lists of words that compete fare, each against the list that the model recommends."""
    file = sources.bundled_folder() / "photo.recommended.json"
    own = json.loads(file.read_text(encoding="utf-8"))["words"]["background"].split(",")
    lists: dict[str, Sequence[str]] = {
        f"the {len(own)} that are recommended": own,
        f"the first {len(own) // 2} of them": own[: len(own) // 2],
        f"the {len(COMPETITORS)} of `photos.py`": COMPETITORS,
        f"person and all {len(names) - THINGS} of stuff": [*names[THINGS:], "person"],
        "none": (),
    }
    values: dict[str, list[Tensor]] = {name: [] for name in lists}
    for number, truth in enumerate(read):
        pixels = dense_scores.prepare(model.clip, truth.rgb, model.short_side)
        scores = (clips.patch_features(model.clip, pixels)[0] @ words.T).permute(2, 0, 1)
        maps = interpolate(scores[None], truth.labels.shape, mode="bilinear")[0]
        there = truth.labels[truth.labels < len(names)].long().bincount(minlength=len(names)) > 0
        for name, others in lists.items():
            seeds = range(DRAWS * number, DRAWS * (number + 1))
            rows = [absent(maps, names, truth.labels, there, seed, others) for seed in seeds]
            values[name].append(torch.tensor(rows).nanmean(0))
    means = {
        name: [_mean(column) for column in torch.stack(rows).T.tolist()]
        for name, rows in values.items()
    }
    lines = ["| words that compete | absent | precision | recall |", "|---|---|---|---|"]
    for name, measured in means.items():
        cells = []
        for before, after in zip(next(iter(means.values())), measured, strict=True):
            value = bootstrap.intervals(after, len(read), SAMPLES)[""]
            more = bootstrap.intervals(bootstrap.difference(before, after), len(read), SAMPLES)[""]
            ends = f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"
            if before is not after:
                ends = f"{value.value:.3f}, {more.value:+.3f} [{more.low:.3f}, {more.high:.3f}]"
            cells.append(ends)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def mean_average_precision(scores: NDArray[np.float32], present: NDArray[np.bool_]) -> float:
    """Mean over the columns with a hit of the average precision of rows by score: (N, K) each."""
    precisions = []
    for column in np.flatnonzero(present.any(0)):
        hits = present[np.argsort(-scores[:, column], kind="stable"), column]
        precisions.append(float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean()))
    return float(np.mean(precisions))


def measures(outcomes: Sequence[Outcome]) -> dict[str, Measure]:
    """All figures but mean average precision, as measures of how often each photograph is drawn."""
    result: dict[str, Measure] = {}
    for name in ("twenty", "everything"):
        parts = torch.stack([getattr(outcome, name) for outcome in outcomes]).numpy()
        hits, truth = parts[:, 0], parts[:, 1]
        result[f"{name}_accuracy"] = bootstrap.ratio("", hits.sum(1), truth.sum(1))
        result[f"{name}_miou"] = _only("miou", bootstrap.mean_ious(ImageCounts.of(parts)))
    nan = float("nan")
    tops = [nan if o.is_present is None else float(o.is_present) for o in outcomes]
    result["whole_top1"] = _mean(tops)
    result["absent_share"] = _mean([outcome.absent for outcome in outcomes])
    result["precision"] = _mean([outcome.precision for outcome in outcomes])
    result["recall"] = _mean([outcome.recall for outcome in outcomes])
    return result


def _mean(values: Sequence[float]) -> Measure:
    """The mean of the values that are no NaN."""
    known = ~np.isnan(values)
    return bootstrap.ratio("", np.where(known, values, 0), known.astype(np.float64))


def _only(name: str, measure: Measure) -> Measure:
    return lambda times: {"": measure(times)[name]}


def figures(outcomes: Sequence[Outcome], before: Sequence[Outcome] | None = None) -> Figures:
    """All figures with their intervals; how much higher they are than those of other outcomes, where there are some."""
    after = measures(outcomes)
    if before is not None:
        first = measures(before)
        after = {name: bootstrap.difference(first[name], after[name]) for name in after}
    result = {
        name: bootstrap.intervals(measure, len(outcomes), SAMPLES)[""]
        for name, measure in after.items()
    }
    return result | {"whole_map": jackknife(outcomes, before)}


def jackknife(outcomes: Sequence[Outcome], before: Sequence[Outcome] | None) -> Interval:
    """Mean average precision, or its difference, with 1.96 standard errors of the jackknife on both sides.

    The bootstrap would draw photographs twice, and a photograph beside itself raises average precision.
    """

    def value(rows: NDArray[np.intp]) -> float:
        return _average_precision(outcomes, rows) - (
            0.0 if before is None else _average_precision(before, rows)
        )

    count = len(outcomes)
    rows = np.arange(count)
    left = np.array([value(np.delete(rows, row)) for row in rows])
    error = 1.96 * float(np.sqrt((count - 1) * left.var()))
    whole = value(rows)
    return Interval(whole, whole - error, whole + error)


def _average_precision(outcomes: Sequence[Outcome], rows: NDArray[np.intp]) -> float:
    scores = torch.stack([outcomes[row].things[0] for row in rows]).numpy()
    return mean_average_precision(
        scores, torch.stack([outcomes[row].things[1] for row in rows]).numpy()
    )


def share_right(outcomes: Sequence[Outcome], rows: Sequence[int]) -> Interval:
    """The share of the pixels of some words that are named right among 20 words."""
    parts = torch.stack([outcome.twenty for outcome in outcomes]).numpy()[:, :, list(rows)]
    ratio = bootstrap.ratio("", parts[:, 0].sum(1), parts[:, 1].sum(1))
    return bootstrap.intervals(ratio, len(outcomes), SAMPLES)[""]


def log_line(model: str, result: Figures, sign: str = "-") -> str:
    """A row of the table in `photos.md`, with empty cells for figures that were not made."""
    known = {
        name: f"{i.value:{sign}.3f} [{i.low:{sign}.3f}, {i.high:{sign}.3f}]"
        for name, i in result.items()
    }
    date = datetime.datetime.now(datetime.UTC).date()
    return f"| {date} | {model} | {' | '.join(known.get(name, '') for name in COLUMNS)} |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="photo")
    parser.add_argument("--ridge", type=Path, help="file of ridge regression that is added")
    parser.add_argument("--short-side", type=int, help="of images, in place of the model's own")
    parser.add_argument("--keep", type=Path, help="file for the outcomes of the photographs")
    parser.add_argument("--against", type=Path, nargs="*", default=[], help="files of --keep")
    parser.add_argument("--left-out", type=Path, help="words of train_photo.py --leave-out")
    parser.add_argument("--competitors", action="store_true", help="compare lists of words")
    parser.add_argument("--split", default="train", choices=("train",))
    parser.add_argument("--limit", type=int, help="of the photographs, for a trial of the script")
    parser.add_argument(
        "--final", action="store_true", help="the measure of record: coco/val, logged"
    )
    options = parser.parse_args()
    model = Measured(
        clips.load(options.model),
        None if options.ridge is None else ridge.read(options.ridge),
        options.short_side,
    )
    names, photographs = truths(options.folder, "val" if options.final else options.split)
    words = text.embed_words(model.clip, names, "one")
    if options.competitors:
        print(competitors(model, words, names, photographs[: options.limit]))
        return
    outcomes = [
        outcome(model, words, names, truth, seed)
        for seed, truth in enumerate(photographs[: options.limit])
    ]
    label = f"{Path(options.model).stem} `{model.clip.fingerprint}`"
    label += " and ridge regression" if model.ridge else ""
    result = dict(figures(outcomes))
    lines = [log_line(label, result)]
    document = {label: {name: asdict(interval) for name, interval in result.items()}}
    if options.left_out:
        rows = [names.index(word) for word in options.left_out.read_text().splitlines()]
        document[label]["left_out"] = asdict(share_right(outcomes, rows))
    for path in options.against:
        kept = torch.load(path, weights_only=False)
        gain = figures(outcomes, kept["outcomes"])
        lines.append(log_line(f"its difference from {kept['label']}", gain, "+"))
        document[kept["label"]] = {name: asdict(interval) for name, interval in gain.items()}
    print(json.dumps(document, indent=1))
    if options.keep:
        torch.save({"label": label, "outcomes": outcomes}, options.keep)
    if options.final and options.limit is None:
        with LOG.open("a", encoding="utf-8") as file:
            file.writelines(lines)


if __name__ == "__main__":
    main()
