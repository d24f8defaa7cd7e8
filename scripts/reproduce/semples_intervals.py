"""Differences of `semples.py` with their intervals: of one training each, by the paired bootstrap over images.

mIoU is over the classes of the truth and background. Nothing was chosen on these scenes where they are drawn from a
seed that no choice has seen (`--scenes-seed 8`).
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import semples_scores as scores
from cells import Figures
from photographs import Difference
from semples_bench import BEST, HOSTS, MODEL, PUSH_WEIGHTS, Bench
from torch.nn.functional import cosine_similarity

from ovtool.datasets.nouns import class_names
from ovtool.formats import coco
from ovtool.methods import bootstrap
from ovtool.methods.bootstrap import Measure
from ovtool.models import background_prompts, text
from ovtool.models import clip as clips
from ovtool.settings.evaluate import MeanIou
from ovtool.stages import evaluate

HEAD = "| what | of | before | after | difference [95 %] |\n|---|---|---|---|---|"
SEED = 0  # of every training
AS_GIVEN = "as given"
HOST_ROWS = (  # what is compared of the maps of each host; the head is fitted to them before it learns
    (AS_GIVEN, "fit"), (AS_GIVEN, "match"), (AS_GIVEN, "refine"),
    ("fit", "match"), ("fit", "refine"), ("match", "refine"),
)  # fmt: skip
START = "text"  # what the generator of the refinements begins with


def table(bench: Bench) -> Iterator[str]:
    """The lines of a Markdown table, each as soon as it is measured."""
    yield HEAD
    for split in ("train", "val"):
        yield _row(
            bench,
            "ground under an object that `gradcam` calls its class: another ground, its own ground",
            split,
            lambda split=split: _grounds(bench, bench.maps("gradcam", 0, split), split),
        )
    for split in ("train", "val"):
        yield _row(
            bench,
            "mIoU of refined maps: a list of words, prompts pulled only",
            split,
            lambda split=split: _maps(
                bench, _refined(bench, "list", split), _refined(bench, "none", split), split
            ),
        )
    for title in HOSTS:
        for first, second in HOST_ROWS:
            yield _row(
                bench,
                f"mIoU of the maps of the {title}: {first}, {second}",
                "train",
                lambda title=title, first=first, second=second: _maps(
                    bench, _host(bench, title, first), _host(bench, title, second), "train"
                ),
            )
    for view in ("plain", "miou"):
        yield _row(
            bench,
            f"mIoU of segmenters on true masks and on pseudo masks ({view})",
            "val",
            lambda view=view: _segmenters(bench, view),
        )


def nearest(bench: Bench) -> Iterator[str]:
    """For how many classes the ground that goes with it is among the five nearest words, of 221: of their own
    texts, and of their prompts; and how often the ground of another class is."""
    yield "\n| five nearest words of | own ground, of 20 classes | grounds of other classes |\n|---|---|---|"
    for name in ("text of the class", "none", "text", "foreground"):
        results = bench.cell(f"interval/nearest/{name}", lambda name=name: _nearest(bench, name))
        if results:
            yield f"| {name} | {20 * results['found']:.0f} | {100 * results['other']:.1f} % |"


def _nearest(bench: Bench, push: str) -> Figures:
    clip = clips.load(MODEL)
    categories = coco.read(bench.data("train").instances).categories
    names = [category.name for category in categories]
    if push in PUSH_WEIGHTS:
        vectors, _ = background_prompts.load(bench.prompts(push, SEED), clip, categories)
    else:
        vectors = text.encode_texts(clip, [f"a photo of {name}." for name in names])
    words = class_names()
    rows = text.encode_texts(clip, [f"a photo of {word}." for word in words])
    cosines = cosine_similarity(vectors[:, None], rows[None], dim=2)
    best = cosines.topk(scores.NEAREST)
    listed = {
        name: [(words[index], value) for index, value in zip(own, values, strict=True)]
        for name, own, values in zip(
            names, best.indices.tolist(), best.values.tolist(), strict=True
        )
    }
    return {**scores.nearest_hits(listed), "other": scores.other_hits(listed)}


def _row(bench: Bench, text: str, split: str, measure: Callable[[], Figures]) -> str:
    results = bench.cell(f"interval/{text}/{split}", measure)
    if not results:  # with only_known
        return f"| {text} | {split} | | | |"
    ends = Difference(*(results[name] for name in ("before", "after", "low", "high")))
    return f"| {text} | {split}, {bench.images[split]} | {ends.cells()} |"


def _refined(bench: Bench, push: str, split: str) -> Path:
    maps, generator = bench.refined(START, push, SEED)
    return maps if split == "train" else bench.by_generator(generator, split)


def _host(bench: Bench, title: str, kind: str) -> Path:
    if kind == AS_GIVEN:
        return bench.host(title, SEED)
    return bench.maps_on_host(title, kind, SEED)


def _grounds(bench: Bench, maps: Path, split: str) -> Figures:
    counted = scores.counted(maps, bench.data(split))
    away, home = (counted.share(f"{place}_called", place) for place in ("away", "home"))
    return _difference(away, home, "share", len(counted.classes))


def _maps(bench: Bench, before: Path, after: Path, split: str) -> Figures:
    counted = [scores.counted(one, bench.data(split)).classes for one in (before, after)]
    first, second = map(bootstrap.mean_ious, counted)
    return _difference(first, second, "miou", len(counted[0]))


def _difference(before: Measure, after: Measure, name: str, images: int) -> Figures:
    values = [bootstrap.intervals(one, images)[name].value for one in (before, after)]
    ends = bootstrap.intervals(bootstrap.difference(before, after), images)[name]
    return {"before": values[0], "after": values[1], "low": ends.low, "high": ends.high}


def _segmenters(bench: Bench, view: str) -> Figures:
    val, train = bench.data("val"), bench.data("train")
    pseudo = bench.pseudo(bench.refined("rivals", BEST, SEED)[0], "train", "refined", SEED, None)
    assert train.instances is not None
    bench.segmenter(train.instances, "truth", SEED, with_background=True)
    bench.segmenter(pseudo, "pseudo", SEED, with_background=False)
    files = [bench.file(f"{name}.{view}.segments", SEED, "json") for name in ("truth", "pseudo")]
    results = evaluate.run(files[0], val.instances, MeanIou(with_background=True), other=files[1])
    ends = results["difference"]["miou"]
    before, after = results["miou"], results["other"]["miou"]
    return {"before": before, "after": after, "low": ends["low"], "high": ends["high"]}
