"""`ovtool tune-prompts PAIRS`: prompts of a CLIP, for masked crops or for backgrounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from ovtool.cli import output, trainings
from ovtool.settings.field import Argument
from ovtool.settings.prompts import BackgroundPrompts, MaskPrompts
from ovtool.settings.shared import Compute, ImagesFolder, Json, Run, TrainedOut

if TYPE_CHECKING:  # it imports torch, for which help need not wait
    from ovtool.training.run import Trained


def tune_prompts(
    pairs: Annotated[
        str,
        Argument(
            "COCO JSON with masks and names, or a data set: collage:train. With --kind background the "
            "maps that ovtool cam wrote.",
            metavar="PAIRS",
        ),
    ],
    kind: MaskPrompts | BackgroundPrompts = MaskPrompts(),
    *,
    images: ImagesFolder = None,
    out: TrainedOut = None,
    json: Json = False,
    compute: Compute = Compute(),
    run: trainings.TrainingRun = Run(),
) -> None:
    """Teach a CLIP prompts: tokens for what a masked crop does not show, or text for backgrounds.

    --kind mask: PAIRS come from `ovtool mine-pairs`, or are any masks with names: a labelled data set. The
    text tower and the logit scale stay as they are. Defaults are OVSeg's.

    --kind background: PAIRS are the maps of `ovtool cam`. Each class gets a sentence of learned vectors,
    which is pulled to its images with the class blanked out, and pushed from the class, so that it describes
    what these images show beside the class. Both towers stay as they are. Defaults are SemPLeS's.
    --generator takes the masks from a mask generator, crop by crop, in place of the maps.

    The losses are drawn in a PNG beside the output, and are in its header. Under torchrun the processes
    share each batch.

    $ ovtool tune-prompts coco.pairs.json --images train2017 -o prompts.safetensors

    $ ovtool probe oracle collage:test --prompts prompts.safetensors

    $ ovtool tune-prompts cams.safetensors --kind background --images train2017 -o background.safetensors
    """
    from ovtool.stages import tune_prompts as stage

    trained = stage.run(
        pairs,
        kind,
        images=images,
        out=out,
        compute=compute,
        run=run,
        progress=trainings.progress,
    )
    if not trained.is_first:
        return  # another process of torchrun speaks
    if isinstance(kind, MaskPrompts):
        _print_masks(trained)
    else:
        _print_backgrounds(trained)
    output.written(trained.outputs, trained.is_plan)
    if json:
        output.print_json(trained.as_data())


def _print_masks(trained: Trained) -> None:
    """Prints what was trained on what, and how well crops are named."""
    counts = trained.counts
    parts = [f"{count:,} of the {name}" for name, count in trained.parameters.items()]
    output.message(f"trainable parameters: {' and '.join(parts)}")
    output.message(
        f"{counts['pairs']} pairs of {counts['nouns']} nouns, {counts['held_out']} more held out, "
        f"{trained.steps} steps"
    )
    for name, share in trained.after.items():
        output.message(
            f"held-out masks named right: {100 * trained.before[name]:.1f} % before, "
            f"{100 * share:.1f} % now"
        )


def _print_backgrounds(trained: Trained) -> None:
    """Prints what was trained on what, and the words nearest to each prompt."""
    counts, notes = trained.counts, trained.notes
    output.message(
        f"background prompts of {counts['classes']} classes, {notes['length']} vectors each, from "
        f"{counts['images']} images, {trained.steps} steps"
    )
    if not trained.is_plan:
        output.message(f"similarity: {notes['similarity']}")
        for name, nearest in notes["nearest"].items():
            listed = ", ".join(f"{word} {cosine:.2f}" for word, cosine in nearest)
            output.message(f"{name}: {listed}")
    for name, loss in trained.after.items():
        words = name.replace("_", " ")
        output.message(f"{words}: {trained.before[name]:.4f} before, {loss:.4f} now")
