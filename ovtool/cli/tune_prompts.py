"""`ovtool tune-prompts`: masks with names to mask prompts, or class activation maps to background prompts."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ovtool.cli import output
from ovtool.cli.options import (
    CropSizeOpt,
    DeviceOpt,
    DryRunOpt,
    GeneratorOpt,
    ImagesOpt,
    JsonOpt,
    ModelOpt,
    OutputOpt,
    OverwriteOpt,
    PrecisionOpt,
    SeedOpt,
    SimilarityOpt,
)
from ovtool.errors import UsageError


def _depth(text: str) -> int | None:
    """A number of blocks, or None for `all`."""
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"'{text}' is neither a number from 1 on nor all")
    return int(text)


def _given(kind: str, **options: Any) -> dict[str, Any]:
    """The options that were given. Raises UsageError for those of the other kind."""
    given = {name: value for name, value in options.items() if value is not None}
    other = "background" if kind == "mask" else "mask"
    for name in given.keys() & OWN[other]:
        flag = f"--{name.replace('_', '-')}"
        raise UsageError(f"{flag} belongs to --kind {other}: leave it out, or give that kind")
    return given


# what only one kind takes
OWN = {
    "mask": frozenset(
        ("train", "depth", "loss", "tower_rate", "warmup", "crop_size", "held_out", "precision")
    ),
    "background": frozenset(
        ("generator", "push", "push_weight", "length", "init", "similarity", "words", "crop_scale")
    ),
}


def tune_prompts(
    pairs: Annotated[
        str,
        typer.Argument(
            metavar="PAIRS",
            help="COCO JSON with masks and names, or a data set: collage:train. With --kind background "
            "the maps that ovtool cam wrote.",
        ),
    ],
    images: ImagesOpt = None,
    kind: Annotated[
        Literal["mask", "background"],
        typer.Option(
            "--kind",
            help="What the prompts stand for. mask: patches outside a mask. background: what pictures "
            "of a class show beside it.",
        ),
    ] = "mask",
    train: Annotated[
        Literal["prompts", "tower", "tower-then-prompts"] | None,
        typer.Option(
            "--train",
            help="What is trained; tower is the whole image tower. Default: prompts.",
        ),
    ] = None,
    depth: Annotated[
        str | None,
        typer.Option(
            "--depth",
            metavar="N|all",
            help="Where prompts replace tokens: before the first block, and after N - 1 more. Default: 3.",
        ),
    ] = None,
    loss: Annotated[
        Literal["shared", "paper"] | None,
        typer.Option(
            "--loss",
            help="shared: a noun counts once in a batch, whatever its pairs. paper: once for each. Default: shared.",
        ),
    ] = None,
    generator: GeneratorOpt = None,
    push: Annotated[
        Literal["text", "foreground", "none"] | None,
        typer.Option(
            "--push",
            help="From what a background prompt is pushed: the class's text, or pictures of the class alone. Default: text.",
        ),
    ] = None,
    push_weight: Annotated[
        float | None,
        typer.Option("--push-weight", min=0, help="Weight of that, lambda_T. Default: 0.02."),
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(
            "--length",
            min=1,
            help="Vectors of a background prompt. Default: 30, or as many as fit.",
        ),
    ] = None,
    init: Annotated[
        Literal["uniform", "normal", "words"] | None,
        typer.Option(
            "--init",
            help="Where its vectors start: uniform in [0, 1), the published code's; normal with deviation "
            "0.02; the words of backgrounds. Default: uniform.",
        ),
    ] = None,
    similarity: SimilarityOpt = None,
    words: Annotated[
        Path | None,
        typer.Option(
            "--words",
            metavar="FILE",
            help="The words, one a line, of which the nearest to each background prompt are told. "
            "Default: what the model learned, else the nouns of the collage and words of backgrounds.",
        ),
    ] = None,
    crop_scale: Annotated[
        float | None,
        typer.Option(
            "--crop-scale",
            min=0.01,
            max=1,
            help="Least share of an image in a random crop for background; 1 takes whole images, whose "
            "embeddings are kept. Default: 0.08.",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            min=2,
            help="Pairs, or images, of a step. Default: 256, or 128 images.",
        ),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(
            "--epochs",
            min=0.01,
            help="How often each pair, or image, is seen. Default: 5, or 60 for background.",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Steps of each training, for --epochs.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            min=0,
            help="Peak rate of prompts. Default: 0.02, or 0.025 for background.",
        ),
    ] = None,
    tower_rate: Annotated[
        float | None,
        typer.Option("--tower-rate", min=0, help="Peak rate of the image tower. Default: 5e-6."),
    ] = None,
    warmup: Annotated[
        int | None,
        typer.Option(
            "--warmup",
            min=0,
            help="Steps of linear rise, at most a fifth of all. Default: 100.",
        ),
    ] = None,
    crop_size: CropSizeOpt = None,
    held_out: Annotated[
        float | None,
        typer.Option(
            "--held-out",
            min=0,
            max=0.9,
            help="The share of the images kept for validation. Default: 0.05.",
        ),
    ] = None,
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
    """Teach a CLIP prompts: tokens for what a masked crop does not show, or text for backgrounds.

    --kind mask: PAIRS come from `ovtool mine-pairs`, or are any masks with names: a labelled data set. The
    text tower and the logit scale stay as they are. Defaults are OVSeg's.

    --kind background: PAIRS are the maps of `ovtool cam`. Each class gets a sentence of learned vectors,
    which is pulled to its pictures with the class blanked out, and pushed from the class: it says what is
    there beside the class. Both towers stay as they are. Defaults are SemPLeS's. --generator takes the
    masks from a mask generator, crop by crop, in place of the maps.

    The losses are drawn in a PNG beside the output, and are in its header. --resume goes on where a
    training was cut off.

    $ ovtool tune-prompts coco.pairs.json --images train2017 -o prompts.safetensors

    $ ovtool probe oracle collage:test --prompts prompts.safetensors

    $ ovtool tune-prompts cams.safetensors --kind background --images train2017 -o background.safetensors
    """
    from functools import partial

    given = _given(
        kind,
        train=train,
        loss=loss,
        tower_rate=tower_rate,
        warmup=warmup,
        crop_size=crop_size,
        held_out=held_out,
        precision=None if precision == "auto" else precision,
        depth=depth,
        generator=generator,
        push=push,
        push_weight=push_weight,
        length=length,
        init=init,
        similarity=similarity,
        words=words,
        crop_scale=crop_scale,
        batch_size=batch_size,
        epochs=epochs,
        steps=steps,
        rate=rate,
    ) | {
        "images": images,
        "model": model,
        "device": device,
        "seed": seed,
        "workers": workers,
        "out": out,
        "resume": resume,
        "overwrite": overwrite,
        "dry_run": dry_run,
        "progress": partial(output.progress, unit="step"),
    }
    if kind == "background":
        from ovtool.trainers import background_prompts as background_trainer

        _tell_background(background_trainer.run(Path(pairs), **given), as_json=json)
        return
    from ovtool.stages import tune_prompts as stage

    if depth is not None:
        given["depth"] = _depth(depth)
    _tell_masks(stage.run(pairs, kind=kind, **given), as_json=json)


def _tell_masks(found: Any, as_json: bool) -> None:
    """Says what a training of mask prompts left."""
    trained = " and ".join(f"{count:,} of the {name}" for name, count in found.parameters.items())
    output.message(f"trainable parameters: {trained}")
    output.message(
        f"{found.pairs} pairs of {found.nouns} nouns, {found.held_out} more held out, {found.steps} steps"
    )
    if not found.is_plan and None not in (found.accuracy_before, found.accuracy_after):
        output.message(
            f"held-out masks named right: {100 * found.accuracy_before:.1f} % before, "
            f"{100 * found.accuracy_after:.1f} % now"
        )
    _tell_files(found, as_json)


def _tell_background(found: Any, as_json: bool) -> None:
    """Says what a training of background prompts left: the words nearest to each."""
    output.message(
        f"background prompts of {found.classes} classes, {found.length} vectors each, from "
        f"{found.images} images, {found.steps} steps"
    )
    if not found.is_plan:
        output.message(f"similarity: {found.similarity}")
        for name, nearest in found.nearest.items():
            listed = ", ".join(f"{word} {cosine:.2f}" for word, cosine in nearest)
            output.message(f"{name}: {listed}")
    _tell_files(found, as_json)


def _tell_files(found: Any, as_json: bool) -> None:
    verb = "would write" if found.is_plan else "written:"
    output.message(f"{verb} {found.out}, {found.curve_file}")
    if as_json:
        output.print_json(vars(found))
