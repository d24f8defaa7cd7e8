"""`ovtool convert IN --to FORMAT`: masks for other tools, and from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from ovtool.cli import output
from ovtool.cli.declare import Only
from ovtool.settings.convert import Conversion, Format
from ovtool.settings.field import Argument, Option, OutputOption
from ovtool.settings.shared import ImagesFolder, Json, Run

if TYPE_CHECKING:
    from ovtool.stages.convert import Converted


def convert(
    file: Annotated[
        str,
        Argument(
            "COCO JSON (masks, results, panoptic; - is stdin), parts, label maps, YOLO's labels, CVAT's XML, "
            "shards, a submission to VOC, a data set; or a checkpoint of OVSeg.",
            metavar="IN",
        ),
    ],
    to: Annotated[
        Format | None,
        Option("The format to write; a checkpoint has none.", metavar="FORMAT", panel="Conversion"),
    ] = None,
    how: Conversion = Conversion(),
    *,
    images: ImagesFolder = None,
    ground_truth: Annotated[
        str | None,
        Option(
            "The COCO JSON or data set whose images and classes a list of results is about.",
            metavar="GT",
            panel="Conversion",
        ),
    ] = None,
    out: Annotated[
        str | None,
        OutputOption(
            "The file or folder; - is stdout, for a single file. Default: a name made from the input, in the "
            "current folder.",
            flag="--output",
            short="-o",
            metavar="OUT",
        ),
    ] = None,
    run: Annotated[Run, Only("overwrite", "update", "dry_run")] = Run(),
    json: Json = False,
) -> None:
    """Write masks in another format: for other tools, or from theirs.

    FORMAT is coco, coco-results (the list that loadRes takes), coco-panoptic (JSON, and PNGs beside it),
    yolo-seg, label-maps, cvat ("CVAT for images" 1.1), voc-submission (VOC's 20 classes in its numbers) or
    webdataset. The format of IN is told from what it holds. Names and pixels come back as they were; what
    FORMAT has no place for is said in one line. webdataset needs the images, yolo-seg copies them with
    --images, and label maps are named after them.

    Of a checkpoint of OVSeg (.pth) OUT becomes a folder of its CLIP, mask prompts and proposer, which segment
    takes: --method two-stage --recipe ovseg --model OUT/model.safetensors --prompts OUT/prompts.safetensors
    --proposer OUT/proposer.safetensors. Its licence stays that of its authors.

    $ ovtool convert photos.segments.json --to yolo-seg --images photos -o photos.yolo
    """
    from ovtool.stages import convert as stage

    made = stage.run(
        file,
        to,
        how,
        images=images,
        ground_truth=ground_truth,
        out=out,
        run=run,
        progress=output.progress,
    )
    if made.licence is not None:
        _say_weights(made, run.dry_run, json)
        return
    counts = f"{output.counted(made.images, 'image')}, {output.counted(made.masks, 'mask')}"
    if made.lost:
        output.message(f"{to} does not hold: {'; '.join(made.lost)}")
    where = ", ".join(("standard output" if made.out == "-" else made.out, *made.files.values()))
    classes = output.counted(made.classes, "class", "classes")
    output.message(f"{'would write ' if run.dry_run else ''}{counts} of {classes}: {where}")
    if json and (made.out != "-" or run.dry_run):
        output.print_json(
            {
                "output": made.out,
                **made.files,
                "images": made.images,
                "masks": made.masks,
                "classes": made.classes,
                "not_held": list(made.lost),
                "dry_run": run.dry_run,
            }
        )


def _say_weights(made: Converted, is_plan: bool, as_json: bool) -> None:
    """Says what came of a checkpoint."""
    for note in made.lost:
        output.message(f"of this checkpoint: {note}")
    output.message(
        f"OVSeg's weights are licensed under {made.licence}; give credit, and make no commercial use of them"
    )
    where = ", ".join(made.files.values()) or made.out
    output.message(f"{'would write' if is_plan else 'written:'} {where}")
    if as_json:
        answer = {"output": made.out, **made.files, "licence": made.licence}
        output.print_json({**answer, "lacking": list(made.lost), "dry_run": is_plan})
