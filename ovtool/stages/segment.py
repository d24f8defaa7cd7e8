"""`segment`: images and words to a mask for each word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ovtool.formats import merge
from ovtool.inputs import asked as requests
from ovtool.inputs import images as image_inputs
from ovtool.inputs import words as word_inputs
from ovtool.models import resolve
from ovtool.outputs.drawn_files import DrawnFiles, doubled_stems
from ovtool.runtime import device as devices
from ovtool.runtime import runs
from ovtool.runtime.outcome import Outcome
from ovtool.runtime.progress import Progress, no_progress
from ovtool.segmenters import records
from ovtool.segmenters.prepare import as_method, prepared
from ovtool.settings.segment import Drawn, Fused, Method
from ovtool.settings.shared import Compute, Run, Source
from ovtool.settings.words import Words


def run(
    inputs: str | Path | Sequence[str | Path] = (),
    words: Words | str | Sequence[str] = Words(),
    method: Method | str = Fused(),
    *,
    out: str | Path | None = None,
    format: Literal["coco", "results"] = "coco",
    drawn: Drawn = Drawn(),
    source: Source = Source(),
    run: Run = Run(),
    compute: Compute = Compute(),
    progress: Progress = no_progress,
) -> Outcome:
    """Segments images by words, and writes one COCO JSON: a mask for each word and image.

        outcome = ovtool.segment("photos/", "teapot,apple", out="photos.json")
        outcome.dataset.annotations[0].score

    An image that cannot be read is a failure, listed in the outcome and in the output, unless
    `run.strict`. For arrays, and for results that are not written, see `ovtool.Segmenter`.

    Args:
        inputs: An image file, a folder (with all below it), a data set such as `collage:test`, or a
            list of files and folders.
        words: The words: `"teapot,apple"`, `["teapot", "apple"]`, or `ovtool.Words(...)` for files,
            known vocabularies and the background. A data set brings its own, and so does `source.coco`.
        method: How pixels are named: `ovtool.Patch(...)`, `Fused(...)`, `TwoStage(...)`,
            `Trained(...)`, or the name of one of the first three.
        out: The COCO JSON that is written; `"-"` is standard output. None is a name made from the
            input in the current folder, with an overlay beside it where there is one image.
        format: `"results"` writes COCO's bare list of results, which pycocotools takes with `loadRes`, in
            place of a data set.
        drawn: Folders for label maps, overlays, heat maps and cut-outs of the images.
        source: A COCO JSON whose images are taken, and how many at most.
        run: How the run goes: resumed, overwriting, in which parts.
        compute: The model, the device, the precision, the threads.
        progress: Opens a progress bar.

    Returns:
        What was written: the data set, its place, and the images that failed.

    Raises:
        UsageError: An argument is unknown, or two do not go together.
        InputError: An input is not there or is broken, or no image could be read.
        OutputExistsError: An output exists, without `run.overwrite`.
        ModelError: The model cannot be had.
        MismatchError: A file belongs to another model, or other images.
    """
    compute = resolve.for_data(compute, inputs)
    devices.set_threads(compute.threads)
    method, words = as_method(method), word_inputs.as_settings(words)
    items = image_inputs.find(inputs, source.coco, source.images, source.limit, source.exif)
    target = str(out or image_inputs.default_output(inputs, items, source.coco, "segments"))
    runs.check_place(target, run)
    is_alone = out is None and len(items) == 1
    overlay = _overlay_beside(target) if is_alone else None
    named = (*image_inputs.data_set_of(inputs), source.coco)
    asked = requests.of("segment", method, words, compute, run, format, sources=named, items=items)
    beside = (overlay, drawn.label_maps, drawn.overlays, drawn.heatmaps, drawn.cut_outs)
    run = requests.begin(asked, target, run, beside, is_list=format == "results")
    ready = prepared(method, words, items, inputs, compute, run.batch_size, source.coco)
    files = DrawnFiles(
        names=[names[0] for names in ready.words.classes],
        drawn=drawn,
        overlay_file=overlay,
        doubled=doubled_stems(items),
    )
    files.check(items, run.overwrite or runs.goes_on(target, run), asked.files)
    if run.dry_run:
        place = devices.choose(compute.device)
        plan = runs.planned(items, ready.words.categories, target, run, place)
        return replace(plan, files=files.places)

    segmenter = ready.load()

    def begin() -> None:
        files.check(items, run.overwrite or runs.goes_on(target, run), asked.files)
        files.prepare()

    job = runs.Job(
        info=segmenter.info(),
        categories=ready.words.categories,
        out=target,
        device=segmenter.device,
        description="segmenting",
        output=merge.Output(format, asked.digest),
        beside=runs.places_from(target, files.places),
        begin=begin,
    )
    outcome = runs.map_images(
        items, lambda part: records.part_output(part, segmenter, files), job, run, progress
    )
    return replace(outcome, files=files.places)


def _overlay_beside(target: str) -> Path:
    """The overlay of a run over one image: `photo.overlay.png` beside `photo.segments.json`."""
    return Path(target.removesuffix(".segments.json") + ".overlay.png")
