"""`ovtool refine CAMS`: class activation maps refined, and pseudo masks made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ovtool.cli import outcomes, output
from ovtool.cli.declare import Only
from ovtool.settings.cam import UNUSED
from ovtool.settings.field import Argument
from ovtool.settings.option import fields
from ovtool.settings.refine import Apply, PromptStep, PseudoMasks, RefineFormat
from ovtool.settings.shared import PARTS_OF_RUN, Compute, ImagesFolder, Json, Out, Run


def refine(
    cams: Annotated[
        str | Path, Argument("The maps that ovtool cam, or refine, wrote.", metavar="CAMS")
    ],
    apply: Apply = Apply(),
    prompts: Annotated[
        PromptStep, Only(*(name for name in fields(PromptStep) if name not in UNUSED))
    ] = PromptStep(),
    masks: PseudoMasks = PseudoMasks(),
    *,
    images: ImagesFolder = None,
    out: Out = None,
    format: RefineFormat = None,
    json: Json = False,
    compute: Annotated[Compute, Only("model", "device", "threads")] = Compute(),
    run: Annotated[Run, Only(*PARTS_OF_RUN)] = Run(),
) -> None:
    """Refine class activation maps, and make pseudo masks of them.

    -o x.safetensors writes maps for a next step. -o x.json writes pseudo masks: a mask for each class and
    image, `background` among them; pixels in doubt are in none, and train-segmenter ignores them. For
    other names, and for stdout, --format says which of the two.

    The steps of --apply: prompts trains a mask generator with L_match + lambda_r L_refine, and takes its
    maps in place of the given ones; a generator is first fitted to maps that another method made. affinity
    spreads maps over patches that attend to each other, walk spreads them over neighbours by a random walk,
    pamr and crf follow the edges of the image, and sam takes a vote in each mask of --proposals.

    $ ovtool refine cams.safetensors --images train2017 --apply affinity,crf -o pseudo.json

    $ ovtool refine cams.safetensors --images train2017 --apply prompts --background-prompts background.safetensors -o refined.safetensors
    """
    from ovtool.stages import refine as stage

    outcome = stage.run(
        cams,
        apply,
        prompts,
        masks,
        images=images,
        out=out,
        format=format,
        compute=compute,
        run=run,
        progress=output.progress,
    )
    outcomes.say(outcome, "refine", as_json=json)
