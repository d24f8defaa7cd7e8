"""`ovtool probe coherence`: whether patches of one class look alike."""

from __future__ import annotations

from typing import Annotated

from ovtool.cli import outcomes, output
from ovtool.cli.declare import Only
from ovtool.settings.probe import Coherence, DataSet
from ovtool.settings.shared import Compute, Json, Plot, Run, Source


def probe_coherence(
    data_set: DataSet = None,
    coherence: Coherence = Coherence(),
    *,
    plot: Plot = None,
    json: Json = False,
    source: Source = Source(),
    run: Annotated[Run, Only("overwrite", "dry_run")] = Run(),
    compute: Compute = Compute(),
) -> None:
    """Measure how well the cosine of two patches tells whether they show the same class.

    The table shows the area under the ROC curve, with its 95 % interval over images, for pairs of
    patches within an image and across images, after each block of the image tower and its last norm,
    after the PACL head, and after each stage of a --backbone. Patches without a majority are left out.

    The answer goes to stdout. An interrupted run leaves nothing, so that there is no --resume.

    $ ovtool probe coherence collage:test --plot layers.png
    """
    from ovtool.stages import probe_coherence as stage

    result = stage.run(
        data_set,
        coherence,
        plot=plot,
        source=source,
        run=run,
        compute=compute,
        progress=output.progress,
    )
    if run.dry_run:
        return outcomes.say_probe_plan(result, json)
    output.answer(
        ("ROC AUC", "within", "interval", "across", "interval"),
        [(row["name"], *_area(row["within"]), *_area(row["across"])) for row in result["rows"]],
        "the area under the ROC curve of pairs within an image, and across images: 0.5 is chance, 1 is perfect",
        "intervals are of 95 %, over images",
        as_json=json,
    )
    output.message(f"{result['images']} images")
    if json:
        output.print_json(result)


def _area(measured: dict[str, float] | None) -> tuple[str, str]:
    """An area under the curve, and its interval."""
    if measured is None:
        return "-", "-"
    return f"{measured['auc']:.3f}", f"{measured['low']:.3f}-{measured['high']:.3f}"
