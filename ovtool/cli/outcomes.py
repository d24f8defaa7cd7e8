"""What a run over images says at its end: tables of words, counts, failures, and images without a mask."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from ovtool.cli import output

if TYPE_CHECKING:
    from ovtool.formats.coco import Dataset
    from ovtool.runtime.outcome import Outcome

_FEW_WORDS = 40  # so many have a row each; of more those alone that have a mask


def say(outcome: Outcome, verb: str, as_json: bool) -> None:
    """Says what a run left, and ends with exit status 3 where some of the images failed.

    `segment` has a table of its words, unless `-q`: its answer is the file. With `as_json` stdout gets one object with what was written, the
    counts, the words, the images without a mask and the failures, unless the result itself went there.
    """
    dataset, failures = outcome.dataset, outcome.failures
    is_plan, is_stream = outcome.planned is not None, outcome.out == "-"
    images = len(dataset.images) if outcome.planned is None else outcome.planned
    if outcome.shard is not None:
        where = (
            f"shard {outcome.shard} in {outcome.out}; join all with `ovtool merge {outcome.out}`"
        )
    else:
        where = ", ".join(
            ("standard output" if is_stream else outcome.out, *outcome.files.values())
        )
    words: list[dict[str, Any]] = []
    empty: list[str] = []
    if is_plan:
        classes = output.counted(len(dataset.categories), "class", "classes")
        by = f" by {classes}" if verb == "segment" else ""
        output.message(f"would {verb} {output.counted(images, 'image')}{by}, into {where}")
        say_plan(outcome.plan)
    else:
        maps = _maps(dataset)
        empty = _without_masks(dataset) if maps is None else []
        if verb == "segment":
            words = _words(dataset)
            if not output.is_quiet():
                output.answer(*_table(words, images), as_json=as_json or is_stream)
                bare = len(words) - len(_listed(words, images))
                if bare and images != 1:
                    output.message(f"{output.counted(bare, 'word')} without a mask")
        if empty:
            output.message(_empty(empty, images, dataset))
        output.say_failures(failures)
        if maps is None:
            made = output.counted(len(dataset.annotations), "mask")
        else:
            made = output.counted(maps, "map")
        output.message(
            f"{output.counted(images, 'image')}, {made}, {len(failures)} failed: {where}"
        )
    if as_json and (is_plan or not is_stream):
        listed = {"words": words} if verb == "segment" else {}
        output.print_json(
            {
                "output": outcome.out,
                **outcome.files,
                "images": images,
                "masks": len(dataset.annotations),
                **listed,
                "images_without_masks": empty,
                "failures": [dict(failure) for failure in failures],
                "dry_run": is_plan,
                **outcome.plan,
                **({} if outcome.shard is None else {"shard": outcome.shard}),
            }
        )
    if failures:
        raise typer.Exit(3)


def say_plan(plan: Mapping[str, Any]) -> None:
    """Says how a dry run would share the images out, where that is known."""
    if not plan:
        return
    workers, threads = plan["workers"], output.counted(plan["threads"], "thread")
    by = f", {workers} workers" if workers > 1 else ""
    output.message(
        f"{output.counted(plan['parts'], 'part')} of up to {output.counted(plan['part_size'], 'image')}{by}, on "
        f"{plan['device']} with {threads}; how long it takes is not estimated: time a run with --limit"
    )


def say_probe_plan(plan: dict[str, Any], as_json: bool) -> None:
    """Says what a probe would measure."""
    images, words = output.counted(plan["images"], "image"), plan["words_an_image"]
    output.message(f"would probe {images}, {words:.0f} words an image, and print the answer")
    if as_json:
        output.print_json(plan)


def _words(dataset: Dataset) -> list[dict[str, Any]]:
    """Of each word, largest share first: the images that have a mask of it, its share of all pixels, and the
    mean score of its masks, None without any."""
    pixels = sum(image.height * image.width for image in dataset.images)
    images: dict[int, set[int]] = defaultdict(set)
    areas: dict[int, float] = defaultdict(float)
    scores: dict[int, list[float]] = defaultdict(list)
    for mask in dataset.annotations:  # which may be read from a file: each is forgotten at once
        images[mask.category_id].add(mask.image_id)
        areas[mask.category_id] += mask.area
        if mask.score is not None:
            scores[mask.category_id].append(mask.score)
    words = []
    for category in dataset.categories:
        own = scores[category.id]
        words.append(
            {
                "word": category.name,
                "images": len(images[category.id]),
                "pixels": areas[category.id] / pixels if pixels else 0.0,
                "score": sum(own) / len(own) if own else None,
            }
        )
    return sorted(words, key=lambda word: -float(word["pixels"]))


def _listed(words: list[dict[str, Any]], images: int) -> list[dict[str, Any]]:
    """The words that have a row: all of a few, else those that have a mask."""
    return [word for word in words if word["images"] or (images != 1 and len(words) <= _FEW_WORDS)]


def _table(words: list[dict[str, Any]], images: int) -> tuple[list[str], list[list[str]]]:
    """A row for each word that is listed; for one image without their number."""
    rows = []
    for word in _listed(words, images):
        score = "-" if word["score"] is None else f"{word['score']:.3f}"
        rows.append([word["word"], str(word["images"]), f"{100 * word['pixels']:.1f}", score])
    header = ["word", "images", "pixels %", "score"]
    if images == 1:
        return [header[0], *header[2:]], [[row[0], *row[2:]] for row in rows]
    return header, rows


def _maps(dataset: Dataset) -> int | None:
    """How many activation maps a run wrote; None where it writes masks."""
    own = dataset.info.get("ovtool", {})
    if own.get("command") not in ("cam", "refine") or "masking" in own.get("settings", {}):
        return None
    return sum(len(image.extra.get("category_ids", ())) for image in dataset.images)


def _without_masks(dataset: Dataset) -> list[str]:
    with_masks = {mask.image_id for mask in dataset.annotations}
    return [image.file_name for image in dataset.images if image.id not in with_masks]


def _empty(names: list[str], images: int, dataset: Dataset) -> str:
    """Which images have no mask, and what can be the reason."""
    settings = dataset.info.get("ovtool", {}).get("settings", {})
    method = settings.get("method") if isinstance(settings.get("method"), dict) else settings
    reasons = []
    if method.get("min_score"):
        reasons.append(f"no pixel reached --min-score {method['min_score']:g}")
    if method.get("max_entropy") is not None:
        reasons.append(f"no pixel was below --max-entropy {method['max_entropy']:g}")
    if method.get("class") == "TwoStage":
        reasons.append("no proposal was named by a word")
    if settings.get("background"):
        reasons.append("the background words won every pixel (--background)")
    count = "the image has" if images == 1 else f"{output.counted(len(names), 'image')} without"
    first = " no mask" if images == 1 else f" a mask (the first is {names[0]})"
    return f"{count}{first}{': ' + ', or '.join(reasons) if reasons else ''}"
