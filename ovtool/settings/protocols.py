"""Published ways to measure: what `--protocol NAME` fixes in `segment` and in `evaluate`, and where it was read.

A protocol names the data set and the classes, and says what is done with the pixels of none of them, how large an
image is shown to the model, and below which probability a pixel is background. Where published methods do this in
different ways the values of a `--recipe` are its own. A protocol counts more than a recipe, and an option that is
given more than both. Predictions are always measured at the size of the label maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ovtool.settings.recipes import Published, Values

FIELD = "protocol"  # of a class of settings: the name of a published way to measure
Name = Literal[
    "voc20", "voc21", "pc59", "pc60", "pc459", "ade150", "ade847", "coco-stuff171", "coco-object81",
    "cityscapes19", "voc-train-seed", "coco14-val",
]  # fmt: skip
_SCLIP, _NACLIP, _CLEARCLIP = (f"configs of {name}" for name in ("SCLIP", "NACLIP", "ClearCLIP"))
_STUFF = (
    "sky,wall,tree,wood,grass,road,sea,river,mountain,sands,desk,bed,building,cloud,lamp,door,window,wardrobe,"
    "ceiling,shelf,curtain,stair,floor,hill,rail,fence"
)


@dataclass(frozen=True)
class Protocol:
    """A published way to measure.

    Attributes:
        data_set: The data set and its split.
        vocabulary: The classes, without background.
        background: What is done with pixels of no class: `counted` as the class `background`, or `ignored`.
        has_doubt: Whether pixels that the truth leaves unlabelled are not counted; else they are background.
        words: What `--protocol` sets of the words of `segment`, beside the vocabulary.
        dense: What it sets of `patch` and `fused`, with the recipe that has these values; "" for any.
        ensemble: The CLIP's share in a name by OVSeg, None where it measured nothing.
    """

    data_set: str
    vocabulary: str
    background: Literal["counted", "ignored"] = "ignored"
    has_doubt: bool = True
    words: Values = field(default_factory=dict)
    dense: Mapping[str, Values] = field(default_factory=dict)
    ensemble: Published | None = None


def _dense(
    side: int, least: Mapping[str, float] | None = None, **scales: float
) -> dict[str, Values]:
    """The sizes and thresholds of a protocol by recipe.

    Args:
        side: The shorter side of an image in SCLIP's code.
        least: Recipe to the probability below which a pixel is background.
        scales: Recipe to its logit scale, where it is not that of the recipe.
    """
    known: dict[str, dict[str, Published]] = {"": {"short_side": Published(side, _SCLIP)}}
    known["naclip"] = {"short_side": Published(560 if side == 560 else 336, _NACLIP)}
    known["clearclip"] = {"short_side": Published(448, _CLEARCLIP)}
    for recipe, value in (least or {}).items():
        source = {"": _SCLIP, "clearclip": _CLEARCLIP}[recipe]
        known[recipe]["min_score"] = Published(value, source)
    for recipe, scale in scales.items():
        known.setdefault(recipe, {})["logit_scale"] = Published(scale, _SCLIP)
    return dict(known)


_WHOLE = {"window": Published(0, f"{_NACLIP}: no windows for VOC")}
_AGAINST_STUFF: Values = {
    "names": Published("clip", _SCLIP),
    "background": Published(_STUFF, _SCLIP),
}
_CITY = _dense(560)

PROTOCOLS: Mapping[str, Protocol] = {
    "voc20": Protocol(
        "voc:val",
        "voc20",
        words={"names": Published("clip", _SCLIP)},
        dense=(_VOC20 := _dense(336)) | {"naclip": {**_VOC20["naclip"], **_WHOLE}},
        ensemble=Published(0.6, "OVSeg A.3"),
    ),
    "voc21": Protocol(
        "voc:val",
        "voc20",
        "counted",
        words=_AGAINST_STUFF,
        dense=(_VOC21 := _dense(336, {"": 0.1, "clearclip": 0.5}, sclip=65))
        | {"naclip": {**_VOC21["naclip"], **_WHOLE}},
    ),
    "pc59": Protocol(
        "pascal-context:val", "pc59", dense=_dense(336), ensemble=Published(0.6, "OVSeg A.3")
    ),
    "pc60": Protocol(
        "pascal-context:val",
        "pc59",
        "counted",
        words={"background": Published("background", _SCLIP)},
        dense=_dense(336, {"": 0.1, "clearclip": 0.15}, sclip=50),
    ),
    "pc459": Protocol(
        "pascal-context-459:val",
        "pc459",
        dense=_dense(336),
        ensemble=Published(0.6, "OVSeg A.3"),
    ),
    "ade150": Protocol(
        "ade20k:val", "ade150", dense=_dense(336), ensemble=Published(0.7, "OVSeg A.3")
    ),
    "ade847": Protocol(
        "ade20k-full:val", "ade847", dense=_dense(336), ensemble=Published(0.7, "OVSeg A.3")
    ),
    "coco-stuff171": Protocol("coco-stuff:val2017", "coco171", dense=_dense(448)),
    # of COCO-Stuff's maps all but the 80 classes of things is background, as in GroupViT's conversion
    "coco-object81": Protocol(
        "coco-stuff:val2017",
        "coco80",
        "counted",
        has_doubt=False,
        words=_AGAINST_STUFF,
        dense=_dense(336, {"": 0.1, "clearclip": 0.4}, sclip=50),
    ),
    "cityscapes19": Protocol(
        "cityscapes:val",
        "cityscapes19",
        dense=_CITY | {"clearclip": {**_CITY["clearclip"], "window": Published(224, _CLEARCLIP)}},
    ),
    "voc-train-seed": Protocol("voc:train", "voc20", "counted"),
    "coco14-val": Protocol("coco14:val", "coco80", "counted", has_doubt=False),
}


def values(protocol: str | None, settings: type, recipe: str | None = None) -> dict[str, Any]:
    """What a protocol sets in a class of settings, field to value; nothing without a protocol.

    Args:
        recipe: The published way that is taken with it, which may have values of its own.
    """
    known = PROTOCOLS.get(protocol or "")
    if known is None:
        return {}
    name = settings.__name__
    own: dict[str, Published] = {}
    if name == "Words":
        own = {"vocabulary": Published(known.vocabulary, ""), **known.words}
    elif name in ("Patch", "Fused"):
        own = {**known.dense.get("", {}), **known.dense.get(recipe or "", {})}
    elif name == "TwoStage" and recipe == "ovseg" and known.ensemble is not None:
        own = {"ensemble": known.ensemble}
    elif name in ("MeanIou", "BoundaryIou") and known.background == "counted":
        ignored = ("255",) if known.has_doubt else ()
        return {"with_background": True, "ignore_label": ignored}
    return {field: published.value for field, published in own.items()}


def as_data(protocol: str) -> dict[str, Any]:
    """What a protocol fixes in a measure, as JSON holds it."""
    known = PROTOCOLS[protocol]
    return {
        "name": protocol,
        "data_set": known.data_set,
        "vocabulary": known.vocabulary,
        "background": known.background,
        "unlabelled_pixels": "ignored"
        if known.has_doubt or known.background == "ignored"
        else "background",
        "resizing": "predictions are measured at the size of the label maps",
    }


def sentence(protocol: str) -> str:
    """What a protocol fixes in a measure, for people."""
    known = as_data(protocol)
    rest = "is a class too" if known["background"] == "counted" else "is not counted"
    doubt = "are not counted" if known["unlabelled_pixels"] == "ignored" else "are background"
    return (
        f"protocol {protocol}: the classes of {known['vocabulary']} on {known['data_set']}; background {rest}; "
        f"pixels that the truth leaves unlabelled {doubt}; {known['resizing']}"
    )
