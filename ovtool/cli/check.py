"""`ovtool check FILE...`: whether files are whole and right. The exit status is the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from ovtool.cli import output
from ovtool.settings.option import Argument
from ovtool.settings.shared import Json


def check(
    files: Annotated[Sequence[str], Argument("Files or folders; - is stdin.", metavar="FILE")],
    *,
    json: Json = False,
) -> None:
    """Validate files in full: every section, id, mask, tensor and pixel is read.

    The exit status is 0 if all are right and 1 if not; each defect is one line on stderr, and -v
    names the good files too.

    $ ovtool check *.segments.json && echo fine
    """
    from ovtool.stages import check as stage

    reports = stage.run(files)
    for report in reports:
        for defect in report["defects"]:
            output.defect(defect)
        if not report["defects"]:
            output.detail(f"{report['file']}: {report['kind']}, no defect found")
    if json:
        output.print_json({"files": reports})
    if any(report["defects"] for report in reports):
        raise typer.Exit(1)
