"""`ovtool refine CAMS`: class activation maps to better ones, or to pseudo masks."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ovtool.cli import output
from ovtool.cli.options import (
    DeviceOpt,
    DryRunOpt,
    GeneratorOpt,
    ImagesOpt,
    JsonOpt,
    LabelMapsOpt,
    ModelOpt,
    OutputOpt,
    OverlaysOpt,
    OverwriteOpt,
    PartSizeOpt,
    ProposalsOpt,
    ResumeOpt,
    SeedOpt,
    SimilarityOpt,
    StrictOpt,
)


def refine(
    cams: Annotated[
        Path, typer.Argument(metavar="CAMS", help="The maps that ovtool cam, or refine, wrote.")
    ],
    images: ImagesOpt = None,
    steps: Annotated[
        str,
        typer.Option(
            "--steps",
            metavar="NAMES",
            help="What is done, in this order, of prompts, affinity, walk, pamr, crf, sam; joined by commas. "
            "Default: nothing, for pseudo masks of the maps as they are.",
        ),
    ] = "",
    background_prompts: Annotated[
        Path | None,
        typer.Option(
            "--background-prompts",
            metavar="FILE",
            help="For the step prompts: what tune-prompts --kind background wrote.",
        ),
    ] = None,
    generator: GeneratorOpt = None,
    save_generator: Annotated[
        Path | None,
        typer.Option(
            "--save-generator", metavar="FILE", help="Keep the trained mask generator here."
        ),
    ] = None,
    refine_weight: Annotated[
        float | None,
        typer.Option(
            "--refine-weight",
            min=0,
            help="lambda_r of L_refine. Default: 0.05, for a small model 2.",
        ),
    ] = None,
    background_weight: Annotated[
        float | None,
        typer.Option(
            "--background-weight",
            min=0,
            help="lambda_b of L_match. Default: 2.4, for a small model 0.75.",
        ),
    ] = None,
    similarity: SimilarityOpt = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Images of a training step.")
    ] = 16,
    epochs: Annotated[
        float, typer.Option("--epochs", min=0, help="How often the step prompts sees each image.")
    ] = 10.0,
    rate: Annotated[
        float, typer.Option("--rate", min=0, help="Peak rate of the mask generator.")
    ] = 1e-3,
    crf: Annotated[
        Literal["pydensecrf", "irn", "weaktr", "weaktr-segmenter", "clip-es", "weclip", "fma"],
        typer.Option("--crf", help="The dense CRF as this paper's code has it."),
    ] = "irn",
    walk_on: Annotated[
        Literal["attention", "colour"],
        typer.Option(
            "--walk-on", help="Which neighbours a map walks to: that attend, or look, alike."
        ),
    ] = "attention",
    proposals: ProposalsOpt = None,
    background_score: Annotated[
        str | None,
        typer.Option(
            "--background-score",
            metavar="RULE",
            help="How pseudo masks score the background. otsu: the constant that parts a picture's maps in "
            "two. constant:T. power:A is (1 - max) to that power. rest: 1 less the maps. Default: rest "
            "after crf, else otsu.",
        ),
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(
            "--confidence",
            min=0,
            max=1,
            help="Pixels whose best score has less than this share are left out of all masks. Default: 0.95 "
            "after crf, else 0.",
        ),
    ] = None,
    label_maps: LabelMapsOpt = None,
    overlays: OverlaysOpt = None,
    model: ModelOpt = None,
    device: DeviceOpt = None,
    seed: SeedOpt = 0,
    out: OutputOpt = None,
    resume: ResumeOpt = False,
    part_size: PartSizeOpt = 256,
    strict: StrictOpt = False,
    overwrite: OverwriteOpt = False,
    dry_run: DryRunOpt = False,
    json: JsonOpt = False,
) -> None:
    """Refine class activation maps, and make pseudo masks of them.

    -o x.safetensors writes maps for a next step. -o x.json writes pseudo masks: a mask for each class and
    image, `background` among them; pixels in doubt are in none, and train-segmenter ignores them.

    prompts trains a mask generator anew, with L_match + lambda_r L_refine, and takes its maps; maps that no
    generator made are first fitted by one. affinity spreads maps over patches that attend to each other,
    walk lets them walk to their neighbours, pamr and crf follow the edges of the picture, and sam takes a
    vote in each mask of --proposals.

    $ ovtool refine cams.safetensors --images train2017 --steps affinity,crf -o pseudo.json

    $ ovtool refine cams.safetensors --images train2017 --steps prompts --background-prompts
    background.safetensors -o refined.safetensors
    """
    from ovtool.cams.prompt_refinement import Request
    from ovtool.runtime.runs import Run
    from ovtool.stages import refine as stage
    from ovtool.trainers.mask_generator import Settings

    has_prompts = "prompts" in steps.split(",") or background_prompts or generator
    outcome = stage.run(
        cams,
        images=images,
        steps=steps,
        out=out,
        model=model,
        device=device,
        prompts=Request(
            background_prompts,
            generator,
            refine_weight,
            matching=Settings(
                batch_size,
                epochs,
                rate=rate,
                background_weight=background_weight,
                similarity=similarity,
                seed=seed,
            ),
        )
        if has_prompts
        else None,
        save_generator=save_generator,
        options={"crf": crf, "walk_on": walk_on},
        proposals_file=proposals,
        background_score=background_score,
        confidence=confidence,
        label_maps=label_maps,
        overlays=overlays,
        how=Run(part_size, resume, overwrite, strict, dry_run, output.progress),
    )
    output.outcome(outcome, "refine", as_json=json)
