"""`ovtool evaluate PRED --ground-truth GT`: the measures of a prediction."""

from __future__ import annotations

from typing import Annotated, Any

from ovtool.cli import output
from ovtool.cli.declare import Only
from ovtool.settings.evaluate import MeanIou, Recall
from ovtool.settings.option import Argument, Option
from ovtool.settings.shared import Json, Out, Run


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
        str,
        Option(
            "The truth: COCO JSON, parts folder, or folder of label maps with classes.txt.",
            metavar="GT",
            panel="Measure",
        ),
    ],
    metric: MeanIou | Recall = MeanIou(),
    *,
    out: Out = None,
    json: Json = False,
    run: Annotated[Run, Only("overwrite")] = Run(),
) -> None:
    """Measure predictions by a ground truth: IoU of classes and accuracies, or recall of masks.

    --metric miou: all measures come from one confusion matrix over all pixels of all images. Classes are matched
    by name (or synonym), images by file name. Where masks overlap, the later one in the file lies
    on top. Pixels that the truth leaves unlabelled are not counted, unless --with-background;
    labelled pixels that the prediction leaves unlabelled, or gives a class that the truth does not
    know, are errors. --classes-per-image leaves out, in each image, the pixels whose true class is
    not among the words listed for it. --missing empty counts an image with no prediction as all
    wrong; skip leaves it out.

    --metric recall: the share of true masks that a proposal matches, whatever the classes, averaged
    over IoU .50 to .95 (COCO's average recall), at 100 and 10 proposals an image, by size of the true
    mask (small is below 32 x 32 pixels, large above 96 x 96), and at IoU .50 alone.

    The table shows per cent, the JSON fractions.

    $ ovtool evaluate photos.segments.json --ground-truth truth.json --json > scores.json
    """
    from ovtool.stages import evaluate as stage

    result = stage.run(prediction, ground_truth, metric, out=out, run=run, progress=output.progress)
    if isinstance(metric, Recall):
        output.table(("average recall", "%"), _recall_rows(result))
    else:
        output.table(("class", "IoU %", "accuracy %", "pixels"), _rows(result))
    if json or out == "-":
        output.print_json(result)


def _recall_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Recall at 100 proposals and by size, at 10, and at one IoU."""
    rows = (
        ("100 proposals, IoU .50:.95", "average_recall"),
        ("  small masks", "average_recall_small"),
        ("  medium masks", "average_recall_medium"),
        ("  large masks", "average_recall_large"),
        ("10 proposals, IoU .50:.95", "average_recall_10"),
        ("100 proposals, IoU .50", "recall_50"),
    )
    return [(name, output.per_cent(result[key])) for name, key in rows]


def _rows(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """The classes in their order, then the means."""
    rows = [
        (
            c["name"],
            output.per_cent(c["iou"]),
            output.per_cent(c["accuracy"]),
            str(c["truth_pixels"]),
        )
        for c in result["classes"]
    ]
    pixels = str(result["pixels"])
    return [
        *rows,
        ("mean", output.per_cent(result["miou"]), output.per_cent(result["mean_accuracy"]), pixels),
        (
            "weighted by pixels",
            output.per_cent(result["frequency_weighted_iou"]),
            output.per_cent(result["pixel_accuracy"]),
            pixels,
        ),
    ]
