"""`ovtool train-pacl --captions SPEC`: a head that aligns patches with text, from captions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from ovtool.cli import output, trainings
from ovtool.settings.field import Option
from ovtool.settings.pacl import Pacl
from ovtool.settings.shared import Compute, ImagesFolder, Json, Run, TrainedOut

if TYPE_CHECKING:  # it imports torch, for which help need not wait
    from ovtool.training.run import Trained


def train_pacl(
    captions: Annotated[
        str,
        Option(
            "A data set (coco means coco:train2017 here), a COCO captions JSON or a table (CSV, TSV) of image "
            'and caption with --images DIR, or WebDataset shards such as "x/{00000..00331}.tar".',
            metavar="SPEC",
            panel="Images",
        ),
    ],
    pacl: Pacl = Pacl(),
    *,
    images: ImagesFolder = None,
    out: TrainedOut = None,
    json: Json = False,
    compute: Compute = Compute(),
    run: trainings.TrainingRun = Run(),
) -> None:
    """Align a CLIP's patches with its texts, from captions alone (PACL).

    A small head is trained on frozen patch tokens: each image is compared with every caption of the
    batch, and the patches that fit a caption weigh most. --captions is a data set, a captions JSON, or
    WebDataset shards, local or at a URL. Under torchrun the processes share each batch, and each reads
    shards of its own. Of a truncated shard the whole samples are used, with one warning.

    $ ovtool train-pacl --captions coco:train2017 --nouns -o coco.pacl.safetensors

    $ torchrun --nproc-per-node 4 -m ovtool train-pacl --captions "cc3m/{00000..00331}.tar" -o cc3m.pacl.safetensors

    $ ovtool segment photos/ --classes "dog,cat" --method patch --pacl coco.pacl.safetensors
    """
    from ovtool.stages import train_pacl as stage

    trained = stage.run(
        captions,
        pacl,
        images=images,
        out=out,
        compute=compute,
        run=run,
        progress=trainings.progress,
    )
    if trained.is_first:  # another process of torchrun speaks for all
        _print(trained)
        if json:
            output.print_json(trained.as_data())


def _print(trained: Trained) -> None:
    """Prints what was trained on what, what was left out, and how well it went."""
    counts, notes = trained.counts, trained.notes
    output.message(f"trainable parameters: {trained.parameters['head']:,}")
    images = "an unknown number of" if counts["images"] is None else f"{counts['images']:,}"
    output.message(
        f"{images} images, {counts['held_out']} more held out, {trained.steps} steps of "
        f"{counts['batch_size']}"
    )
    lost = [f"{count} with {reason}" for reason, count in notes["left"].items()]
    if notes["too_long"]:
        lost.append(f"{notes['too_long']} captions cut at the end of the context")
    if notes["cut"]:
        lost.append(f"{len(notes['cut'])} shards that end in the middle")
    if lost:
        output.message(f"left out: {', '.join(lost)}")
    if not trained.is_plan:
        output.measures(trained.before, trained.after)
        output.message(
            f"loss {trained.loss:.4f}, information at least {trained.last['bound']:.2f} nats, "
            f"{notes['images_per_second']:,.0f} images a second"
        )
    output.written(trained.outputs, trained.is_plan)
