"""`ovtool train-segmenter LABELS -o FILE`: pseudo masks, or true ones, to a segmenter of their classes."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ovtool.cli import output
from ovtool.cli.options import (
    DeviceOpt,
    ImagesOpt,
    JsonOpt,
    ModelOpt,
    OverwriteOpt,
    PrecisionOpt,
    SeedOpt,
)

Architecture = Literal[
    "tiny",
    "clip",
    "deeplabv3_mobilenet_v3_large",
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
    "maskformer-tiny",
    "maskformer-resnet50",
    "maskformer-swin-base",
]


def train_segmenter(
    labels: Annotated[
        str,
        typer.Argument(
            metavar="LABELS",
            help="Pseudo masks or any COCO JSON, a folder of label maps, or a data set.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where the segmenter goes.")
    ],
    images: ImagesOpt = None,
    with_background: Annotated[
        bool,
        typer.Option(
            "--with-background", help="Pixels of no mask are the class background, not in doubt."
        ),
    ] = False,
    model: ModelOpt = None,
    device: DeviceOpt = None,
    precision: PrecisionOpt = "auto",
    arch: Annotated[
        Architecture,
        typer.Option(
            "--arch",
            help="deeplabv3_*: torchvision's. maskformer-*: one mask a class. tiny: a small network for "
            "a CPU. clip: a decoder on the frozen patches of --model.",
        ),
    ] = "deeplabv3_resnet50",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of the training.")] = 20_000,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Images of a step, over all processes.")
    ] = 16,
    rate: Annotated[
        float | None,
        typer.Option("--rate", min=0, help="Peak learning rate. Default: the architecture's."),
    ] = None,
    crop_size: Annotated[
        int | None,
        typer.Option("--crop-size", min=32, help="Side of the crops. Default: the architecture's."),
    ] = None,
    short_side: Annotated[
        int | None,
        typer.Option(
            "--short-side",
            min=32,
            help="Shorter side of pictures in use. Default: the architecture's.",
        ),
    ] = None,
    warmup: Annotated[
        int | None,
        typer.Option("--warmup", min=0, help="Steps of linear rise. Default: the architecture's."),
    ] = None,
    held_out: Annotated[
        float,
        typer.Option(
            "--held-out", min=0, max=0.9, help="The share of the images kept for validation."
        ),
    ] = 0.05,
    validation: Annotated[
        str | None,
        typer.Option(
            "--validation",
            metavar="LABELS",
            help="Measure on these labels, such as a truth, and hold nothing out.",
        ),
    ] = None,
    validation_images: Annotated[
        Path | None,
        typer.Option(
            "--validation-images", metavar="DIR", help="Their folder. Default: that of --images."
        ),
    ] = None,
    validate_every: Annotated[
        int, typer.Option("--validate-every", min=0, help="Steps between validations; 0 is never.")
    ] = 2000,
    save_every: Annotated[
        int, typer.Option("--save-every", min=1, help="Steps between checkpoints.")
    ] = 500,
    seed: SeedOpt = 0,
    workers: Annotated[
        int,
        typer.Option("--workers", min=0, help="Processes that read images; 0 is this one itself."),
    ] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a training that was cut off.")
    ] = False,
    overwrite: OverwriteOpt = False,
    json: JsonOpt = False,
) -> None:
    """Train a segmenter of the classes that pseudo masks, true masks or label maps name.

    What no mask covers is in doubt, and ignored, unless --with-background makes it a class. A backbone
    begins with pretrained weights where they are in the local cache. The losses are drawn in a PNG
    beside the output, and are in its header. Under torchrun the processes share each batch:

    $ torchrun --nproc-per-node 8 -m ovtool train-segmenter pseudo.json --images train/ -o s.safetensors

    $ ovtool segment photos/ --segmenter s.safetensors -o photos.json
    """
    from ovtool.stages import train_segmenter as stage

    found = stage.run(
        labels,
        out=out,
        images=images,
        with_background=with_background,
        model=model,
        device=device,
        precision=precision,
        architecture=arch,
        steps=steps,
        batch_size=batch_size,
        rate=rate,
        side=crop_size,
        short_side=short_side,
        warmup=warmup,
        held_out_share=held_out,
        validation=validation,
        validation_images=validation_images,
        validate_every=validate_every,
        save_every=save_every,
        seed=seed,
        workers=workers,
        resume=resume,
        overwrite=overwrite,
        progress=output.progress,
    )
    if not found.pop("is_first"):
        return  # another process of torchrun speaks
    output.message(
        f"{found['parameters'] / 1e6:.2f} million parameters, backbone from "
        f"{found['backbone'] or 'random weights'}; {found['images']} images of {found['names']} "
        f"classes, {found['held_out']} held out, {found['left_out']} without a label"
    )
    last = found["last"]
    output.table(("last step", ""), [(name, f"{value:.4g}") for name, value in last.items()])
    output.message(f"written: {found['output']}, {found['curve']}")
    if json:
        output.print_json(found)
