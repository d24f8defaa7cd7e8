"""The tables that `evaluate` prints of a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ovtool.cli import output
from ovtool.formats.scores import OF_METRIC, Measures
from ovtool.settings import option, protocols
from ovtool.settings.evaluate import Metric, Recall, Seeds

LOWEST = 10  # images that the table of --per-image shows
Rows = list[tuple[str, ...]]


def say(result: Mapping[str, Any], metric: Metric, as_json: bool) -> None:
    """Prints the tables of a result, and what was counted."""
    names = OF_METRIC[option.name_of(type(metric))]
    if names.of_class:
        output.answer(*_classes(result, names), "", as_json=as_json)
    if "per_image" in result:
        header, rows = _images(result, names)
        more = len(result["per_image"]) - len(rows)
        notes = [f"and {output.counted(more, 'image')} above; --json lists all"] if more else []
        output.answer(header, rows, *notes, "", as_json=as_json)
    output.answer(*_measures(result, names), *counted(result, metric), as_json=as_json)


def _classes(result: Mapping[str, Any], names: Measures) -> tuple[tuple[str, ...], Rows]:
    """The classes in the order of the truth; of two predictions the first share of either."""
    count, key = names.count
    if "other" not in result:
        header = ("class", *(f"{name} %" for name, _ in names.of_class), count)
        return header, [
            (
                _name(row),
                *(output.per_cent(row[share]) for _, share in names.of_class),
                str(row[key]),
            )
            for row in result["classes"]
        ]
    name, share = names.of_class[0]
    rows = {row["name"]: row for row in result["classes"]}
    others = {row["name"]: row for row in result["other"]["classes"]}
    return ("class", f"{name} %", f"other's {name} %", count), [
        (
            _name(rows.get(own) or others[own]),
            output.per_cent(rows.get(own, {}).get(share)),
            output.per_cent(others.get(own, {}).get(share)),
            str((rows.get(own) or others[own])[key]),
        )
        for own in dict.fromkeys([*rows, *others])
    ]


def _name(row: Mapping[str, Any]) -> str:
    """The name of a class; novel ones are marked."""
    return str(row["name"]) + (" (novel)" if row.get("novel") else "")


def _images(result: Mapping[str, Any], names: Measures) -> tuple[tuple[str, ...], Rows]:
    """The images with the lowest measure; those without one are left out."""
    key = names.of_image[0][1]
    there = [row for row in result["per_image"] if row[key] is not None]
    lowest = sorted(there, key=lambda row: row[key])[:LOWEST]
    others = {row["file_name"]: row for row in result.get("other", {}).get("per_image", ())}
    header = ["lowest images", *(f"{name} %" for name, _ in names.of_image)]
    rows = [
        [row["file_name"], *(output.per_cent(row[share]) for _, share in names.of_image)]
        for row in lowest
    ]
    if others:
        header.append(f"other's {names.of_image[0][0]} %")
        for cells, row in zip(rows, lowest, strict=True):
            cells.append(output.per_cent(others[row["file_name"]][key]))
    return tuple(header), [tuple(cells) for cells in rows]


def _measures(result: Mapping[str, Any], names: Measures) -> tuple[tuple[str, ...], Rows]:
    """The measures of the whole; of two predictions also how much higher the other's are."""
    rows: Rows = []
    other = result.get("other")
    for name, key in names.measures:
        if key not in result:
            continue
        value = result[key]
        cells = [output.per_cent(value)]
        intervals = result.get("intervals", {})
        if other is not None:
            known = value is not None and other[key] is not None
            cells += [output.per_cent(other[key])]
            cells += [output.per_cent(other[key] - value if known else None)]
            intervals = result.get("difference", {})
        rows.append((name, *cells, output.interval(intervals.get(key))))
    if other is None:
        return ("measure", "%", "95 % interval"), rows
    return ("measure", "%", "other's %", "difference", "95 % interval"), rows


def counted(result: Mapping[str, Any], metric: Metric) -> list[str]:
    """What was counted, and what was not."""
    images = result["images"]
    lines = [f"{output.counted(images, 'image')} {'is' if images == 1 else 'are'} counted"]
    if result["images_missing"]:
        how = {"empty": "count as all wrong", "skip": "are left out"}[metric.missing]
        lines.append(f"{result['images_missing']} images of the truth have no prediction and {how}")
    if result["images_without_truth"]:
        lines.append(
            f"{result['images_without_truth']} predicted images have no truth and are left out"
        )
    if "truth_masks" in result:
        masks = "proposal" if isinstance(metric, Recall) else "predicted mask"
        lines[0] += f", with {output.counted(result['truth_masks'], 'true mask')} and "
        lines[0] += output.counted(result["proposals"], masks)
    elif "segments" in result:
        lines[0] += f", with {result['segments']} true segments"
    else:
        lines[0] += f", with {result['pixels']} pixels"
        lines += _left_out(result, metric)
    if isinstance(metric, Seeds):
        first, second = result["thresholds"]
        lines.append(
            f"thresholds: {first:.2f} for one half of the images and {second:.2f} for the other, each the "
            f"best of the half that it does not score; {result['best_threshold']:.2f} is the best for all"
        )
    if "rule" in result:
        lines.append(
            "by LVIS's rule: a prediction counts where its class is in the image or surely is not"
        )
    if "protocol" in result:
        lines.append(protocols.sentence(result["protocol"]["name"]))
    return lines


def _left_out(result: Mapping[str, Any], metric: Metric) -> Sequence[str]:
    """The pixels that are not counted, and why."""
    left_out = result.get("pixels_not_counted", 0)
    if not left_out:
        return []
    reasons = [] if getattr(metric, "with_background", False) else ["unlabelled in the truth"]
    reasons += ["of a label to ignore"] if getattr(metric, "ignore_label", ()) else []
    reasons += (
        ["of none of the image's words"] if getattr(metric, "classes_per_image", None) else []
    )
    share = 100 * left_out / (result["pixels"] + left_out)
    return [f"{left_out} pixels ({share:.1f} %) are not counted: {' or '.join(reasons)}"]
