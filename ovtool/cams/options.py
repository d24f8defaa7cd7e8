"""What only some methods of `cam` take, and what a method makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ovtool.errors import InputError, UsageError
from ovtool.trainers import classifier as classifier_trainer
from ovtool.trainers import mask_generator as generator_trainer

METHODS = ("classifier", "gradcam", "matching", "pacl", "maps")
TRAINED = ("classifier", "matching")


@dataclass(frozen=True)
class Options:
    """Options that belong to some methods; None where they are not given.

    background: the words that compete in `gradcam`, and with the classes in a generator's start.
    sentence: around the words of `gradcam`. short_side: of pictures, in
    pixels, as the network sees them. pacl: a head. from_maps: a folder of given maps. arch: of the
    classifier. generator: `clip`, `timm:NAME`, or a file that was trained before. fine_tune: train timm's
    backbone too. hidden: channels of the generator's head. start: where it begins, None is `rivals` on a
    CLIP's own patches, else `random`. save_generator: where it goes.
    similarity, background_weight, select, label_steps: see `trainers.mask_generator.Settings`. crop_scale: the least share of
    a picture in a crop. box_threshold: of the affinity.
    """

    method: str = "gradcam"
    affinity: bool = False
    background: str | None = None
    sentence: str | None = None
    short_side: int | None = None
    pacl: Path | None = None
    from_maps: Path | None = None
    arch: str | None = None
    generator: str | None = None
    fine_tune: bool | None = None
    hidden: int | None = None
    start: str | None = None
    save_generator: Path | None = None
    similarity: str | None = None
    background_weight: float | None = None
    select: str | None = None
    label_steps: int | None = None
    batch_size: int | None = None
    epochs: float | None = None
    steps: int | None = None
    rate: float | None = None
    crop_scale: float | None = None
    box_threshold: float | None = None

    @property
    def is_file(self) -> bool:
        """Whether the generator was trained before."""
        return self.generator is not None and self.generator.endswith(".safetensors")

    @property
    def trains(self) -> bool:
        """Whether a training comes before the maps."""
        return self.method in TRAINED and not self.is_file and self.steps != 0

    @property
    def needs_clip(self) -> bool:
        """Whether a CLIP is loaded."""
        return self.affinity or self.method in ("gradcam", "matching", "pacl")

    @property
    def shown(self) -> dict[str, Any]:
        """What the output says: what was given, without paths."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        given = {name: value for name, value in given.items() if value is not None}
        return {name: value for name, value in given.items() if name not in _HIDDEN}


_HIDDEN = ("method", "affinity", "pacl", "from_maps", "save_generator", "generator")
_LEARNING = ("batch_size", "epochs", "steps", "rate", "crop_scale", "short_side")
_TAKES: Mapping[str, tuple[str, ...]] = {
    "classifier": ("arch", *_LEARNING),
    "gradcam": ("background", "sentence", "short_side"),
    "matching": (
        "generator", "fine_tune", "hidden", "start", "background", "save_generator", "similarity",
        "background_weight", "select", "label_steps", *_LEARNING,
    ),
    "pacl": ("pacl", "short_side"),
    "maps": ("from_maps",),
}  # fmt: skip
_AFTER_FILE = ("generator", "short_side")  # what a generator that was trained before leaves open


def settled(
    method: str | None, given: Options, affinity: bool, scales: tuple[float, ...], flip: bool
) -> Options:
    """The options of a method, with `method` and `affinity` in them.

    Raises UsageError for an unknown method, and for options that it does not take; InputError for files
    that are not there.
    """
    if given.from_maps is not None and method not in (None, "maps"):
        raise UsageError(f"--from-maps brings the maps, so --method {method} has nothing to do")
    chosen = method or ("maps" if given.from_maps is not None else "gradcam")
    if chosen not in METHODS:
        raise UsageError(f"unknown method '{chosen}'; choose from {', '.join(METHODS[:-1])}")
    takes = set(_TAKES[chosen]) | ({"box_threshold", "short_side"} if affinity else set())
    if given.is_file and chosen == "matching":
        takes &= {*_AFTER_FILE, "box_threshold"}
    for field in fields(given):
        if field.name in ("method", "affinity") or getattr(given, field.name) is None:
            continue
        if field.name not in takes:
            raise UsageError(
                f"--{field.name.replace('_', '-')} means nothing {_why(chosen, given, field.name)}"
            )
    if chosen == "classifier" and given.steps == 0:
        raise UsageError("--steps 0 leaves a classifier at random weights: give 1 or more")
    if chosen == "pacl" and given.pacl is None:
        raise UsageError("--method pacl needs --pacl FILE, a head of `ovtool train-pacl`")
    if chosen == "maps":
        if given.from_maps is None:
            raise UsageError("--method maps needs --from-maps DIR")
        if tuple(scales) != (1.0,) or flip:
            raise UsageError(
                "--scales and --flip are of no use with --from-maps: no network is run"
            )
    for path in (given.pacl, Path(str(given.generator)) if given.is_file else None):
        if path is not None and not path.exists():
            raise InputError(f"no such file: {path}")
    return replace(given, method=chosen, affinity=affinity)


def _why(method: str, given: Options, name: str) -> str:
    if name == "box_threshold":
        return "without --affinity"
    if method == "matching" and name in _TAKES[method]:
        return f"with a generator that is trained already ({given.generator})"
    users = [other for other in METHODS if name in _TAKES[other]]
    if users == ["maps"]:
        return f"to --method {method}"
    return f"to --method {method}; it is for {' and '.join(users)}"


def matching(given: Options, seed: int) -> generator_trainer.Settings:
    """The settings of a training by matching."""
    base = generator_trainer.Settings(seed=seed)
    fine = bool(given.fine_tune)
    scale = given.crop_scale if given.crop_scale is not None else (0.5 if fine else 1.0)
    return replace(
        base, similarity=given.similarity, steps=given.steps, scale=scale, **_given(given, (
            "batch_size", "epochs", "rate", "background_weight", "select", "label_steps",
        )),
    )  # fmt: skip


def classifying(given: Options, seed: int) -> classifier_trainer.Settings:
    """The settings of a classifier's training."""
    base = classifier_trainer.Settings(seed=seed, steps=given.steps)
    renamed = {"side": given.short_side, "scale": given.crop_scale}
    chosen = {name: value for name, value in renamed.items() if value is not None}
    return replace(base, **chosen, **_given(given, ("arch", "batch_size", "epochs", "rate")))


def _given(options: Options, names: tuple[str, ...]) -> dict[str, Any]:
    found = {name: getattr(options, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}
