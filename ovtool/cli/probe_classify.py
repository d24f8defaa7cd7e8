"""`ovtool probe classify`: whole images named without training."""

from ovtool.cli import output
from ovtool.cli.options import (
    ClassesPerImageOpt,
    CocoOpt,
    DeviceOpt,
    ImagesOpt,
    JsonOpt,
    LimitOpt,
    ModelOpt,
    OverwriteOpt,
    PaclOpt,
    PictureOpt,
    PrecisionOpt,
    ProbedArg,
    TemplatesOpt,
)
from ovtool.cli.probe import per_cent


def classify(
    data_set: ProbedArg = None,
    coco: CocoOpt = None,
    images: ImagesOpt = None,
    classes_per_image: ClassesPerImageOpt = None,
    model: ModelOpt = None,
    pacl: PaclOpt = None,
    templates: TemplatesOpt = "one",
    picture: PictureOpt = None,
    limit: LimitOpt = None,
    device: DeviceOpt = None,
    precision: PrecisionOpt = "auto",
    overwrite: OverwriteOpt = False,
    json: JsonOpt = False,
) -> None:
    """Say how well whole images are named, by the class token and by the PACL head side by side.

    The labels of an image are the classes of its masks. Top-1: its best word is any of them. mAP: the
    mean over classes of the average precision. The words of an image are those of its list, if the
    data set has lists, else all categories. The table shows per cent, the JSON fractions.

    $ ovtool probe classify collage:test
    """
    from ovtool.stages import probe_classify as stage

    found = stage.run(
        data_set,
        coco_file=coco,
        images=images,
        classes_per_image=classes_per_image,
        model=model,
        device=device,
        precision=precision,
        templates=templates,
        pacl=pacl,
        limit=limit,
        picture=picture,
        overwrite=overwrite,
        progress=output.progress,
    )
    groups = list(found["rows"][0]["top1"])
    output.table(
        ("%", *(f"top-1 {group}" for group in groups), *(f"mAP {group}" for group in groups)),
        [
            (row["name"], *map(per_cent, (*row["top1"].values(), *row["map"].values())))
            for row in found["rows"]
        ],
    )
    output.message(
        f"{found['images']} images, {found['labels_an_image']:.1f} labels and "
        f"{found['words_an_image']:.0f} words an image"
    )
    if json:
        output.print_json(found)
