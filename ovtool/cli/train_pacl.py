"""`ovtool train-pacl --captions SPEC`: a head that aligns patches with text, from captions."""

from __future__ import annotations

from typing import Annotated

from ovtool.cli import output
from ovtool.cli.declare import Only
from ovtool.settings.option import Option
from ovtool.settings.pacl import Pacl
from ovtool.settings.shared import Compute, ImagesFolder, Json, Out, Run


def train_pacl(
    captions: Annotated[
        str,
        Option(
            "A data set (coco means coco:train2017 here), a COCO captions JSON with --images DIR, or "
            'WebDataset shards such as "x/{00000..00331}.tar".',
            metavar="SPEC",
            panel="Images",
        ),
    ],
    images: ImagesFolder = None,
    pacl: Pacl = Pacl(),
    *,
    out: Out = None,
    json: Json = False,
    compute: Compute = Compute(),
    run: Annotated[Run, Only("resume", "overwrite", "dry_run")] = Run(),
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

    from ovtool.runtime import device
    from ovtool.stages import train_pacl as stage

    device.set_threads(compute.threads)
    found = stage.run(
        captions,
        images=images,
        model=compute.model,
        device=compute.device,
        precision=compute.precision,
        rate=pacl.lr,
        decay=pacl.weight_decay,
        workers=pacl.loader_workers,
        **{
            name: value
            for name, value in vars(pacl).items()
            if name not in ("lr", "weight_decay", "loader_workers", "validate_every", "save_every")
        },
        out=out,
        resume=run.resume,
        overwrite=run.overwrite,
        dry_run=run.dry_run,
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
