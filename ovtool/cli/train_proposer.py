"""`ovtool train-proposer TRUTH -o FILE`: masks with names to a proposer that knows words."""

from __future__ import annotations

from typing import Annotated

from ovtool.cli import trainings
from ovtool.settings.field import Argument
from ovtool.settings.proposer import ProposerTraining
from ovtool.settings.shared import Compute, ImagesFolder, Json, Run


def train_proposer(
    truth: Annotated[
        str,
        Argument("COCO JSON with masks, or a data set: collage:train.", metavar="TRUTH"),
    ],
    training: ProposerTraining = ProposerTraining(),
    *,
    images: ImagesFolder = None,
    out: trainings.NetworkFile,
    json: Json = False,
    compute: Compute = Compute(),
    run: trainings.TrainingRun = Run(),
) -> None:
    """Train a MaskFormer whose proposals are compared with words, on masks that have names.

    Each proposal has a mask and an embedding in the space of the CLIP's texts; names are told apart by
    the cosine, and one learned vector means no object. Defaults are OVSeg's. The losses are drawn in a
    PNG beside the output, and are in its header. Under torchrun the processes share each batch:

    $ ovtool train-proposer truth.json --images photos/ --model tiny --arch tiny -o p.safetensors

    $ torchrun --nproc-per-node 8 -m ovtool train-proposer truth.json --images train2017 -o p.safetensors

    $ ovtool propose photos/ --proposer p.safetensors --save-embeddings photos.embeddings.safetensors
    """
    from ovtool.stages import train_proposer as stage

    result = stage.run(
        truth,
        training,
        images=images,
        out=out,
        compute=compute,
        run=run,
        progress=trainings.progress,
    )
    trainings.say(result, "names", json)
