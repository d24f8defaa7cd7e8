"""`ovtool propose IMAGES`: class-agnostic masks."""

from typing import Annotated

import typer

from ovtool.cli import output
from ovtool.cli.options import (
    CocoOpt,
    DryRunOpt,
    ImagesOpt,
    InputsArg,
    JsonOpt,
    LimitOpt,
    OutputOpt,
    OverwriteOpt,
    PartSizeOpt,
    ProposerOpt,
    ResumeOpt,
    StrictOpt,
)


def propose(
    inputs: InputsArg = None,
    proposer: ProposerOpt = "regions",
    max_proposals: Annotated[
        int, typer.Option("--max-proposals", min=1, help="The most masks of an image.")
    ] = 100,
    min_area: Annotated[
        float,
        typer.Option("--min-area", min=0, max=1, help="The least share of the picture in a mask."),
    ] = 0.001,
    out: OutputOpt = None,
    coco: CocoOpt = None,
    images: ImagesOpt = None,
    limit: LimitOpt = None,
    resume: ResumeOpt = False,
    part_size: PartSizeOpt = 256,
    strict: StrictOpt = False,
    overwrite: OverwriteOpt = False,
    dry_run: DryRunOpt = False,
    json: JsonOpt = False,
) -> None:
    """Find masks of whatever is in the pictures, best first, without naming it.

    The result is a COCO JSON of one category, `object`, with a quality as the score of each mask:
    what `ovtool segment --proposals` reads.

    $ ovtool propose photos/ -o photos.proposals.json
    """
    from ovtool.stages import propose as stage
    from ovtool.stages.mapping import Run

    outcome = stage.run(
        inputs or [],
        proposer=proposer,
        max_proposals=max_proposals,
        min_area=min_area,
        coco_file=coco,
        images=images,
        limit=limit,
        out=out,
        how=Run(part_size, resume, overwrite, strict, dry_run, output.progress),
    )
    output.outcome(outcome, "propose", as_json=json)
