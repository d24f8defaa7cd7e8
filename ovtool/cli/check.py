"""`ovtool check FILE...`: whether files are whole and right. The exit status is the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from ovtool.cli import output
from ovtool.cli.declare import Only
from ovtool.settings.field import Argument, Option
from ovtool.settings.shared import Json, Out, Run


def check(
    files: Annotated[Sequence[str], Argument("Files or folders; - is stdin.", metavar="FILE")],
    *,
    fix: Annotated[
        bool,
        Option(
            "Write a COCO JSON again to -o, without the defects that can be repaired.",
            panel="Output",
        ),
    ] = False,
    out: Out = None,
    json: Json = False,
    run: Annotated[Run, Only("overwrite", "update", "dry_run")] = Run(),
) -> None:
    """Validate files in full: every section, id, mask, tensor and pixel is read.

    The exit status is 0 if all are right and 1 if not; each defect is one line on stderr, and -v
    names the good files too. A folder that holds a data set, as data make writes it and as COCO and
    Pascal VOC are laid out, is checked file by file.

    $ ovtool check *.segments.json && echo fine
    """
    from ovtool.stages import check as stage

    reports = stage.run(files, fix=fix, out=out, run=run)
    for report in reports:
        for defect in report["defects"]:
            output.defect(defect)
        if "repaired" in report:
            output.message(f"{'not written: ' if run.dry_run else ''}{report['repaired']}")
        elif not report["defects"]:
            output.detail(f"{report['file']}: {report['kind']}, no defect found")
    if json and str(out) != "-":
        output.print_json({"files": reports})
    if any(report["defects"] for report in reports):
        raise typer.Exit(1)
