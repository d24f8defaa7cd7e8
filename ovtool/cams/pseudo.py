"""How refined maps become pseudo masks: which background competes, and which pixels are in doubt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ovtool.errors import UsageError
from ovtool.formats import coco
from ovtool.methods.pseudo_masks import Background
from ovtool.settings.refine import Apply, PseudoMasks, background_rule

BACKGROUND = "background"
CONFIDENCE = 0.95  # after a CRF, CLIP-ES's; nothing is in doubt without one


@dataclass(frozen=True)
class Masking:
    """How maps become pseudo masks.

    Attributes:
        background: Its score.
        confidence: The least share of a pixel's scores that its best one must have.
    """

    background: Background
    confidence: float

    @classmethod
    def of(cls, masks: PseudoMasks, apply: Apply) -> Masking:
        """From settings. After `crf`, whose maps are probabilities, the background has the rest and 0.95 is
        asked for; else Otsu's threshold parts the maps of each image, and no pixel is in doubt."""
        has_crf = bool(apply.apply) and apply.apply[-1] == "crf"
        background = Background("rest") if has_crf else Background()
        if masks.background_score is not None:
            background = Background(*background_rule(masks.background_score))
        confidence = masks.confidence
        if confidence is None:
            confidence = CONFIDENCE if has_crf else 0.0
        return cls(background, confidence)


def against(masks: PseudoMasks) -> Background:
    """What the CRF and `sam` set against the maps: never the rest, which only probabilities leave."""
    if masks.background_score is None:
        return Background()
    rule = Background(*background_rule(masks.background_score))
    return Background() if rule.kind == "rest" else rule


def with_background(categories: Sequence[coco.Category]) -> tuple[coco.Category, ...]:
    """The categories of pseudo masks: `background` with id 1, then the classes in their order.

    Raises:
        UsageError: A class has that name already.
    """
    if any(category.name.casefold() == BACKGROUND for category in categories):
        raise UsageError(
            "a class of the maps is called background, which pseudo masks have of their own; rename it"
        )
    own = [
        coco.Category(number, category.name, category.supercategory, category.synonyms)
        for number, category in enumerate(categories, start=2)
    ]
    return (coco.Category(1, BACKGROUND), *own)
