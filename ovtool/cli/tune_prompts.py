"""`ovtool tune-prompts PAIRS`: masks with names to mask prompts for a CLIP."""

from typing import Annotated, Literal

import typer

from ovtool.cli import output
from ovtool.cli.options import (
    CropSizeOpt,
    DeviceOpt,
    DryRunOpt,
    ImagesOpt,
    JsonOpt,
    ModelOpt,
    OutputOpt,
    OverwriteOpt,
    PrecisionOpt,
    SeedOpt,
)


def _depth(text: str) -> int | None:
    """A number of blocks, or None for `all`."""
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"'{text}' is neither a number from 1 on nor all")
    return int(text)


def tune_prompts(
    pairs: Annotated[
        str,
        typer.Argument(
            metavar="PAIRS",
            help="COCO JSON with masks and names, or a data set: collage:train.",
        ),
    ],
    images: ImagesOpt = None,
    kind: Annotated[
        Literal["mask"],
        typer.Option("--kind", help="What the prompts stand for: patches outside a mask."),
    ] = "mask",
    train: Annotated[
        Literal["prompts", "tower", "tower-then-prompts"],
        typer.Option("--train", help="What is trained; tower is the whole image tower."),
    ] = "prompts",
    depth: Annotated[
        str,
        typer.Option(
            "--depth",
            metavar="N|all",
            help="Where prompts replace tokens: before the first block, and after N - 1 more.",
        ),
    ] = "3",
    loss: Annotated[
        Literal["shared", "paper"],
        typer.Option(
            "--loss",
            help="shared: a noun counts once in a batch, whatever its pairs. paper: once for each.",
        ),
    ] = "shared",
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=2, help="Pairs of a step, told from each other.")
    ] = 256,
    epochs: Annotated[
        float, typer.Option("--epochs", min=0.01, help="How often each pair is seen.")
    ] = 5.0,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Steps of each training, for --epochs.")
    ] = None,
    rate: Annotated[float, typer.Option("--rate", min=0, help="Peak rate of prompts.")] = 2e-2,
    tower_rate: Annotated[
        float, typer.Option("--tower-rate", min=0, help="Peak rate of the image tower.")
    ] = 5e-6,
    warmup: Annotated[
        int,
        typer.Option("--warmup", min=0, help="Steps of linear rise, at most a fifth of all."),
    ] = 100,
    crop_size: CropSizeOpt = None,
    held_out: Annotated[
        float,
        typer.Option(
            "--held-out", min=0, max=0.9, help="The share of the images kept for validation."
        ),
    ] = 0.05,
    model: ModelOpt = None,
    device: DeviceOpt = None,
    precision: PrecisionOpt = "auto",
    seed: SeedOpt = 0,
    workers: Annotated[
        int,
        typer.Option("--workers", min=0, help="Processes that cut crops; 0 is this one itself."),
    ] = 0,
    out: OutputOpt = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a training that was cut off.")
    ] = False,
    overwrite: OverwriteOpt = False,
    dry_run: DryRunOpt = False,
    json: JsonOpt = False,
) -> None:
    """Teach a CLIP to read masked crops, by tokens that stand for what a crop does not show.

    PAIRS come from `ovtool mine-pairs`, or are any masks with names: a labelled data set. The text
    tower and the logit scale stay as they are. Defaults are OVSeg's. The losses are drawn in a PNG
    beside the output, and are in its header. --resume goes on where a training was cut off.

    $ ovtool tune-prompts coco.pairs.json --images train2017 -o prompts.safetensors

    $ ovtool probe oracle collage:test --prompts prompts.safetensors
    """
    from functools import partial

    from ovtool.stages import tune_prompts as stage

    found = stage.run(
        pairs,
        kind=kind,
        images=images,
        model=model,
        device=device,
        precision=precision,
        train=train,
        depth=_depth(depth),
        loss=loss,
        batch_size=batch_size,
        epochs=epochs,
        steps=steps,
        rate=rate,
        tower_rate=tower_rate,
        warmup=warmup,
        crop_size=crop_size,
        held_out=held_out,
        seed=seed,
        workers=workers,
        out=out,
        resume=resume,
        overwrite=overwrite,
        dry_run=dry_run,
        progress=partial(output.progress, unit="step"),
    )
    trained = " and ".join(f"{count:,} of the {name}" for name, count in found.parameters.items())
    output.message(f"trainable parameters: {trained}")
    output.message(
        f"{found.pairs} pairs of {found.nouns} nouns, {found.held_out} more held out, {found.steps} steps"
    )
    if found.is_plan:
        output.message(f"would write {found.out}, {found.curve_file}")
    else:
        if found.accuracy_before is not None and found.accuracy_after is not None:
            output.message(
                f"held-out masks named right: {100 * found.accuracy_before:.1f} % before, "
                f"{100 * found.accuracy_after:.1f} % now"
            )
        output.message(f"written: {found.out}, {found.curve_file}")
    if json:
        output.print_json(vars(found))
