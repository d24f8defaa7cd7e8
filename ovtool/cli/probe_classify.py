"""`ovtool probe classify`: whole images named without training."""

from __future__ import annotations

from typing import Annotated

from ovtool.cli import outcomes, output
from ovtool.cli.declare import Only
from ovtool.settings.probe import Classify, DataSet
from ovtool.settings.shared import Compute, Json, Plot, Run, Source


def probe_classify(
    data_set: DataSet = None,
    classify: Classify = Classify(),
    *,
    plot: Plot = None,
    json: Json = False,
    source: Source = Source(),
    run: Annotated[Run, Only("overwrite", "dry_run")] = Run(),
    compute: Compute = Compute(),
) -> None:
    """Measure how well whole images are named, by the class token and by the PACL head side by side.

    The labels of an image are the classes of its masks. Top-1: its best word is any of them. mAP: the
    mean over classes of the average precision. The words of an image are those of its list, if the
    data set has lists, else all categories. The table shows per cent, the JSON fractions.

    The answer goes to stdout. An interrupted run leaves nothing, so that there is no --resume.

    $ ovtool probe classify collage:test
    """
    from ovtool.stages import probe_classify as stage

    result = stage.run(
        data_set,
        classify,
        plot=plot,
        source=source,
        run=run,
        compute=compute,
        progress=output.progress,
    )
    if run.dry_run:
        return outcomes.say_probe_plan(result, json)
    groups = list(result["rows"][0]["top1"])
    output.answer(
        ("%", *(f"top-1 {group}" for group in groups), *(f"mAP {group}" for group in groups)),
        [
            (row["name"], *map(output.per_cent, (*row["top1"].values(), *row["map"].values())))
            for row in result["rows"]
        ],
        "top-1: the best word is a label of the image; mAP: mean over classes of the average precision",
        as_json=json,
    )
    output.message(
        f"{output.counted(result['images'], 'image')}, {result['labels_an_image']:.1f} labels and "
        f"{result['words_an_image']:.0f} words an image"
    )
    if json:
        output.print_json(result)
