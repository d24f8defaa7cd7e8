"""`ovtool probe alignment`: how often patches of a CLIP are named by what they show."""

from __future__ import annotations

from typing import Annotated

from ovtool.cli import outcomes, output
from ovtool.cli.declare import Only
from ovtool.settings.probe import Alignment, DataSet
from ovtool.settings.shared import Compute, Json, Plot, Run, Source


def probe_alignment(
    data_set: DataSet = None,
    alignment: Alignment = Alignment(),
    *,
    plot: Plot = None,
    json: Json = False,
    source: Source = Source(),
    run: Annotated[Run, Only("batch_size", "overwrite", "dry_run")] = Run(),
    compute: Compute = Compute(),
) -> None:
    """Measure how often a patch is named by the class of most of its pixels.

    The rows: the tower as it is, --last-block or the one that the model recommends, and the PACL head.
    Patches without a majority, or without a class on half of their pixels, are left out. The words of
    an image are those of its list, if the data set has lists, else all categories. The table shows per
    cent with 95 % intervals of the bootstrap over images, the JSON fractions, and how far each row is from the
    first.

    The answer goes to stdout. An interrupted run leaves nothing, so that there is no --resume.

    $ ovtool probe alignment collage:test
    """
    from ovtool.stages import probe_alignment as stage

    result = stage.run(
        data_set,
        alignment,
        plot=plot,
        source=source,
        run=run,
        compute=compute,
        progress=output.progress,
    )
    if run.dry_run:
        return outcomes.say_probe_plan(result, json)
    output.answer(
        ("patches named right, %", *result["patches"]),
        [
            (
                row["name"],
                *(output.measured(v, row["intervals"][g]) for g, v in row["accuracy"].items()),
            )
            for row in result["rows"]
        ],
        "a column is a group of classes: the share of its patches whose nearest word is their class",
        as_json=json,
    )
    output.message(
        f"{output.counted(result['images'], 'image')}, {result['patches']['all']} patches counted, {result['mixed']} mixed "
        f"and {result['ignored']} without a class left out, {result['words_an_image']:.0f} words an image"
    )
    if json:
        output.print_json(result)
