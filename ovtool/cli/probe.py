"""`ovtool probe`: what the papers ask of a model before they build on it."""

from ovtool.cli import output
from ovtool.cli.options import (
    BatchSizeOpt,
    ClassesPerImageOpt,
    CocoOpt,
    CropSizeOpt,
    DeviceOpt,
    ImagesOpt,
    JsonOpt,
    LimitOpt,
    ModelOpt,
    PrecisionOpt,
    ProbedArg,
    PromptsOpt,
    ProposalsOpt,
    ProposerOpt,
    TemplatesOpt,
)


def per_cent(value: float | None) -> str:
    """A fraction for a table, a dash where there is none."""
    return "-" if value is None else f"{100 * value:.2f}"


def oracle(
    data_set: ProbedArg = None,
    coco: CocoOpt = None,
    images: ImagesOpt = None,
    classes_per_image: ClassesPerImageOpt = None,
    model: ModelOpt = None,
    prompts: PromptsOpt = None,
    crop_size: CropSizeOpt = None,
    proposer: ProposerOpt = None,
    proposals: ProposalsOpt = None,
    templates: TemplatesOpt = "one",
    limit: LimitOpt = None,
    device: DeviceOpt = None,
    precision: PrecisionOpt = "auto",
    batch_size: BatchSizeOpt = None,
    json: JsonOpt = False,
) -> None:
    """Say whether masks or names are the bottleneck: true masks named by CLIP, proposals by the truth.

    A proposal takes the class of the true mask with the highest IoU, a pixel that of the best of its
    proposals. The words of an image are those of its list, if the data set has lists, else all
    categories. The table shows per cent, the JSON fractions.

    $ ovtool probe oracle collage:test
    """
    from ovtool.stages import probe_oracle as stage

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
        prompts=prompts,
        crop_size=crop_size,
        proposer=proposer,
        proposals_file=proposals,
        limit=limit,
        progress=output.progress,
    )

    measures = ("miou", "pixel_accuracy", "accuracy")
    output.table(
        ("", "mIoU %", "pixels right %", "masks right %"),
        [(row["name"], *(per_cent(row[each]) for each in measures)) for row in found["rows"]],
    )
    output.message(
        f"{found['images']} images, {found['masks']} masks, {found['words_an_image']:.0f} words an image"
    )
    if json:
        output.print_json(found)
