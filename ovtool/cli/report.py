"""`ovtool report FILES`: one HTML file to look at results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from ovtool.cli import output
from ovtool.cli.declare import Only
from ovtool.settings.field import Argument, FileOption, Option
from ovtool.settings.report import Page
from ovtool.settings.shared import ImagesFolder, Json, Limit, Run


def report(
    files: Annotated[
        Sequence[str],
        Argument(
            "COCO masks (segments, proposals, pairs, pseudo masks), class activation maps, folders of label "
            "maps or parts, trained files, measures of evaluate.",
            metavar="FILES",
        ),
    ],
    page: Page = Page(),
    *,
    ground_truth: Annotated[
        str | None,
        Option(
            "The truth, shown first and measured by: COCO JSON, folder of label maps, or data set.",
            metavar="GT",
            panel="Images",
        ),
    ] = None,
    images: ImagesFolder = None,
    limit: Limit = None,
    out: Annotated[str, FileOption("The page.")] = "report.html",
    json: Json = False,
    run: Annotated[Run, Only("overwrite", "update", "dry_run")] = Run(),
) -> None:
    """Write one HTML file to look at results: images with their regions, side by side, and what made them.

    The page is one file and needs no network. Words can be switched on and off, the opacity of regions can be
    changed, and the word and score under the pointer are shown. With --ground-truth images can be sorted by
    their IoU, and each class has its IoU; without it, they can be sorted by the disagreement of the first
    two files. Files of trainings add their curves, and the JSON of evaluate adds its table. Images are looked
    for in --images, in the data set of --ground-truth, or else in the current folder.

    $ ovtool report scenes.json --ground-truth scenes/ -o scenes.html
    """
    from ovtool.stages import report as stage

    written = stage.run(
        files,
        page,
        ground_truth=ground_truth,
        images=images,
        out=out,
        limit=limit,
        run=run,
        progress=output.progress,
    )
    if run.dry_run:
        images_drawn = output.counted(written.images, "image")
        output.message(f"would draw {images_drawn}, into {written.out}")
        if json:
            output.print_json({"output": out, "images": written.images, "dry_run": True})
        return
    if json:
        output.print_json(
            {
                "output": str(written.out),
                "bytes": written.size,
                "images": written.images,
                "failures": [dict(failure) for failure in written.failures],
            }
        )
    output.say_failures(written.failures)
    output.message(
        f"{output.counted(written.images, 'image')}, {len(written.failures)} failed: {written.out} "
        f"({written.size / 1e6:.1f} MB)"
    )
    if written.failures:
        raise typer.Exit(3)
