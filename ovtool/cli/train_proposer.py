"""`ovtool train-proposer TRUTH -o FILE`: masks with names to a proposer that knows words."""

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
    TemplatesOpt,
)


def train_proposer(
    truth: Annotated[
        str,
        typer.Argument(metavar="TRUTH", help="COCO JSON with masks, or a data set: collage:train."),
    ],
    out: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where the proposer goes.")
    ],
    images: ImagesOpt = None,
    model: ModelOpt = None,
    device: DeviceOpt = None,
    precision: PrecisionOpt = "auto",
    arch: Annotated[
        Literal["tiny", "resnet50", "swin-base"],
        typer.Option(
            "--arch",
            help="tiny: 4 million parameters, for a CPU. resnet50, swin-base: MaskFormer's.",
        ),
    ] = "resnet50",
    targets: Annotated[
        Literal["categories", "instances"],
        typer.Option("--targets", help="One mask a category of a picture, or every mask."),
    ] = "categories",
    queries: Annotated[
        int, typer.Option("--queries", min=1, help="How many proposals a picture has.")
    ] = 100,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of the training.")] = 120_000,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Images of a step, over all processes.")
    ] = 32,
    rate: Annotated[
        float | None,
        typer.Option("--rate", min=0, help="Peak learning rate. Default: the architecture's."),
    ] = None,
    crop_size: Annotated[
        int | None,
        typer.Option(
            "--crop-size",
            min=32,
            help="Side of the crops, and of pictures in use. Default: the architecture's.",
        ),
    ] = None,
    warmup: Annotated[
        int | None,
        typer.Option("--warmup", min=0, help="Steps of linear rise. Default: the architecture's."),
    ] = None,
    templates: TemplatesOpt = "vild",
    class_weight: Annotated[
        float,
        typer.Option(
            "--class-weight",
            min=0,
            help="Weight of the words' loss beside the masks'; 0.1 is better from random weights.",
        ),
    ] = 1.0,
    held_out: Annotated[
        float,
        typer.Option(
            "--held-out", min=0, max=0.9, help="The share of the images kept for validation."
        ),
    ] = 0.05,
    validate_every: Annotated[
        int, typer.Option("--validate-every", min=0, help="Steps between validations; 0 is never.")
    ] = 5000,
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
    """Train a MaskFormer whose proposals are compared with words, on masks that have names.

    Each proposal has a mask and an embedding in the space of the CLIP's texts; names are told apart by
    the cosine, and one learned vector means no object. Defaults are OVSeg's. The losses are drawn in a
    PNG beside the output, and are in its header. Under torchrun the processes share each batch:

    $ torchrun --nproc-per-node 8 -m ovtool train-proposer truth.json --images train2017 -o p.safetensors

    $ ovtool propose photos/ --proposer p.safetensors --embeddings photos.embeddings.safetensors
    """
    from ovtool.stages import train_proposer as stage

    found = stage.run(
        truth,
        out=out,
        images=images,
        model=model,
        device=device,
        precision=precision,
        architecture=arch,
        targets=targets,
        queries=queries,
        steps=steps,
        batch_size=batch_size,
        rate=rate,
        side=crop_size,
        warmup=warmup,
        templates=templates,
        class_weight=class_weight,
        held_out_share=held_out,
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
    backbone = found["backbone"] or "random weights"
    output.message(
        f"{found['parameters'] / 1e6:.2f} million parameters, backbone from {backbone}; "
        f"{found['images']} images of {found['names']} names, {found['held_out']} held out"
    )
    last = found["last"]
    output.table(("last step", ""), [(name, f"{value:.4g}") for name, value in last.items()])
    output.message(f"written: {found['output']}, {found['curve']}")
    if json:
        output.print_json(found)
