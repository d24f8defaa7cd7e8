"""`evaluate`: a prediction measured by a ground truth.

The measures are in `measures`, their formulas in `methods`. For mIoU this is counted, in this order:

1. Images are matched by file name; where one side is a folder of label maps, by the name without
   its ending. If not one name agrees, a name that ends the other's path counts (`a.jpg` for
   `images/test/a.jpg`), if that is unambiguous. Images that only the prediction has are left out.
2. Classes are matched by name, then by synonym, whatever the ids, case and spaces. Predicted names
   that the truth does not know stay, as errors, and as classes of IoU 0.
3. Where masks overlap, the higher score lies on top (`formats.labelled` has the whole rule).
4. Pixels that the truth leaves unlabelled, or labels with one of `ignore_label`, are not counted.
   With `with_background` unlabelled pixels are the class `background` in truth and prediction.
5. With `classes_per_image`, pixels whose true class is not among the words listed for their image
   are not counted there: nobody could have found it. The prediction is taken as it is.
6. All else goes into one confusion matrix over all images (`methods.metrics`). Pixels without a
   prediction are misses of their true class. Boundary IoU takes of these pixels those near a contour.

Intervals are of the bootstrap over images (`methods.bootstrap`). Two predictions of one truth are compared
on the same images and the same samples.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import ovtool
from ovtool.errors import InputError, UsageError
from ovtool.formats import atomic, file_matching, lock
from ovtool.inputs import asked as requests
from ovtool.inputs import predictions
from ovtool.measures import label_maps, masks, panoptic
from ovtool.measures.measured import Measured
from ovtool.methods import bootstrap
from ovtool.methods.bootstrap import Measure
from ovtool.runtime.progress import Progress, no_progress
from ovtool.settings import layers, protocols
from ovtool.settings.evaluate import (
    AveragePrecision,
    BoundaryIou,
    MeanIou,
    Metric,
    Panoptic,
    Recall,
    Seeds,
)
from ovtool.settings.option import name_of
from ovtool.settings.shared import Run, Source

_SHARED = (MeanIou, BoundaryIou, Panoptic)  # the metrics whose images several processes can share


def run(
    prediction: str | Path,
    ground_truth: str | Path | None = None,
    metric: Metric = MeanIou(),
    *,
    other: str | Path | None = None,
    out: str | Path | None = None,
    source: Source = Source(),
    run: Run = Run(),
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Measures a prediction, or two; see the head of this file for what is counted.

    Args:
        prediction: a COCO JSON (or a bare results list, whose ids are those of the truth), a folder of
            parts, or a folder of label maps. `-` is stdin.
        ground_truth: the same, without bare lists; or a data set, `NAME[:SPLIT]` or a folder of
            `data make`, with one split, whose masks are taken. None where `source` names a COCO JSON, or a
            protocol its data set.
        metric: what is measured.
        other: a second prediction of the same truth, to be compared with the first.
        out: a file to write the result to, as JSON; it is only returned for None and `-`.
        source: the truth as the probes take it, a COCO JSON; the folder of its images is not read.
        run: `overwrite` replaces that file, `update` only where it is out of date; `dry_run` opens the files,
            and returns `images`, how many would be measured.
        progress: opens a bar.

    Returns:
        The result as JSON holds it, all measures as fractions in [0, 1], None where there is nothing to
        divide by. For `Recall` the measures of `methods.recall`, for `AveragePrecision` those of
        `methods.average_precision`. For `MeanIou`: `miou`, over the classes
        that the truth holds, `miou_union`, over those that truth or prediction holds (where a class that is
        predicted and nowhere true counts as 0), `pixel_accuracy`, `mean_accuracy`,
        `frequency_weighted_iou`, `pixels` and `pixels_not_counted`, and `classes` (those that truth or
        prediction holds, each with `name`, `iou`, `accuracy`, `truth_pixels`, `predicted_pixels`,
        `hits`). For both counts; `intervals`, name to `low` and `high`, of `miou` and `miou_union` or of
        `average_recall`; and in `ovtool` what made it. With `other` the same of it in `other`, and in
        `difference` how much higher the other is: name to `value`, `low` and `high`.

    Raises:
        UsageError: no truth or two, a label to ignore that the truth does not hold, two files that are stdin,
            or an update of what is no file.
        MismatchError: classes match two of the truth's.
        InputError: files are broken, images are missing or differ in size, nothing is counted, or the two
            predictions are of other images.
        OutputExistsError: the file to write exists.
        UpToDate: with `run.update` there is nothing to do.
    """
    protocol = getattr(metric, "protocol", None)
    if protocol is not None and ground_truth is None and source.coco is None:
        ground_truth = protocols.PROTOCOLS[protocol].data_set
    named = _truth_given(ground_truth, source)
    files = [str(file) for file in (prediction, other, named) if file is not None]
    if files.count("-") > 1:
        raise UsageError("only one of the files can be read from stdin")
    target = None if out is None or str(out) == "-" else Path(out)
    if run.update and (target is None or "-" in files):
        raise UsageError("--update compares the times of files; name files, and one with -o")
    if target is not None:
        atomic.check_output(target, run.replaces)
        asked = requests.of("evaluate", metric, sources=files, folder=source.images)
        requests.begin(asked, target, run)
    if run.workers > 1 and not isinstance(metric, _SHARED):
        names = ", ".join(name_of(kind) for kind in _SHARED)
        raise UsageError(
            f"--workers is for --metric {names}; leave it out with {name_of(type(metric))}"
        )
    of_objects = isinstance(metric, Recall | AveragePrecision | Seeds)
    truth = predictions.truth_file(files[-1], of_objects, isinstance(metric, Seeds))
    if run.dry_run:
        images = [_measures(metric).planned(file, truth, metric) for file in files[:-1]]
        return {
            "metric": name_of(type(metric)),
            "images": images[0],
            "output": out,
            "dry_run": True,
        }
    with lock.held(target):
        measured: list[Measured] = [
            _measures(metric).measure(file, truth, metric, run.workers, progress)
            for file in files[:-1]
        ]
        first, last = measured[0], measured[-1]
        results = [
            {
                **side.result,
                **_intervals("intervals", side.measure, side, metric.bootstrap),
                **({"per_image": side.per_image()} if side.of_image else {}),
            }
            for side in measured
        ]
        result = {"metric": name_of(type(metric)), **results[0]}
        if protocol is not None:
            result["protocol"] = protocols.as_data(protocol)
        if other is not None:
            if first.images != last.images:
                raise InputError(
                    f"{files[0]} and {files[1]} are predictions of other images of {truth}; predict the "
                    "same ones, or give --missing empty to count those that lack as wrong"
                )
            between = bootstrap.difference(first.measure, last.measure)
            result["other"] = results[1]
            result |= _intervals("difference", between, first, metric.bootstrap)
        result["ovtool"] = _provenance(files, metric)
        if target is not None:
            result["ovtool"]["asked"] = asked.digest
            atomic.check_output(target, run.replaces)  # another run may have written it meanwhile
            atomic.write_text(target, json.dumps(result, ensure_ascii=False, indent=2) + "\n")
        return result


def _truth_given(ground_truth: str | Path | None, source: Source) -> str:
    """The truth, which is named in one of two ways. Raises UsageError, InputError."""
    if (ground_truth is None) == (source.coco is None):
        raise UsageError("give the truth as --ground-truth GT, or as --coco FILE --images DIR")
    if source.images is not None:
        if source.coco is None:
            raise UsageError("--images is the folder of --coco FILE; leave it out")
        file_matching.folder_of(source.images, source.coco)
    return str(source.coco or ground_truth)


def _measures(metric: Metric) -> ModuleType:
    """The module that measures, `measure`, and that says how many images it would measure, `planned`."""
    if isinstance(metric, Seeds):
        from ovtool.measures import seeds  # torch, which no other measure needs

        return seeds
    if isinstance(metric, Panoptic):
        return panoptic
    return label_maps if isinstance(metric, MeanIou) else masks


def _intervals(key: str, measure: Measure, measured: Measured, samples: int) -> dict[str, Any]:
    """The intervals under a key, or nothing without samples; those of a difference have its value too."""
    if not samples:
        return {}
    intervals = bootstrap.intervals(measure, len(measured.images), samples)
    with_value = key != "intervals"
    return {key: {name: i.as_data(with_value=with_value) for name, i in intervals.items()}}


def _provenance(files: Sequence[str], metric: Metric) -> dict[str, Any]:
    """What made the result; files by their names, without their folders."""
    lists = getattr(metric, "classes_per_image", None)
    settings = layers.provenance(metric, {} if lists is None else {"classes_per_image": lists.name})
    if settings.get("novel") and Path(settings["novel"]).is_file():
        settings["novel"] = Path(settings["novel"]).name
    settings["metric"] = name_of(type(metric))
    roles = (
        ("prediction", "ground_truth")
        if len(files) == 2
        else ("prediction", "other", "ground_truth")
    )
    return {
        "version": ovtool.__version__,
        "command": "evaluate",
        "settings": {**dict(zip(roles, map(_file_name, files), strict=True)), **settings},
    }


def _file_name(source: str) -> str:
    return source if source == "-" else Path(source).resolve().name
