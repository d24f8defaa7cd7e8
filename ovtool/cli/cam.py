"""`ovtool cam --labels SPEC`: class activation maps from image-level labels."""

from __future__ import annotations

from typing import Annotated

import typer

from ovtool.cli import outcomes, output
from ovtool.cli.declare import Only
from ovtool.settings.cam import UNUSED, CamMethod, Gradcam, Spread
from ovtool.settings.field import Option
from ovtool.settings.option import fields, members
from ovtool.settings.shared import PARTS_OF_RUN, Compute, ImagesFolder, Json, Limit, Out, Run

_FIELDS = Only(
    *{name for member in members(CamMethod) for name in fields(member) if name not in UNUSED}
)


def cam(
    labels: Annotated[
        str,
        Option(
            "Which classes each image shows: a data set (voc:train_aug, coco), a COCO JSON, or a file of "
            "two columns, image and labels. - is a COCO JSON on stdin.",
            metavar="SPEC",
            panel="Images",
        ),
    ],
    method: Annotated[CamMethod, _FIELDS] = Gradcam(),
    spread: Spread = Spread(),
    *,
    images: ImagesFolder = None,
    classes: Annotated[
        str | None,
        Option(
            'The classes that a file of two columns may name, such as "cow,boat". Default: its labels, in '
            "the order of the alphabet.",
            metavar="WORDS",
            panel="Images",
        ),
    ] = None,
    limit: Limit = None,
    out: Out = None,
    json: Json = False,
    compute: Annotated[Compute, Only("model", "device", "threads")] = Compute(),
    run: Annotated[Run, Only(*PARTS_OF_RUN)] = Run(),
) -> None:
    """Make class activation maps from image-level labels: where in each image its classes are.

    No mask is read: of a COCO JSON only which categories an image has. The result holds one map for
    each label of an image; `ovtool refine` makes pseudo masks of it. A training draws its losses in a PNG
    beside the output. matching trains a mask generator so that the CLIP finds the labels of an image inside
    their masks and not outside. The generator of the last step is kept: no labels of pixels are used to
    choose one, as the published code does.

    $ ovtool cam --labels voc:train_aug --method gradcam --affinity -o voc.cams.safetensors

    $ ovtool cam --labels labels.csv --images photos/ --method matching --save-generator g.safetensors
    """
    from ovtool.stages import cam as stage

    made = stage.run(
        labels,
        method,
        spread,
        images=images,
        classes=classes,
        limit=limit,
        out=out,
        compute=compute,
        run=run,
        progress=output.progress,
    )
    if not made.is_first:
        return  # another process of torchrun speaks
    what = (
        f"{output.counted(made.maps, 'map')} of {output.counted(made.categories, 'class', 'classes')} on "
        f"{output.counted(made.images, 'image')}"
    )
    if made.is_plan:
        output.message(f"would write {made.out}: {what}")
        outcomes.say_plan(made.plan or {})
    else:
        out_name = "standard output" if made.out == "-" else made.out
        written = ", ".join([out_name, *(made.written or {}).values()])
        if made.shard is not None:
            written = f"shard {made.shard} in {made.out}; join all with `ovtool merge {made.out}`"
        output.message(f"{what} by {made.method}; written: {written}")
        output.say_failures(made.failures)
    if json and (made.is_plan or made.out != "-"):
        output.print_json({key: value for key, value in vars(made).items() if key != "is_first"})
    if made.failures:
        raise typer.Exit(3)
