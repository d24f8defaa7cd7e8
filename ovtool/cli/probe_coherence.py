"""`ovtool probe coherence`: whether patches of one class look alike."""

from ovtool.cli import output
from ovtool.cli.options import (
    CocoOpt,
    DeviceOpt,
    ImagesOpt,
    JsonOpt,
    LayersOpt,
    LimitOpt,
    ModelOpt,
    OverwriteOpt,
    PaclOpt,
    PairsOpt,
    PictureOpt,
    PrecisionOpt,
    ProbedArg,
    SeedOpt,
    ShortSideOpt,
    StrideOpt,
    WindowOpt,
)


def coherence(
    data_set: ProbedArg = None,
    coco: CocoOpt = None,
    images: ImagesOpt = None,
    model: ModelOpt = None,
    pacl: PaclOpt = None,
    layers: LayersOpt = "all",
    pairs: PairsOpt = 20000,
    short_side: ShortSideOpt = None,
    window: WindowOpt = None,
    stride: StrideOpt = None,
    seed: SeedOpt = 0,
    picture: PictureOpt = None,
    limit: LimitOpt = None,
    device: DeviceOpt = None,
    precision: PrecisionOpt = "auto",
    overwrite: OverwriteOpt = False,
    json: JsonOpt = False,
) -> None:
    """Say how well the cosine of two patches tells whether they show the same class.

    The table shows the area under the ROC curve, with its 95 % interval over images, for pairs of
    patches within an image and across images, after each block of the image tower and its last norm,
    and after the PACL head. Patches without a majority are left out.

    $ ovtool probe coherence collage:test --picture layers.png
    """
    from ovtool.stages import probe_coherence as stage

    found = stage.run(
        data_set,
        coco_file=coco,
        images=images,
        model=model,
        device=device,
        precision=precision,
        pacl=pacl,
        layers=layers,
        pairs=pairs,
        short_side=short_side,
        window=window,
        stride=stride,
        seed=seed,
        limit=limit,
        picture=picture,
        overwrite=overwrite,
        progress=output.progress,
    )

    def area(measured: dict[str, float] | None) -> tuple[str, str]:
        if measured is None:
            return "-", "-"
        return f"{measured['auc']:.3f}", f"{measured['low']:.3f}-{measured['high']:.3f}"

    output.table(
        ("ROC AUC", "within", "interval", "across", "interval"),
        [(row["name"], *area(row["within"]), *area(row["across"])) for row in found["rows"]],
    )
    output.message(f"{found['images']} images")
    if json:
        output.print_json(found)
