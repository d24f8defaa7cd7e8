"""`ovtool train-segmenter LABELS -o FILE`: pseudo masks, or true ones, to a segmenter of their classes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ovtool.cli import trainings
from ovtool.settings.field import Argument, Option
from ovtool.settings.segmenter import SegmenterTraining
from ovtool.settings.shared import Compute, ImagesFolder, Json, Run


def train_segmenter(
    labels: Annotated[
        str,
        Argument(
            "Pseudo masks or any COCO JSON, a folder of label maps, or a data set.",
            metavar="LABELS",
        ),
    ],
    training: SegmenterTraining = SegmenterTraining(),
    *,
    images: ImagesFolder = None,
    validation: Annotated[
        str | None,
        Option(
            "Measure on these labels, such as a truth, and hold nothing out.",
            metavar="LABELS",
            panel="Images",
        ),
    ] = None,
    validation_images: Annotated[
        Path | None,
        Option(
            "The folder of the images of --validation. Default: that of --images.",
            metavar="DIR",
            panel="Images",
        ),
    ] = None,
    out: trainings.NetworkFile,
    json: Json = False,
    compute: Compute = Compute(),
    run: trainings.TrainingRun = Run(),
) -> None:
    """Train a segmenter of the classes that pseudo masks, true masks or label maps name.

    What no mask covers is in doubt, and ignored, unless --with-background makes it a class. A backbone
    begins with pretrained weights where they are in the local cache. The losses are drawn in a PNG
    beside the output, and are in its header. Under torchrun the processes share each batch:

    $ ovtool train-segmenter pseudo.json --images train/ --arch clip --model tiny -o s.safetensors

    $ torchrun --nproc-per-node 8 -m ovtool train-segmenter pseudo.json --images train/ -o s.safetensors

    $ ovtool segment photos/ --segmenter s.safetensors -o photos.json
    """
    from ovtool.stages import train_segmenter as stage

    result = stage.run(
        labels,
        training,
        images=images,
        validation=validation,
        validation_images=validation_images,
        out=out,
        compute=compute,
        run=run,
        progress=trainings.progress,
    )
    trainings.say(result, "classes", json)
