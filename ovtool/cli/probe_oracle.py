"""`ovtool probe oracle`: whether masks or names cost a two-stage segmentation more."""

from __future__ import annotations

from typing import Annotated

from ovtool.cli import outcomes, output
from ovtool.cli.declare import Only
from ovtool.settings.probe import DataSet, Oracle
from ovtool.settings.shared import Compute, Json, Run, Source


def probe_oracle(
    data_set: DataSet = None,
    oracle: Oracle = Oracle(),
    *,
    json: Json = False,
    source: Source = Source(),
    run: Annotated[Run, Only("batch_size", "dry_run")] = Run(),
    compute: Compute = Compute(),
) -> None:
    """Measure whether masks or names cost more: true masks named by CLIP, proposals by the truth.

    A proposal takes the class of the true mask with the highest IoU, a pixel that of the best of its
    proposals. The words of an image are those of its list, if the data set has lists, else all
    categories. The table shows per cent with 95 % intervals of the bootstrap over images, the JSON fractions, and
    how far each row is from the first.

    The answer goes to stdout. An interrupted run leaves nothing, so that there is no --resume.

    $ ovtool probe oracle collage:test
    """
    from ovtool.stages import probe_oracle as stage

    result = stage.run(
        data_set,
        oracle,
        source=source,
        run=run,
        compute=compute,
        progress=output.progress,
    )
    if run.dry_run:
        return outcomes.say_probe_plan(result, json)
    measures = ("miou", "pixel_accuracy", "accuracy")
    output.answer(
        ("", "mIoU %", "pixels right %", "masks right %"),
        [
            (
                row["name"],
                *(output.measured(row[name], row["intervals"][name]) for name in measures),
            )
            for row in result["rows"]
        ],
        "mIoU: over classes of the truth; pixels right: of all pixels with a true class; masks right: true masks "
        "that are named by their class",
        as_json=json,
    )
    output.message(
        f"{output.counted(result['images'], 'image')}, {result['masks']} masks, "
        f"{result['words_an_image']:.0f} words an image"
    )
    if json:
        output.print_json(result)
