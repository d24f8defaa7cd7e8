"""`ovtool propose IMAGES`: class-agnostic masks."""

from pathlib import Path
from typing import Annotated

import typer

from ovtool.cli import output
from ovtool.cli.options import (
    CocoOpt,
    DeviceOpt,
    DryRunOpt,
    ImagesOpt,
    InputsArg,
    JsonOpt,
    LimitOpt,
    ModelOpt,
    OutputOpt,
    OverwriteOpt,
    PartSizeOpt,
    ProposerOpt,
    ResumeOpt,
    StrictOpt,
)


def propose(
    inputs: InputsArg = None,
    proposer: ProposerOpt = None,
    model: ModelOpt = None,
    device: DeviceOpt = None,
    max_proposals: Annotated[
        int, typer.Option("--max-proposals", min=1, help="The most masks of an image.")
    ] = 100,
    min_area: Annotated[
        float,
        typer.Option("--min-area", min=0, max=1, help="The least share of the picture in a mask."),
    ] = 0.001,
    nms: Annotated[
        float | None,
        typer.Option(
            "--nms",
            metavar="IOU",
            min=0,
            max=1,
            help="The greatest IoU of two masks that are both kept; 1 keeps all. Default: 0.85.",
        ),
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            "--embeddings",
            metavar="FILE",
            help="Keep the embeddings of the masks here, of a proposer that train-proposer made.",
        ),
    ] = None,
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
    what `ovtool segment --proposals` reads. --proposer regions merges superpixels and needs no
    weights; maskformer[:ID] and sam[:ID] take a network of the hub, or a folder with one; a file of
    `ovtool train-proposer` is taken by its path. The quality of a MaskFormer's mask is its
    probability to be an object times the mean probability of its pixels; of SAM's, the IoU that it
    predicts. --model names the CLIP that a trained proposer must belong to.

    $ ovtool propose photos/ -o photos.proposals.json
    """
    from ovtool.runtime.runs import Run
    from ovtool.stages import propose as stage

    outcome = stage.run(
        inputs or [],
        proposer=proposer,
        model=model,
        device=device,
        max_proposals=max_proposals,
        min_area=min_area,
        nms=nms,
        embeddings=embeddings,
        coco_file=coco,
        images=images,
        limit=limit,
        out=out,
        how=Run(part_size, resume, overwrite, strict, dry_run, output.progress),
    )
    output.outcome(outcome, "propose", as_json=json)
