"""`ovtool propose IMAGES`: class-agnostic masks."""

from __future__ import annotations

from typing import Annotated

from ovtool.cli import outcomes, output
from ovtool.cli.declare import Only
from ovtool.settings.propose import Propose, SaveEmbeddings
from ovtool.settings.shared import PARTS_OF_RUN, Compute, Format, Inputs, Json, Out, Run, Source


def propose(
    inputs: Inputs = (),
    masks: Propose = Propose(),
    *,
    out: Out = None,
    format: Format = "coco",
    save_embeddings: SaveEmbeddings = None,
    json: Json = False,
    source: Source = Source(),
    run: Annotated[Run, Only(*PARTS_OF_RUN)] = Run(),
    compute: Annotated[Compute, Only("model", "device", "threads")] = Compute(),
) -> None:
    """Find masks of whatever is in the images, best first, without naming it.

    The result is a COCO JSON of one category, `object`, with a quality as the score of each mask:
    what `ovtool segment --proposals` reads. --proposer regions merges superpixels and needs no
    weights. merging, for photographs, merges superpixels by what the bundled model photo sees, and
    ranks them by a learned objectness. maskformer[:ID] and sam[:ID] are networks of the hub, or a folder
    with one. A file of `ovtool train-proposer` is named by its path. The quality of a mask is, for a
    MaskFormer, its probability to be an object times the mean probability of its pixels; for SAM and
    merging, the predicted IoU. --model names the CLIP that a trained proposer must belong to.

    $ ovtool propose photos/ -o photos.proposals.json
    """
    from ovtool.stages import propose as stage

    outcome = stage.run(
        inputs,
        masks,
        out=out,
        format=format,
        save_embeddings=save_embeddings,
        source=source,
        run=run,
        compute=compute,
        progress=output.progress,
    )
    outcomes.say(outcome, "propose", as_json=json)
