"""`ovtool evaluate PRED --ground-truth GT`: the measures of a prediction."""

from __future__ import annotations

from typing import Annotated, Any

from ovtool.cli import output
from ovtool.cli.declare import Only
from ovtool.settings.evaluate import MeanIou, Recall
from ovtool.settings.field import Argument, Option
from ovtool.settings.shared import Json, Out, Run, Source


def evaluate(
    prediction: Annotated[
        str,
        Argument(
            "COCO JSON (data set or bare results list; - is stdin), parts folder, or folder of label "
            "maps with classes.txt.",
            metavar="PRED",
        ),
    ],
    ground_truth: Annotated[
        str | None,
        Option(
            "The truth: COCO JSON, parts folder, folder of label maps with classes.txt, or data set by name "
            "or folder. Instead of it, --coco FILE --images DIR, as the probes take it.",
            metavar="GT",
            panel="Measure",
        ),
    ] = None,
    metric: MeanIou | Recall = MeanIou(),
    *,
    other: Annotated[
        str | None,
        Argument("A second prediction of the same truth, compared with PRED.", metavar="[OTHER]"),
    ] = None,
    out: Out = None,
    json: Json = False,
    source: Annotated[Source, Only("coco", "images")] = Source(),
    run: Annotated[Run, Only("overwrite", "update", "dry_run")] = Run(),
) -> None:
    """Measure predictions by a ground truth: IoU of classes and accuracies, or recall of masks.

    --metric miou: all measures come from one confusion matrix over all pixels of all images. The mean IoU
    is given in both conventions: over the classes that the truth holds, and over those that the truth or
    the prediction holds, where a class that is nowhere true counts as 0. Classes are matched by name (or
    synonym, or spelling, which is then said), images by file name. Where masks overlap, the higher score
    lies on top. Pixels that the truth leaves unlabelled are not counted, unless --with-background;
    labelled pixels that the prediction leaves unlabelled, or gives a class that the truth does not
    know, are errors. --classes-per-image leaves out, in each image, the pixels whose true class is
    not among the words listed for it. --missing empty counts an image with no prediction as all
    wrong; skip leaves it out.

    --metric recall: the share of true masks that a proposal matches, whatever the classes, averaged
    over IoU .50 to .95 (COCO's average recall), at 100 and 10 proposals an image, by size of the true
    mask (small is below 32 x 32 pixels, large above 96 x 96), and at IoU .50 alone.

    Intervals of 95 % come from the bootstrap over images. With OTHER the table compares two predictions:
    an interval of the difference that does not hold 0 is no accident of the choice of images.

    The table shows per cent, the JSON fractions. Nothing is kept of a run that was cut off, so that there is no
    --resume; run it again.

    $ ovtool evaluate photos.segments.json --ground-truth truth.json --json > scores.json
    """
    from ovtool.stages import evaluate as stage

    result = stage.run(
        prediction,
        ground_truth,
        metric,
        other=other,
        out=out,
        source=source,
        run=run,
        progress=output.progress,
    )
    as_json = json or out == "-"
    if run.dry_run:
        where = "standard output" if out in (None, "-") else out
        output.message(f"would measure {output.counted(result['images'], 'image')}, into {where}")
        if as_json:
            output.print_json(result)
        return
    if isinstance(metric, MeanIou):
        output.answer(*_classes(result), "", as_json=as_json)
    output.answer(*_measures(result, metric), *_counted(result, metric), as_json=as_json)
    if as_json:
        output.print_json(result)


MEAN_IOU = (
    ("mIoU, classes of the truth", "miou"),
    ("mIoU, classes of truth or prediction", "miou_union"),
    ("mean accuracy", "mean_accuracy"),
    ("frequency-weighted IoU", "frequency_weighted_iou"),
    ("pixel accuracy", "pixel_accuracy"),
)
RECALL = (
    ("average recall, 100 proposals, IoU .50:.95", "average_recall"),
    ("  small masks", "average_recall_small"),
    ("  medium masks", "average_recall_medium"),
    ("  large masks", "average_recall_large"),
    ("average recall, 10 proposals, IoU .50:.95", "average_recall_10"),
    ("recall, 100 proposals, IoU .50", "recall_50"),
)
Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def _classes(result: dict[str, Any]) -> Table:
    """The classes in the order of the truth; of two predictions the IoU of either."""
    if "other" not in result:
        return ("class", "IoU %", "accuracy %", "pixels"), [
            (
                row["name"],
                output.per_cent(row["iou"]),
                output.per_cent(row["accuracy"]),
                str(row["truth_pixels"]),
            )
            for row in result["classes"]
        ]
    others = {row["name"]: row for row in result["other"]["classes"]}
    rows = {row["name"]: row for row in result["classes"]}
    return ("class", "IoU %", "other's IoU %", "pixels"), [
        (
            name,
            output.per_cent(rows.get(name, {}).get("iou")),
            output.per_cent(others.get(name, {}).get("iou")),
            str((rows.get(name) or others[name])["truth_pixels"]),
        )
        for name in dict.fromkeys([*rows, *others])
    ]


def _measures(result: dict[str, Any], metric: MeanIou | Recall) -> Table:
    """The measures of the whole; of two predictions also how much higher the other's are."""
    rows: list[tuple[str, ...]] = []
    other = result.get("other")
    for name, key in MEAN_IOU if isinstance(metric, MeanIou) else RECALL:
        value = result[key]
        cells = [output.per_cent(value)]
        intervals = result.get("intervals", {})
        if other is not None:
            known = value is not None and other[key] is not None
            cells += [output.per_cent(other[key])]
            cells += [output.per_cent(other[key] - value if known else None)]
            intervals = result.get("difference", {})
        rows.append((name, *cells, output.interval(intervals.get(key))))
    if other is None:
        return ("measure", "%", "95 % interval"), rows
    return ("measure", "%", "other's %", "difference", "95 % interval"), rows


def _counted(result: dict[str, Any], metric: MeanIou | Recall) -> list[str]:
    """What was counted, and what was not."""
    lines = [f"{result['images']} images are counted"]
    if result["images_missing"]:
        how = {"empty": "count as all wrong", "skip": "are left out"}[metric.missing]
        lines.append(f"{result['images_missing']} images of the truth have no prediction and {how}")
    if result["images_without_truth"]:
        lines.append(
            f"{result['images_without_truth']} predicted images have no truth and are left out"
        )
    if isinstance(metric, Recall):
        lines[0] += f", with {result['truth_masks']} true masks and {result['proposals']} proposals"
        return lines
    pixels, left_out = result["pixels"], result["pixels_not_counted"]
    lines[0] += f", with {pixels} pixels"
    if left_out:
        reasons = [] if metric.with_background else ["unlabelled in the truth"]
        reasons += ["of a label to ignore"] if metric.ignore_label else []
        reasons += ["of none of the image's words"] if metric.classes_per_image else []
        share = 100 * left_out / (pixels + left_out)
        lines.append(f"{left_out} pixels ({share:.1f} %) are not counted: {' or '.join(reasons)}")
    return lines
