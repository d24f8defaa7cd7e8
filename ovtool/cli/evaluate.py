"""`ovtool evaluate PRED --ground-truth GT`: the measures of a prediction."""

from __future__ import annotations

from typing import Annotated

from ovtool.cli import evaluation, output
from ovtool.cli.declare import Only
from ovtool.settings.evaluate import MeanIou, Metric
from ovtool.settings.field import Argument, Option
from ovtool.settings.shared import Json, Out, Run, Source


def evaluate(
    prediction: Annotated[
        str,
        Argument(
            "COCO JSON (data set or bare results list; - is stdin), parts folder, or folder of label "
            "maps with classes.txt; for --metric seeds a file of cam or refine.",
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
    metric: Metric = MeanIou(),
    *,
    other: Annotated[
        str | None,
        Argument("A second prediction of the same truth, compared with PRED.", metavar="[OTHER]"),
    ] = None,
    out: Out = None,
    json: Json = False,
    source: Annotated[Source, Only("coco", "images")] = Source(),
    run: Annotated[Run, Only("overwrite", "update", "dry_run", "workers")] = Run(),
) -> None:
    """Measure predictions by a ground truth: classes of pixels, their edges, masks one by one, seeds.

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

    --metric boundary-iou: the mean IoU of the pixels within 2 % of the image's diagonal of a contour of their
    own class, true or predicted; the rest is as for miou. --novel gives for both the mean IoU of seen and of novel
    classes, and hIoU.

    --metric panoptic: PQ, SQ and RQ, of all, of things and of stuff, by the rules of COCO's panopticapi. Classes
    that the truth marks with isthing 0 are stuff. Each class of stuff, and each class of a label map, is one
    segment of an image.

    --metric ap: COCO's AP and AR of masks with classes and scores, by pycocotools; with a truth of LVIS by its rule:
    predictions of classes that nobody looked for in an image are left out, and 300 of an image count.

    --metric seeds: class activation maps against pixels. A pixel has the class of its highest map above a threshold,
    else background; each half of the images is scored at the threshold that is best for the other half. What
    the truth leaves unlabelled is background, unless it has a class of that name.

    --protocol measures as papers do: it sets the classes, what is done with background and with pixels in doubt,
    and the data set where --ground-truth is not given. It is printed with the result.

    Intervals of 95 % come from the bootstrap over images. With OTHER the table compares two predictions:
    if the interval of their difference does not contain 0, it is not an accident of the choice of images.

    The table shows per cent, the JSON fractions. An interrupted run leaves nothing, so that there is no --resume.

    $ ovtool evaluate photos.segments.json --ground-truth truth.json --json > scores.json

    $ ovtool evaluate voc.segments.json --protocol voc21
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
    evaluation.say(result, metric, as_json)
    if as_json:
        output.print_json(result)
