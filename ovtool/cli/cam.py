"""`ovtool cam --labels SPEC`: image-level labels to class activation maps."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ovtool.cli import output
from ovtool.cli.options import (
    DeviceOpt,
    DryRunOpt,
    ImagesOpt,
    JsonOpt,
    LimitOpt,
    ModelOpt,
    OutputOpt,
    OverwriteOpt,
    PartSizeOpt,
    SeedOpt,
    StrictOpt,
)


def _scales(text: str) -> tuple[float, ...]:
    """Numbers parted by commas."""
    try:
        return tuple(float(one) for one in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"'{text}' is no list of numbers: write them as in 1,0.5,1.5"
        ) from None


def cam(
    labels: Annotated[
        str,
        typer.Option(
            "--labels",
            metavar="SPEC",
            help="Which classes each image shows: a data set (voc:train_aug, coco14:train, collage:train), "
            "a COCO JSON, or a file of two columns, image and labels.",
        ),
    ],
    images: ImagesOpt = None,
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes", metavar="WORDS", help="The classes that a file of two columns may name."
        ),
    ] = None,
    method: Annotated[
        Literal["classifier", "gradcam", "matching", "pacl"] | None,
        typer.Option(
            "--method",
            help="gradcam: a CLIP's gradients, no training; the default. classifier: a CNN or ViT, trained "
            "here. matching: a mask generator, trained here. pacl: the patch weights of a head.",
        ),
    ] = None,
    from_maps: Annotated[
        Path | None,
        typer.Option(
            "--from-maps",
            metavar="DIR",
            help="Take anybody's maps, a file an image: .safetensors, .npy or .npz.",
        ),
    ] = None,
    affinity: Annotated[
        bool, typer.Option("--affinity", help="Spread the maps along the CLIP's attention.")
    ] = False,
    box_threshold: Annotated[
        float | None,
        typer.Option(
            "--box-threshold",
            min=0,
            max=1,
            help="Of a map's maximum, where --affinity draws boxes.",
        ),
    ] = None,
    background: Annotated[
        str | None,
        typer.Option(
            "--background",
            metavar="WORDS",
            help="Words that compete with the classes in gradcam, or where matching starts, or "
            "none. Default: the model's stuff words, else CLIP-ES's list.",
        ),
    ] = None,
    sentence: Annotated[
        str | None,
        typer.Option(
            "--sentence",
            metavar="TEXT",
            help="The sentence around the words in gradcam, with {} for them. Default: "
            "'a clean origami {}.', for a small model 'a photo of a {}.'",
        ),
    ] = None,
    scales: Annotated[
        str, typer.Option("--scales", metavar="N,N", help="Sizes at which a picture is seen.")
    ] = "1",
    flip: Annotated[bool, typer.Option("--flip", help="See each picture mirrored too.")] = False,
    short_side: Annotated[
        int | None,
        typer.Option(
            "--short-side",
            min=8,
            help="Shorter side of a picture as the network sees it. Default: twice the CLIP's own, in "
            "matching what its weights recommend; 224 for a classifier.",
        ),
    ] = None,
    pacl: Annotated[
        Path | None, typer.Option("--pacl", metavar="FILE", help="A head of train-pacl.")
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option("--arch", metavar="timm:NAME", help="The classifier. Default: timm:resnet18."),
    ] = None,
    generator: Annotated[
        str | None,
        typer.Option(
            "--generator",
            metavar="NAME",
            help="The mask generator's backbone: clip or timm:NAME; or a file of --save-generator. "
            "Default: clip.",
        ),
    ] = None,
    fine_tune: Annotated[
        bool, typer.Option("--fine-tune", help="Train the generator's timm backbone too.")
    ] = False,
    hidden: Annotated[
        int | None,
        typer.Option(
            "--hidden",
            min=0,
            help="Channels of the hidden layer of the generator's head, 0 for none. Default: 256.",
        ),
    ] = None,
    start: Annotated[
        Literal["rivals", "text", "random"] | None,
        typer.Option(
            "--start",
            help="Where the generator's maps begin. rivals: each patch's cosine with the class less that with "
            "the best background word. text: less the mean of them. Default: rivals for clip, else random.",
        ),
    ] = None,
    save_generator: Annotated[
        Path | None,
        typer.Option("--save-generator", metavar="FILE", help="Keep the trained generator."),
    ] = None,
    similarity: Annotated[
        Literal["raw", "shifted"] | None,
        typer.Option(
            "--similarity",
            help="raw: the cosine, the paper's. shifted: (1 + cosine) / 2. Default: raw, unless too many "
            "cosines are below 0.",
        ),
    ] = None,
    background_weight: Annotated[
        float | None,
        typer.Option(
            "--background-weight",
            min=0,
            help="lambda_b of the matching loss. Default: 2.4, for a small model 0.75.",
        ),
    ] = None,
    select: Annotated[
        Literal["last", "labels"] | None,
        typer.Option(
            "--select",
            help="The step whose generator is kept: the last, or the best by labels of masked pictures. "
            "Default: last.",
        ),
    ] = None,
    label_steps: Annotated[
        int | None,
        typer.Option(
            "--label-steps",
            min=0,
            help="Steps on the labels alone, before a generator is matched. Default: 200 with --start "
            "random, else 0.",
        ),
    ] = None,
    crop_scale: Annotated[
        float | None,
        typer.Option(
            "--crop-scale",
            min=0.05,
            max=1,
            help="Least share of a picture in a random crop of a training. Default: 1 for frozen "
            "backbones, else 0.5.",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", min=1, help="Images of a step of a training. Default: 16."),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option("--epochs", min=0.01, help="How often each image is seen. Default: 10."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            min=0,
            help="Steps of a training, for --epochs; 0 leaves a generator as it begins.",
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option("--rate", min=0, help="Peak rate. Default: 0.001."),
    ] = None,
    model: ModelOpt = None,
    device: DeviceOpt = None,
    seed: SeedOpt = 0,
    limit: LimitOpt = None,
    out: OutputOpt = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was cut off.")
    ] = False,
    part_size: PartSizeOpt = 256,
    strict: StrictOpt = False,
    overwrite: OverwriteOpt = False,
    dry_run: DryRunOpt = False,
    json: JsonOpt = False,
) -> None:
    """Make class activation maps from image-level labels: where in each image its classes are.

    No mask is read: of a COCO JSON only which categories an image has. The result holds one map for
    each label of an image; `ovtool refine` makes pseudo masks of it. A training draws its losses in a PNG
    beside the output. matching learns masks that make the CLIP say the labels, and not without them; its
    generator is that of the last step: no pixel truth is looked at, unlike in the published code.

    $ ovtool cam --labels voc:train_aug --method gradcam --affinity -o voc.cams.safetensors

    $ ovtool cam --labels labels.csv --images photos/ --method matching --save-generator g.safetensors
    """
    from ovtool.cams.options import Options
    from ovtool.runtime.runs import Run
    from ovtool.stages import cam as stage

    found = stage.run(
        labels,
        images=images,
        classes=classes,
        method=method,
        model=model,
        device=device,
        scales=_scales(scales),
        flip=flip,
        affinity=affinity,
        options=Options(
            background=background,
            sentence=sentence,
            short_side=short_side,
            pacl=pacl,
            from_maps=from_maps,
            arch=arch,
            generator=generator,
            fine_tune=fine_tune or None,
            hidden=hidden,
            start=start,
            save_generator=save_generator,
            similarity=similarity,
            background_weight=background_weight,
            select=select,
            label_steps=label_steps,
            batch_size=batch_size,
            epochs=epochs,
            steps=steps,
            rate=rate,
            crop_scale=crop_scale,
            box_threshold=box_threshold,
        ),
        seed=seed,
        limit=limit,
        out=out,
        how=Run(part_size, resume, overwrite, strict, dry_run, output.progress),
    )
    what = f"{found.maps} maps of {found.categories} classes on {found.images} images"
    if found.is_plan:
        output.message(f"would write {found.out}: {what}")
    else:
        written = ", ".join([found.out, *(found.written or {}).values()])
        output.message(f"{what} by {found.method}; written: {written}")
        output.say_failures(found.failures)
    if json:
        output.print_json(vars(found))
    if found.failures:
        raise typer.Exit(3)
