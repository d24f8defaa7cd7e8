"""`ovtool probe alignment`: which patches of a CLIP say what they show."""

from ovtool.cli import output
from ovtool.cli.options import (
    BatchSizeOpt,
    ClassesPerImageOpt,
    CocoOpt,
    CountMixedOpt,
    DeviceOpt,
    ImagesOpt,
    JsonOpt,
    LastBlockOpt,
    LimitOpt,
    ModelOpt,
    OverwriteOpt,
    PaclOpt,
    PictureOpt,
    PrecisionOpt,
    ProbedArg,
    ShortSideOpt,
    StrideOpt,
    TemplatesOpt,
    WindowOpt,
)
from ovtool.cli.probe import per_cent


def alignment(
    data_set: ProbedArg = None,
    coco: CocoOpt = None,
    images: ImagesOpt = None,
    classes_per_image: ClassesPerImageOpt = None,
    model: ModelOpt = None,
    pacl: PaclOpt = None,
    last_block: LastBlockOpt = None,
    short_side: ShortSideOpt = None,
    window: WindowOpt = None,
    stride: StrideOpt = None,
    templates: TemplatesOpt = "one",
    count_mixed: CountMixedOpt = False,
    picture: PictureOpt = None,
    limit: LimitOpt = None,
    device: DeviceOpt = None,
    precision: PrecisionOpt = "auto",
    batch_size: BatchSizeOpt = None,
    overwrite: OverwriteOpt = False,
    json: JsonOpt = False,
) -> None:
    """Say how often a patch is named by the class of most of its pixels.

    The rows: the tower as it is, --last-block or the one that the model recommends, and the PACL head.
    Patches without a majority, or without a class on half of their pixels, are left out. The words of
    an image are those of its list, if the data set has lists, else all categories. The table shows per
    cent, the JSON fractions.

    $ ovtool probe alignment collage:test
    """
    from ovtool.stages import probe_alignment as stage

    found = stage.run(
        data_set,
        coco_file=coco,
        images=images,
        classes_per_image=classes_per_image,
        model=model,
        device=device,
        precision=precision,
        batch_size=batch_size,
        templates=templates,
        pacl=pacl,
        last_block=last_block,
        short_side=short_side,
        window=window,
        stride=stride,
        count_mixed=count_mixed,
        limit=limit,
        picture=picture,
        overwrite=overwrite,
        progress=output.progress,
    )
    output.table(
        ("patches named right, %", *found["patches"]),
        [(row["name"], *map(per_cent, row["accuracy"].values())) for row in found["rows"]],
    )
    output.message(
        f"{found['images']} images, {found['patches']['all']} patches counted, {found['mixed']} mixed and "
        f"{found['ignored']} without a class left out, {found['words_an_image']:.0f} words an image"
    )
    if json:
        output.print_json(found)
