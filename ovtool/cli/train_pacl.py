"""`ovtool train-pacl --captions SPEC`: captioned pictures to a head that aligns patches with texts."""

from typing import Annotated, Literal

import typer

from ovtool.cli import output
from ovtool.cli.options import (
    DeviceOpt,
    DryRunOpt,
    ImagesOpt,
    JsonOpt,
    ModelOpt,
    OutputOpt,
    OverwriteOpt,
    PrecisionOpt,
    SeedOpt,
    TemplatesOpt,
)


def train_pacl(
    captions: Annotated[
        str,
        typer.Option(
            "--captions",
            metavar="SPEC",
            help="A data set (coco means coco:train2017 here), a COCO captions JSON with --images DIR, "
            'or WebDataset shards such as "x/{00000..00331}.tar".',
        ),
    ],
    images: ImagesOpt = None,
    model: ModelOpt = None,
    device: DeviceOpt = None,
    precision: PrecisionOpt = "auto",
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch-size", help="Images of a step, over all processes, told from each other."
        ),
    ] = 4096,
    micro_batch: Annotated[
        int | None,
        typer.Option(
            "--micro-batch",
            min=1,
            help="Images compared with all texts at once, which bounds the memory and changes nothing "
            "else. Default: as many as 32 MiB of scores hold.",
        ),
    ] = None,
    epochs: Annotated[
        float, typer.Option("--epochs", min=0.01, help="How often each image is seen.")
    ] = 10.0,
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, help="Steps, for --epochs; needed for shards at a URL."),
    ] = None,
    rate: Annotated[float, typer.Option("--rate", min=0, help="Peak learning rate.")] = 5e-4,
    decay: Annotated[float, typer.Option("--decay", min=0, help="Weight decay.")] = 0.2,
    warmup: Annotated[
        int, typer.Option("--warmup", min=0, help="Steps of linear rise, at most a fifth of all.")
    ] = 0,
    patch_scale: Annotated[
        float,
        typer.Option(
            "--patch-scale",
            min=0,
            help="Multiplies cosines in the softmax over patches; the paper shows none, which is 1.",
        ),
    ] = 10.0,
    pooling: Annotated[
        Literal["softmax", "sparse"],
        typer.Option(
            "--pooling", help="The weights of patches; sparse drops the lesser ones, as SPARC."
        ),
    ] = "softmax",
    logit_scale: Annotated[
        float | None,
        typer.Option(
            "--logit-scale",
            min=0.01,
            help="Multiplies scores in the loss. Default: the CLIP's own.",
        ),
    ] = None,
    learn_scale: Annotated[
        bool, typer.Option("--learn-scale", help="Train the logit scale too, up to 100.")
    ] = False,
    pairs: Annotated[
        Literal["all", "own"],
        typer.Option(
            "--pairs",
            help="all: each text weighs the patches of each image. own: an image's own caption does.",
        ),
    ] = "all",
    nouns: Annotated[
        bool,
        typer.Option("--nouns", help="The nouns of captions are texts of their own, in templates."),
    ] = False,
    noun_weight: Annotated[
        float, typer.Option("--noun-weight", min=0, help="The weight of their loss.")
    ] = 1.0,
    naming: Annotated[
        float,
        typer.Option(
            "--naming",
            min=0,
            help="The weight of a loss that each patch shows one of the nouns of its image's captions. "
            "The paper has none, which is 0.",
        ),
    ] = 0.0,
    templates: TemplatesOpt = "pacl",
    start: Annotated[
        Literal["projection", "random"],
        typer.Option("--start", help="projection: the head begins as the CLIP's own."),
    ] = "projection",
    last_block: Annotated[
        str,
        typer.Option(
            "--last-block",
            help="Which tokens the head reads: clip, which is the paper's, maskclip, sclip, clearclip or "
            "naclip; several, joined by +, side by side.",
        ),
    ] = "clip",
    crop_size: Annotated[
        int | None,
        typer.Option(
            "--crop-size",
            min=8,
            help="Side of the square that an image is brought to. Default: what the model recommends, "
            "else the one that it was trained at.",
        ),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            "--window",
            min=0,
            help="Side of the windows that an image is shown in; 0 shows it whole. Default: what the "
            "model recommends, else whole.",
        ),
    ] = None,
    held_out: Annotated[
        float,
        typer.Option("--held-out", min=0, max=0.9, help="The share of the images for validation."),
    ] = 0.05,
    cache: Annotated[
        Literal["auto", "on", "off"],
        typer.Option(
            "--cache",
            help="Keep the tokens of listed images, which are then never cropped; auto does where one "
            "process sees them more than once and they have at most 4 GiB.",
        ),
    ] = "auto",
    seed: SeedOpt = 0,
    workers: Annotated[
        int,
        typer.Option("--workers", min=0, help="Processes that read images; 0 is this one itself."),
    ] = 0,
    out: OutputOpt = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a training that was cut off.")
    ] = False,
    overwrite: OverwriteOpt = False,
    dry_run: DryRunOpt = False,
    json: JsonOpt = False,
) -> None:
    """Align a CLIP's patches with its texts, from captions alone (PACL).

    A small head is trained on frozen patch tokens: each image is compared with every caption of the
    batch through the patches that fit it. --captions is a data set, a captions JSON, or WebDataset
    shards, local or at a URL. Under torchrun the processes share each batch; shards are dealt to them.
    A shard that ends in the middle gives its samples up to there, with one warning.

    $ ovtool train-pacl --captions coco:train2017 --nouns -o coco.pacl.safetensors

    $ torchrun --nproc-per-node 4 -m ovtool train-pacl --captions "cc3m/{00000..00331}.tar" -o cc3m.pacl.safetensors

    $ ovtool segment photos/ --classes "dog,cat" --method patch --pacl coco.pacl.safetensors
    """
    from functools import partial

    from ovtool.stages import train_pacl as stage

    found = stage.run(
        captions,
        images=images,
        model=model,
        device=device,
        precision=precision,
        batch_size=batch_size,
        micro_batch=micro_batch,
        epochs=epochs,
        steps=steps,
        rate=rate,
        decay=decay,
        warmup=warmup,
        patch_scale=patch_scale,
        pooling=pooling,
        logit_scale=logit_scale,
        learn_scale=learn_scale,
        pairs=pairs,
        nouns=nouns,
        noun_weight=noun_weight,
        naming=naming,
        templates=templates,
        start=start,
        last_block=last_block,
        crop_size=crop_size,
        window=window,
        held_out=held_out,
        cache=cache,
        seed=seed,
        workers=workers,
        out=out,
        resume=resume,
        overwrite=overwrite,
        dry_run=dry_run,
        progress=partial(output.progress, unit="step"),
    )
    if not found.is_first:
        return  # another process of torchrun speaks
    output.message(f"trainable parameters: {found.parameters:,}")
    pictures = "an unknown number of" if found.images is None else f"{found.images:,}"
    output.message(
        f"{pictures} images, {found.held_out} more held out, {found.steps} steps of {found.batch_size}"
    )
    lost = [f"{count} with {reason}" for reason, count in found.left.items()]
    if found.too_long:
        lost.append(f"{found.too_long} captions cut at the end of the context")
    if found.cut:
        lost.append(f"{len(found.cut)} shards that end in the middle")
    if lost:
        output.message(f"left out: {', '.join(lost)}")
    if found.is_plan:
        output.message(f"would write {found.out}, {found.curve_file}")
    else:
        if found.before and found.after:
            output.table(
                ("held out", "before", "now"),
                [
                    (name, f"{100 * found.before[name]:.1f} %", f"{100 * value:.1f} %")
                    for name, value in found.after.items()
                ],
            )
        output.message(
            f"loss {found.loss:.4f}, information at least {found.bound:.2f} nats, "
            f"{found.images_per_second:,.0f} images a second"
        )
        output.message(f"written: {found.out}, {found.curve_file}")
    if json:
        output.print_json(vars(found))
